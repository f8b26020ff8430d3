"""Root fields about policies."""

import strawberry
from strawberry.scalars import JSON
from strawberry.types import Info

from server.context import Context
from server.graphql.connections import Connection
from server.graphql.mutations import node_id, question
from server.planner.mapping import connection, lookup
from server.policies.inputs import PolicyTargetInput, target_of
from server.policies.preview import Asked, preview_policy
from server.policies.preview_types import PolicyRequestInput, PreviewPolicyPayload
from server.policies.types import ORDERS, Policy, PolicyBy, PolicyFilter, PolicyOrder, PolicyOrderField


@strawberry.type
class PolicyQuery:
    policy: Policy | None = lookup(PolicyBy, description="One policy; null when there is none.")
    policies: Connection[Policy] = connection(
        ORDERS,
        default=(PolicyOrderField.NAME, True),
        filter=PolicyFilter,
        order_by=PolicyOrder,
        description="The policies of the tenancy, by name when no order is given.",
    )

    @question(
        description=(
            "What a policy would do on a target: a document, a policy that is there, or that policy with the document."
            " Nothing is changed."
        )
    )
    async def preview_policy(
        self,
        info: Info[Context, None],
        target: PolicyTargetInput,
        document: JSON | None = None,
        policy_id: strawberry.ID | None = None,
        requests: list[PolicyRequestInput] | None = None,
        allow_unknown_actions: list[str] | None = None,
    ) -> PreviewPolicyPayload:
        asked = Asked(
            document,
            None if policy_id is None else node_id(policy_id, "pol", "policyId"),
            target_of(target),
            requests or (),
            allow_unknown_actions or (),
        )
        preview = await preview_policy(info.context.engine, info.context.viewer.tenancy_id, asked)
        return PreviewPolicyPayload(preview=preview, user_errors=[])
