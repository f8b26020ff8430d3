"""The schema class: Strawberry's, with Freehold's limits and errors on every way into it."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import Any

import strawberry
from graphql import ExecutionResult as CoreResult
from graphql import Executor, GraphQLError, create_source_event_stream, map_source_to_response_event
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.execution import PreExecutionError

from server.graphql.documents import Documents, Limits
from server.graphql.errors import presentable


class Schema(strawberry.Schema):
    """`Schema(query=..., mutation=..., subscription=..., types=...)`; what it returns may be shown to the client."""

    def __init__(self, query: type, **options: Any) -> None:
        super().__init__(query, **{**options, "extensions": [Limits, *options.get("extensions", ())]})
        self.documents = Documents(self._schema)

    async def execute(self, query: str | None, *arguments: Any, **options: Any) -> ExecutionResult:
        result = await super().execute(query, *arguments, **options)
        result.errors = presentable(result.errors)
        return result

    async def stream(self, query: str | None, *arguments: Any, **options: Any) -> Any:
        return _presented(await super().stream(query, *arguments, **options))

    async def begin(
        self, query: str, variables: dict[str, Any] | None, context: object, operation_name: str | None
    ) -> "Begun | list[GraphQLError] | None":
        """A subscription whose resolver has let the client in, or the errors that it or the variables ended with.

        None for any other operation and for a document that is not valid; `stream` answers to these.
        """
        try:
            document = self.documents.find(query)
        except GraphQLError:
            return None
        if document.errors(operation_name, variables) or not document.is_subscription(operation_name):
            return None
        executor = (self.execution_context_class or Executor).build(
            self._schema,
            document.ast,
            context_value=context,
            raw_variable_values=variables,
            operation_name=operation_name,
        )
        if isinstance(executor, list):
            return presentable(executor)
        found: Any = create_source_event_stream(executor)
        source = await found if executor.is_awaitable(found) else found
        return presentable(source.errors) if isinstance(source, CoreResult) else Begun(executor, source)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Strawberry would log every error, a client's own among them; `presentable` logs those that are ours."""


class Begun:
    """A subscription with the source of its events."""

    def __init__(self, executor: Executor[Any], source: AsyncIterable[Any]) -> None:
        self.source = source
        self._executor = executor

    async def results(self) -> AsyncGenerator[ExecutionResult, None]:
        """The result of each event; what the source raises is the last."""
        try:
            async with aclosing(map_source_to_response_event(self._executor, self.source)) as results:
                async for result in results:
                    yield ExecutionResult(data=result.data, errors=presentable(result.errors))
        except Exception as error:
            cause = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
            yield ExecutionResult(data=None, errors=presentable([cause]))


async def _presented(results: Any) -> AsyncIterator[Any]:
    async with aclosing(results):
        try:
            async for result in results:
                if isinstance(result, ExecutionResult | CoreResult):
                    result.errors = presentable(result.errors)
                yield result
        except GraphQLError as error:
            # A document that cannot be parsed. Strawberry looks for none here, and for a syntax error by its class it
            # would close the socket.
            plain = GraphQLError(error.message, error.nodes, error.source, error.positions)
            yield PreExecutionError(data=None, errors=presentable([plain]))
