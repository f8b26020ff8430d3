"""Logging for the person who reads it at 3 in the morning: one line an event, on stderr, with its process."""

import logging
import sys

from server.config import LogLevel

FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"


def configure_logging(level: LogLevel) -> None:
    logging.basicConfig(stream=sys.stderr, level=level.value, format=FORMAT, datefmt="%Y-%m-%dT%H:%M:%S%z", force=True)
    # These speak at INFO of what only a developer of theirs would want.
    for noisy in ("aioboto3", "aiobotocore", "alembic", "arq.jobs", "botocore", "gql", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
