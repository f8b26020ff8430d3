"""What a person sees of a change."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.policies.diff import Difference, difference, pretty
from server.policies.document import Document, parse_document
from tests.server.policies.written import deny, document

REGIONS = deny("*", {"StringNotEquals": {"aws:RequestedRegion": ["eu-west-1", "eu-west-2"]}}, Sid="Regions")
LEAVE = deny("organizations:LeaveOrganization", Sid="Leave")


def test_statements_are_told_by_their_sids() -> None:
    changed = {**REGIONS, "Condition": {"StringNotEquals": {"aws:RequestedRegion": "eu-west-1"}}}
    found = difference(document(LEAVE, REGIONS), document(changed, deny("s3:*", Sid="Storage")))
    assert (found.added, found.removed, found.changed) == (("Storage",), ("Leave",), ("Regions",))
    assert '-      "Action": "organizations:LeaveOrganization",' in found.lines
    assert '+      "Sid": "Storage",' in found.lines
    assert found.lines[0].startswith("@@ ")


def test_statements_without_sid_are_told_by_their_place() -> None:
    one, two, three = deny("s3:*"), deny("ec2:*"), deny("sqs:*")
    assert difference(document(one, two), document(one, three)).changed == ("statement 2",)
    assert difference(document(one, two), document(three, one, two)).added == ("statement 1",)
    assert difference(document(one, two), document(two)).removed == ("statement 1",)
    assert difference(document(one), document(LEAVE)).removed == ("statement 1",)
    assert difference(document(one, one), document(one)).removed == ("statement 2",)


def test_a_statement_that_only_moves_is_neither_added_nor_changed() -> None:
    found = difference(document(REGIONS, deny("s3:*")), document(deny("s3:*"), REGIONS))
    assert (found.added, found.removed, found.changed) == ((), (), ())
    assert found.lines


def test_the_same_meaning_has_no_difference() -> None:
    one = {"Version": "2012-10-17", "Statement": {**deny(["s3:b", "s3:a"]), "Resource": ["*"]}}
    other = {
        "Statement": [{"Resource": "*", "Action": ["s3:a", "s3:b"], "Effect": "Deny", "Sid": ""}],
        "Version": "2012-10-17",
    }
    before, after = parse_document(one), parse_document(json.dumps(other))
    assert isinstance(before, Document)
    assert isinstance(after, Document)
    assert difference(before, after) == Difference((), (), (), ())


statements = st.builds(
    lambda sid, actions: {**deny(actions), **({"Sid": sid} if sid else {})},
    st.sampled_from(["", "A", "B", "C"]),
    st.sampled_from(["s3:*", "ec2:*", ["s3:*", "iam:*"]]),
)
documents = st.lists(
    statements, min_size=1, max_size=4, unique_by=lambda each: each.get("Sid") or id(each)
).map(lambda each: document(*each))  # fmt: skip


@settings(max_examples=30)
@given(documents, documents)
def test_every_statement_is_accounted_for(old: Document, new: Document) -> None:
    found = difference(old, new)
    assert len(old.statements) - len(found.removed) == len(new.statements) - len(found.added)
    assert bool(found.lines) == (pretty(old) != pretty(new))
    assert found.lines or not (found.added or found.removed or found.changed)
    back = difference(new, old)
    assert (len(back.added), len(back.removed)) == (len(found.removed), len(found.added))


def test_it_is_readable() -> None:
    whole: dict[str, Any] = json.loads(pretty(document(LEAVE)))
    assert list(whole["Statement"][0]) == ["Sid", "Effect", "Action", "Resource"]
    assert "Größe" in pretty(document(deny("*", {"StringEquals": {"a:b": "Größe"}})))
