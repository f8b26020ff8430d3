"""What can go wrong with the embedded services; each message tells the operator what to do.

EmbeddedError
├─ DirectoryInUseError    another `freehold up` works on the data directory
├─ PortInUseError             a port is taken
└─ ServiceError         a service does not start, or gave up restarting
"""

from pathlib import Path

from server.errors import FreeholdError


class EmbeddedError(FreeholdError):
    """The embedded services cannot do what was asked; the message says why."""


class DirectoryInUseError(EmbeddedError):
    """Another process holds the data directory."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(
            f"The data directory {directory} is in use by process {holder}. "
            "Stop that one first, or choose another directory with --data-dir."
        )


class PortInUseError(EmbeddedError):
    """A port that the operator chose is taken."""

    def __init__(self, host: str, port: int, option: str) -> None:
        super().__init__(
            f"port {port} on {host} is already in use by another process: end that one, or choose another port with "
            f"{option}"
        )


class ServiceError(EmbeddedError):
    """A service does not start, or ended at its start too often to go on."""

    def __init__(self, name: str, what: str, log: Path, tail: str) -> None:
        shown = f"The end of its log, {log}:\n{tail}" if tail else f"Its log, {log}, is empty."
        super().__init__(f"{name} {what}. {shown}")
        self.name = name
