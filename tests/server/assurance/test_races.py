"""Requests that meet: each is served or refused with its reason, and none ends in a fault."""

import asyncio
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from server.graphql.ids import encode
from tests.server.assurance.conftest import Ask
from tests.server.assurance.test_mutations import CREATE, CREATE_TYPE, RETRY, UPDATE, created, fail
from tests.server.fixtures import Owner, Tenant


async def new_type(ask: Ask) -> str:
    return str((await ask(CREATE_TYPE, input={"name": "Races"}))["createAccountType"]["accountType"]["id"])


def codes(payload: dict[str, Any]) -> list[str]:
    return [error["code"] for error in payload["userErrors"]]


async def test_a_change_and_a_retry_of_a_failed_account_do_not_deadlock(
    ask: Ask, owner: Owner, worker_engine: AsyncEngine
) -> None:
    account_type = await new_type(ask)
    accounts = [(await created(ask, account_type, name=f"Both {number}"))["id"] for number in range(12)]
    for number, account in enumerate(accounts):
        await fail(worker_engine, owner, account)
        # As if AWS had the account: a change begins a setup of its own.
        await owner.execute("UPDATE account SET aws_account_id = $1 WHERE name = $2", f"{number:012}", f"Both {number}")
    answers = await asyncio.gather(
        *(ask(UPDATE, input={"accountId": account, "name": f"New {n}"}) for n, account in enumerate(accounts)),
        *(ask(RETRY, input={"accountId": account}) for account in accounts),
    )
    for changed, retried in zip(answers[:12], answers[12:], strict=True):
        outcomes = sorted([codes(changed["updateAccount"]), codes(retried["retryAccountSetup"])])
        # Whoever came first was served; the other saw its setup.
        assert outcomes in ([[], ["SETUP_IN_PROGRESS"]], [[], ["NOTHING_TO_RETRY"]]), outcomes


async def test_two_names_that_make_one_alias_get_two(ask: Ask) -> None:
    account_type = await new_type(ask)
    names = [f"Team{separator}A" for separator in " -_.:/+="]
    answers = await asyncio.gather(
        *(ask(CREATE, input={"name": name, "accountTypeId": account_type}) for name in names)
    )
    aliases = [answer["createAccount"]["account"]["alias"] for answer in answers]
    assert len(set(aliases)) == len(names)
    assert aliases.count("team-a") == 1


async def test_the_management_account_keeps_its_name_and_alias(ask: Ask, owner: Owner, tenant: Tenant) -> None:
    await owner.execute("UPDATE account SET role = 'MANAGEMENT' WHERE id = $1", tenant.account_id)
    for change, field in (({"name": "Root"}, "name"), ({"alias": "root-account"}, "alias")):
        payload = (await ask(UPDATE, input={"accountId": encode("acc", tenant.account_id), **change}))["updateAccount"]
        assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("PROTECTED", [field])]
