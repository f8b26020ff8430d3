"""What an operation selects, exactly as the ordinary executor sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    OperationDefinitionNode,
)
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_subfields
from graphql.execution.values import VariableValues, get_argument_values


@dataclass(frozen=True, slots=True)
class Operation:
    """A validated operation with the variables of one request."""

    schema: GraphQLSchema
    node: OperationDefinitionNode
    fragments: Mapping[str, FragmentDetails]
    variables: VariableValues

    @classmethod
    def of(cls, info: GraphQLResolveInfo[Any]) -> "Operation":
        fragments = {name: FragmentDetails(definition) for name, definition in info.fragments.items()}
        # Strawberry hands on the coerced values alone.
        variables: Any = info.variable_values
        if not isinstance(variables, VariableValues):
            variables = VariableValues({}, variables)
        return cls(info.schema, info.operation, fragments, variables)

    def fields(self, parent: GraphQLObjectType, nodes: Sequence[FieldNode]) -> dict[str, list[FieldNode]]:
        """The fields below `nodes` for a `parent`, by response key: merged, with fragments and directives applied."""
        details = [FieldDetails(node, None) for node in nodes]
        collected = collect_subfields(self.schema, dict(self.fragments), self.variables, self.node, parent, details)
        return {key: [detail.node for detail in group] for key, group in collected.grouped_field_set.items()}

    def arguments(self, field: GraphQLField, node: FieldNode) -> dict[str, Any]:
        """The coerced arguments of a field, by their GraphQL names; what is absent and has no default is not there."""
        return get_argument_values(field, node, self.variables)
