"""What the simulator reads: numbers from the environment, places in a list from a request."""

import os

from moto.organizations.exceptions import InvalidInputException

from server.errors import ConfigurationError


def whole_number(name: str, default: int) -> int:
    """The number that an environment variable holds; raises ConfigurationError when it holds something else."""
    value = os.environ.get(name, str(default))
    if not (value.isascii() and value.isdecimal()):
        raise ConfigurationError(f"{name} must be a whole number.")
    return int(value)


def page_start(token: str | None) -> int:
    """Where the page begins that a NextToken of ours asks for; raises InvalidInputException for any other."""
    if token is None:
        return 0
    if not token.isdecimal():
        raise InvalidInputException("You provided an invalid NextToken.")
    return int(token)
