"""Two tenancies with everything that can be read, and a way to ask."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

from strawberry.types import ExecutionResult

from server.context import Context, Viewer
from server.graphql.ids import encode
from server.graphql.request import Operation
from server.graphql.response import executed_response
from server.identity.models import Role
from server.planner.reader import Reader
from server.schema import schema

START = datetime(2026, 1, 1, tzinfo=UTC)
MEMBERS = 23
HOSTILE = (
    "it's",
    'a "quoted" \\ back\\\\slash',
    "$1 $2::text $$ $tag$ x $tag$",
    "'; drop table account; --",
    "%_\\%",
    "tab\tline\nreturn\rbell\x07\x1f\x7f",
    "{row} {0} {tenancy} {{}}",
    "Größe 東京 🚀 \u2028 \u202e e\u0301",
    "</script><!--",
    ":name @name ?",
)
GROUPS = ("Platform", 'it\'s \\ "quoted"', "empty")
POLICIES = ("Deny leaving", 'a "quoted" \\ policy', "Größe", "nowhere")
DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": ["é:Go", 'o"dd'], "Resource": "*"}]}
CONTROLS = [
    {"benchmark": "CIS AWS Foundations", "version": "7.0", "id": "3.1.4"},
    {"benchmark": 'o"dd \\ $1', "version": "1", "id": "é"},
]


class CountingReader(Reader):
    """Keeps the statements it is asked for."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.statements: list[str] = []

    async def fetch(self, tenancy_id: UUID, sql: str, values: Sequence[object] = ()) -> bytes | None:
        self.statements.append(sql)
        return await super().fetch(tenancy_id, sql, values)


@dataclass
class Side:
    """One tenancy: its ids as they stand in the database."""

    owner: "Connection"
    reader: CountingReader
    uncounted: Reader
    tenancy: UUID
    token: UUID
    types: dict[str, UUID] = field(default_factory=dict)
    # By name, in the order of creation.
    accounts: dict[str, UUID] = field(default_factory=dict)
    setups: list[UUID] = field(default_factory=list)
    policies: dict[str, UUID] = field(default_factory=dict)
    attachments: list[UUID] = field(default_factory=list)
    groups: dict[str, UUID] = field(default_factory=dict)
    # By e-mail.
    users: dict[str, UUID] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        return Context(Viewer(self.token, "token", self.tenancy, Role.ADMIN), Mock(), self.reader, Mock())

    async def execute(
        self, query: str, variables: Mapping[str, Any] | None = None, operation_name: str | None = None
    ) -> ExecutionResult:
        """What the ordinary executor answers; PostgreSQL's own bytes, if the query has a plan, are the same."""
        operation = Operation(query, operation_name, dict(variables or {}))
        result = await schema.execute(
            query, operation.variables, context_value=self.context, operation_name=operation_name
        )
        answer = await self.read(operation)
        # Without a plan are errors, introspection, and what reads nothing.
        reads_nothing = all(value == "Query" for value in (result.data or {}).values()) or "__schema" in query
        assert (answer is None) == (bool(result.errors) or reads_nothing), (query, variables, result.errors)
        assert answer is None or answer == executed_response(result, None).body, (query, variables)
        return result

    async def read(self, operation: Operation) -> bytes | None:
        """The response as the endpoint sends it; None when the operation has no plan."""
        planned = schema.documents.plan(operation, Role.ADMIN)
        if planned is None:
            return None
        answer = await self.uncounted.fetch(self.tenancy, planned.statement.sql, planned.values(self.context.viewer))
        assert answer is not None
        return answer

    async def ask(self, query: str, **variables: Any) -> Any:
        """The data of an operation that has no errors."""
        result = await self.execute(query, variables)
        assert result.errors is None, result.errors
        return result.data

    async def refused(self, query: str, **variables: Any) -> dict[str, Any]:
        """The one error of an operation, as a client sees it."""
        result = await self.execute(query, variables)
        assert result.errors is not None
        [error] = result.errors
        return dict(error.formatted)

    def account_id(self, name: str) -> str:
        return encode("acc", self.accounts[name])


@dataclass
class World:
    owner: "Connection"
    dsn: str
    ours: Side
    theirs: Side


Connection = Any


async def make(owner: Connection, reader: CountingReader, uncounted: Reader, dsn: str) -> World:
    """Both tenancies; `owner` sees every row, `dsn` is the server's role."""
    world = World(owner, dsn, *[await _side(owner, reader, uncounted, name) for name in ("ours", "theirs")])
    await owner.execute(
        "INSERT INTO stage_definition VALUES ('second', 2, 'Second', 'b', $1, '{a:Go}', '{MEMBER,SECURITY}'),"
        " ('first', 1, 'First', 'a', '[]', '{}', '{}')",
        json.dumps(CONTROLS),
    )
    return world


async def _side(owner: Connection, reader: CountingReader, uncounted: Reader, name: str) -> Side:
    tenancy = await owner.fetchval(
        "INSERT INTO tenancy (name, state, home_region, regions, email_template, security_contact_name,"
        " security_contact_email, security_contact_phone) VALUES ($1, 'ACTIVE', 'eu-central-1',"
        " '{eu-central-1,us-east-1}', 'aws+{id}@example.com', 'S', 's@example.com', '+1') RETURNING id",
        f"{name} \\ \"'",
    )
    token = await owner.fetchval(
        "INSERT INTO api_token (tenancy_id, name, prefix, hash, role) VALUES ($1, 'admin', 'fh', $2, 'ADMIN')"
        " RETURNING id",
        tenancy,
        name.encode(),
    )
    side = Side(owner, reader, uncounted, tenancy, token)
    for number, type_ in enumerate(("Foundation", "general", "Sandbox", "gone")):
        side.types[type_] = await owner.fetchval(
            "INSERT INTO account_type (tenancy_id, name, foundation, organizational_unit_id, created_at, state,"
            " aws_name, next_attempt_at, error_code, error_message, error_class)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'Why', 'TRANSIENT') RETURNING id",
            tenancy,
            type_,
            type_ == "Foundation",
            "ou-abcd-12345678" if type_ == "general" else None,
            START + timedelta(days=number),
            {"Sandbox": "DELETING", "gone": "DELETED"}.get(type_, "ACTIVE"),
            f"{type_} in AWS" if type_ == "Sandbox" else None,
            START if type_ == "Sandbox" else None,
            HOSTILE[1] if type_ == "Sandbox" else None,
        )
    for number, role in enumerate(("MANAGEMENT", "SECURITY", "LOGGING")):
        await _account(owner, side, number, role.title(), "Foundation", role=role)
    for number in range(MEMBERS):
        type_ = "general" if number % 3 else "Sandbox"
        # Three accounts share each moment, so that the id has to break the tie.
        await _account(owner, side, 3 + number // 3, f"{'mM'[number % 2]}ember {number:02}", type_)
    for number, text in enumerate(HOSTILE):
        await _account(owner, side, 20 + number, text, "Sandbox", alias=text, tags={"hostile": text, text: ""})
    await _account(owner, side, 40, "given up", "Sandbox", status="CANCELLED", tags={"team": "gone", "left": "1"})
    await _setups(owner, side)
    await _policies(owner, side)
    await _groups(owner, side)
    await _access(owner, side)
    await owner.executemany(
        "INSERT INTO quota (tenancy_id, code, aws_limit, read_at, set_limit) VALUES ($1, $2, $3, $4, $5)",
        [
            (tenancy, "ACCOUNTS", 50, START, None),
            (tenancy, "POLICIES", 5_000, START, 7),
            (tenancy, "POLICY_SIZE", None, None, 9),
        ],
    )
    return side


async def _account(
    owner: Connection,
    side: Side,
    moment: int,
    name: str,
    type_: str,
    *,
    role: str = "MEMBER",
    status: str | None = None,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    number = len(side.accounts)
    status = status or ("ACTIVE" if role != "MEMBER" or number % 4 else "ERROR")
    account = await owner.fetchval(
        "INSERT INTO account (tenancy_id, name, alias, email, aws_account_id, role, origin, status, account_type_id,"
        " created_by_kind, created_by_id, created_by_name, created_at, updated_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, 'CREATED', $7, $8, $9, $10, 'admin', $11, $12) RETURNING id",
        side.tenancy,
        name,
        alias,
        f"aws+{number}@example.com",
        f"{number:012}" if number % 2 else None,
        role,
        status,
        side.types[type_],
        "SYSTEM" if role != "MEMBER" else "API_TOKEN",
        None if role != "MEMBER" else side.token,
        START + timedelta(hours=moment),
        START - timedelta(hours=moment, microseconds=number),
    )
    side.accounts[name] = account
    tags = {"team": f"t{number % 3}", "stage": "prod" if number % 2 else "test"} if tags is None else tags
    if number != 5:
        await owner.executemany(
            "INSERT INTO tag (tenancy_id, account_id, key, value) VALUES ($1, $2, $3, $4)",
            [(side.tenancy, account, key, value) for key, value in tags.items()],
        )


async def _setups(owner: Connection, side: Side) -> None:
    """Two setups and two events of the first member; one setup of the others but the last."""
    members = [key for name, key in side.accounts.items() if "ember" in name]
    for number, account in enumerate([members[0], *members[:-1]]):
        setup = await owner.fetchval(
            "INSERT INTO setup (tenancy_id, account_id, kind, status, requested_at, started_at, finished_at) VALUES"
            " ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
            side.tenancy,
            account,
            "REASSURE" if number == 1 else "CREATE",
            "FAILED" if number == 1 else "COMPLETED",
            START + timedelta(minutes=number),
            START + timedelta(minutes=number, microseconds=5) if number % 2 else None,
            START + timedelta(minutes=number, microseconds=500_000) if number % 3 == 0 else None,
        )
        side.setups.append(setup)
        await owner.execute(
            "INSERT INTO stage (setup_id, position, tenancy_id, name, title, controls, status, next_attempt_at,"
            " error_code, error_message, error_class, error_aws_request_id) VALUES"
            " ($1, 2, $2, 'second', 'Second', '[]', 'FAILED', $5, 'AccessDenied', $4, 'NEEDS_PERSON', $6),"
            " ($1, 1, $2, 'first', 'First', $3, 'COMPLETED', NULL, NULL, NULL, NULL, NULL)",
            setup,
            side.tenancy,
            json.dumps(CONTROLS),
            HOSTILE[1],
            START + timedelta(minutes=number, microseconds=123_456) if number % 3 == 0 else None,
            "req-1" if number % 3 == 0 else None,
        )
    for sequence, position in ((1, None), (2, 2)):
        await owner.execute(
            "INSERT INTO event (account_id, sequence, tenancy_id, at, account, setup, stage)"
            ' SELECT account.id, $2, account.tenancy_id, $4, to_jsonb(account) || \'{"name": "as it was"}\','
            " to_jsonb(setup), (SELECT to_jsonb(stage) FROM stage WHERE setup_id = setup.id AND position = $3)"
            " FROM account JOIN setup ON setup.account_id = account.id WHERE setup.id = $1",
            side.setups[1],
            sequence,
            position,
            START,
        )


async def _policies(owner: Connection, side: Side) -> None:
    """The first on everything, the second and third on a type and on an account, the last on nothing."""
    for number, name in enumerate(POLICIES):
        side.policies[name] = await owner.fetchval(
            "INSERT INTO policy (tenancy_id, name, description, document, managed, state, created_at, updated_at,"
            " last_seq, next_attempt_at, error_code, error_message, error_class, created_by_kind, created_by_id,"
            " created_by_name) VALUES ($1, $2, $3, $4, $5, 'ACTIVE', $6, $6, 3, $7, $8, 'Why', 'PERMANENT',"
            " 'API_TOKEN', $9, 'admin') RETURNING id",
            side.tenancy,
            name,
            HOSTILE[number],
            json.dumps(DOCUMENT, ensure_ascii=False, separators=(",", ":")),
            number == 0,
            START + timedelta(days=number),
            START if number else None,
            "Malformed" if number % 2 else None,
            side.token,
        )
        await owner.execute(
            "INSERT INTO policy_version SELECT id, n, tenancy_id, name || n, description, document, $2, created_at,"
            " created_by_kind, created_by_id, created_by_name FROM policy, generate_series(1, $3::int) n WHERE id = $1",
            side.policies[name],
            HOSTILE[number],
            number,
        )
    first, second, third, _ = side.policies.values()
    general, member = side.types["general"], side.accounts["member 00"]
    targets = ((first, None, None), (first, general, None), (first, None, member), (second, general, None))
    for number, (policy, type_, account) in enumerate((*targets, (third, None, member))):
        side.attachments.append(
            await owner.fetchval(
                "INSERT INTO policy_attachment (tenancy_id, policy_id, account_type_id, account_id, state, created_at,"
                " error_code, error_message, error_class, created_by_kind, created_by_name)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, 'Why', 'TRANSIENT', 'SYSTEM', 'Freehold') RETURNING id",
                side.tenancy,
                policy,
                type_,
                account,
                "ACTIVE" if number else "PENDING",
                START + timedelta(minutes=number),
                None if number else "Throttling",
            )
        )
    await _drift(owner, side)


async def _drift(owner: Connection, side: Side) -> None:
    """One of each kind of target, and what is about the policy itself."""
    first, second, third, _ = side.policies.values()
    document = json.dumps(DOCUMENT, ensure_ascii=False, separators=(",", ":"))
    rows = (
        (first, "DETACHED", "ou-abcd-12345678", side.types["general"], None, None, None, None),
        (first, "ATTACHED_ELSEWHERE", "r-abcd", None, None, side.tenancy, None, None),
        (first, "ATTACHED_ELSEWHERE", "ou-abcd-unknown0", None, None, None, None, None),
        (second, "DOCUMENT_CHANGED", "", None, None, None, HOSTILE[1], document),
        (third, "DETACHED", "000000000003", None, side.accounts["member 00"], None, None, None),
        (third, "POLICY_MISSING", "", None, None, None, None, None),
    )
    for number, (policy, kind, aws_target, type_, account, tenancy, name, found) in enumerate(rows):
        await owner.execute(
            "INSERT INTO policy_drift (tenancy_id, policy_id, kind, aws_target_id, account_type_id, account_id,"
            " target_tenancy_id, name, description, document, detail, found_at, mending)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10, $11, $12)",
            side.tenancy,
            policy,
            kind,
            aws_target,
            type_,
            account,
            tenancy,
            name,
            found,
            HOSTILE[number],
            START + timedelta(minutes=number // 2),
            number % 2 == 0,
        )
    await owner.execute(
        "INSERT INTO policy_comparison (id, tenancy_id, checked_at, refused_at, error_code, error_message, error_class)"
        " VALUES ($1, $1, $2, $2, 'AccessDeniedException', $3, 'NEEDS_PERSON')",
        side.tenancy,
        START,
        HOSTILE[0],
    )


async def _groups(owner: Connection, side: Side) -> None:
    """Two groups that have a member in common, and one that has none."""
    for number, name in enumerate(GROUPS):
        side.groups[name] = await owner.fetchval(
            "INSERT INTO user_group (tenancy_id, name, slug, created_at) VALUES ($1, $2, $3, $4) RETURNING id",
            side.tenancy,
            name,
            f"group-{number}",
            START - timedelta(days=number),
        )
    for number, name in enumerate(("Ann", "ann", HOSTILE[1], "Ann")):
        email = f"User{number}@example.com"
        side.users[email] = await owner.fetchval(
            "INSERT INTO person (tenancy_id, name, email, created_at) VALUES ($1, $2, $3, $4) RETURNING id",
            side.tenancy,
            name,
            email,
            START + timedelta(days=number // 2),
        )
    first, second, _ = side.groups.values()
    users = list(side.users.values())
    await owner.executemany(
        "INSERT INTO group_membership (tenancy_id, group_id, user_id) VALUES ($1, $2, $3)",
        [(side.tenancy, first, user) for user in users[:3]] + [(side.tenancy, second, user) for user in users[2:]],
    )


async def _access(owner: Connection, side: Side) -> None:
    """Grants in every state that their accounts can bring them to, and accounts with every reason."""
    first, second, _ = side.groups.values()
    general, sandbox = side.types["general"], side.types["Sandbox"]
    await owner.executemany(
        "INSERT INTO access_grant (tenancy_id, account_type_id, group_id, role, managed_policy_arn,"
        " apply_to_new_accounts) VALUES ($1, $2, $3, $4, $5, $6)",
        [
            (side.tenancy, general, first, "ADMIN", "arn:aws:iam::aws:policy/AdministratorAccess", True),
            (side.tenancy, general, first, "READONLY", "arn:aws:iam::{account}:policy/Look", False),
            (side.tenancy, general, second, "DEVELOPER", "arn:aws:iam::aws:policy/PowerUserAccess", True),
            (side.tenancy, sandbox, first, "ADMIN", "arn:aws:iam::aws:policy/AdministratorAccess", True),
        ],
    )
    one, two = (side.accounts[name] for name in ("member 00", "Member 01"))
    await owner.executemany(
        "INSERT INTO account_access (tenancy_id, account_id, account_type_id, group_id, role, managed_policy_arn,"
        " cause, state, error) VALUES ($1, $2, $3, $4, $5, 'arn:aws:iam::aws:policy/ReadOnlyAccess', $6, $7, $8)",
        [
            (side.tenancy, one, sandbox, first, "ADMIN", "GRANTED", "ACTIVE", None),
            (side.tenancy, one, general, first, "READONLY", "LEFT", "REMOVING", None),
            (side.tenancy, one, sandbox, second, "READONLY", "REVOKED", "REMOVING", None),
            (side.tenancy, two, general, second, "DEVELOPER", "GRANTED", "PENDING", None),
            (side.tenancy, two, general, first, "READONLY", "JOINED", "FAILED", HOSTILE[1]),
        ],
    )
