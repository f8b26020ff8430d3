"""Going through all stages of an account again because somebody asks for it."""

from server.graphql.ids import decode
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import Owner

REASSURE = """mutation($id: ID!) { reassureAccount(input: {accountId: $id}) {
    account { status setup { kind status stages { status } } } userErrors { code field message }
} }"""
CREATE_TYPE = 'mutation { createAccountType(input: {name: "Reassured"}) { accountType { id } } }'
CREATE = (
    """mutation($type: ID!) { createAccount(input: {name: "Reassured", accountTypeId: $type}) { account { id } } }"""
)


async def test_an_active_account_goes_through_every_stage_again(ask: Ask, owner: Owner) -> None:
    type_id = (await ask(CREATE_TYPE))["createAccountType"]["accountType"]["id"]
    account_id = (await ask(CREATE, type=type_id))["createAccount"]["account"]["id"]

    async def refused() -> list[tuple[str, list[str] | None]]:
        payload = (await ask(REASSURE, id=account_id))["reassureAccount"]
        assert payload["account"] is None
        return [(error["code"], error["field"]) for error in payload["userErrors"]]

    async def become(setup: str, account: str) -> None:
        key = decode(account_id, "acc")
        await owner.execute("UPDATE setup SET status = $2 WHERE account_id = $1", key, setup)
        await owner.execute(
            "UPDATE account SET status = $2, aws_account_id = '777788889999' WHERE id = $1", key, account
        )

    assert [code for code, _ in await refused()] == ["SETUP_IN_PROGRESS"]
    await become("FAILED", "ERROR")
    assert await refused() == [("NOT_READY", ["accountId"])]
    await become("COMPLETED", "CLOSED")
    assert await refused() == [("PROTECTED", ["accountId"])]
    await become("COMPLETED", "ACTIVE")
    payload = (await ask(REASSURE, id=account_id))["reassureAccount"]
    assert payload["userErrors"] == []
    setup = payload["account"]["setup"]
    assert (payload["account"]["status"], setup["kind"], setup["status"]) == ("ACTIVE", "REASSURE", "PENDING")
    assert {stage["status"] for stage in setup["stages"]} == {"PENDING"}
    assert [code for code, _ in await refused()] == ["SETUP_IN_PROGRESS"]
    account_id = account_id[:-1] + ("0" if account_id[-1] != "0" else "1")
    assert await refused() == [("NOT_FOUND", ["accountId"])]
