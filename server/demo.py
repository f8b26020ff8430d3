"""The main job, end to end, as a user's own script would do it: through the public GraphQL API and its subscription.

It knows nothing of Freehold but a URL and a token.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gql import Client, GraphQLRequest, gql
from gql.transport.exceptions import TransportConnectionFailed, TransportError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from server.errors import FreeholdError

FOUNDATION = gql(
    """
    query Foundation {
      accounts(filter: {role: [MANAGEMENT, SECURITY, LOGGING]}, orderBy: {field: CREATED_AT, direction: ASC}) {
        nodes { id name }
      }
    }
    """
)
CREATE_TYPE = gql(
    """
    mutation CreateType($name: String!) {
      createAccountType(input: {name: $name}) { accountType { id } userErrors { code message } }
    }
    """
)
CREATE_ACCOUNT = gql(
    """
    mutation CreateAccount($name: String!, $type: ID!) {
      createAccount(input: {name: $name, accountTypeId: $type, tags: [{key: "purpose", value: "demo"}]}) {
        account { id name }
        userErrors { code message }
      }
    }
    """
)
FOLLOW = gql(
    """
    subscription Follow($account: ID!, $after: Int!) {
      accountSetup(accountId: $account, after: $after) {
        sequence
        at
        account { id name status awsAccountId }
        setup { status stages { name } }
        stage { name title status attempts startedAt finishedAt error { code message } }
      }
    }
    """
)

ACTIVE, ERROR = "ACTIVE", "ERROR"
RECONNECT_SECONDS = 0.5
LONGEST_SECONDS = 300
Event = dict[str, Any]


@dataclass
class Followed:
    """An account and what its setup has shown so far."""

    id: str
    name: str
    status: str = ""
    setup_status: str = ""
    aws_account_id: str | None = None
    stages: dict[str, Event] = field(default_factory=dict)
    sequence: int = 0

    def take(self, event: Event) -> None:
        if event["sequence"] != self.sequence + 1:
            raise FreeholdError(
                f"{self.name}: event {event['sequence']} came after event {self.sequence}; events must have no gap."
            )
        self.sequence = event["sequence"]
        self.status = event["account"]["status"]
        # A foundation account is there before its first setup.
        self.setup_status = event["setup"]["status"] if event["setup"] is not None else ""
        self.aws_account_id = event["account"]["awsAccountId"]
        if event["stage"] is not None:
            self.stages[event["stage"]["name"]] = event["stage"]

    @property
    def finished(self) -> bool:
        """Whether the setup has ended. The account's status does not tell: it is ACTIVE during later setups."""
        return self.setup_status in ("COMPLETED", "FAILED", "CANCELLED")

    @property
    def failure(self) -> str | None:
        """Which stage has failed and why, in one line; None while none has."""
        for stage in self.stages.values():
            if stage["status"] == "FAILED":
                error = stage["error"]
                return f"{self.name}: {stage['title']} failed with {error['code']}: {error['message']}"
        return None

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "awsAccountId": self.aws_account_id,
            "events": self.sequence,
            "error": self.failure,
        }


class Screen:
    """A live progress bar for each account, and a line above the bars for each stage that ends."""

    def __init__(self) -> None:
        self.console = Console(stderr=False, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[stage]}"),
            console=self.console,
        )
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> "Screen":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, account: Followed, event: Event) -> None:
        if event["setup"] is None:
            return
        total = len(event["setup"]["stages"])
        bar = self.bars.get(account.id)
        if bar is None:
            bar = self.bars[account.id] = self.progress.add_task(account.name, total=total, stage="")
        stage = event["stage"]
        done = sum(each["status"] in ("COMPLETED", "SKIPPED") for each in account.stages.values())
        label = account.status if stage is None or account.status in (ACTIVE, ERROR) else stage["title"]
        if stage is not None and stage["status"] == "WAITING":
            label = f"{stage['title']}: waiting, {stage['error']['code']}"
        self.progress.update(bar, completed=done, total=total, stage=label)
        if stage is not None and stage["status"] in ("COMPLETED", "FAILED"):
            self.progress.console.print(
                f"{account.name:<12} {stage['status'].lower():<10} {seconds(stage):6.2f} s  {stage['title']}"
            )
        if account.status in (ACTIVE, ERROR):
            self.progress.stop_task(bar)

    def summary(self, result: dict[str, Any]) -> None:
        account = result["account"]
        self.console.print(
            f"\n{account['name']} is {account['status']} as AWS account {account['awsAccountId']}.\n"
            f"{len(result['stages'])} stages in {result['setupSeconds']:.1f} s; "
            f"{result['seconds']:.1f} s with the tenancy's foundation.\n"
            "Nothing of this is kept. `freehold up` runs an installation that stays."
        )


class Lines:
    """One JSON object an event on stdout, then the summary; for programs."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, account: Followed, event: Event) -> None:
        stage = event["stage"] or {}
        self._write(
            {
                "account": account.name,
                "sequence": event["sequence"],
                "at": event["at"],
                "accountStatus": account.status,
                "setupStatus": account.setup_status or None,
                "stage": stage.get("name"),
                "stageStatus": stage.get("status"),
                "attempts": stage.get("attempts"),
                "error": stage.get("error"),
            }
        )

    def summary(self, result: dict[str, Any]) -> None:
        self._write({"summary": result})

    def _write(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), flush=True)  # noqa: T201 - this is the command's output


async def run_demo(url: str, token: str, *, as_json: bool) -> bool:
    """Create an account and follow it, and the foundation accounts before it, until all are ACTIVE.

    `url` is the server's, without a path. Returns whether the new account is ACTIVE; raises FreeholdError, which says
    what happened, as soon as a setup has failed or when the whole takes longer than `LONGEST_SECONDS`.
    """
    screen: Screen | Lines = Lines() if as_json else Screen()
    try:
        with screen:
            async with asyncio.timeout(LONGEST_SECONDS):
                result = await create_and_follow(Api(url, token), screen)
    except TimeoutError:
        raise FreeholdError(f"the account was not ACTIVE within {LONGEST_SECONDS} seconds") from None
    except TransportError as error:
        raise FreeholdError(f"the API at {url} refused or failed: {error}") from error
    screen.summary(result)
    return bool(result["account"]["status"] == ACTIVE)


async def create_and_follow(api: "Api", screen: "Screen | Lines") -> dict[str, Any]:
    """The summary of the demo once every account is ACTIVE; raises FreeholdError with the first setup that fails."""
    started = time.monotonic()
    nodes = (await api.execute(FOUNDATION))["accounts"]["nodes"]
    foundation = [asyncio.create_task(follow(api, Followed(**node), screen)) for node in nodes]
    try:
        ended: list[float] = []
        created = await create(api)
        requested = time.monotonic()
        following = asyncio.create_task(follow(api, created, screen))
        following.add_done_callback(lambda _: ended.append(time.monotonic()))
        followed = await asyncio.gather(*foundation, following)
    finally:
        for task in foundation:
            task.cancel()
    return {
        "account": created.summary(),
        "accounts": [each.summary() for each in followed],
        "stages": [
            {"name": name, "status": stage["status"], "attempts": stage["attempts"], "seconds": seconds(stage)}
            for name, stage in created.stages.items()
        ],
        "setupSeconds": round(ended[0] - requested, 3),
        "seconds": round(time.monotonic() - started, 3),
    }


class Api:
    """The two ways to speak to Freehold: a request over HTTP, a subscription over graphql-transport-ws."""

    def __init__(self, url: str, token: str) -> None:
        # Over WebSocket the token travels in the payload of connection_init, under the name of the HTTP header.
        self.headers = {"Authorization": f"Bearer {token}"}
        self.http = f"{url}/graphql"
        self.socket = f"{url.replace('http', 'ws', 1)}/graphql"

    async def execute(self, document: GraphQLRequest, **variables: Any) -> dict[str, Any]:
        transport = HTTPXAsyncTransport(url=self.http, headers=self.headers)
        async with Client(transport=transport) as session:
            result: dict[str, Any] = await session.execute(with_variables(document, variables))
        return result

    async def subscribe(self, document: GraphQLRequest, **variables: Any) -> AsyncGenerator[dict[str, Any], None]:
        transport = WebsocketsTransport(url=self.socket, init_payload=self.headers)
        async with Client(transport=transport) as session:
            async for result in session.subscribe(with_variables(document, variables)):
                yield result


async def follow(api: Api, account: Followed, screen: "Screen | Lines") -> Followed:
    """Follow the account's setup to its end; after a broken connection, from the event behind the last one seen.

    Raises FreeholdError when a stage fails.
    """
    while True:
        try:
            subscription = api.subscribe(FOLLOW, account=account.id, after=account.sequence)
            async with aclosing(subscription) as results:
                async for result in results:
                    event = result["accountSetup"]
                    account.take(event)
                    screen.show(account, event)
                    if account.failure is not None:
                        raise FreeholdError(account.failure)
                    if account.finished:
                        return account
        except TransportConnectionFailed:
            await asyncio.sleep(RECONNECT_SECONDS)


async def create(api: Api) -> Followed:
    kind = payload(await api.execute(CREATE_TYPE, name="Development"), "createAccountType")
    made = payload(await api.execute(CREATE_ACCOUNT, name="Demo", type=kind["accountType"]["id"]), "createAccount")
    return Followed(**made["account"])


def with_variables(document: GraphQLRequest, variables: dict[str, Any]) -> GraphQLRequest:
    return GraphQLRequest(document.document, variable_values=variables)


def payload(result: dict[str, Any], mutation: str) -> dict[str, Any]:
    answer: dict[str, Any] = result[mutation]
    if answer["userErrors"]:
        raise FreeholdError("; ".join(f"{error['code']}: {error['message']}" for error in answer["userErrors"]))
    return answer


def seconds(stage: Event) -> float:
    """How long a stage took, from its first start to its end."""
    if stage["startedAt"] is None or stage["finishedAt"] is None:
        return 0.0
    ended, begun = (datetime.fromisoformat(stage[each]) for each in ("finishedAt", "startedAt"))
    return round((ended - begun).total_seconds(), 3)
