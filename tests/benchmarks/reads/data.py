"""The database that the reads are measured on: two tenancies that differ in nothing but their names and ids."""

import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from server.database import create_engine, transaction
from server.identity.models import Role
from server.identity.service import create_token
from tests.benchmarks.reads.queries import PAGE_SIZE

TENANCIES = ("measured", "beside it")
TYPES, POLICIES, POLICIES_OF_A_TYPE, STAGES = 20, 30, 3, 14
STATUSES = ("ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE", "INITIALIZING", "ERROR", "SUSPENDED", "CLOSED")
TEAMS = 40
NEWEST = 400
# Page 190 of the 200 that 10,000 accounts have.
LATE = 0.95
DOCUMENT = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "organizations:Leave*", "Resource": "*"}]},
    separators=(",", ":"),
)
CONTROLS = json.dumps([{"benchmark": "CIS AWS Foundations", "version": "7.0", "id": "3.1.4"}])

# An account every second, and its setup when it was created; uuidv7() of these moments would do as well, but a random
# id shows what the order costs where ids do not follow it.
ACCOUNTS = """
    INSERT INTO account (tenancy_id, name, alias, email, aws_account_id, role, origin, status, account_type_id,
        created_by_kind, created_by_name, created_at, updated_at)
    SELECT $1, 'Account ' || lpad(n::text, 7, '0') || ' of ' || (ARRAY['payments', 'search', 'Größe'])[n % 3 + 1],
        'account-' || n || '-' || $2, 'aws+' || n || '@' || $2 || '.example.com', lpad(n::text, 12, '0'),
        'MEMBER', 'CREATED', ($3::text[])[n % 8 + 1], types[n % $4::int + 1], 'SYSTEM', 'benchmark',
        '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 second',
        '2026-06-01T00:00:00Z'::timestamptz + n * interval '1 second'
    FROM generate_series(0, $5::int - 1) n,
        (SELECT array_agg(id ORDER BY name) AS types FROM account_type WHERE tenancy_id = $1) kinds
"""
TAGS = """
    INSERT INTO tag (tenancy_id, account_id, key, value)
    SELECT tenancy_id, id, key,
        CASE key WHEN 'team' THEN 'team ' || (hashtext(id::text) & 65535) % $2::int ELSE 'v"1\\' END
    FROM account, unnest(ARRAY['cost-centre', 'environment', 'owner', 'team']) key WHERE tenancy_id = $1
"""
SETUPS = """
    INSERT INTO setup (tenancy_id, account_id, kind, status, requested_at, started_at, finished_at)
    SELECT tenancy_id, id, 'CREATE', CASE status WHEN 'ERROR' THEN 'FAILED' ELSE 'COMPLETED' END, created_at,
        created_at + interval '1.5 seconds', created_at + interval '40.25 seconds'
    FROM account WHERE tenancy_id = $1
"""
STAGES_OF_SETUPS = """
    INSERT INTO stage (setup_id, position, tenancy_id, name, title, controls, status, attempts, started_at, finished_at)
    SELECT id, n, tenancy_id, 'stage_' || n, 'Stage ' || n, $2::jsonb,
        CASE WHEN n < $3::int OR status = 'COMPLETED' THEN 'COMPLETED' ELSE 'FAILED' END, 1,
        requested_at + n * interval '1.000123 seconds', requested_at + n * interval '2.000456 seconds'
    FROM setup, generate_series(1, $3::int) n WHERE tenancy_id = $1
"""


@dataclass(frozen=True)
class Loaded:
    """What was loaded: the tenancy that is measured, a token of it, and where to look there."""

    tenancy_id: UUID
    secret: str
    accounts: int
    # The newest accounts, for those who ask for one by its id.
    newest: tuple[UUID, ...]
    # The number of a page near the end of the list, and the account just before it.
    late_page: int
    before_late_page: tuple[datetime, UUID]


async def load(owner_url: str, worker_url: str, accounts: int, beside: int | None = None) -> Loaded:
    """Fill a migrated, empty database: `accounts` accounts, and in the other tenancy `beside`, by default as many.

    20,000 accounts take 6 seconds.
    """
    connection = await asyncpg.connect(worker_url)
    try:
        sizes = (accounts, accounts if beside is None else beside)
        tenancies = [
            await _load_tenancy(connection, name, number, size)
            for number, (name, size) in enumerate(zip(TENANCIES, sizes, strict=True))
        ]
        listed = await connection.fetch(
            "SELECT created_at, id FROM account WHERE tenancy_id = $1 ORDER BY created_at DESC, id DESC", tenancies[0]
        )
    finally:
        await connection.close()
    owner = await asyncpg.connect(owner_url)
    try:
        await owner.execute("VACUUM ANALYZE")
    finally:
        await owner.close()
    engine = create_engine(worker_url, pool_size=1)
    try:
        async with transaction(engine) as session:
            _, secret = await create_token(session, tenancies[0], "benchmark", Role.READONLY)
    finally:
        await engine.dispose()
    late_page = max(2, round(accounts / PAGE_SIZE * LATE))
    created_at, id_ = listed[(late_page - 1) * PAGE_SIZE - 1]
    return Loaded(
        tenancies[0], secret, accounts, tuple(row["id"] for row in listed[:NEWEST]), late_page, (created_at, id_)
    )


async def _load_tenancy(
    connection: "asyncpg.Connection[asyncpg.Record]", name: str, number: int, accounts: int
) -> UUID:
    tenancy: UUID = await connection.fetchval(
        "INSERT INTO tenancy (name, state, home_region, regions, email_template, security_contact_name,"
        " security_contact_email, security_contact_phone) VALUES ($1, 'ACTIVE', 'eu-central-1', '{eu-central-1}',"
        " 'aws+{id}@example.com', 'Security', 'security@example.com', '+1 555 0100') RETURNING id",
        name,
    )
    await connection.execute(
        "INSERT INTO account_type (tenancy_id, name, foundation)"
        " SELECT $1, 'Type ' || lpad(n::text, 2, '0'), false FROM generate_series(1, $2::int) n",
        tenancy,
        TYPES,
    )
    await connection.execute(
        "INSERT INTO policy (tenancy_id, name, description, document, managed, state, created_by_kind, created_by_name)"
        " SELECT $1,"
        " 'Policy ' || lpad(n::text, 2, '0'), 'What is denied', $3, false, 'ACTIVE', 'SYSTEM', 'Freehold'"
        " FROM generate_series(1, $2::int) n",
        tenancy,
        POLICIES,
        DOCUMENT,
    )
    await connection.execute(
        "INSERT INTO policy_attachment (tenancy_id, policy_id, account_type_id, state, created_by_kind,"
        " created_by_name) SELECT $1, policy.id, kind.id, 'ACTIVE', 'SYSTEM', 'Freehold' FROM"
        " (SELECT id, row_number() OVER (ORDER BY name) AS n FROM policy WHERE tenancy_id = $1) policy,"
        " (SELECT id, row_number() OVER (ORDER BY name) AS n FROM account_type WHERE tenancy_id = $1) kind"
        " WHERE (policy.n - kind.n) % ($2::int / $3::int) = 0",
        tenancy,
        POLICIES,
        POLICIES_OF_A_TYPE,
    )
    await connection.execute(ACCOUNTS, tenancy, f"t{number}", list(STATUSES), TYPES, accounts)
    await connection.execute(TAGS, tenancy, TEAMS)
    await connection.execute(SETUPS, tenancy)
    await connection.execute(STAGES_OF_SETUPS, tenancy, CONTROLS, STAGES)
    return tenancy
