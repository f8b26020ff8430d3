"""What an operation selects, exactly as the ordinary executor sees it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    DirectiveNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    NamedTypeNode,
    Node,
    NonNullTypeNode,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.collect_fields import (
    FieldDetails,
    FragmentDetails,
    GroupedFieldSet,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues, get_argument_values, get_variable_values

# The fields of one type in a selection, by response key; fields with the same key merge.
Fields = dict[str, list[FieldNode]]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One operation of a validated document."""

    schema: GraphQLSchema
    node: OperationDefinitionNode
    fragments: dict[str, FragmentDetails]
    # The variables, if a text is what each has to be.
    texts: tuple[str, ...] | None

    @classmethod
    def of(
        cls, schema: GraphQLSchema, node: OperationDefinitionNode, fragments: dict[str, FragmentDetails]
    ) -> "Document":
        return cls(schema, node, fragments, _texts(node))

    def variables(self, given: Mapping[str, Any]) -> VariableValues | None:
        """The values of the variables of a request; None when one of them is wrong."""
        if self.texts is not None and all(type(given.get(name)) is str for name in self.texts):
            # Coercing a text to a text takes graphql-core as long as PostgreSQL takes for a short read.
            return VariableValues({}, {name: given[name] for name in self.texts})
        # One error is enough to know; each further one would print the whole of a value that may be a megabyte.
        values = get_variable_values(
            self.schema, self.node.variable_definitions or (), dict(given), max_errors=1, hide_suggestions=True
        )
        return values if isinstance(values, VariableValues) else None


def _texts(node: OperationDefinitionNode) -> tuple[str, ...] | None:
    names = []
    for definition in node.variable_definitions or ():
        type_ = definition.type.type if isinstance(definition.type, NonNullTypeNode) else definition.type
        if not isinstance(type_, NamedTypeNode) or type_.name.value not in ("ID", "String"):
            return None
        names.append(definition.variable.name.value)
    return tuple(names)


@dataclass(frozen=True, slots=True)
class Operation:
    """A document's operation with the variables of one request."""

    document: Document
    variables: VariableValues

    @classmethod
    def of(cls, info: GraphQLResolveInfo[Any]) -> "Operation":
        # Strawberry hands on the coerced values alone.
        variables: Any = info.variable_values
        if not isinstance(variables, VariableValues):
            variables = VariableValues({}, variables)
        return cls(Document.of(info.schema, info.operation, details(info.fragments.values())), variables)

    @property
    def schema(self) -> GraphQLSchema:
        return self.document.schema

    def root(self, parent: GraphQLObjectType) -> Fields:
        """The fields of the operation itself."""
        document = self.document
        return _nodes(
            collect_fields(document.schema, document.fragments, self.variables, parent, document.node).grouped_field_set
        )

    def below(self, parent: GraphQLObjectType, nodes: Sequence[FieldNode]) -> Fields:
        """The fields below `nodes` for a `parent`: merged, with fragments and directives applied."""
        document, fields = self.document, [FieldDetails(node, None) for node in nodes]
        return _nodes(
            collect_subfields(
                document.schema, document.fragments, self.variables, document.node, parent, fields
            ).grouped_field_set
        )


def arguments(field: GraphQLField, node: FieldNode, variables: VariableValues) -> dict[str, Any]:
    """The coerced arguments of a field, by their GraphQL names; what is absent and has no default is not there."""
    return get_argument_values(field, node, variables)


def details(fragments: Iterable[FragmentDefinitionNode]) -> dict[str, FragmentDetails]:
    """The fragments of a document, by name, for each of its operations."""
    return {fragment.name.value: FragmentDetails(fragment) for fragment in fragments}


def conditions(nodes: Iterable[Node]) -> frozenset[str]:
    """The variables that @skip and @include ask anywhere in the nodes."""
    asked = _Conditions()
    for node in nodes:
        visit(node, asked)
    return frozenset(asked.variables)


def has_variable(node: Node) -> bool:
    """Whether a variable stands anywhere in a node."""
    asked = _Variables()
    visit(node, asked)
    return asked.found


class _Conditions(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.variables: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: object) -> None:
        values = (argument.value for argument in node.arguments or ())
        self.variables |= {value.name.value for value in values if isinstance(value, VariableNode)}


class _Variables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def enter_variable(self, *_: object) -> None:
        self.found = True


def _nodes(grouped: GroupedFieldSet) -> Fields:
    return {key: [detail.node for detail in group] for key, group in grouped.items()}
