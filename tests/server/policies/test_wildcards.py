"""Patterns against plain references, and that none of them takes long."""

import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.policies.wildcards import arn_matches, compiled, matches, resource_tokens, tokens

PATTERNS = st.text("ab:*?", max_size=12)
TEXTS = st.text("ab:", max_size=12)


def resource_matches(pattern: str, arn: str) -> bool:
    return compiled(resource_tokens(tokens(pattern))).matches(arn)


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


def test_case_counts_unless_ignored() -> None:
    assert not matches("S3:get*", "s3:GetObject")
    assert matches("S3:get*", "s3:GetObject", ignore_case=True)


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
    assert arn_matches(tokens(pattern), arn) is expected
    assert expected is not False or "finance" not in pattern or matches(pattern, arn)


def test_no_pattern_takes_long() -> None:
    started = time.process_time()
    assert not matches("*a" * 5_000 + "b", "a" * 2_000)
    assert matches("a*" * 2_000, "a" * 2_000)
    assert time.process_time() - started < 1
