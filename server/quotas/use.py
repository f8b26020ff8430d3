"""How much of each quota is in use, as SQL over the tables of other domains. `{tenancy}` is the id of the tenancy."""

from collections.abc import Mapping

from server.quotas.models import DOCUMENTED, QuotaCode

# Of an account type each is a counter: more than all accounts that count, by those that were cancelled.
ACCOUNTS_AT_MOST = "select coalesce(sum(account_count), 0) from account_type where tenancy_id = {tenancy}"

USED: Mapping[QuotaCode, str] = {
    # With the management account. What AWS does not have yet is on its way; a closed one counts until it is gone.
    QuotaCode.ACCOUNTS: (
        f"({ACCOUNTS_AT_MOST}) - (select count(*) from account where tenancy_id = {{tenancy}} and status = 'CANCELLED')"
    ),
    # Those of account types, and Freehold's own: Foundation, Workloads and Suspended.
    QuotaCode.ORGANIZATIONAL_UNITS: (
        "(select 3 + count(*) from account_type where tenancy_id = {tenancy} and not foundation and state <> 'DELETED')"
    ),
    QuotaCode.POLICIES: "(select count(*) from policy where tenancy_id = {tenancy})",
    # On the target that has most, with AWS's FullAWSAccess.
    QuotaCode.POLICIES_PER_TARGET: (
        "(select 1 + coalesce(max(number), 0) from (select count(*) as number from policy_attachment"
        " where tenancy_id = {tenancy} group by account_type_id, account_id) targets)"
    ),
    # In characters, of the longest document.
    QuotaCode.POLICY_SIZE: "(select coalesce(max(length(document)), 0) from policy where tenancy_id = {tenancy})",
}
# The same on one target: an account type or an account, or the tenancy when both are null.
ON_TARGET = """
select 1 + count(*) from policy_attachment where tenancy_id = {tenancy}
    and account_type_id is not distinct from :account_type_id and account_id is not distinct from :account_id
"""


def by_code(of_each: Mapping[QuotaCode, str]) -> str:
    """SQL over `{row}`, a row with a code, that yields what its code stands for; null for codes left out."""
    cases = " ".join(f"when '{code}' then {sql}" for code, sql in of_each.items())
    return f"case {{row}}.code {cases} end"


LIMIT = f"coalesce({{row}}.set_limit, {{row}}.aws_limit, {by_code({c: str(n) for c, n in DOCUMENTED.items()})})"
LIMIT_OF = f"select {LIMIT.format(row='quota')} from tenancy_quota quota where tenancy_id = :tenancy and code = :code"
