"""Errors as clients see them: located and coded ones, user errors of mutations, and faults with nothing but an id."""

import logging
import secrets
from collections.abc import Iterator, Sequence
from enum import StrEnum

import asyncpg
import strawberry
from graphql import GraphQLError
from strawberry.schema.exceptions import CannotGetOperationTypeError

from server import errors
from server.errors import UserErrorCode
from server.outages import Reports, is_away

logger = logging.getLogger(__name__)

strawberry.enum(
    UserErrorCode, description="What was wrong with the input. Programs branch on it, people read the message."
)


class ErrorCode(StrEnum):
    """`extensions.code` of a top-level error."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    VALIDATION = "VALIDATION"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@strawberry.type(description="One fault in a mutation's input; nothing was changed.")
class UserError:
    code: UserErrorCode
    message: str
    field: list[str] | None = strawberry.field(
        default=None, description="The path below `input`; null when no field is at fault."
    )


def user_error(error: errors.UserError) -> UserError:
    return UserError(code=error.code, message=error.message, field=None if error.field is None else list(error.field))


def coded(code: ErrorCode, message: str) -> GraphQLError:
    """An error to raise in a resolver: graphql-core adds where it happened, and the client sees `extensions.code`."""
    return GraphQLError(message, extensions={"code": code.value})


UNAVAILABLE = "The database does not answer at the moment; try again shortly."


_REFUSED = Reports(logger, "Requests are answered with UNAVAILABLE")


def describe_fault(fault: BaseException) -> tuple[ErrorCode, str]:
    """The code and message for an exception that nobody expected. Its details go to the log, not to the client."""
    if is_away(fault):
        _REFUSED.tell(fault)
        return ErrorCode.UNAVAILABLE, UNAVAILABLE
    for cause in _causes(fault):
        if isinstance(cause, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
            return ErrorCode.VALIDATION, "Text cannot contain the character U+0000."
        if isinstance(cause, asyncpg.QueryCanceledError):
            logger.warning("A statement took too long: %s", cause)
            return ErrorCode.UNAVAILABLE, "The query took too long. Ask for less, or try again later."
    error_id = secrets.token_hex(8)
    logger.error("Error id %s", error_id, exc_info=fault)
    return ErrorCode.INTERNAL, f"Something went wrong on our side. Error id: {error_id}"


def _causes(fault: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = fault
    while cause is not None:
        yield cause
        cause = cause.__cause__


def presentable(found: Sequence[GraphQLError] | None) -> list[GraphQLError] | None:
    """The errors of a result as a client may see them: what was raised on purpose as it is, the rest described."""
    return None if found is None else [_presentable(error) for error in found]


def _presentable(error: GraphQLError) -> GraphQLError:
    fault = error.original_error
    # A custom scalar refuses a value in its own words.
    is_scalars = error.path is None and error.nodes and isinstance(fault, ValueError | TypeError)
    if isinstance(fault, CannotGetOperationTypeError):
        # The operation is not in the document. Without its cause, for which Strawberry would close a socket.
        return GraphQLError(f"{error.message.rstrip('.')}.", extensions={"code": ErrorCode.VALIDATION.value})
    if fault is None or isinstance(fault, GraphQLError) or is_scalars:
        # What has no code comes from parsing, validation or the variables.
        error.extensions = {"code": ErrorCode.VALIDATION.value, **(error.extensions or {})}
        return error
    code, message = describe_fault(fault)
    return GraphQLError(
        message, error.nodes, error.source, error.positions, error.path, extensions={"code": code.value}
    )
