"""The roles in which Freehold's parts sign in to PostgreSQL, and the one way to connect as one of them.

Row-level security keeps tenancies apart only while the server is somebody whom it binds. So every connection is asked
who it is before it is used, not only the first: a role can be altered while Freehold runs.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from server.config import PREFIX
from server.errors import FreeholdError

# asyncpg is generic for type checkers alone.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_SECONDS = 5.0

# Policies and ownership bind, and free, the members of a role as well as itself.
_WHO = """
SELECT rolname AS name, rolsuper AS superuser, rolbypassrls AS unbound,
    EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.tenancy') AND pg_has_role(relowner, 'USAGE')) AS owner,
    ARRAY(SELECT each.rolname::text FROM pg_roles each
        WHERE each.rolname IN ('freehold_app', 'freehold_worker') AND pg_has_role(each.oid, 'USAGE')) AS roles,
    has_schema_privilege('public', 'CREATE') AS creates
FROM pg_roles WHERE rolname = current_user
"""


class DatabaseRefused(FreeholdError):
    """PostgreSQL does not let a part in with its URL, or lets it in as somebody that it must not be.

    A part that starts ends with this. For one that runs it is an outage: a password may be changed under it.
    """


@dataclass(frozen=True, slots=True)
class DatabaseRole:
    """Whom the URL of the setting `setting` has to sign in as; `purpose` is for whoever put another there."""

    name: str
    setting: str
    purpose: str

    @property
    def variable(self) -> str:
        return PREFIX + self.setting.upper()

    @property
    def first(self) -> str:
        """What has to come before anybody can sign in in this role."""
        return (
            ""
            if self is OWNER
            else " Where there is no such role yet, `freehold migrate` makes it, with this password."
        )

    def check(self, who: Mapping[str, Any]) -> None:
        """Raise DatabaseRefused, which says what would be right, unless a connection has this role and no more."""
        if self is OWNER:
            if not who["creates"]:
                self._refuse(who, "which may not create tables in the schema public")
            return
        if who["superuser"]:
            self._refuse(who, "a superuser", f"ALTER ROLE {self.name} NOSUPERUSER")
        if self is APP and who["unbound"]:
            self._refuse(who, "whom row-level security does not bind", f"ALTER ROLE {self.name} NOBYPASSRLS")
        if who["owner"]:
            self._refuse(who, "who owns the tables", f"REASSIGN OWNED BY {self.name} TO another role")
        if self is APP and WORKER.name in who["roles"]:
            self._refuse(who, "who sees every tenancy", f"REVOKE {WORKER.name} FROM {self.name}")
        if self.name not in who["roles"]:
            self._refuse(who, f"who is no {self.name}")

    def _refuse(self, who: Mapping[str, Any], fault: str, cure: str = "") -> None:
        right = f"Put that right with: {cure}." if who["name"] == self.name else f"It has to be {self.purpose}."
        raise DatabaseRefused(f"{self.variable} signs in to PostgreSQL as {who['name']}, {fault}. {right}")


APP = DatabaseRole(
    "freehold_app",
    "database_url",
    "freehold_app, which `freehold migrate` makes and which sees the tenancy of a request alone",
)
WORKER = DatabaseRole(
    "freehold_worker",
    "worker_database_url",
    "freehold_worker, which `freehold migrate` makes and which works for every tenancy and changes no table",
)
OWNER = DatabaseRole("owner", "owner_database_url", "the owner of the database, who makes and changes the tables")


def worker_name() -> str:
    """What the connections of a worker on this machine are called in pg_stat_activity."""
    # PostgreSQL would cut a longer one off.
    return f"freehold-worker:{socket.gethostname()}"[:63]


def listener_name(start: str) -> str:
    """What the last connection that a worker opens is called there; `start` is the mark of its start, or empty."""
    return f"freehold-worker-listener:{start}"


async def connect(role: DatabaseRole, *arguments: Any, **options: Any) -> Connection:
    """`asyncpg.connect`, by somebody who has the role. Raises DatabaseRefused, which names the URL's variable."""
    try:
        connection: Connection = await asyncpg.connect(*arguments, **{"timeout": CONNECT_SECONDS, **options})
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise DatabaseRefused(
            f"PostgreSQL refuses the user or the password in {role.variable}: {error}.{role.first}"
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseRefused(f"PostgreSQL has no database of the name in {role.variable}: {error}.") from error
    try:
        who = await connection.fetchrow(_WHO, timeout=CONNECT_SECONDS)
        assert who is not None, "everybody has a role"
        role.check(who)
    except BaseException:
        connection.terminate()
        raise
    return connection
