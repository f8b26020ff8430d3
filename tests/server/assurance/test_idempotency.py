"""createAccount under an idempotency key."""

import asyncio
from typing import Any

import pytest

from tests.server.assurance.conftest import Ask
from tests.server.assurance.test_mutations import CREATE, UPDATE, account_type, activate, contents, created
from tests.server.fixtures import Owner, Tenant

__all__ = ["account_type"]

TAGS = [{"key": "team", "value": "pay"}, {"key": "env", "value": "dev"}]


async def create(ask: Ask, account_type: str, **values: object) -> dict[str, Any]:
    payload: dict[str, Any] = (await ask(CREATE, input={"accountTypeId": account_type, **values}))["createAccount"]
    return payload


def codes(payload: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


async def test_a_repeated_request_returns_the_account_as_it_is_by_then(
    ask: Ask, account_type: str, owner: Owner, tenant: Tenant
) -> None:
    first = await created(ask, account_type, name="Once", tags=TAGS, idempotencyKey="k1")
    await activate(owner, first["id"])
    await ask(UPDATE, input={"accountId": first["id"], "name": "Renamed"})
    before = await contents(owner, tenant)
    again = await created(ask, account_type, name="Once", tags=TAGS[::-1], alias=None, idempotencyKey="k1")
    assert (again["id"], again["name"], again["status"]) == (first["id"], "Renamed", "ACTIVE")
    assert again["setup"]["kind"] == "REASSURE"
    assert await contents(owner, tenant) == before


@pytest.mark.parametrize(
    "other", [{"name": "Other"}, {"tags": TAGS[:1]}, {"alias": "once-more"}, {"email": "once@example.com"}], ids=str
)
async def test_another_input_under_the_same_key_is_refused(
    ask: Ask, account_type: str, owner: Owner, tenant: Tenant, other: dict[str, object]
) -> None:
    asked: dict[str, Any] = {"name": "Once", "tags": TAGS, "idempotencyKey": "k1"}
    await created(ask, account_type, **asked)
    before = await contents(owner, tenant)
    payload = await create(ask, account_type, **{**asked, **other})
    assert payload["account"] is None
    assert codes(payload) == [("IDEMPOTENCY_CONFLICT", ["idempotencyKey"])]
    assert await contents(owner, tenant) == before


async def test_a_refused_request_leaves_its_key_to_the_corrected_one(ask: Ask, account_type: str) -> None:
    await created(ask, account_type, name="Taken")
    for _ in range(2):
        assert codes(await create(ask, account_type, name="taken", idempotencyKey="k1")) == [("NAME_IN_USE", ["name"])]
    corrected = await created(ask, account_type, name="Free", idempotencyKey="k1")
    assert (await created(ask, account_type, name="Free", idempotencyKey="k1"))["id"] == corrected["id"]


async def test_of_many_requests_under_one_key_one_creates(
    ask: Ask, account_type: str, owner: Owner, tenant: Tenant
) -> None:
    payloads = await asyncio.gather(
        *(create(ask, account_type, name="Race", tags=TAGS, idempotencyKey="k1") for _ in range(12))
    )
    assert [payload["userErrors"] for payload in payloads] == [[]] * 12
    assert len({payload["account"]["id"] for payload in payloads}) == 1
    made = (
        "SELECT count(*) FROM setup JOIN account ON account.id = account_id WHERE account.tenancy_id = $1 AND name = $2"
    )
    assert await owner.fetchval(made, tenant.tenancy_id, "Race") == 1


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "The idempotency key is empty; leave it out, or send a UUID."),
        ("k" * 256, "The idempotency key has 256 characters; at most 255 are allowed."),
        ("two words", "without spaces"),
        ("nul\0", "ASCII letters, digits and punctuation"),
        ("caf\u00e9", "ASCII letters, digits and punctuation"),
        ("line\n", "ASCII letters, digits and punctuation"),
    ],
    ids=lambda value: value[:10],
)
async def test_a_malformed_key_is_refused(ask: Ask, account_type: str, key: str, message: str) -> None:
    payload = await create(ask, account_type, name="Malformed", idempotencyKey=key)
    assert codes(payload) == [("VALIDATION", ["idempotencyKey"])]
    assert message in payload["userErrors"][0]["message"]


async def test_the_longest_key_will_do(ask: Ask, account_type: str) -> None:
    assert await created(ask, account_type, name="Longest", idempotencyKey="~" * 255)
