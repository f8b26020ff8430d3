"""What a document may hold, and that everything wrong with it is said at once, with its place and what would be right.

"SCP syntax", AWS Organizations User Guide:
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_syntax.html
"""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.policies.document import Condition, Document, Effect, check_size, parse_document
from server.policies.problems import MOST_PROBLEMS, Problem, ProblemCode

DENY: dict[str, Any] = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}


def document(*statements: object, **changed: object) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements), **changed}


def parsed(source: object) -> Document:
    found = parse_document(source)
    assert isinstance(found, Document), found
    return found


def problems(source: object, longest: int = 100_000) -> list[Problem]:
    found = parse_document(source, longest)
    assert not isinstance(found, Document)
    return list(found)


def found(source: object) -> list[tuple[str, str]]:
    return [(problem.code.value, problem.path) for problem in problems(source)]


def test_what_evaluation_needs_is_read() -> None:
    statement = {
        "Sid": "Regions",
        "Effect": "Deny",
        "NotAction": ["iam:*", "sts:*"],
        "Resource": "*",
        "Condition": {
            "StringNotEquals": {"aws:RequestedRegion": ["eu-central-1", "eu-west-1"]},
            "NumericLessThanIfExists": {"s3:max-keys": 10},
            "Bool": {"aws:SecureTransport": True},
        },
    }
    text = json.dumps(document(statement, DENY), indent=2)
    first, second = parsed(text).statements
    assert (first.name, first.effect, first.actions) == ("Regions", Effect.DENY, ("iam:*", "sts:*"))
    assert (first.all_but_actions, first.resources, first.all_but_resources) == (True, ("*",), False)
    assert first.conditions == (
        Condition("StringNotEquals", "aws:RequestedRegion", ("eu-central-1", "eu-west-1")),
        Condition("NumericLessThanIfExists", "s3:max-keys", ("10",)),
        Condition("Bool", "aws:SecureTransport", ("true",)),
    )
    assert (second.name, second.index, second.actions) == ("statement 2", 1, ("s3:*",))
    assert parsed(document(statement, DENY)) == parsed(text)


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]},
        {"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::bucket/*"},
        {"Effect": "Deny", "Action": "s3:*", "NotResource": "arn:aws:iam::${aws:PrincipalAccount}:role/*"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Effect": "Deny", "Action": ["ec2:*Tags", "ec2:D?lete*"], "Resource": "arn:*:iam::*:role/x"},
        {"Sid": "", "Effect": "Deny", "Action": "*", "Resource": "arn:aws:logs:*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {}},
    ],
)
def test_the_whole_language_is_taken_with_either_effect(statement: dict[str, Any]) -> None:
    """AWS Security Blog, "AWS Organizations service control policy now supports full IAM language", September 2025."""
    assert parsed(document(statement)).statements[0].effect == statement["Effect"]
    assert parsed({"Version": "2012-10-17", "Statement": statement}).statements == (
        parsed(document(statement)).statements
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"Effect": "deny"}, [("INVALID_VALUE", "Statement[0].Effect")]),
        ({"Effect": ["Deny"]}, [("INVALID_VALUE", "Statement[0].Effect")]),
        ({"NotAction": "iam:*"}, [("CONFLICT", "Statement[0].NotAction")]),
        ({"NotResource": "*"}, [("CONFLICT", "Statement[0].NotResource")]),
        ({"Action": []}, [("MISSING", "Statement[0].Action")]),
        ({"Action": ["s3", "s3:Get*"]}, [("INVALID_VALUE", "Statement[0].Action[0]")]),
        ({"Action": ["*:*", "s*:Get"]}, [("INVALID_VALUE", f"Statement[0].Action[{i}]") for i in (0, 1)]),
        ({"Action": 3}, [("WRONG_TYPE", "Statement[0].Action")]),
        ({"Action": {"s3": "*"}}, [("WRONG_TYPE", "Statement[0].Action")]),
        ({"Resource": ["bucket", "arn:aws:s3"]}, [("INVALID_VALUE", f"Statement[0].Resource[{i}]") for i in (0, 1)]),
        ({"Resource": "arn:aws:*:::bucket"}, [("INVALID_VALUE", "Statement[0].Resource")]),
        ({"Resource": None}, [("WRONG_TYPE", "Statement[0].Resource")]),
        ({"Sid": "No spaces"}, [("INVALID_VALUE", "Statement[0].Sid")]),
        ({"Sid": 1}, [("INVALID_VALUE", "Statement[0].Sid")]),
        ({"Principal": "*"}, [("UNKNOWN_ELEMENT", "Statement[0].Principal")]),
        ({"NotPrincipal": "*"}, [("UNKNOWN_ELEMENT", "Statement[0].NotPrincipal")]),
        ({"Conditions": {}}, [("UNKNOWN_ELEMENT", "Statement[0].Conditions")]),
        ({"Condition": []}, [("WRONG_TYPE", "Statement[0].Condition")]),
    ],
)  # fmt: skip
def test_a_statement_out_of_the_grammar_is_refused(changed: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(document({**DENY, **changed})) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"StringEqual": {"aws:PrincipalArn": "x"}}, ("UNKNOWN_OPERATOR", "StringEqual")),
        ({"ForSomeValues:StringEquals": {"a:b": "x"}}, ("UNKNOWN_OPERATOR", "ForSomeValues:StringEquals")),
        ({"NullIfExists": {"aws:TokenIssueTime": "true"}}, ("UNKNOWN_OPERATOR", "NullIfExists")),
        ({"StringEquals": "x"}, ("WRONG_TYPE", "StringEquals")),
        ({"StringEquals": {"PrincipalArn": "x"}}, ("INVALID_VALUE", "StringEquals.PrincipalArn")),
        ({"StringEquals": {"a:b": []}}, ("MISSING", "StringEquals.a:b")),
        ({"StringEquals": {"a:b": ["x", None]}}, ("WRONG_TYPE", "StringEquals.a:b[1]")),
        ({"StringEquals": {"a:b": "x", "A:B": "x"}}, ("DUPLICATE_KEY", "StringEquals.A:B")),
        ({"Bool": {"a:b": "yes"}}, ("INVALID_VALUE", "Bool.a:b")),
        ({"Null": {"a:b": "absent"}}, ("INVALID_VALUE", "Null.a:b")),
        ({"NumericLessThan": {"a:b": "ten"}}, ("INVALID_VALUE", "NumericLessThan.a:b")),
        ({"DateLessThan": {"a:b": "tomorrow"}}, ("INVALID_VALUE", "DateLessThan.a:b")),
        ({"NotIpAddress": {"a:b": ["10.0.0.0/8", "10.0.0.0/33"]}}, ("INVALID_VALUE", "NotIpAddress.a:b[1]")),
        *[
            ({"IpAddress": {"a:b": value}}, ("INVALID_VALUE", "IpAddress.a:b"))
            for value in ("10.0.0.0/255.0.0.0", "10.0.0.0/0.0.0.255", "fe80::1%eth0", "10.0.0.0/", "1")
        ],
        *[
            ({"DateEquals": {"a:b": value}}, ("INVALID_VALUE", "DateEquals.a:b"))
            for value in (
                "2026-W05-1",
                "20260131",
                "20260131T000000",
                "2026-01-31 00:00",
                "2026-01-31T00:00:00,5Z",
                "2026-01-31T00:00:00",
                "2026-13",
                "12345",
            )
        ],
    ],
)
def test_a_condition_out_of_the_grammar_is_refused(condition: dict[str, Any], expected: tuple[str, str]) -> None:
    assert found(document({**DENY, "Condition": condition})) == [(expected[0], f"Statement[0].Condition.{expected[1]}")]


@pytest.mark.parametrize(
    "condition",
    [
        {"ForAllValues:StringNotLikeIfExists": {"aws:TagKeys": ["a", "b*"]}},
        {"ForAnyValue:ArnLike": {"aws:PrincipalOrgPaths": "o-1/*"}},
        {"Bool": {"aws:SecureTransport": "${aws:x}"}},
        {"DateGreaterThan": {"aws:CurrentTime": ["2026", "2026-01", "2026-01-31", "2026-01-31T10:00:00Z", 1767225600]}},
        {"DateEquals": {"aws:CurrentTime": ["2026-01-31T10:00Z", "2026-01-31T10:00:00.5+01:00", "1767225600.5"]}},
        {"NotIpAddressIfExists": {"aws:SourceIp": ["10.0.0.1", "2001:db8::/32"]}},
        {"Null": {"aws:RequestTag/cost center": True}},
    ],
)
def test_conditions_of_the_grammar_are_taken(condition: dict[str, Any]) -> None:
    assert parsed(document({**DENY, "Condition": condition})).statements[0].conditions


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, [("MISSING", "Version"), ("MISSING", "Statement")]),
        (document(DENY, Version="2008-10-17"), [("INVALID_VALUE", "Version")]),
        (document(DENY, Id="x"), [("UNKNOWN_ELEMENT", "Id")]),
        (document(), [("MISSING", "Statement")]),
        (document("x", [DENY]), [("WRONG_TYPE", "Statement[0]"), ("WRONG_TYPE", "Statement[1]")]),
        ({"Version": "2012-10-17", "Statement": None}, [("WRONG_TYPE", "Statement")]),
        ([document(DENY)], [("WRONG_TYPE", "")]),
        (None, [("WRONG_TYPE", "")]),
        ('"{}"', [("WRONG_TYPE", "")]),
        ("", [("NOT_JSON", "")]),
    ],
)
def test_a_document_out_of_the_grammar_is_refused(source: object, expected: list[tuple[str, str]]) -> None:
    assert found(source) == expected


def test_a_sid_is_unique() -> None:
    (problem,) = problems(document({**DENY, "Sid": "A"}, {**DENY, "Sid": "a"}, {**DENY, "Sid": "A"}))
    assert (problem.code, problem.path) == (ProblemCode.DUPLICATE_SID, "Statement[2].Sid")
    assert "Statement[0]" in problem.message


def test_every_problem_is_told() -> None:
    bad = {"effect": "Deny", "Action": "s3", "Resource": "*", "Condition": {"Stringlike": {"a:b": "x"}}}
    assert found({"Version": "2012", "Statement": [DENY, bad]}) == [
        ("INVALID_VALUE", "Version"),
        ("UNKNOWN_ELEMENT", "Statement[1].effect"),
        ("MISSING", "Statement[1].Effect"),
        ("UNKNOWN_OPERATOR", "Statement[1].Condition.Stringlike"),
        ("INVALID_VALUE", "Statement[1].Action"),
    ]


@pytest.mark.parametrize(
    ("statement", "right"),
    [
        ({**DENY, "resource": "*"}, "the nearest is Resource"),
        ({**DENY, "Condition": {"ForAllValues:StringsLike": {"a:b": "x"}}}, "the nearest is ForAllValues:StringLike."),
        ({**DENY, "Condition": {"stringequalsifexists": {"a:b": "x"}}}, "the nearest is StringEqualsIfExists."),
        ({**DENY, "Principal": "*"}, "Condition on aws:PrincipalArn"),
        ({**DENY, "Effect": "DENY"}, '"Allow" or "Deny"'),
        ({**DENY, "Condition": {"Bool": {"a:b": "no"}}}, "true or false"),
    ],
)
def test_a_message_says_what_would_be_right(statement: dict[str, Any], right: str) -> None:
    (problem,) = problems(document(statement))
    assert right in problem.message


@pytest.mark.parametrize(
    ("text", "code", "path", "line", "column"),
    [
        ('{\n  "Version": "2012-10-17"\n  "Statement": []\n}', ProblemCode.NOT_JSON, "", 3, 3),
        ('{"a": 1,}', ProblemCode.NOT_JSON, "", 1, 9),
        ('{\n"a": NaN}', ProblemCode.NOT_JSON, "", 2, 6),
        ('{"a": [-Infinity]}', ProblemCode.NOT_JSON, "", 1, 8),
        ('{"a": ' + "9" * 5000 + "}", ProblemCode.NOT_JSON, "", 1, 7),
        ('{"a": ' + "[" * 5000, ProblemCode.NOT_JSON, "", 1, 22),
        ('{"a": {"b": [1, {"c": 1,\n "c": 2}]}}', ProblemCode.DUPLICATE_KEY, "a.b[1].c", 2, 2),
        ('{"Version": "x", "\\u0056ersion": "y"}', ProblemCode.DUPLICATE_KEY, "Version", 1, 18),
    ],
)
def test_malformed_text_is_told_with_its_line_and_column(
    text: str, code: ProblemCode, path: str, line: int, column: int
) -> None:
    (problem,) = problems(text)
    assert (problem.code, problem.path, problem.line, problem.column) == (code, path, line, column)
    assert f"line {line}, column {column}" in problem.message


@pytest.mark.parametrize(
    "value",
    ["\ud800", "a\x00b", "\x7f", float("nan"), float("inf"), 10**40, -(10**5000), object()],
    ids=["surrogate", "NUL", "DEL", "NaN", "infinity", "large", "larger", "object"],
)
def test_what_postgresql_or_aws_cannot_hold_is_refused(value: object) -> None:
    (problem,) = problems(document({**DENY, "Condition": {"StringEquals": {"a:b": value}}}))
    assert problem.path == "Statement[0].Condition.StringEquals.a:b"
    problem.message.encode()


def test_a_lone_surrogate_in_text_or_in_a_key_is_refused() -> None:
    assert found(r'{"Version": "\ud800"}') == [("NOT_JSON", "Version")]
    assert found({"\udc00": 1}) == [("NOT_JSON", "")]
    assert found(r'{"Version": 1e999}') == [("NOT_JSON", "Version")]


@pytest.mark.parametrize(
    "source",
    [
        '{"\\ud800": 1, "\\ud800": "\\u0000"}',
        {"\udc00": {"\udc00": "\x00"}},
        document({**DENY, "Effect": ["\ud800"]}),
        '{"\ud800": nothing}',
        "\ud800",
    ],
)
def test_every_answer_can_be_sent(source: object) -> None:
    for problem in problems(source):
        (problem.message + problem.path).encode()


def nested(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_depth_is_bounded() -> None:
    assert found(document({**DENY, "Action": nested(12)})) == [("WRONG_TYPE", "Statement[0].Action[0]")]
    for source in (document({**DENY, "Action": nested(13)}), json.dumps(document({**DENY, "Action": nested(13)}))):
        (problem,) = problems(source)
        assert "nested more than" in problem.message


@pytest.mark.parametrize(
    "source",
    [
        "x" * 1_000_000,
        '{"a": "' + "x" * 1_000_000 + '"}',
        '"' + '\\"' * 49_000,
        "[" * 99_999,
        '{"a":' * 19_000,
        "{" + ",".join(f'"a":{i}' for i in range(10_000)) + "}",
        '{"Version": "2012-10-17", "Statement": [' + ",".join(["{}"] * 30_000) + "]}",
        document({**DENY, "Condition": {f"a{i}": {} for i in range(8_000)}}),
        document(*[DENY] * 100_000),
        document({**DENY, "Action": ["x" * 1_000_000]}),
        document({**DENY, "Resource": nested(100_000)}),
        document(*[[]] * 1_000_000),
        document({**DENY, "Action": ["s3:" + "*a" * 45_000]}, {**DENY, "Resource": "arn:" + ":*" * 20_000 + "\n"}),
    ],
    ids=range(13),
)
def test_a_hostile_document_is_refused_or_read_in_bounded_time(source: object) -> None:
    started = time.process_time()
    answer = parse_document(source)
    assert time.process_time() - started < 1
    if not isinstance(answer, Document):
        assert 1 <= len(answer) <= MOST_PROBLEMS + 1
        assert sum(len(problem.message) + len(problem.path) for problem in answer) < 50_000


def test_the_size_is_in_characters_of_the_minified_text() -> None:
    value = document({**DENY, "Condition": {"StringEquals": {"a:b": "Größe 東京"}}})
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    taken = parsed(json.dumps(value, indent=8))
    assert check_size(taken, len(text)) is None
    problem = check_size(taken, len(text) - 1)
    assert problem is not None
    assert problem.code is ProblemCode.TOO_LONG
    assert f"{len(text)} characters" in problem.message
    assert str(len(text) - 1) in problem.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["*", "s3:*"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Version", "Statement", "Effect", "Action", "Resource", "Condition", "Sid", "Bool", "a:b"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40)
@given(json_values)
def test_whatever_comes_is_parsed_or_refused_with_reasons(value: object) -> None:
    for source in (value, json.dumps(value)):
        answer = parse_document(source)
        assert isinstance(answer, Document) or answer


def test_problems_of_a_text_have_their_line_and_column() -> None:
    text = """{
  "Version": "2012",
  "Statement": [{"Effect": "Deny", "Action": ["s3:*", true,
      "s3"], "Resource": "*"},
    "x", {"Efect": "Deny",
      "Resource": ["*"], "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "no"}}}]
}"""
    located = {each.path: (each.line, each.column) for each in problems(text)}
    assert located == {
        "Version": (2, 3),
        "Statement[0].Action[1]": (3, 55),
        "Statement[0].Action[2]": (4, 7),
        "Statement[1]": (5, 5),
        "Statement[2].Efect": (5, 11),
        "Statement[2].Effect": (5, 10),
        "Statement[2].Condition.Bool.aws:MultiFactorAuthPresent": (6, 49),
        "Statement[2].Action": (5, 10),
    }
    assert all(f"(line {each.line}, column {each.column})." in each.message for each in problems(text))
    assert {each.line for each in problems(json.loads(text))} == {None}
