"""Reads of quotas: limits and use in one statement."""

from tests.server.planner.world import POLICIES, Side

QUOTAS = "{ tenancy { name quotas { code limit used source readAt } } }"


async def test_all_of_them_take_one_statement(ours: Side) -> None:
    ours.reader.statements.clear()
    found = (await ours.ask(QUOTAS))["tenancy"]["quotas"]
    assert len(ours.reader.statements) == 1
    read = "2026-01-01T00:00:00+00:00"
    assert [(each["code"], each["limit"], each["source"], each["readAt"]) for each in found] == [
        ("ACCOUNTS", 50, "AWS", read),
        ("ORGANIZATIONAL_UNITS", 2_000, "DOCUMENTED", None),
        ("POLICIES", 7, "SET", read),
        ("POLICIES_PER_TARGET", 10, "DOCUMENTED", None),
        ("POLICY_SIZE", 9, "SET", None),
    ]
    used = {each["code"]: each["used"] for each in found}
    # All but the one that was cancelled.
    assert used["ACCOUNTS"] == len(ours.accounts) - 1
    assert (used["ORGANIZATIONAL_UNITS"], used["POLICIES"], used["POLICIES_PER_TARGET"]) == (5, len(POLICIES), 3)
