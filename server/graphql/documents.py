"""Documents parsed and checked once: most requests send a document that was sent before."""

from collections.abc import Iterator, Mapping
from functools import cached_property
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
from graphql.execution.collect_fields import FragmentDetails
from strawberry.extensions import SchemaExtension

from server.graphql.limits import check_choice, check_rules, check_shape, parse_document
from server.graphql.request import Operation
from server.identity.models import Role
from server.planner.plans import Plans
from server.planner.selection import Document, conditions, details
from server.planner.statement import Planned

# In bytes, about: one document of a page with all that belongs to it takes 40,000 with its plan.
LARGEST_CACHE, LARGEST_KEPT = 48 * 1024 * 1024, 4 * 1024 * 1024
# What a token and a character of a document take once it is parsed.
_TOKEN, _CHARACTER = 600, 4


class CheckedDocument:
    """A parsed document and what is known of it; `errors` says whether a request may be executed with it."""

    def __init__(self, schema: GraphQLSchema, ast: DocumentNode) -> None:
        self.ast = ast
        self._schema = schema
        # Most documents keep within the limits however large their pages are.
        self._always_within_limits = not check_shape(schema, ast, None)
        self._broken_rules: list[GraphQLError] | None = None
        self._parsed_size = _parsed_size(ast)
        self._operations = {
            None if node.name is None else node.name.value: node
            for node in ast.definitions
            if isinstance(node, OperationDefinitionNode)
        }
        self._queries: dict[str | None, Plans] = {}

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self._parsed_size + sum(plans.size for plans in self._queries.values())

    def errors(self, operation_name: str | None, variables: Mapping[str, Any] | None) -> list[GraphQLError]:
        """Everything that is wrong with the document for a request; without errors it is safe to compile or execute."""
        if not self._always_within_limits and (errors := check_shape(self._schema, self.ast, variables or {})):
            return errors
        if self._broken_rules is None:
            self._broken_rules = check_rules(self._schema, self.ast)
        return self._broken_rules or check_choice(self.ast, operation_name)

    def is_subscription(self, operation_name: str | None) -> bool:
        """Whether a request means a subscription; only for a document without errors."""
        node = self._operation(operation_name)
        return node is not None and node.operation is OperationType.SUBSCRIPTION

    def query(self, operation_name: str | None) -> Plans | None:
        """The operation that a request means, if it is a query; only for a document without errors."""
        node = self._operation(operation_name)
        if node is None or node.operation is not OperationType.QUERY:
            return None
        name = None if node.name is None else node.name.value
        if name not in self._queries:
            fragments, asked = self._fragments
            document = Document.of(self._schema, node, fragments)
            self._queries[name] = Plans(document, asked | conditions([node]))
        return self._queries[name]

    def _operation(self, operation_name: str | None) -> OperationDefinitionNode | None:
        if operation_name is None and len(self._operations) == 1:
            # A request need not name the only one.
            [operation_name] = self._operations
        return self._operations.get(operation_name)

    @cached_property
    def _fragments(self) -> tuple[dict[str, FragmentDetails], frozenset[str]]:
        """The fragments, which all operations share, and the variables that directives ask in them."""
        nodes = [node for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)]
        return details(nodes), conditions(nodes)


def _parsed_size(ast: DocumentNode) -> int:
    if ast.loc is None:
        return 0
    tokens, token = 0, ast.loc.start_token
    while token.next is not None:
        tokens, token = tokens + 1, token.next
    return _TOKEN * tokens + _CHARACTER * len(ast.loc.source.body)


class Documents:
    """The documents of one schema with their plans, those used last within `largest` bytes."""

    def __init__(self, schema: GraphQLSchema, *, largest: int = LARGEST_CACHE) -> None:
        self._schema = schema
        self._kept: LRUCache[str, CheckedDocument] = LRUCache(largest, getsizeof=lambda found: found.size)
        # Planned or not, a request is executed with what was found for it, also where that is not kept.
        self._latest: tuple[str, CheckedDocument | GraphQLError] | None = None

    @property
    def size(self) -> float:
        """About how many bytes they take."""
        return self._kept.currsize

    def find(self, query: str) -> CheckedDocument:
        """The document of a request; raises GraphQLError when it cannot be parsed."""
        if (kept := self._kept.get(query)) is not None:
            return kept
        if self._latest is None or self._latest[0] != query:
            self._latest = query, self._read(query)
        found = self._latest[1]
        if isinstance(found, GraphQLError):
            raise found.with_traceback(None)
        return found

    def _read(self, query: str) -> CheckedDocument | GraphQLError:
        try:
            found = CheckedDocument(self._schema, parse_document(query))
        except GraphQLError as error:
            return error
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
