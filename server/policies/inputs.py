"""Inputs that mutations and queries of policies share."""

import strawberry

from server.errors import UserErrorCode, refuse
from server.graphql.mutations import node_id
from server.policies.requests import Target


@strawberry.input(one_of=True, description="What a policy is attached to.")
class PolicyTargetInput:
    tenancy: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True: all accounts of the tenancy but the management account."
    )
    account_type_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="All accounts of this type, those to come too."
    )
    account_id: strawberry.ID | None = strawberry.UNSET


def target_of(given: PolicyTargetInput) -> Target:
    """The target that is meant; raises Refused: VALIDATION."""
    if given.account_type_id:
        return Target(account_type_id=node_id(given.account_type_id, "typ", "target", "accountTypeId"))
    if given.account_id:
        return Target(account_id=node_id(given.account_id, "acc", "target", "accountId"))
    if given.tenancy is not True:
        raise refuse(
            UserErrorCode.VALIDATION, "`tenancy` can only be true: it stands for all accounts.", "target", "tenancy"
        )
    return Target()
