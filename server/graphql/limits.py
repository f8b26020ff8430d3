"""What a document may cost, checked before anything that is slow on a hostile one.

graphql-core's validation is quadratic in places and execution multiplies pages by pages, so tokens are counted while
parsing, and the shape of the expanded document before validation. One walk with a memo per fragment keeps the check
itself linear: fragments that spread one another twice double the document at every step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    get_named_type,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import MaxIntrospectionDepthRule
from strawberry.extensions import SchemaExtension

MAX_TOKENS = 3000
DEFAULT_PAGE, LARGEST_PAGE = 50, 100
RULES = (*specified_rules, MaxIntrospectionDepthRule)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of an operation with its fragments expanded. `rows` is how many its connections may return at most."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    rows: int = 0

    def beside(self, other: "Shape") -> "Shape":
        return Shape(
            max(self.depth, other.depth),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.directives + other.directives,
            self.rows + other.rows,
        )


LIMITS = Shape(depth=20, fields=1000, aliases=50, directives=50, rows=200_000)


def parse_document(query: str) -> DocumentNode:
    """Parse a document; raises GraphQLError, also for one that is too long or nested too deeply."""
    try:
        return parse(query, max_tokens=MAX_TOKENS)
    except RecursionError:
        raise GraphQLError("The document is nested too deeply.") from None


def check_document(schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
    """Everything that is wrong with a parsed document; a valid one is safe to compile or to execute."""
    try:
        return check_shape(schema, document) or validate(schema, document, RULES)
    except RecursionError:
        return [GraphQLError("The document is nested too deeply.")]


def check_shape(schema: GraphQLSchema, document: DocumentNode, limits: Shape = LIMITS) -> list[GraphQLError]:
    """An error for each limit that an operation of the document exceeds."""
    walk = _Walk(schema, document)
    errors = []
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode):
            continue
        shape = walk.measure_operation(operation)
        for limit in fields(Shape):
            allowed = getattr(limits, limit.name)
            if getattr(shape, limit.name) > allowed:
                errors.append(GraphQLError(f"The operation is too large: more than {allowed} {limit.name}.", operation))
    return errors


def check_choice(document: DocumentNode, operation_name: str | None) -> list[GraphQLError]:
    """An error when the document has several operations and the request does not say which it means."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if operation_name is None and len(operations) > 1:
        return [GraphQLError("The document has several operations: say which by `operationName`.", operations)]
    return []


class Limits(SchemaExtension):
    """The same checks for an operation that the ordinary executor runs."""

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query and context.graphql_document is None:
            context.graphql_document = parse_document(context.query)
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        assert context.graphql_document is not None
        # `_schema` is how Strawberry's own extensions reach the schema of graphql-core. And Strawberry would run the
        # first of several operations when the request names none, where the specification wants an error.
        context.pre_execution_errors = check_document(context.schema._schema, context.graphql_document) or (
            check_choice(context.graphql_document, context._provided_operation_name)
        )
        yield


class _Walk:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._measured: dict[str, Shape] = {}

    def measure_operation(self, operation: OperationDefinitionNode) -> Shape:
        root = self._schema.get_root_type(operation.operation)
        own = Shape(directives=len(operation.directives or ()))
        return own.beside(self._selections(operation.selection_set, root))

    def _selections(self, selections: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Shape:
        total = Shape()
        for node in selections.selections if selections is not None else ():
            total = total.beside(Shape(directives=len(node.directives or ()))).beside(self._selection(node, parent))
        return total

    def _selection(self, node: SelectionNode, parent: GraphQLNamedType | None) -> Shape:
        if isinstance(node, FragmentSpreadNode):
            return self._fragment(node.name.value)
        if isinstance(node, InlineFragmentNode):
            condition = node.type_condition
            return self._selections(
                node.selection_set, self._schema.get_type(condition.name.value) if condition is not None else parent
            )
        assert isinstance(node, FieldNode)
        return self._field(node, parent)

    def _fragment(self, name: str) -> Shape:
        if name not in self._measured:
            # A fragment that contains itself counts as nothing here: validation reports the cycle.
            self._measured[name] = Shape()
            if name in self._fragments:
                fragment = self._fragments[name]
                on = self._schema.get_type(fragment.type_condition.name.value)
                own = Shape(directives=len(fragment.directives or ()))
                self._measured[name] = own.beside(self._selections(fragment.selection_set, on))
        return self._measured[name]

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Shape:
        definition = getattr(parent, "fields", {}).get(node.name.value)
        returned = None if definition is None else get_named_type(definition.type)
        below = self._selections(node.selection_set, returned)
        # MaxIntrospectionDepthRule bounds introspection, which GraphiQL nests deeper than data ever is.
        depth = 0 if node.name.value.startswith("__") else 1 + below.depth
        rows = below.rows
        if returned is not None and returned.name.endswith("Connection"):
            rows = _page(node) * (1 + below.rows)
        return Shape(depth, 1 + below.fields, (node.alias is not None) + below.aliases, below.directives, rows)


def _page(node: FieldNode) -> int:
    """The most rows a connection field can return; a variable counts as the largest value, its own is not known."""
    for argument in node.arguments or ():
        if argument.name.value in ("first", "last"):
            value = argument.value
            # A literal that is out of range is refused when it is read.
            digits = value.value if isinstance(value, IntValueNode) else ""
            return min(LARGEST_PAGE, int(digits)) if digits.isdecimal() and len(digits) < 4 else LARGEST_PAGE
    return DEFAULT_PAGE
