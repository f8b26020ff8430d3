"""Documents parsed and checked once: most requests send a document that was sent before."""

from collections.abc import Iterator, Mapping
from typing import Any

from cachetools import LRUCache
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
)
from strawberry.extensions import SchemaExtension

from server.graphql.limits import check_choice, check_rules, check_shape, parse_document
from server.graphql.request import Operation
from server.identity.models import Role
from server.planner.plans import Plans
from server.planner.selection import Document
from server.planner.statement import Planned

# In bytes, about: one document of a page with all that belongs to it takes 40,000 with its plan.
LARGEST_CACHE, LARGEST_KEPT = 48 * 1024 * 1024, 4 * 1024 * 1024
# What a character of a document takes once it is parsed.
_CHARACTER = 85


class CheckedDocument:
    """A parsed document and what is known of it; `errors` says whether a request may be executed with it."""

    def __init__(self, schema: GraphQLSchema, ast: DocumentNode) -> None:
        self.ast = ast
        self._schema = schema
        # Most documents keep within the limits however large their pages are.
        self._always_within_limits = not check_shape(schema, ast, None)
        self._broken_rules: list[GraphQLError] | None = None
        self._queries: dict[str | None, Plans] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        parsed = 0 if self.ast.loc is None else _CHARACTER * len(self.ast.loc.source.body)
        return parsed + sum(plans.size for plans in (self._queries or {}).values())

    def errors(self, operation_name: str | None, variables: Mapping[str, Any] | None) -> list[GraphQLError]:
        """Everything that is wrong with the document for a request; without errors it is safe to compile or execute."""
        if not self._always_within_limits and (errors := check_shape(self._schema, self.ast, variables or {})):
            return errors
        if self._broken_rules is None:
            self._broken_rules = check_rules(self._schema, self.ast)
        return self._broken_rules or check_choice(self.ast, operation_name)

    def query(self, operation_name: str | None) -> Plans | None:
        """The operation that a request means, if it is a query; only for a document without errors."""
        if self._queries is None:
            self._queries = self._find_queries()
        return self._queries.get(operation_name)

    def _find_queries(self) -> dict[str | None, Plans]:
        fragments = [node for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)]
        operations = [node for node in self.ast.definitions if isinstance(node, OperationDefinitionNode)]
        found: dict[str | None, Plans] = {}
        for node in operations:
            if node.operation is OperationType.QUERY:
                found[None if node.name is None else node.name.value] = Plans(
                    Document.of(self._schema, node, fragments)
                )
        if len(found) == len(operations) == 1:
            # A request need not name the only one.
            found[None] = next(iter(found.values()))
        return found


class Documents:
    """The documents of one schema with their plans, those used last within `largest` bytes."""

    def __init__(self, schema: GraphQLSchema, *, largest: int = LARGEST_CACHE) -> None:
        self._schema = schema
        self._kept: LRUCache[str, CheckedDocument] = LRUCache(largest, getsizeof=lambda found: found.size)

    @property
    def size(self) -> float:
        """About how many bytes they take."""
        return self._kept.currsize

    def find(self, query: str) -> CheckedDocument:
        """The document of a request; raises GraphQLError when it cannot be parsed."""
        try:
            return self._kept[query]
        except KeyError:
            found = CheckedDocument(self._schema, parse_document(query))
            self._keep(query, found)
            return found

    def plan(self, operation: Operation, role: Role) -> Planned | None:
        """The one statement that answers an operation for viewers of a role; None for what has to be executed."""
        try:
            document = self.find(operation.query)
        except GraphQLError:
            return None
        if document.errors(operation.operation_name, operation.variables):
            return None
        plans = document.query(operation.operation_name)
        if plans is None:
            return None
        size = plans.size
        planned = plans.plan(operation.variables or {}, role)
        if plans.size != size:
            self._keep(operation.query, document)
        return planned

    def _keep(self, query: str, document: CheckedDocument) -> None:
        if document.size <= min(LARGEST_KEPT, self._kept.maxsize):
            self._kept[query] = document
        else:
            self._kept.pop(query, None)


class Limits(SchemaExtension):
    """The same documents and the same checks for an operation that the ordinary executor runs, on a `Schema`."""

    _checked: CheckedDocument | None = None

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query and context.graphql_document is None:
            self._checked = context.schema.documents.find(context.query)  # type: ignore[attr-defined] # ours
            context.graphql_document = self._checked.ast
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        assert self._checked is not None, "operations are given as text"
        # Strawberry would run the first of several operations when the request names none, where the specification
        # wants an error.
        context.pre_execution_errors = self._checked.errors(context._provided_operation_name, context.variables)
        yield
