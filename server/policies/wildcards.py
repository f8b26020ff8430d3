"""Patterns with * and ?, matched in a time that grows with the text and never explodes with the pattern."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

ARN_PARTS = 6


class Wild(Enum):
    MANY = auto()
    ONE = auto()
    # The same within one part of an ARN: they do not match a colon.
    MANY_WITHIN = auto()
    ONE_WITHIN = auto()


# A character that stands for itself, or a wildcard.
Token = str | Wild
Tokens = tuple[Token, ...]
WILDCARDS = {"*": Wild.MANY, "?": Wild.ONE}


def tokens(pattern: str) -> Tokens:
    return tuple(WILDCARDS.get(character, character) for character in pattern)


def resource_tokens(pattern: Iterable[Token]) -> Tokens:
    """The pattern of a Resource, whose wildcards stay within a part of the ARN.

    Only an asterisk that ends a part reaches over the colons behind it, and what stands in the last part, which may
    have colons itself: IAM User Guide, "IAM JSON policy elements: Resource",
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html
    """
    given = _without_repeats(pattern)
    found: list[Token] = []
    colons = 0
    for position, each in enumerate(given):
        colons += each == ":"
        within = colons < ARN_PARTS - 1
        ends_part = position + 1 == len(given) or given[position + 1] == ":"
        if within and each is Wild.ONE:
            found.append(Wild.ONE_WITHIN)
        elif within and each is Wild.MANY and not ends_part:
            found.append(Wild.MANY_WITHIN)
        else:
            found.append(each)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Pattern:
    """All places in the pattern that the text read so far can have led to are kept as the bits of one number."""

    length: int
    characters: dict[str, int]
    anything: int
    anything_within: int
    stays: int
    stays_within: int

    def matches(self, text: str) -> bool:
        places = self._skipping(1)
        for character in text:
            onward, staying = self.characters.get(character, 0) | self.anything, self.stays
            if character != ":":
                onward |= self.anything_within
                staying |= self.stays_within
            places = self._skipping((places & onward) << 1 | places & staying)
            if not places:
                return False
        return bool(places >> self.length)

    def _skipping(self, places: int) -> int:
        """With the places behind an asterisk that matches nothing. No two asterisks are neighbours."""
        return places | (places & (self.stays | self.stays_within)) << 1


@lru_cache(maxsize=4096)
def compiled(pattern: Tokens) -> Pattern:
    pattern = _without_repeats(pattern)
    characters: dict[str, int] = {}
    wild = dict.fromkeys(Wild, 0)
    for position, each in enumerate(pattern):
        if isinstance(each, str):
            characters[each] = characters.get(each, 0) | 1 << position
        else:
            wild[each] |= 1 << position
    return Pattern(
        len(pattern), characters, wild[Wild.ONE], wild[Wild.ONE_WITHIN], wild[Wild.MANY], wild[Wild.MANY_WITHIN]
    )


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    return _of_text(pattern.lower()).matches(text.lower()) if ignore_case else _of_text(pattern).matches(text)


@lru_cache(maxsize=4096)
def _of_text(pattern: str) -> Pattern:
    return compiled(tokens(pattern))


def arn_matches(pattern: Sequence[Token], arn: str) -> bool | None:
    """Whether each of the six parts matches by itself; None when the pattern has fewer, which AWS does not describe.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html#Conditions_ARN
    """
    parts: list[list[Token]] = [[]]
    for each in pattern:
        if each == ":" and len(parts) < ARN_PARTS:
            parts.append([])
        else:
            parts[-1].append(each)
    if len(parts) < ARN_PARTS:
        return None
    values = arn.split(":", ARN_PARTS - 1)
    return len(values) == ARN_PARTS and all(
        compiled(tuple(part)).matches(value) for part, value in zip(parts, values, strict=True)
    )


def _without_repeats(pattern: Iterable[Token]) -> Tokens:
    """One asterisk where several stand side by side; they match the same."""
    found: list[Token] = []
    for each in pattern:
        if not (each is Wild.MANY and found and found[-1] is Wild.MANY):
            found.append(each)
    return tuple(found)
