"""The AWS simulator: moto behind one HTTP port, with what it lacks or wrongly allows, and with a memory.

It runs in a process of its own, `python -m server.embedded.simulator`, and answers any AWS client that is given its
address as the endpoint. The access key decides the account: keys from sts:AssumeRole belong to the account they were
issued for, any other key to the management account.
"""

import sys
from pathlib import Path

from server.embedded.ports import LOOPBACK, free_port, http_answers
from server.embedded.supervisor import Command, Supervisor

NAME = "simulator"
HEALTH_PATH = "/freehold/health"


async def start(supervisor: Supervisor, data_dir: Path, fsync: bool) -> str:
    """Start the simulator on the data directory; its endpoint URL."""
    home = data_dir / "aws"
    home.mkdir(mode=0o700, exist_ok=True)
    port = free_port()
    argv = [sys.executable, "-m", "server.embedded.simulator", "--port", str(port), "--data-dir", str(home)]
    await supervisor.start(
        Command(
            NAME,
            [*argv, *([] if fsync else ["--no-fsync"])],
            ready=lambda _: http_answers(LOOPBACK, port, HEALTH_PATH),
        )
    )
    return f"http://{LOOPBACK}:{port}"
