"""Those who ask for accounts: more than once under one key, and who cancel and retry setups."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from tests.chaos.aws import REFUSAL
from tests.chaos.clients import CREATE, Api, Order, Ordered

# Every so many accounts are asked for by a request given up before its answer, by two at once, and cancelled.
GIVEN_UP, TWICE, CANCELLED = 3, 4, 4
# For an answer, and before a cancellation.
LONGEST_WAIT, LONGEST_DOUBT = 0.1, 1.5
CANCEL = """
mutation($id: ID!) { cancelAccountSetup(input: {setupId: $id}) { account { status } userErrors { code message } } }
"""
RETRY = """
mutation($id: ID!) { retryAccountSetup(input: {accountId: $id}) { account { id } userErrors { code message } } }
"""
ERRORS = "query($id: ID!) { account(by: {id: $id}) { setup { stages { status error { message } } } } }"
# What cancelling may meet: a setup that is too far, or that our own request cancelled whose answer was lost.
CANCEL_CODES = {"CREATION_BEGUN", "SETUP_OVER"}
# The answer to the retry before, of which only this one was heard.
RETRY_CODES = {"SETUP_IN_PROGRESS", "NOTHING_TO_RETRY"}


@dataclass
class Users:
    """`wrong` tells what should not have been answered; `cancelled` holds accounts that were told to be so."""

    api: Api
    account_type: str
    seed: int
    orders: dict[Order, Ordered] = field(default_factory=dict)
    repeated: int = 0
    cancelled: set[str] = field(default_factory=set)
    cancels: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    wrong: list[str] = field(default_factory=list)
    _chance: random.Random = field(init=False)
    _retrying: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    async def order(self) -> Ordered:
        """Ask for the next account, and for one of those before once more."""
        number = len(self.orders) + 1
        order = Order(f"Chaos {number}", self.account_type, str(uuid4()))
        if number % GIVEN_UP == 0:
            await self.api.abandon(self._chance.uniform(0, LONGEST_WAIT), CREATE, **order.variables)
            self.repeated += 1
        answers = await asyncio.gather(*(self.api.order(order) for _ in range(2 if number % TWICE == 0 else 1)))
        self.repeated += len(answers) - 1
        self.orders[order] = answers[0]
        for answer in answers[1:]:
            self._compare(order, answer)
        if number % CANCELLED == 1:
            await asyncio.sleep(self._chance.uniform(0, LONGEST_DOUBT))
            await self._cancel(answers[0])
        await self._repeat()
        return answers[0]

    def retry(self, account_id: str) -> None:
        """Retry the account's setup if AWS was told to refuse it; any other failure is left to be seen."""
        if account_id not in self._retrying or self._retrying[account_id].done():
            self._retrying[account_id] = asyncio.create_task(self._retry(account_id))

    async def stop(self) -> None:
        for task in self._retrying.values():
            task.cancel()
        await asyncio.gather(*self._retrying.values(), return_exceptions=True)

    def compare(self, statuses: Mapping[str, str], in_aws: Mapping[str, str]) -> None:
        """Look whether what was cancelled stayed so, given the statuses by account and the e-mails that AWS knows."""
        self.wrong += [
            f"{account} was cancelled, and is {statuses[account]}"
            for account in sorted(self.cancelled)
            if statuses[account] != "CANCELLED"
        ]
        self.wrong += [
            f"{account} is cancelled, and AWS has {in_aws[account]}"
            for account in sorted(in_aws)
            if statuses[account] == "CANCELLED"
        ]

    async def _repeat(self) -> None:
        order = self._chance.choice(list(self.orders))
        self.repeated += 1
        self._compare(order, await self.api.order(order))

    def _compare(self, order: Order, answer: Ordered) -> None:
        if answer != self.orders[order]:
            self.wrong.append(f"{order.name} was {self.orders[order]}, and asked for again {answer}")

    async def _cancel(self, ordered: Ordered) -> None:
        answer = (await self.api.ask(CANCEL, id=ordered.setup_id))["cancelAccountSetup"]
        codes = {error["code"] for error in answer["userErrors"]}
        if not codes and answer["account"]["status"] == "CANCELLED":
            self.cancelled.add(ordered.account_id)
            self.cancels["CANCELLED"] += 1
        elif codes and codes <= CANCEL_CODES:
            self.cancels.update(codes)
        else:
            self.wrong.append(f"cancelling {ordered.account_id} was answered {answer}")

    async def _retry(self, account_id: str) -> None:
        setup = (await self.api.ask(ERRORS, id=account_id))["account"]["setup"]
        failed = [stage["error"] for stage in setup["stages"] if stage["status"] == "FAILED"]
        if not failed or not all(REFUSAL in error["message"] for error in failed):
            return
        answer = (await self.api.ask(RETRY, id=account_id))["retryAccountSetup"]
        self.retries += 1
        codes = {error["code"] for error in answer["userErrors"]}
        if not codes <= RETRY_CODES:
            self.wrong.append(f"retrying {account_id} was answered {answer}")
