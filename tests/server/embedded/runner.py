"""What `freehold up` is to the embedded services: starts them, prints where they are, stops them when it is told to."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from server.embedded import EmbeddedError, Services, embedded


def facts(services: Services, names: set[str]) -> dict[str, str]:
    told = {}
    if "postgres" in names:
        told["owner_url"] = services.owner_url
    if "valkey" in names:
        told["redis_url"] = services.redis_url
    return told


async def main(data_dir: Path, names: set[str]) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    async with embedded(data_dir, services=names - {"sleeper"}, fsync=False) as services:
        if "sleeper" in names:
            await services.start("sleeper", [sys.executable, "-c", "import time; time.sleep(1000)"], {})
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        print(json.dumps(facts(services, names)), flush=True)  # noqa: T201
        await stopped.wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), set(sys.argv[2:])))
    except EmbeddedError as error:
        sys.exit(str(error))
