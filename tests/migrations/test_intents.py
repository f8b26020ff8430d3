"""What an upgrade makes of intents whose calls were noted less exactly."""

from server.config import Settings
from server.migrate import migrate
from tests.migrations.arrange import ACCOUNTS, TENANCY, TYPES, as_worker, on_owner, upgrade_to

INTENT = """
    INSERT INTO create_intent (account_id, tenancy_id, email, account_name, state, calls, called_at)
    SELECT id, tenancy_id, email, name, $2, $3, CASE WHEN $4 THEN now() END FROM account WHERE name = $1
"""
INTENTS = (
    ("never called", "INTENT", 0, False),
    ("calling", "CALLING", 1, True),
    ("refused", "FAILED", 1, True),
    ("refused or lost", "INTENT", 1, True),
    ("lost, then refused", "FAILED", 2, True),
    ("under another e-mail", "INTENT", 0, True),
)


async def test_where_an_older_revision_did_not_tell_a_refusal_from_a_lost_call_it_may_be_either(
    empty: Settings, migrated: Settings
) -> None:
    await on_owner(empty, lambda connection: connection.run_sync(upgrade_to, "0009"))
    async with as_worker(empty) as worker:
        await worker.execute(TENANCY)
        await worker.execute(TYPES)
        await worker.execute(ACCOUNTS, [name for name, *_ in INTENTS], "full")
        for intent in INTENTS:
            await worker.execute(INTENT, *intent)
    await migrate(empty)
    async with as_worker(empty) as worker:
        unknown = await worker.fetch("SELECT account_name FROM create_intent WHERE outcome_unknown")
    assert {name for (name,) in unknown} == {"refused or lost", "lost, then refused", "under another e-mail"}
