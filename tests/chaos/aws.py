"""AWS on a bad day: the simulator behind a proxy that loses, delays, throttles, fails and shows things late."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.workers.proxies import AwsProxy, Fault, lose_answer, lose_request, refuse

Forward = Callable[[], Awaitable[web.Response]]

# Of a thousand calls, what becomes of them; the rest pass. CreateAccount has its own, much worse.
ANY_CALL = {"lost answer": 4, "lost request": 4, "throttled": 8, "failed": 4, "slow": 10, "refused": 1}
CREATE_ACCOUNT = {
    "lost answer": 100,
    "lost request": 30,
    "throttled": 50,
    "failed": 20,
    "failed after the fact": 30,
    "heard late": 40,
    "refused": 20,
}
# What becomes of the first calls of CreateAccount, in an order that the seed draws.
FIRST_CALLS = {"lost answer": 2, "heard late": 2, "failed after the fact": 1, "refused": 1}
FIRST_PASS = 3
# CreateAccount is always on its way for a while, during which its caller may die, and its account shows later still.
LONGEST_WAY, LONGEST_LAG = 1.0, 4.0
# Longer than its caller waits for an answer, shorter than the quarantine of a call whose outcome is unknown.
HEARD_LATE = (6.0, 12.0)
SLOW = (0.5, 3.0)
FAILED = refuse("ServiceException", 500)
# A person has to retry after this one; its words are the test's.
REFUSAL = "AccessDeniedException by the test"
NEVER_HEARD: dict[str, Fault] = {
    "lost request": lose_request,
    "throttled": refuse("TooManyRequestsException", 429),
    "failed": FAILED,
    "refused": refuse("AccessDeniedException"),
}


class BadAws(AwsProxy):
    """Starts on a good day; `bad` switches. `met` counts the faults, `created` those of CreateAccount; `repeats` holds
    the calls for an e-mail that has its account already: AWS refuses those, but nobody should have to rely on it.
    """

    def __init__(self, endpoint: str, seed: int, most_faults: int = 3) -> None:
        super().__init__(endpoint)
        self._chance = random.Random(seed)
        # Of the calls for one e-mail, each of which costs a quarantine.
        self._most_faults = most_faults
        self._faults_of: Counter[str] = Counter()
        self._visible: dict[str, float] = {}
        self._made: set[str] = set()
        first: list[str | None] = list(Counter(FIRST_CALLS).elements())
        self._first = self._chance.sample([*first, *[None] * FIRST_PASS], len(first) + FIRST_PASS)
        self.bad = False
        self.met: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.repeats: list[str] = []

    def fault_for(self, operation: str) -> Fault | None:
        if operation == "CreateAccount":
            return self._create_account
        fault = self._any_call() if self.bad else None
        if operation in ("ListAccounts", "ListCreateAccountStatus"):
            return self._late(fault)
        return fault

    def _draw(self, shares: dict[str, int]) -> str | None:
        kinds = [*shares, None]
        (kind,) = self._chance.choices(kinds, [*shares.values(), 1000 - sum(shares.values())])
        return kind

    def _any_call(self) -> Fault | None:
        kind = self._draw(ANY_CALL)
        if kind is not None:
            self.met[kind] += 1
        return None if kind is None else {**NEVER_HEARD, "lost answer": lose_answer, "slow": self._slow}[kind]

    async def _slow(self, _: web.Request, forward: Forward) -> web.StreamResponse:
        await asyncio.sleep(self._chance.uniform(*SLOW))
        return await forward()

    async def _create_account(self, request: web.Request, forward: Forward) -> web.StreamResponse:
        if not self.bad:
            return await self._carry_out(request, forward)
        kind = await self._draw_creation(request)
        if kind in NEVER_HEARD:
            self.created[kind] += 1
            return await NEVER_HEARD[kind](request, forward)
        way = HEARD_LATE if kind == "heard late" else (0.0, LONGEST_WAY)
        # It arrives even if its caller is dead by then: the proxy is told not to stop with its client.
        await asyncio.sleep(self._chance.uniform(*way))
        answer = await self._carry_out(request, forward, hidden=kind is not None)
        if kind is not None and answer.status == 200:
            self.created[kind] += 1
        elif kind is not None:
            # AWS has refused it, which says nothing about a call that it has carried out.
            self._first.append(kind)
        if kind == "lost answer":
            return await lose_answer(request, _nothing)
        if kind == "failed after the fact":
            return await FAILED(request, forward)
        return answer

    async def _draw_creation(self, request: web.Request) -> str | None:
        email = json.loads(await request.read())["Email"].lower()
        if self._faults_of[email] == self._most_faults:
            return None
        kind = self._first.pop() if self._first else self._draw(CREATE_ACCOUNT)
        self._faults_of[email] += kind is not None
        return kind

    async def _carry_out(self, request: web.Request, forward: Forward, *, hidden: bool = False) -> web.Response:
        """The answer; what AWS makes shows in its lists after a while, `hidden` after the longest."""
        answer = await forward()
        if answer.status == 200:
            email = json.loads(await request.read())["Email"].lower()
            status = _body(answer)["CreateAccountStatus"]
            if email in self._made:
                self.repeats.append(email)
            self._made.add(email)
            shortest = LONGEST_LAG if hidden else 0.0
            lag = self._chance.uniform(shortest, LONGEST_LAG) if self.bad else 0.0
            self._visible[email] = self._visible[status["Id"]] = time.monotonic() + lag
        return answer

    def _late(self, fault: Fault | None) -> Fault:
        """The list without what is too new to be shown in it."""

        async def late(request: web.Request, forward: Forward) -> web.StreamResponse:
            async def shown() -> web.Response:
                return self._hide(await forward())

            return await shown() if fault is None else await fault(request, shown)

        return late

    def _hide(self, answer: web.Response) -> web.Response:
        if answer.status != 200:
            return answer
        body = _body(answer)
        now = time.monotonic()
        for name, key in (("Accounts", "Email"), ("CreateAccountStatuses", "Id")):
            if name in body:
                body[name] = [each for each in body[name] if self._visible.get(_key(each[key]), 0) <= now]
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
        return web.Response(status=200, headers=headers, body=json.dumps(body).encode())


def _key(value: str) -> str:
    return value.lower() if "@" in value else value


def _body(answer: web.Response) -> dict[str, Any]:
    assert isinstance(answer.body, bytes)
    body: dict[str, Any] = json.loads(answer.body)
    return body


async def _nothing() -> web.Response:
    return web.Response()
