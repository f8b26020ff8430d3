"""What the simulator refuses in AWS's words."""

from moto.core.exceptions import ServiceException


class Refusal(ServiceException):
    """An AWS error: its code, its message, and whatever else AWS tells with it, such as the Reason.

    A class of our own, because moto looks for a service by the name of the module that an error's class is from.
    """

    def __init__(self, code: str, message: str, **told: str) -> None:
        super().__init__(code, message)
        self.__dict__.update(told)
