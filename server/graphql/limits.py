"""What a document may cost, checked before anything that is slow on a hostile one.

graphql-core's validation is quadratic in places and execution multiplies pages by pages, so tokens are counted while
parsing, and the shape of the expanded document before validation. One walk with a memo per fragment keeps the check
itself linear: fragments that spread one another twice double the document at every step.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from types import MappingProxyType
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    NullValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import MaxIntrospectionDepthRule
from graphql.validation.rules.overlapping_fields_can_be_merged import MAX_COMPLEXITY_BUDGET
from graphql.validation.validate import ValidationAbortedError
from graphql.validation.validation_context import MAX_FRAGMENT_WORK

from server.planner.arguments import DEFAULT_PAGE, LARGEST_PAGE

MAX_TOKENS = 3000
# What a list without pages, such as the tags of an account, and a batch of a subscription's events count for.
NOMINAL_LIST = 10
# In the metadata of a field: how many its list may have, where that is more.
MOST = "most"
MOST_ERRORS = 20
# What a field of introspection counts for: it answers for all types at once.
INTROSPECTION = 100
NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})
RULES = (*specified_rules, MaxIntrospectionDepthRule)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a document with its fragments expanded; `cost` is about how many values its answer may have."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    cost: int = 0

    def beside(self, other: "Shape") -> "Shape":
        return Shape(
            max(self.depth, other.depth),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.directives + other.directives,
            self.cost + other.cost,
        )

    def times(self, number: int) -> "Shape":
        return replace(self, cost=self.cost * number)


# The event loop is blocked for as long as an answer is completed, which takes some 7 microseconds a value.
LIMITS = Shape(depth=20, fields=1000, aliases=50, directives=50, cost=32_000)


def parse_document(query: str) -> DocumentNode:
    """Parse a document; raises GraphQLError, also for one that is too long, too deep or of fragments alone."""
    try:
        document = parse(query, max_tokens=MAX_TOKENS)
    except RecursionError:
        raise _nested_too_deeply() from None
    if all(isinstance(node, FragmentDefinitionNode) for node in document.definitions):
        # Strawberry looks for the operation before anything is validated, and would only say that there is none.
        message = "The document has fragments and no operation: add the query, mutation or subscription."
        raise GraphQLError(message, list(document.definitions))
    return document


def check_shape(
    schema: GraphQLSchema,
    document: DocumentNode,
    variables: Mapping[str, Any] | None = NO_VARIABLES,
    limits: Shape = LIMITS,
) -> list[GraphQLError]:
    """An error for each limit that the operations of the document exceed together.

    `variables` are the request's, as they came: they say how large pages are. None stands for any request's.
    """
    try:
        walk = _Walk(schema, document, variables)
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        shape = reduce(Shape.beside, map(walk.measure_operation, operations), Shape())
    except RecursionError:
        return [_nested_too_deeply()]
    if unreached := walk.unreached():
        return unreached
    errors = []
    for limit in fields(Shape):
        found, allowed = getattr(shape, limit.name), getattr(limits, limit.name)
        if found > allowed:
            message = f"The document is too large: its {limit.name} is {_number(found)}, the limit is {allowed}."
            errors.append(GraphQLError(message, operations))
    return errors


def check_rules(schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
    """What is wrong with a document of an acceptable shape by the rules of the specification."""
    try:
        return [_explained(error, document) for error in validate(schema, document, RULES, MOST_ERRORS)]
    except RecursionError:
        return [_nested_too_deeply()]


def check_choice(document: DocumentNode, operation_name: str | None) -> list[GraphQLError]:
    """An error when the document has several operations and the request does not say which it means."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if operation_name is None and len(operations) > 1:
        return [GraphQLError("The document has several operations: say which by `operationName`.", operations)]
    return []


class _Walk:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any] | None) -> None:
        self._schema = schema
        self._definitions = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
        self._fragments = {node.name.value: node for node in self._definitions}
        self._measured: dict[str, Shape] = {}
        self._unknown: list[GraphQLError] = []
        self._variables = variables
        self._defaults = _defaults(document)

    def measure_operation(self, operation: OperationDefinitionNode) -> Shape:
        root = self._schema.get_root_type(operation.operation)
        own = Shape(directives=len(operation.directives or ()))
        shape = own.beside(self._selections(operation.selection_set, root))
        return shape.times(NOMINAL_LIST) if operation.operation is OperationType.SUBSCRIPTION else shape

    def unreached(self) -> list[GraphQLError]:
        """Errors for fragments without a measure, after all operations: unused, unknown or hidden by a namesake."""
        times = Counter(node.name.value for node in self._definitions)
        errors = list(self._unknown)
        for node in self._definitions:
            if node.name.value not in self._measured:
                errors.append(GraphQLError(f"Fragment '{node.name.value}' is never used.", node))
            elif times[node.name.value] > 1:
                errors.append(GraphQLError(f"There can be only one fragment named '{node.name.value}'.", node))
        return errors[:MOST_ERRORS]

    def _selections(self, selections: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Shape:
        total = Shape()
        for node in selections.selections if selections is not None else ():
            total = total.beside(Shape(directives=len(node.directives or ()))).beside(self._selection(node, parent))
        return total

    def _selection(self, node: SelectionNode, parent: GraphQLNamedType | None) -> Shape:
        if isinstance(node, FragmentSpreadNode):
            return self._fragment(node)
        if isinstance(node, InlineFragmentNode):
            condition = node.type_condition
            return self._selections(
                node.selection_set, self._schema.get_type(condition.name.value) if condition is not None else parent
            )
        assert isinstance(node, FieldNode)
        return self._field(node, parent)

    def _fragment(self, spread: FragmentSpreadNode) -> Shape:
        name = spread.name.value
        if name not in self._measured:
            # A fragment that contains itself counts as nothing here: validation reports the cycle.
            self._measured[name] = Shape()
            if name in self._fragments:
                fragment = self._fragments[name]
                on = self._schema.get_type(fragment.type_condition.name.value)
                own = Shape(directives=len(fragment.directives or ()))
                self._measured[name] = own.beside(self._selections(fragment.selection_set, on))
            else:
                self._unknown.append(GraphQLError(f"Unknown fragment '{name}'.", spread))
        return self._measured[name]

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Shape:
        definition = getattr(parent, "fields", {}).get(node.name.value)
        below = self._selections(node.selection_set, None if definition is None else get_named_type(definition.type))
        introspects = node.name.value in ("__schema", "__type")
        # MaxIntrospectionDepthRule bounds introspection, which GraphiQL nests deeper than data ever is.
        depth = 0 if node.name.value.startswith("__") else 1 + below.depth
        cost = INTROSPECTION * below.fields if introspects else 1 + below.cost * self._size(node, parent, definition)
        return Shape(depth, 1 + below.fields, (node.alias is not None) + below.aliases, below.directives, cost)

    def _size(self, node: FieldNode, parent: GraphQLNamedType | None, definition: GraphQLField | None) -> int:
        """How many of what is below a field its value may hold; the page is counted at the connection."""
        if definition is None:
            return 1
        if get_named_type(definition.type).name.endswith("Connection"):
            return self._page(node)
        is_listed = is_list_type(get_nullable_type(definition.type))
        if not is_listed or parent is None or parent.name.endswith("Connection"):
            return 1
        declared = definition.extensions.get("strawberry-definition")
        return NOMINAL_LIST if declared is None else int(declared.metadata.get(MOST, NOMINAL_LIST))

    def _page(self, node: FieldNode) -> int:
        """The most rows a connection field can return."""
        sizes = [self._rows(each.value) for each in node.arguments or () if each.name.value in ("first", "last")]
        return max((size for size in sizes if size is not None), default=DEFAULT_PAGE)

    def _rows(self, value: ValueNode | None) -> int | None:
        """A page size, or None where it is null or absent. What is no size is refused when it is read."""
        given: object = value
        if isinstance(value, VariableNode):
            name = value.name.value
            if self._variables is None:
                return LARGEST_PAGE
            given = self._variables[name] if name in self._variables else self._defaults.get(name)
        if given is None or isinstance(given, NullValueNode):
            return None
        if isinstance(given, IntValueNode):
            given = int(given.value) if len(given.value) < 4 else LARGEST_PAGE
        return min(LARGEST_PAGE, max(0, given)) if isinstance(given, int) else LARGEST_PAGE


def _defaults(document: DocumentNode) -> dict[str, ValueNode | int | None]:
    """The values of variables that the request leaves out.

    A fragment is measured once, so a variable of several operations, whose defaults may differ, has the largest.
    """
    found: dict[str, ValueNode | int | None] = {}
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode):
            for each in operation.variable_definitions or ():
                name = each.variable.name.value
                found[name] = LARGEST_PAGE if name in found else each.default_value
    return found


def _explained(error: GraphQLError, document: DocumentNode) -> GraphQLError:
    """graphql-core does not say where, nor at which of its limits, it broke validation off."""
    if not isinstance(error, ValidationAbortedError):
        return error
    if error.message.startswith("Too many"):
        message = f"The document has {MOST_ERRORS} errors or more; the others were not looked for."
    else:
        message = (
            f"The document is too large: comparing the fields that share a response key takes more than"
            f" {MAX_COMPLEXITY_BUDGET} steps, or following its fragments more than {MAX_FRAGMENT_WORK}."
            " Select each field once."
        )
    return GraphQLError(message, [node for node in document.definitions if isinstance(node, OperationDefinitionNode)])


def _nested_too_deeply() -> GraphQLError:
    return GraphQLError("The document is nested too deeply.")


def _number(value: int) -> str:
    return str(value) if value < 10**12 else "more than 10^12"
