"""Begins the setups of accounts whose governance is due: by a job at once, and by the sweeper."""

import logging
import random

from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.governance import due_accounts, govern
from server.database import transaction
from server.outages import is_away

# So many take a quarter of a second, in which whoever begins them does nothing else.
BATCH = 25

logger = logging.getLogger(__name__)


async def begin_due_setups(engine: AsyncEngine) -> int:
    """Begin a GOVERN setup of as many due accounts as a batch holds; returns how many there were to begin.

    Each in a transaction of its own: an account that fails does not keep the others back. Raises what PostgreSQL raises
    while it is away.
    """
    async with transaction(engine) as session:
        accounts = [*await due_accounts(session, BATCH)]
    # Workers that see the same accounts begin with others.
    random.shuffle(accounts)
    for tenancy_id, account_id in accounts:
        try:
            async with transaction(engine) as session:
                await govern(session, tenancy_id, account_id)
        except Exception as error:
            if is_away(error):
                raise
            logger.exception("account acc_%s: the setup for its governance could not begin", account_id.hex)
    return len(accounts)
