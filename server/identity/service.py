"""The rules of API tokens: how one is made, revoked and recognised.

A secret is `fh_`, a prefix of 8 characters that may be shown, `_`, and 43 characters that may not. Only its SHA-256 is
kept: 256 random bits need no slow hash, and a look-up by hash gives nothing away through its timing.
"""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.context import Viewer
from server.database import transaction
from server.errors import UserError, UserErrorCode, refuse
from server.identity.models import ApiToken, Role

# For so long a server does not ask PostgreSQL again whether a token is good. The README promises it.
REMEMBERED_SECONDS = 10.0
_NAME = re.compile(r"[0-9a-zA-Z_.-]{2,64}")
_SECRET = re.compile(r"fh_[0-9a-f]{8}_[0-9a-zA-Z_-]{43}")
_NAME_IN_USE = UserError(
    UserErrorCode.NAME_IN_USE, "Another API token has this name; choose another, or revoke it first.", ("name",)
)
# What a unique constraint means when two requests race past the checks below.
RACES = {"uq_api_token_name": _NAME_IN_USE}


async def create_token(
    session: AsyncSession, tenancy_id: UUID, name: str, role: Role, expires_at: datetime | None = None
) -> tuple[ApiToken, str]:
    """Make a token and return it with its secret, which is shown this once and kept nowhere.

    Raises Refused: VALIDATION for a wrong name or an expiry in the past, NAME_IN_USE while a live token has the name.
    """
    if not _NAME.fullmatch(name):
        raise refuse(
            UserErrorCode.VALIDATION,
            "A token's name has 2 to 64 characters: letters, digits, underscore, full stop and hyphen.",
            "name",
        )
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= datetime.now(UTC)):
        raise refuse(UserErrorCode.VALIDATION, "The expiry must lie in the future and name its time zone.", "expiresAt")
    same_name = select(ApiToken.id).where(
        ApiToken.tenancy_id == tenancy_id, ApiToken.name == name, ApiToken.revoked_at.is_(None)
    )
    if (await session.scalars(same_name)).first() is not None:
        raise refuse(_NAME_IN_USE.code, _NAME_IN_USE.message, "name")
    prefix = secrets.token_hex(4)
    secret = f"fh_{prefix}_{secrets.token_urlsafe(32)}"
    token = ApiToken(
        tenancy_id=tenancy_id, name=name, prefix=prefix, hash=_hash(secret), role=role, expires_at=expires_at
    )
    session.add(token)
    await session.flush()
    return token, secret


async def revoke_token(session: AsyncSession, tenancy_id: UUID, token_id: UUID) -> ApiToken:
    """Revoke a token, for good; revoking it again changes nothing. Raises Refused: NOT_FOUND.

    Servers notice within `REMEMBERED_SECONDS`, and close its sockets within as long again and the time between checks.
    """
    token = (
        await session.scalars(
            select(ApiToken).where(ApiToken.tenancy_id == tenancy_id, ApiToken.id == token_id).with_for_update()
        )
    ).one_or_none()
    if token is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no API token with this id.", "tokenId")
    if token.revoked_at is None:
        token.revoked_at = await session.scalar(select(func.now()))
        await session.flush()
    return token


async def authenticate(engine: AsyncEngine, secret: str) -> Viewer | None:
    """Who the secret belongs to; None when it is wrong, revoked or expired."""
    if not _SECRET.fullmatch(secret):
        return None
    async with transaction(engine) as session:
        row = (
            await session.execute(
                text("SELECT token_id, token_name, tenancy_id, role FROM sign_in(:hash)"), {"hash": _hash(secret)}
            )
        ).one_or_none()
    return None if row is None else Viewer(row.token_id, row.token_name, row.tenancy_id, Role(row.role))


class Authenticator:
    """`authenticate` with a memory, which spares nearly every request a round trip.

    The price is that a token revoked or expired may work in a process for `seconds_to_live` more.
    """

    def __init__(self, engine: AsyncEngine, *, seconds_to_live: float = REMEMBERED_SECONDS, size: int = 1024) -> None:
        self._engine = engine
        self._seconds_to_live = seconds_to_live
        self._size = size
        self._known: OrderedDict[bytes, tuple[float, Viewer]] = OrderedDict()

    async def __call__(self, secret: str) -> Viewer | None:
        key = _hash(secret)
        until, viewer = self._known.get(key, (0.0, None))
        if viewer is not None and time.monotonic() < until:
            return viewer
        self._known.pop(key, None)
        # The time to live counts from before the look, so that a revocation during it is not overlooked for longer.
        until = time.monotonic() + self._seconds_to_live
        viewer = await authenticate(self._engine, secret)
        if viewer is not None:
            self._known[key] = (until, viewer)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return viewer


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
