"""The schema class: Strawberry's, with Freehold's limits and errors on every way into it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import strawberry
from graphql import ExecutionResult as CoreResult
from graphql import GraphQLError
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

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Strawberry would log every error, a client's own among them; `presentable` logs those that are ours."""


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
