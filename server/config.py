"""Settings, read once from `FREEHOLD_*` environment variables.

A wrong value is refused here, by name, before anything starts. Each part of Freehold asks for the settings it needs
(`Settings.require`), so that a worker does not demand the server's.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

from server.errors import ConfigurationError

PREFIX = "FREEHOLD_"
# Not a setting: what a supervisor tells the starts of one command apart by. A worker shows it to PostgreSQL.
START = "FREEHOLD_START"
# The AWS credentials of every simulator; real mode uses the credentials that the AWS SDK finds by itself.
SIMULATOR_CREDENTIALS = ("simulator", "simulator")

E = TypeVar("E", bound=StrEnum)


class AwsMode(StrEnum):
    SIMULATOR = "simulator"
    REAL = "real"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return value

    return parse


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def choice(values: type[E]) -> Callable[[str], E]:
    def parse(value: str) -> E:
        if value not in values.__members__.values():
            raise ValueError(f"must be one of {', '.join(values)}")
        return values(value)

    return parse


def origins(value: str) -> tuple[str, ...]:
    listed = tuple(part.strip() for part in value.split(",") if part.strip())
    for origin in listed:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
            raise ValueError("must be origins such as https://console.example.com, separated by commas")
    return listed


def option(parse: Callable[[str], object], description: str) -> dict[str, object]:
    return {"parse": parse, "description": description}


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting; the name of its environment variable is `FREEHOLD_` and the field's name in capitals.

    Raises ConfigurationError from `from_environment` for a wrong or unknown variable. URLs hold passwords, so that they
    are not part of the settings' representation.
    """

    database_url: str | None = field(
        default=None,
        repr=False,
        metadata=option(
            url("postgresql"), "PostgreSQL as the role `freehold_app`, under row-level security; used by the server"
        ),
    )
    worker_database_url: str | None = field(
        default=None,
        repr=False,
        metadata=option(
            url("postgresql"), "PostgreSQL as the role `freehold_worker`; used by the worker and the command line"
        ),
    )
    owner_database_url: str | None = field(
        default=None,
        repr=False,
        metadata=option(url("postgresql"), "PostgreSQL as the owner of the tables; used by `freehold migrate` alone"),
    )
    redis_url: str | None = field(
        default=None,
        repr=False,
        metadata=option(url("redis", "rediss"), "Valkey or Redis, which carries wake-ups to the workers"),
    )
    host: str = field(default="127.0.0.1", metadata=option(str, "the address that the server listens on"))
    port: int = field(default=8000, metadata=option(whole_number(1, 65535), "the port that the server listens on"))
    allowed_origins: tuple[str, ...] = field(
        default=(),
        metadata=option(origins, "origins of other sites whose pages may use the API, separated by commas"),
    )
    aws_mode: AwsMode = field(
        default=AwsMode.SIMULATOR,
        metadata=option(choice(AwsMode), "`simulator`, or `real` to work on AWS itself with the SDK's own credentials"),
    )
    aws_endpoint_url: str | None = field(
        default=None,
        metadata=option(
            url("http", "https"), "where the AWS simulator answers; needed in simulator mode, refused in real mode"
        ),
    )
    concurrent_setups: int = field(
        default=50,
        metadata=option(whole_number(1, 500), "how many setups one worker process works on side by side"),
    )
    drift_minutes: int = field(
        default=15,
        metadata=option(
            whole_number(0, 1440),
            "how often, in minutes, policies are compared with AWS; 0 for never unless somebody asks",
        ),
    )
    log_level: LogLevel = field(
        default=LogLevel.INFO, metadata=option(choice(LogLevel), "DEBUG, INFO, WARNING or ERROR")
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        known = {PREFIX + each.name.upper(): each for each in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in environment.items():
            # An empty variable counts as unset: that is how Compose passes on what nobody has set.
            if not value or not name.startswith(PREFIX) or name.startswith((PREFIX + "SIMULATOR_", START)):
                continue
            if name not in known:
                raise ConfigurationError(f"{name} is not a setting of Freehold. Settings: {', '.join(sorted(known))}.")
            try:
                values[known[name].name] = known[name].metadata["parse"](value)
            except ValueError as error:
                # The value is not shown: a mistyped URL may hold a password.
                raise ConfigurationError(f"{name} {error}.") from None
        settings = cls(**values)
        settings._check_aws()
        return settings

    def _check_aws(self) -> None:
        if self.aws_endpoint_url is None:
            return
        if self.aws_mode is AwsMode.REAL:
            raise ConfigurationError(
                "FREEHOLD_AWS_ENDPOINT_URL has no meaning when FREEHOLD_AWS_MODE is real; unset it."
            )
        host = urlsplit(self.aws_endpoint_url).hostname or ""
        if any(
            host == domain or host.endswith("." + domain) for domain in ("amazonaws.com", "amazonaws.com.cn", "aws")
        ):
            raise ConfigurationError(
                "FREEHOLD_AWS_ENDPOINT_URL names AWS itself; work on AWS is switched on with FREEHOLD_AWS_MODE=real."
            )

    def require(self, name: str) -> str:
        """The text setting `name`; raises ConfigurationError, naming its variable, when it is not set."""
        value = getattr(self, name)
        if value is None:
            description = next(each.metadata["description"] for each in fields(self) if each.name == name)
            raise ConfigurationError(f"{PREFIX}{name.upper()} is not set. It is {description}.")
        return str(value)
