"""Turn by turn: every server answers every question in every round, in an order that is turned round each time."""

import asyncio
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from server.embedded import Services
from tests.benchmarks.reads.load import put_load
from tests.benchmarks.reads.servers import LIMIT, US, Server

WARM_SECONDS = 1.0


@dataclass
class Turn:
    """One server's answers to one question in one round; CPU in milliseconds a request."""

    per_second: float
    server_ms: float
    postgres_ms: float


@dataclass
class Results:
    """The turns by question and server, one a round."""

    turns: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)

    def ratio(self, question: str, peer: str) -> float:
        """Our requests a second over the peer's, the median of the rounds."""
        found = self.turns[question]
        return statistics.median(
            ours.per_second / theirs.per_second for ours, theirs in zip(found[US], found[peer], strict=True)
        )

    def median(self, question: str, server: str, measure: str) -> float:
        return float(statistics.median(getattr(turn, measure) for turn in self.turns[question][server]))


async def measure(
    servers: Sequence[Server], postmaster: psutil.Process, questions: Sequence[str], rounds: int, seconds: float
) -> Results:
    """Raises AssertionError when a server answers something else than the others, or fails."""
    for question in questions:
        await _compare(servers, question)
        for server in servers:
            await take_turn(server, postmaster, question, WARM_SECONDS)
    results = Results({question: {server.name: [] for server in servers} for question in questions})
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for question in questions:
            for server in servers if number % 2 == 0 else reversed(servers):
                turn = await take_turn(server, postmaster, question, seconds)
                results.turns[question][server.name].append(turn)
    return results


async def take_turn(server: Server, postmaster: psutil.Process, question: str, seconds: float) -> Turn:
    """Raises AssertionError when an answer is not that of a query that succeeded."""
    before, postgres_before = _cpu([server.process]), _cpu(_backends(postmaster))
    load = await put_load(server.port, server.requests[question], seconds)
    after, postgres_after = _cpu([server.process]), _cpu(_backends(postmaster))
    assert not load.failures, f"{server.name} failed {question}: {load.failures[0]}"
    server_ms, postgres_ms = (
        _spent(*each) * 1000 / load.requests for each in ((before, after), (postgres_before, postgres_after))
    )
    return Turn(load.per_second, server_ms, postgres_ms)


def postmaster_of(services: Services) -> psutil.Process:
    """The process that all of PostgreSQL's others belong to."""
    return psutil.Process(int((services.data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


def _backends(postmaster: psutil.Process) -> list[psutil.Process]:
    return [postmaster, *postmaster.children()]


def _cpu(processes: Iterable[psutil.Process]) -> dict[int, float]:
    """Seconds of CPU that each has used."""
    found = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def _spent(before: dict[int, float], after: dict[int, float]) -> float:
    """What those used in between that are still there."""
    return sum(seconds - before.get(process, 0.0) for process, seconds in after.items())


async def _compare(servers: Sequence[Server], question: str) -> None:
    """Our answer is the limit's to the byte; the peers', whose shape may differ, name the same things in that order."""
    answers = {server.name: await _answer(server, question) for server in servers}
    if LIMIT in answers:
        assert answers[US] == answers[LIMIT], (
            f"{question}: the limit answers\n{answers[LIMIT][:2000]!r}\nand we\n{answers[US][:2000]!r}"
        )
    expected = _named(answers[US])
    assert expected, question
    for name, answer in answers.items():
        assert _named(answer) == expected, f"{question}: {name} answers {answer[:2000]!r}"


def _named(answer: bytes) -> list[str]:
    """Every name and tag value, and the count, as they follow one another."""
    text = answer.decode().replace("\\u00f6", "ö").replace("\\u00df", "ß")
    return re.findall(r'"(?:name|value|totalCount)":("(?:[^"\\]|\\.)*"|\d+)', text)


async def _answer(server: Server, question: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(server.requests[question][0].replace(b"host:", b"connection: close\r\nhost:", 1))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), (server.name, question, head, body[:2000])
        return body
    finally:
        writer.close()
