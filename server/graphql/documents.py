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
from server.planner.selection import Document

# In characters of the documents, which take 85 bytes each once parsed.
LARGEST_CACHE, LARGEST_KEPT = 400_000, 40_000


class CheckedDocument:
    """A parsed document and what is known of it; `errors` says whether a request may be executed with it."""

    def __init__(self, schema: GraphQLSchema, ast: DocumentNode) -> None:
        self.ast = ast
        self._schema = schema
        # Most documents keep within the limits however large their pages are.
        self._always_within_limits = not check_shape(schema, ast, None)
        self._broken_rules: list[GraphQLError] | None = None
        self._queries: dict[str | None, Document] | None = None

    @property
    def length(self) -> int:
        """The number of characters that it was parsed from."""
        return 0 if self.ast.loc is None else len(self.ast.loc.source.body)

    def errors(self, operation_name: str | None, variables: Mapping[str, Any] | None) -> list[GraphQLError]:
        """Everything that is wrong with the document for a request; without errors it is safe to compile or execute."""
        if not self._always_within_limits and (errors := check_shape(self._schema, self.ast, variables or {})):
            return errors
        if self._broken_rules is None:
            self._broken_rules = check_rules(self._schema, self.ast)
        return self._broken_rules or check_choice(self.ast, operation_name)

    def query(self, operation_name: str | None) -> Document | None:
        """The operation that a request means, if it is a query; only for a document without errors."""
        if self._queries is None:
            self._queries = self._find_queries()
        return self._queries.get(operation_name)

    def _find_queries(self) -> dict[str | None, Document]:
        fragments = [node for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)]
        operations = [node for node in self.ast.definitions if isinstance(node, OperationDefinitionNode)]
        found: dict[str | None, Document] = {}
        for node in operations:
            if node.operation is OperationType.QUERY:
                document = Document.of(self._schema, node, fragments)
                found[None if node.name is None else node.name.value] = document
                if len(operations) == 1:
                    # A request need not name the only one.
                    found[None] = document
        return found


class Documents:
    """The checked documents of one schema, those used last."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._kept: LRUCache[str, CheckedDocument] = LRUCache(LARGEST_CACHE, getsizeof=lambda found: found.length)

    def find(self, query: str) -> CheckedDocument:
        """The document of a request; raises GraphQLError when it cannot be parsed."""
        found = self._kept.get(query)
        if found is None:
            found = CheckedDocument(self._schema, parse_document(query))
            if len(query) <= LARGEST_KEPT:
                self._kept[query] = found
        return found


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
