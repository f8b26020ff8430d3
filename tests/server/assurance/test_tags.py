"""Tags that are set and removed one by one: what is accepted, what is refused, and who hears of it."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.graphql.ids import decode, encode
from server.identity.models import Role
from server.identity.service import create_token
from tests.server.assurance.conftest import Ask
from tests.server.assurance.test_mutations import account_type, contents, created
from tests.server.fixtures import NewTenant, Owner, Tenant

__all__ = ["account_type"]

SELECTION = "{ account { tags { key value } lastSequence setup { kind status } } userErrors { code message field } }"
SET = f"mutation($input: SetAccountTagsInput!) {{ setAccountTags(input: $input) {SELECTION} }}"
UPDATE = f"mutation($input: UpdateAccountInput!) {{ updateAccount(input: $input) {SELECTION} }}"
REMOVE = f"mutation($input: RemoveAccountTagsInput!) {{ removeAccountTags(input: $input) {SELECTION} }}"


def pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


async def change(ask: Ask, document: str, account: str, **values: object) -> dict[str, Any]:
    [payload] = (await ask(document, input={"accountId": account, **values})).values()
    assert payload["userErrors"] == []
    changed: dict[str, Any] = payload["account"]
    return {**changed, "tags": {tag["key"]: tag["value"] for tag in changed["tags"]}}


async def refused(ask: Ask, document: str, account: str, **values: object) -> list[tuple[str, list[str]]]:
    [payload] = (await ask(document, input={"accountId": account, **values})).values()
    assert payload["account"] is None
    assert all(error["message"] for error in payload["userErrors"])
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


async def test_tags_are_set_beside_those_that_are_there_and_removed(ask: Ask, account_type: str) -> None:
    account = (await created(ask, account_type, name="Tagged", tags=pairs({"team": "a", "env": "dev"})))["id"]
    # The account is being created meanwhile.
    assert await change(ask, SET, account, tags=pairs({"team": "b", "new": ""})) == {
        "tags": {"env": "dev", "new": "", "team": "b"},
        "lastSequence": 2,
        "setup": {"kind": "CREATE", "status": "PENDING"},
    }
    removed = await change(ask, REMOVE, account, keys=["env", "never was", "team", "env"])
    assert (removed["tags"], removed["lastSequence"]) == ({"new": ""}, 3)
    # What changes nothing is no event.
    for document, values in ((SET, {"tags": pairs({"new": ""})}), (SET, {"tags": []}), (REMOVE, {"keys": ["team"]})):
        assert await change(ask, document, account, **values) == removed


async def test_an_event_has_the_tags_of_right_after_it(ask: Ask, account_type: str, owner: Owner) -> None:
    account = (await created(ask, account_type, name="Tagged", tags=pairs({"a": "1"})))["id"]
    await change(ask, SET, account, tags=pairs({"b": "2"}))
    await change(ask, REMOVE, account, keys=["a"])
    kept = await owner.fetch(
        "SELECT jsonb_path_query_array(tags, '$[*].key')::text FROM event WHERE account_id = $1 ORDER BY sequence",
        decode(account, "acc"),
    )
    assert [row[0] for row in kept] == ['["a"]', '["a", "b"]', '["b"]']


REFUSED: list[tuple[str, dict[str, Any], list[list[str]]]] = [
    (SET, {"tags": pairs({"": "v"})}, [["tags", "0", "key"]]),
    (SET, {"tags": pairs({"good": "v", "k" * 129: "v"})}, [["tags", "1", "key"]]),
    (SET, {"tags": pairs({"nul\0": "v"})}, [["tags", "0", "key"]]),
    (SET, {"tags": pairs({"aws:createdBy": "v"})}, [["tags", "0", "key"]]),
    (SET, {"tags": pairs({"k": "v" * 257, "l": "\u00e9"})}, [["tags", "0", "value"], ["tags", "1", "value"]]),
    (SET, {"tags": [*pairs({"k": "1"}), *pairs({"k": "2"})]}, [["tags", "1", "key"]]),
    (SET, {"tags": pairs({f"k{n}": "v" for n in range(51)})}, [["tags"]]),
    (SET, {"tags": pairs({f"k{n}": "v" for n in range(50)})}, [["tags"]]),
    (REMOVE, {"keys": ["fine", "", "nul\0"]}, [["keys", "1"], ["keys", "2"]]),
    (REMOVE, {"keys": [f"k{n}" for n in range(51)]}, [["keys"]]),
]


@pytest.mark.parametrize(("document", "values", "fields"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
async def test_what_is_wrong_is_refused_and_changes_nothing(
    ask: Ask,
    account_type: str,
    owner: Owner,
    tenant: Tenant,
    document: str,
    values: dict[str, Any],
    fields: list[list[str]],
) -> None:
    account = (await created(ask, account_type, name="Tagged", tags=pairs({"team": "a"})))["id"]
    before = await contents(owner, tenant)
    assert await refused(ask, document, account, **values) == [("VALIDATION", field) for field in fields]
    assert await contents(owner, tenant) == before


async def test_an_account_that_is_full_can_have_its_tags_changed_and_fewer(ask: Ask, account_type: str) -> None:
    account = (await created(ask, account_type, name="Full", tags=pairs({f"k{n}": "v" for n in range(50)})))["id"]
    assert (await change(ask, SET, account, tags=pairs({"k0": "w"})))["tags"]["k0"] == "w"
    assert await refused(ask, SET, account, tags=pairs({"one more": "v"})) == [("VALIDATION", ["tags"])]
    await change(ask, REMOVE, account, keys=["k7"])
    assert len((await change(ask, SET, account, tags=pairs({"one more": "v"})))["tags"]) == 50


async def test_of_requests_that_meet_none_goes_beyond_the_number(ask: Ask, account_type: str) -> None:
    account = (await created(ask, account_type, name="Race", tags=pairs({f"k{n}": "v" for n in range(40)})))["id"]
    answers = await asyncio.gather(
        *(ask(SET, input={"accountId": account, "tags": pairs({f"{n}.{m}": "v" for m in range(3)})}) for n in range(6))
    )
    served = [answer for answer in answers if answer["setAccountTags"]["userErrors"] == []]
    assert len(served) == 3
    assert max(len(answer["setAccountTags"]["account"]["tags"]) for answer in served) == 49


@pytest.mark.parametrize("status", ["CANCELLED", "CLOSED"])
async def test_an_account_that_is_gone_keeps_its_tags(
    ask: Ask, account_type: str, owner: Owner, tenant: Tenant, status: str
) -> None:
    account = (await created(ask, account_type, name="Gone", tags=pairs({"team": "a"})))["id"]
    await owner.execute("UPDATE account SET status = $2 WHERE id = $1", decode(account, "acc"), status)
    before = await contents(owner, tenant)
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        (SET, {"tags": pairs({"b": "1"})}),
        (REMOVE, {"keys": ["team"]}),
        (UPDATE, {"tags": []}),
    )
    for document, values in changes:
        assert await refused(ask, document, account, **values) == [("PROTECTED", ["accountId"])]
    assert await contents(owner, tenant) == before


async def test_it_takes_an_operator_and_reaches_no_other_tenancy(
    ask: Ask, server: httpx.AsyncClient, tenant: Tenant, new_tenant: NewTenant, worker_engine: AsyncEngine
) -> None:
    other = encode("acc", (await new_tenant()).account_id)
    assert await refused(ask, SET, other, tags=pairs({"a": "1"})) == [("NOT_FOUND", ["accountId"])]
    assert await refused(ask, REMOVE, "nonsense", keys=[]) == [("VALIDATION", ["accountId"])]
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "user", Role.USER)
    body = {"query": REMOVE, "variables": {"input": {"accountId": other, "keys": []}}}
    answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
    assert [error["code"] for error in answer["data"]["removeAccountTags"]["userErrors"]] == ["FORBIDDEN"]
