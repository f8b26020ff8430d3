"""The simulator's process: settings for moto, the server, readiness."""

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

from server.embedded.errors import PortInUseError
from server.embedded.ports import LOOPBACK, require_free_port
from server.embedded.supervisor import HOPELESS
from server.errors import FreeholdError

log = logging.getLogger("simulator")

# What moto reads from the environment, most of it while it is imported.
MOTO_SETTINGS = {
    # 800 kB of machine images in every account and region, for instances that nobody starts here.
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    # Any page in the operator's browser could read the answers otherwise.
    "MOTO_DISABLE_GLOBAL_CORS": "true",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m server.embedded.simulator", description=__doc__)
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="the address to listen on; whoever reaches it may change everything, so only within a closed network "
        "another than %(default)s",
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--no-fsync", action="store_true", help="never wait for the disk (tests)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in [name for name in os.environ if name.startswith("MOTO_")]:
        del os.environ[name]
    os.environ.update(MOTO_SETTINGS)
    try:
        require_free_port(arguments.host, arguments.port)
        serve(arguments.host, arguments.port, arguments.data_dir, fsync=not arguments.no_fsync)
    except PortInUseError as error:
        # Whoever took it may let go of it.
        sys.exit(str(error))
    except FreeholdError as error:
        print(error, file=sys.stderr)  # noqa: T201 - to the log that the operator is shown
        sys.exit(HOPELESS)


def serve(host: str, port: int, data_dir: Path, *, fsync: bool) -> None:
    # Here, because moto reads its settings as it is imported.
    from server.embedded.simulator.app import Simulator  # noqa: PLC0415
    from server.embedded.simulator.http import make_server  # noqa: PLC0415
    from server.embedded.simulator.persistence import Snapshots  # noqa: PLC0415

    simulator = Simulator(Snapshots(data_dir / "state.sqlite3", fsync=fsync))
    server = make_server(host, port, simulator)
    log.info("ready on http://%s:%d", host, port)
    threading.Thread(target=simulator.warm_up, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
