"""What a person sees of a change."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.policies.diff import Difference, changed_lines, difference
from server.policies.document import Document, parse_document
from tests.server.policies.written import deny, document

REGIONS = deny("*", {"StringNotEquals": {"aws:RequestedRegion": ["eu-west-1", "eu-west-2"]}}, Sid="Regions")
LEAVE = deny("organizations:LeaveOrganization", Sid="Leave")


def test_statements_are_told_by_their_sids() -> None:
    changed = {**REGIONS, "Condition": {"StringNotEquals": {"aws:RequestedRegion": "eu-west-1"}}}
    found = difference(document(LEAVE, REGIONS), document(changed, deny("s3:*", Sid="Storage")))
    assert (found.added, found.removed, found.changed) == (("Storage",), ("Leave",), ("Regions",))


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


def test_the_same_meaning_has_no_difference() -> None:
    one = {"Version": "2012-10-17", "Statement": {**deny(["s3:b", "s3:a"]), "Resource": ["*"]}}
    other = {
        "Statement": [{"Resource": "*", "Action": ["s3:a", "s3:b"], "Effect": "Deny", "Sid": ""}],
        "Version": "2012-10-17",
    }
    before, after = parse_document(one), parse_document(json.dumps(other))
    assert isinstance(before, Document)
    assert isinstance(after, Document)
    assert difference(before, after) == Difference((), (), ())


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
    assert changed_lines(old.value, new.value) or not (found.added or found.removed or found.changed)
    back = difference(new, old)
    assert (len(back.added), len(back.removed)) == (len(found.removed), len(found.added))


def patched(old: dict[str, Any], diff: str) -> list[str]:
    """The new document's lines, as `patch` makes them of the old one's and a diff."""
    left, found = json.dumps(old, indent=2, ensure_ascii=False).splitlines(), []
    place = 0
    for line in diff.splitlines()[2:]:
        begin = re.fullmatch(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@", line)
        if begin:
            found += left[place : int(begin[1]) - 1]
            place = int(begin[1]) - 1
        elif line[0] == "+":
            found.append(line[1:])
        else:
            assert left[place] == line[1:]
            found += [line[1:]] if line[0] == " " else []
            place += 1
    return found + left[place:]


def tagged(values: list[str]) -> dict[str, Any]:
    statement = deny("s3:GetObject", {"StringEquals": {"aws:PrincipalTag/x": values}}, Resource="*")
    return {"Version": "2012-10-17", "Statement": [statement]}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (tagged(["a", "b", "c"]), tagged(["a", "x", "c", "Größe"])),
        (tagged(["a"]), {**tagged(["a"]), "Id": "i"}),
        (tagged(["a", "b"] * 200), tagged(["b", "b", "a"] * 100)),
        (tagged([chr(0xA1 + n % 110) for n in range(2_500)]), tagged([chr(0xA1 + n % 109) for n in range(2_500)])),
    ],
    ids=["values", "element", "repeated", "hostile"],
)
def test_the_lines_that_changed_make_one_document_of_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    diff = changed_lines(old, new)
    assert diff.splitlines()[:2] == ["--- ", "+++ "]
    assert patched(old, diff) == json.dumps(new, indent=2, ensure_ascii=False).splitlines()
    assert changed_lines(old, old) == ""


@pytest.mark.parametrize("kinds", [110, 600, 1_200])
def test_no_documents_take_long_to_compare(kinds: int) -> None:
    signs = [chr(0xA1 + n) for n in range(kinds)]
    old = tagged([signs[n % kinds] for n in range(2_500)])
    others = [
        tagged([signs[-1 - n % kinds] for n in range(2_500)]),
        tagged([each for n in range(1_250) for each in (signs[n % kinds], chr(0x4E00 + n))]),
    ]
    for new in others:
        took = []
        for _ in range(3):
            started = time.thread_time()
            changed_lines(old, new)
            took.append(time.thread_time() - started)
        assert min(took) < 1
