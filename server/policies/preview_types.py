"""GraphQL types of a preview: what a policy would do on a target."""

from enum import StrEnum

import strawberry

from server.graphql.errors import UserError
from server.graphql.scalars import expose
from server.policies.evaluation import Outcome


class Certainty(StrEnum):
    DENIED = "DENIED"
    PERHAPS = "PERHAPS"


expose(
    Outcome,
    "What service control policies make of a request.",
    ALLOWED="No policy denies it. Somebody in the account still needs a permission for it.",
    DENIED="Denied to everybody in the account, its root user included.",
    UNKNOWN="It depends on what is not known, or takes too much to decide; the reasons say on what.",
    name="PolicyOutcome",
)
expose(
    Certainty,
    "Whether a call would be denied.",
    DENIED="It would.",
    PERHAPS="It depends on what is not known; the reasons say on what.",
)


@strawberry.input(description="A key of the context of a request, and its values.")
class ContextKeyInput:
    key: str = strawberry.field(description="Such as `aws:SourceIp`.")
    values: list[str] = strawberry.field(description="None of them: the request does not have the key.")


@strawberry.input(description="A request that somebody in an account makes of AWS.")
class PolicyRequestInput:
    action: str = strawberry.field(description="Such as `s3:GetObject`, without wildcards.")
    resource: str | None = strawberry.field(
        default=None,
        description=(
            "Its ARN; with `*` and `?` it stands for all that they match. Absent: not known, or `*` where the action is"
            " not about single resources."
        ),
    )
    context: list[ContextKeyInput] | None = strawberry.field(
        default=None, description="What is known besides the account and the organization; nothing else is guessed."
    )


@strawberry.type(description="Accounts that the policy would reach.")
class AffectedAccounts:
    count: int
    names: list[str] = strawberry.field(description="The first ten by name.")


@strawberry.type(description="A call that Freehold makes in the accounts, and that the policy would or may deny.")
class DeniedCall:
    call: str = strawberry.field(description="The IAM action.")
    statement: str = strawberry.field(description="Its place in the document, and its Sid.")
    policy: str | None = strawberry.field(description="The name of the policy; null for a document without one.")
    certainty: Certainty
    regions: list[str] = strawberry.field(description="The AWS Regions in which it is so.")
    reasons: list[str] = strawberry.field(description="What it depends on, for PERHAPS.")


@strawberry.type(description="What would be in use of a quota.")
class QuotaAfter:
    code: str
    limit: int
    used: int


@strawberry.type(description="What the policies that reach an account make of a request.")
class PolicyDecision:
    outcome: Outcome
    reasons: list[str] = strawberry.field(description="The statements that decide it, or what it depends on; five.")


@strawberry.type(
    description=(
        "A request in the accounts in which both outcomes are the same: by what Freehold's policies have in force now,"
        " and by what is wanted, with the policy that is previewed."
    )
)
class RequestPreview:
    action: str
    resource: str | None
    accounts: int = strawberry.field(description="In how many accounts it is so.")
    before: PolicyDecision
    after: PolicyDecision


@strawberry.type(description="What a policy would do on a target. Nothing is changed.")
class PolicyPreview:
    accounts_affected: AffectedAccounts
    statements_added: int
    statements_changed: int = strawberry.field(description="Of a policy that is there already, by another document.")
    statements_removed: int = strawberry.field(description="Of a policy that is there already, by another document.")
    denied_calls: list[DeniedCall] = strawberry.field(
        description="A policy with one that is certain cannot be written or attached."
    )
    quota: QuotaAfter = strawberry.field(description="Of the policies on the target, AWS's FullAWSAccess among them.")
    requests: list[RequestPreview] = strawberry.field(
        description="In the order asked for; more than one for a request that accounts differ in."
    )
    warnings: list[str] = strawberry.field(description="What was left out, and why.")


@strawberry.type
class PreviewPolicyPayload:
    preview: PolicyPreview | None = strawberry.field(description="Null when there are errors.")
    user_errors: list[UserError]
