"""Patterns with * and ?, matched in a time that grows with the text and never explodes with the pattern.

Of a text not everything need be known: then it matches, does not, or it depends on the rest.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from server.policies.work import Work

ARN_PARTS = 6
# Control characters, which no document and no request can have, stand for what is not known of a text: the twelve
# digits of an account's number, each the same wherever it is; any characters, or none; one character; any but colons.
SOME_ACCOUNT = "".join(map(chr, range(0x10, 0x1C)))
ANYTHING, ANY_CHARACTER, ANY_NAME = "\x1c", "\x1d", "\x1e"
NOT_KNOWN = re.compile("[\x10-\x1e]")
DIGITS = "0123456789"
# Patterns of so many places are compared about half as fast as short ones.
LONG = 2_000


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
    # Up to its first wildcard.
    beginning: str
    is_known: bool

    def compare(self, text: str, work: Work) -> bool | None:
        """Whether it matches; None when that depends on what is not known. Raises TooMuchWork."""
        is_known = self.is_known and not NOT_KNOWN.search(text)
        if is_known and not text.startswith(self.beginning):
            work.spend(3)
            return False
        work.spend(
            (3 + len(text)) * (1 + self.length // LONG) * (1 if is_known else 3) + (0 if is_known else self.length)
        )
        if self.matches(text):
            return True
        return None if not is_known and self._may_match(text) else False

    def matches(self, text: str) -> bool:
        """Whether it matches, whatever stands for what is not known of the text."""
        if not text.startswith(self.beginning):
            return False
        places = self._skipping(1)
        for character in text:
            onward, staying = self.characters.get(character, 0) | self.anything, self.stays
            if character == ANYTHING:
                onward = 0
            elif character == ANY_NAME:
                onward, staying = 0, staying | self.stays_within
            elif character not in (":", ANY_CHARACTER):
                onward |= self.anything_within
                staying |= self.stays_within
            places = self._skipping((places & onward) << 1 | places & staying)
            if not places:
                return False
        return bool(places >> self.length)

    def _may_match(self, text: str) -> bool:
        """Whether it matches some of what may stand for what is not known; rather too often than too seldom."""
        everywhere = (2 << self.length) - 1
        some_digit, any_digit = self._any_of(SOME_ACCOUNT), self._any_of(DIGITS + SOME_ACCOUNT)
        places = self._skipping(1)
        for character in text:
            if character == ANYTHING:
                # From the first place on.
                places = everywhere & ~((places & -places) - 1)
                continue
            if character == ANY_NAME:
                places = self._up_to_colons(places)
                continue
            onward, staying = self.characters.get(character, 0) | self.anything, self.stays
            if character != ":":
                onward |= self.anything_within
                staying |= self.stays_within
            if character == ANY_CHARACTER:
                onward = everywhere >> 1
            elif character in SOME_ACCOUNT:
                onward |= any_digit
            elif character in DIGITS:
                onward |= some_digit
            places = self._skipping((places & onward) << 1 | places & staying)
            if not places:
                return False
        return bool(places >> self.length)

    def _up_to_colons(self, places: int) -> int:
        """With all places behind these that can be come to without a colon."""
        passable = ~self.characters.get(":", 0) & ((1 << self.length) - 1)
        reached = places
        while places:
            places = self._skipping((places & passable) << 1) & ~reached
            reached |= places
        return reached

    def _any_of(self, characters: str) -> int:
        found = 0
        for each in characters:
            found |= self.characters.get(each, 0)
        return found

    def _skipping(self, places: int) -> int:
        """With the places behind an asterisk that matches nothing. No two asterisks are neighbours."""
        return places | (places & (self.stays | self.stays_within)) << 1


def compiled(pattern: Iterable[Token]) -> Pattern:
    pattern = _without_repeats(pattern)
    characters: dict[str, int] = {}
    wild = dict.fromkeys(Wild, 0)
    for position, each in enumerate(pattern):
        if isinstance(each, str):
            characters[each] = characters.get(each, 0) | 1 << position
        else:
            wild[each] |= 1 << position
    first = next((position for position, each in enumerate(pattern) if isinstance(each, Wild)), len(pattern))
    return Pattern(
        length=len(pattern),
        characters=characters,
        anything=wild[Wild.ONE],
        anything_within=wild[Wild.ONE_WITHIN],
        stays=wild[Wild.MANY],
        stays_within=wild[Wild.MANY_WITHIN],
        beginning="".join(str(each) for each in pattern[:first]),
        is_known=characters.keys().isdisjoint(SOME_ACCOUNT),
    )


def of_resource(pattern: Iterable[Token]) -> Pattern:
    return compiled(resource_tokens(pattern))


def of_arn(pattern: Iterable[Token]) -> tuple[Pattern, ...] | None:
    """Its six parts, each of which matches by itself; None when it has fewer, which AWS does not describe.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html#Conditions_ARN
    """
    parts: list[list[Token]] = [[]]
    for each in pattern:
        if each == ":" and len(parts) < ARN_PARTS:
            parts.append([])
        else:
            parts[-1].append(each)
    return tuple(map(compiled, parts)) if len(parts) == ARN_PARTS else None


def compare_arn(parts: Sequence[Pattern], arn: str, work: Work) -> bool | None:
    """Whether each part matches; None when that depends on what is not known. Raises TooMuchWork."""
    values = arn.split(":", ARN_PARTS - 1)
    if len(values) < ARN_PARTS:
        return False
    found: bool | None = True
    for part, value in zip(parts, values, strict=True):
        matched = part.compare(value, work)
        if matched is False:
            return False
        found = found and matched
    return found


def compare_texts(one: str, other: str) -> bool | None:
    """Whether they are the same; None when that depends on the number of an account that is not known."""
    if one == other:
        return True
    if len(one) != len(other) or not (NOT_KNOWN.search(one) or NOT_KNOWN.search(other)):
        return False
    return None if all(map(_may_be, one, other)) else False


def _may_be(one: str, other: str) -> bool:
    numeric = DIGITS + SOME_ACCOUNT
    return one == other or (one in numeric and other in numeric and not (one in DIGITS and other in DIGITS))


def _without_repeats(pattern: Iterable[Token]) -> Tokens:
    """One asterisk where several stand side by side; they match the same."""
    found: list[Token] = []
    for each in pattern:
        if not (each is Wild.MANY and found and found[-1] is Wild.MANY):
            found.append(each)
    return tuple(found)
