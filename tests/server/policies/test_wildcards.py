"""Patterns against plain references, and that none of them takes long."""

import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.policies.wildcards import (
    ANY_CHARACTER,
    ANY_NAME,
    ANYTHING,
    SOME_ACCOUNT,
    compare_arn,
    compare_texts,
    compiled,
    of_arn,
    of_resource,
    tokens,
)
from server.policies.work import Work

PATTERNS = st.text("ab:*?", max_size=12)
TEXTS = st.text("ab:", max_size=12)


def resource_matches(pattern: str, arn: str) -> bool | None:
    return of_resource(tokens(pattern)).compare(arn, Work())


def matches(pattern: str, text: str) -> bool | None:
    return compiled(tokens(pattern)).compare(text, Work())


def arn_matches(pattern: str, arn: str) -> bool | None:
    parts = of_arn(tokens(pattern))
    return None if parts is None else compare_arn(parts, arn, Work())


def naive(pattern: str, text: str, colons: int = 0) -> bool:
    """What a Resource pattern means, tried out one way after another."""
    if not pattern:
        return not text
    first, rest = pattern[0], pattern[1:].lstrip("*") if pattern[0] == "*" else pattern[1:]
    within = colons < 5
    if first == "*":
        over = not within or rest[:1] in ("", ":")
        ends = [end for end in range(len(text) + 1) if over or ":" not in text[:end]]
        return any(naive(rest, text[end:], colons) for end in ends)
    if not text or (first == "?" and within and text[0] == ":") or (first not in ("?", text[0])):
        return False
    return naive(rest, text[1:], colons + (first == ":"))


@settings(max_examples=100)
@given(PATTERNS, TEXTS)
def test_as_the_shell_matches(pattern: str, text: str) -> None:
    assert matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


@settings(max_examples=100)
@given(PATTERNS, TEXTS)
def test_a_resource_as_tried_out(pattern: str, text: str) -> None:
    assert resource_matches(pattern, text) == naive(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("*", "arn:aws:s3:::bucket/key", True),
        ("*", "*", True),
        ("arn:aws:s3:::bucket/*", "*", False),
        ("arn:aws:s3:::bucket/*/test/*", "arn:aws:s3:::bucket/1/2/test/3/object.jpg", True),
        ("arn:aws:s3:::bucket/*/test/*", "arn:aws:s3:::bucket/test/object.jpg", False),
        ("arn:aws:s3:::Bucket", "arn:aws:s3:::bucket", False),
        ("arn:aws:iam::*", "arn:aws:iam::111122223333:role/a", True),
        ("arn:aws:iam::1*3:role/a", "arn:aws:iam::111122223333:role/a", True),
        ("arn:aws:iam::1*3:role/a", "arn:aws:iam::1:user/x:3:role/a", False),
        ("arn:aws:logs:*:*:log-group:/a*:x", "arn:aws:logs:eu-west-1:111122223333:log-group:/a:b:x", True),
    ],
)
def test_the_examples_of_resources(pattern: str, arn: str, expected: bool) -> None:
    """IAM User Guide, "IAM JSON policy elements: Resource"."""
    assert resource_matches(pattern, arn) is expected


@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        # The two of "Condition operators" in the IAM User Guide: a string would match, an ARN does not.
        (
            "arn:aws:someservice:*:111122223333:finance/*",
            "arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt",
            False,
        ),
        ("arn:aws:iam::*:role/a*", "arn:aws:iam::111122223333:role/a:b", True),
        ("arn:aws:iam::*:role/a*", "111122223333", False),
        ("arn:aws:iam::*", "arn:aws:iam::111122223333:role/a", None),
    ],
)
def test_the_parts_of_an_arn_match_one_by_one(pattern: str, arn: str, expected: bool | None) -> None:
    assert arn_matches(pattern, arn) is expected
    assert expected is not False or "finance" not in pattern or matches(pattern, arn)


NUMBERS = ("111122223333", "123456789012", "000000000000")


@settings(max_examples=200)
@given(st.text("1*?a", max_size=8), st.sampled_from(["", "a"]), st.sampled_from(["", "a"]))
def test_what_is_not_known_of_a_text(pattern: str, before: str, after: str) -> None:
    """It matches when every number would, and does not when none would."""
    found = matches(pattern, f"{before}{SOME_ACCOUNT}{after}")
    of_each = {matches(pattern, f"{before}{number}{after}") for number in (*NUMBERS, "1" * 12)}
    assert found is None or of_each == {found}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("111122223333", None), ("1*", None), ("*", True), ("?" * 12, True), ("a*", False), ("1" * 11, False)],
)
def test_an_account_that_is_not_known(pattern: str, expected: bool | None) -> None:
    assert matches(pattern, SOME_ACCOUNT) is expected
    arn = f"arn:aws:iam::{SOME_ACCOUNT}:role/a"
    assert arn_matches(f"arn:*:iam::{pattern}:role/a", arn) is expected
    assert arn_matches(f"arn:*:iam::{pattern}:role/b", arn) is False
    # It is the same one wherever it is.
    assert arn_matches(f"arn:*:iam::{SOME_ACCOUNT}:role/*", arn) is True


def test_texts_with_an_account_that_is_not_known() -> None:
    assert compare_texts("111122223333", SOME_ACCOUNT) is None
    assert compare_texts(f"a{SOME_ACCOUNT}", f"a{SOME_ACCOUNT}") is True
    assert compare_texts(f"b{SOME_ACCOUNT}", f"a{SOME_ACCOUNT}") is False
    assert compare_texts(SOME_ACCOUNT, "1111") is False


@settings(max_examples=200)
@given(PATTERNS, st.text("ab:*?", max_size=5))
def test_a_text_that_is_a_pattern_itself(pattern: str, text: str) -> None:
    """It matches when all that it stands for do, and does not when none does."""
    asked = text.replace("*", ANYTHING).replace("?", ANY_CHARACTER)
    found = matches(pattern, asked)
    of_each = {
        matches(pattern, text.replace("*", many).replace("?", one)) for many in ("", "a", "b:", "aab") for one in "ab:"
    }
    assert found is None or of_each == {found}
    assert matches("*", asked) is True
    resource = resource_matches(pattern, asked)
    of_each = {
        resource_matches(pattern, text.replace("*", many).replace("?", one))
        for many in ("", "a", "b:", "aab")
        for one in "ab:"
    }
    assert resource is None or of_each == {resource}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("arn:aws:iam::*:*", True),
        ("arn:aws:iam::1:role/a/*", True),
        ("arn:aws:iam::*:role/a/b", None),
        ("arn:aws:iam::*:role/b", False),
        ("arn:aws:iam::*:role/a/x:y", False),
        ("arn:aws:iam::1:role/a/?*", None),
    ],
)
def test_a_name_that_is_not_known_has_no_colon(pattern: str, expected: bool | None) -> None:
    assert resource_matches(pattern, f"arn:aws:iam::1:role/a/{ANY_NAME}") is expected


def test_no_pattern_takes_long() -> None:
    started = time.process_time()
    assert not matches("*a" * 5_000 + "b", "a" * 2_000)
    assert matches("a*" * 2_000, "a" * 2_000)
    assert time.process_time() - started < 1
