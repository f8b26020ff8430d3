"""One account in the middle of its setup, and the events that are followed."""

import json
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from server.database import create_engine, transaction
from server.graphql.ids import encode
from server.identity.models import Role
from server.identity.service import create_token
from server.jobs import EVENT_CHANNEL

STAGES = 14
QUERY = """subscription($account: ID!, $after: Int) { accountSetup(accountId: $account, after: $after) {
    sequence at account { id name status }
    setup { id kind status stages { name status startedAt } } stage { name status } } }"""


@dataclass(frozen=True)
class Followed:
    """An account that is followed, and the connection that writes its events."""

    owner: "asyncpg.Connection[asyncpg.Record]"
    account_id: UUID
    secret: str

    @property
    def messages(self) -> bytes:
        """What a client sends, one message a line: from the first event on."""
        variables = {"account": encode("acc", self.account_id), "after": 0}
        payload = {"query": QUERY, "variables": variables}
        init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {self.secret}"}}
        return "\n".join(map(json.dumps, (init, {"type": "subscribe", "id": "1", "payload": payload}))).encode()

    async def write_event(self) -> None:
        """Commit the next event, as a worker does."""
        async with self.owner.transaction():
            await self.owner.execute("UPDATE account SET last_seq = last_seq + 1 WHERE id = $1", self.account_id)
            await self.owner.execute(
                "INSERT INTO event (account_id, sequence, tenancy_id, account, setup, stage)"
                " SELECT account.id, last_seq, account.tenancy_id, to_jsonb(account), to_jsonb(setup), to_jsonb(stage)"
                " FROM account JOIN setup ON setup.account_id = account.id JOIN stage ON stage.setup_id = setup.id"
                " WHERE account.id = $1 AND stage.position = 1",
                self.account_id,
            )
            hint = "SELECT pg_notify($1, tenancy_id || ' ' || id) FROM account WHERE id = $2"
            await self.owner.execute(hint, EVENT_CHANNEL, self.account_id)


async def arrange(owner_url: str, worker_url: str) -> Followed:
    """A tenancy with one account of 14 stages and one event."""
    owner = await asyncpg.connect(owner_url)
    tenancy_id = await owner.fetchval(
        "INSERT INTO tenancy (name, state, home_region, regions, email_template, security_contact_name,"
        " security_contact_email, security_contact_phone) VALUES ('fan-out', 'ACTIVE', 'us-east-1', '{us-east-1}',"
        " 'aws+{id}@example.com', 'S', 's@example.com', '+1') RETURNING id"
    )
    type_id = await owner.fetchval(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'General', false) RETURNING id", tenancy_id
    )
    account_id = await owner.fetchval(
        "INSERT INTO account (tenancy_id, name, email, role, origin, status, account_type_id, created_by_kind,"
        " created_by_name) VALUES ($1, 'Payments', 'payments@example.com', 'MEMBER', 'CREATED', 'INITIALIZING', $2,"
        " 'SYSTEM', 'benchmark') RETURNING id",
        tenancy_id,
        type_id,
    )
    setup_id = await owner.fetchval(
        "INSERT INTO setup (tenancy_id, account_id, kind, status, requested_at)"
        " VALUES ($1, $2, 'CREATE', 'RUNNING', now()) RETURNING id",
        tenancy_id,
        account_id,
    )
    await owner.execute(
        "INSERT INTO stage (setup_id, position, tenancy_id, name, title, controls, status, attempts, started_at)"
        " SELECT $1, n, $2, 'stage_' || n, 'Stage ' || n, '[]', 'COMPLETED', 1, now() FROM generate_series(1, $3) n",
        setup_id,
        tenancy_id,
        STAGES,
    )
    engine = create_engine(worker_url)
    async with transaction(engine) as session:
        _, secret = await create_token(session, tenancy_id, "benchmark", Role.ADMIN)
    await engine.dispose()
    followed = Followed(owner, account_id, secret)
    await followed.write_event()
    return followed
