"""The results as a table, as JSON and as a picture."""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmarks.reads.measure import Results
from tests.benchmarks.reads.queries import TITLES
from tests.benchmarks.reads.servers import US

LABELS = {
    US: "Freehold",
    "limit": "SQL by hand, bare ASGI",
    "dataloaders": "Strawberry, DataLoaders",
    "postgraphile": "PostGraphile 5",
    "mercurius": "mercurius, JIT",
}
WIDTH, LABEL, BAR, ROW, GAP = 860, 190, 470, 20, 34


def as_json(results: Results) -> dict[str, Any]:
    """`ratios` are our requests a second over theirs; `cpu_ms` of a request, by server and by PostgreSQL for it."""
    return {
        "ratios": {
            question: {peer: round(results.ratio(question, peer), 3) for peer in servers if peer != US}
            for question, servers in results.turns.items()
        },
        "cpu_ms": {
            question: {
                server: {
                    "server": round(results.median(question, server, "server_ms"), 4),
                    "postgresql": round(results.median(question, server, "postgres_ms"), 4),
                }
                for server in servers
            }
            for question, servers in results.turns.items()
        },
        "requests_per_second": {
            question: {server: round(results.median(question, server, "per_second"), 1) for server in servers}
            for question, servers in results.turns.items()
        },
    }


def table(results: Results) -> str:
    lines = []
    for question, servers in results.turns.items():
        lines.append(f"{question}: {TITLES[question]}")
        lines.append(f"  {'':14}{'ours / theirs':>14}{'requests/s':>12}{'CPU ms':>9}{'PostgreSQL ms':>15}")
        for server in servers:
            ratio = "" if server == US else f"{results.ratio(question, server):.2f}"
            measures = (results.median(question, server, each) for each in ("per_second", "server_ms", "postgres_ms"))
            per_second, server_ms, postgres_ms = measures
            lines.append(f"  {server:14}{ratio:>14}{per_second:>12.0f}{server_ms:>9.3f}{postgres_ms:>15.3f}")
    lines.append(
        "ours / theirs: our requests a second over theirs, the median of the rounds; above 1 is faster than they."
    )
    lines.append(
        "limit: the same answers by SQL written by hand on bare ASGI. CPU is that of one request. On a machine"
    )
    lines.append("that does other work too, some hundredths either way are chance.")
    lines.append(f"{machine()}, load {os.getloadavg()[0]:.1f} at the end")
    return "\n".join(lines)


def machine() -> str:
    """What it was measured on, without a name."""
    models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}"


def picture(results: Results, accounts: int) -> str:
    """An SVG: for each question a bar for each server, as long as what it answers in the time of one answer of ours."""
    rows = list(_rows(results))
    height = rows[-1][0] + 40
    when = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, 2 tenancies of {accounts:,} accounts, 16 connections"
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
                f' width="{WIDTH}" height="{height}"'
                ' font-family="system-ui, sans-serif" font-size="13" fill="#1f2328" role="img">'
            ),
            "<title>Answers in the time of one answer of Freehold</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            '<text x="16" y="26" font-size="16" font-weight="600">Answers in the time of one answer of Freehold</text>',
            *(line for _, line in rows),
            f'<text x="16" y="{height - 14}" font-size="11" fill="#59636e">{escape(when)}</text>',
            "</svg>\n",
        ]
    )


def _rows(results: Results) -> Iterator[tuple[int, str]]:
    """Each line of the picture and how far down it reaches."""
    y = 30
    longest = max(1 / results.ratio(q, s) for q, servers in results.turns.items() for s in servers if s != US)
    scale = BAR / max(1.0, longest)
    for question, servers in results.turns.items():
        y += GAP
        yield y, f'<text x="16" y="{y - 8}" font-weight="600">{question}: {escape(TITLES[question])}</text>'
        for server in servers:
            answers = 1.0 if server == US else 1 / results.ratio(question, server)
            per_second = f"{results.median(question, server, 'per_second'):,.0f} a second"
            width, colour = max(1.0, answers * scale), "#0969da" if server == US else "#afb8c1"
            number = f"{answers:.2f}" if answers >= 0.1 else f"{answers:.3f}"
            yield (
                y + ROW,
                (
                    f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(LABELS[server])}</text>'
                    f'<rect x="{LABEL}" y="{y + 1}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>'
                    f'<text x="{LABEL + width + 6:.1f}" y="{y + 12}">{number}'
                    f'<tspan fill="#59636e" dx="8" font-size="11">{per_second}</tspan></text>'
                ),
            )
            y += ROW


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
