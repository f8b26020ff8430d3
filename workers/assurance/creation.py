"""Looking for an account of our own making, after a CreateAccount call whose answer was lost."""

from datetime import timedelta

from sqlalchemy import select

from server.accounts.models import Account
from server.assurance.models import CreateIntent
from workers.assurance.run import Run

# AWS's clock and PostgreSQL's may differ by so much.
CLOCK_DIFFERENCE = timedelta(minutes=5)


async def find_request(run: Run, intent: CreateIntent) -> str | None:
    """The id of the newest CreateAccount request that bears the intent's name and is no older than its call.

    Freehold keeps the names of a tenancy's accounts apart, and a request does not tell its e-mail. The request that
    the intent knows already is not meant: its outcome was known when the call was made.
    """
    if intent.called_at is None:
        return None
    since = intent.called_at - CLOCK_DIFFERENCE
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        pages = organizations.get_paginator("list_create_account_status").paginate(
            States=["IN_PROGRESS", "SUCCEEDED", "FAILED"]
        )
        ours = [
            status
            async for page in pages
            for status in page["CreateAccountStatuses"]
            if status.get("AccountName") == intent.account_name
            and status["RequestedTimestamp"] >= since
            and status["Id"] != intent.request_id
        ]
    # One that failed says nothing about another that did not.
    ours.sort(key=lambda status: (status.get("State") != "FAILED", status["RequestedTimestamp"]))
    return ours[-1]["Id"] if ours else None


async def find_account(run: Run, intent: CreateIntent) -> str | None:
    """The number of the AWS account that a call of ours has made; None when there is none, or none provably ours.

    Ours is an account of this organization with the intent's e-mail and name, created (not invited) since Freehold
    knows of it, that no other account of the tenancy stands for.
    """
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        pages = organizations.get_paginator("list_accounts").paginate()
        found = [
            account["Id"]
            async for page in pages
            for account in page["Accounts"]
            if account["Email"].lower() == intent.email.lower()
            and account["Name"] == intent.account_name
            and account["JoinedMethod"] == "CREATED"
            and account["JoinedTimestamp"] >= run.account.created_at - CLOCK_DIFFERENCE
        ]
    if not found:
        return None
    async with run.read() as session:
        taken = await session.scalar(
            select(Account.id).where(
                Account.tenancy_id == run.tenancy.id,
                Account.aws_account_id == found[0],
                Account.id != run.account.id,
            )
        )
    return None if taken is not None else found[0]
