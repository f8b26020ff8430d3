"""The results as a table, as JSON and as a picture."""

import os
from typing import Any

from tests.benchmarks.reads.measure import Results
from tests.benchmarks.reads.queries import TITLES
from tests.benchmarks.reads.servers import US


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
    lines.append(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    return "\n".join(lines)
