"""Writing, attaching and deleting policies: what is accepted, what is refused, and that a refusal changes nothing."""

import asyncio
import itertools
import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.graphql.ids import decode, encode
from server.identity.models import Role
from server.identity.service import create_token
from server.policies import service
from server.policies.models import Policy, PolicyState
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.policies.test_diff import patched, tagged

POLICY = """{
  id name description document managed state version awsPolicyId lastSequence nextAttemptAt
  createdBy { kind name } versions { number name document diff createdBy { name } }
  attachments { state target { __typename ... on Node { id } } }
}"""
MUTATION = "mutation($input: %sInput!) { %s(input: $input) { %s userErrors { code message field } } }"
DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:DeleteBucket", "Resource": "*"}]}
# Everything of a tenancy that a request could have changed. The relay empties the outbox at any moment.
TABLES = ("policy", "policy_attachment", "policy_version", "policy_event")


async def send(ask: Ask, name: str, /, **input_: object) -> dict[str, Any]:
    shown = "attachment { id state policy { id } }" if name.endswith("tachPolicy") else f"policy {POLICY}"
    type_ = name[0].upper() + name[1:]
    payload: dict[str, Any] = (await ask(MUTATION % (type_, name, shown), input=input_))[name]
    return payload


async def done(ask: Ask, name: str, /, **input_: object) -> dict[str, Any]:
    """What a mutation changed that is not refused."""
    payload = await send(ask, name, **input_)
    assert payload.pop("userErrors") == []
    [changed] = payload.values()
    return dict(changed)


async def refused(ask: Ask, name: str, /, **input_: object) -> tuple[str, list[str], str]:
    payload = await send(ask, name, **input_)
    [error] = payload.pop("userErrors")
    assert set(payload.values()) == {None}
    return error["code"], error["field"], error["message"]


async def contents(owner: Owner, tenant: Tenant) -> dict[str, list[str]]:
    rows = "SELECT t::text FROM {} t WHERE tenancy_id = $1 ORDER BY 1"
    return {table: [row[0] for row in await owner.fetch(rows.format(table), tenant.tenancy_id)] for table in TABLES}


@pytest.fixture
async def policy(ask: Ask) -> str:
    created = await done(ask, "createPolicy", name="No storage", description="", document=DOCUMENT)
    return str(created["id"])


@pytest.fixture
async def type_id(owner: Owner, tenant: Tenant) -> UUID:
    found: UUID = await owner.fetchval("SELECT id FROM account_type WHERE tenancy_id = $1", tenant.tenancy_id)
    return found


async def settle(worker_engine: AsyncEngine, policy_id: str) -> None:
    """What a worker does to a policy and its attachments when everything has worked in AWS."""
    async with transaction(worker_engine) as session:
        policy = await session.get_one(Policy, decode(policy_id, "pol"), with_for_update=True)
        if policy.state is PolicyState.PENDING:
            await service.keep_version(session, policy, policy.aws_policy_id or f"p-{uuid4().hex}", policy.version)
        await session.execute(
            Policy.__table__.update().where(Policy.id == policy.id).values(next_attempt_at=None)  # type: ignore[attr-defined]
        )


async def test_a_policy_is_written_with_its_first_version_and_event(ask: Ask, owner: Owner) -> None:
    created = await done(ask, "createPolicy", name="No storage", description="d", document=DOCUMENT)
    assert created.pop("nextAttemptAt") is not None
    policy_id = created.pop("id")
    assert created == {
        "name": "No storage",
        "description": "d",
        "document": DOCUMENT,
        "managed": False,
        "state": "PENDING",
        "version": 1,
        "awsPolicyId": None,
        "lastSequence": 1,
        "createdBy": {"kind": "API_TOKEN", "name": "admin"},
        "versions": [
            {"number": 1, "name": "No storage", "document": DOCUMENT, "diff": "", "createdBy": {"name": "admin"}}
        ],
        "attachments": [],
    }
    events = await owner.fetch("SELECT * FROM policy_event WHERE policy_id = $1", decode(policy_id, "pol"))
    assert [(row["sequence"], json.loads(row["policy"])["name"], row["attachment"]) for row in events] == [
        (1, "No storage", None)
    ]


async def test_a_document_may_be_text(ask: Ask) -> None:
    created = await done(ask, "createPolicy", name="Text", description="", document=json.dumps(DOCUMENT))
    assert created["document"] == DOCUMENT


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "VALIDATION", "name"),
    ({"name": " a"}, "VALIDATION", "name"),
    ({"name": "a" * 129}, "VALIDATION", "name"),
    ({"name": "tab\there"}, "VALIDATION", "name"),
    ({"name": "Freehold-mine"}, "VALIDATION", "name"),
    ({"name": "fullAWSaccess"}, "VALIDATION", "name"),
    ({"name": "NO storage"}, "NAME_IN_USE", "name"),
    ({"description": "a" * 513}, "VALIDATION", "description"),
    ({"description": "nul\0"}, "VALIDATION", "description"),
    ({"document": '{"Version": }'}, "INVALID_DOCUMENT", "document"),
    ({"document": "[" * 100_000}, "INVALID_DOCUMENT", "document"),
    ({"document": [DOCUMENT]}, "INVALID_DOCUMENT", "document"),
    ({"document": 1}, "INVALID_DOCUMENT", "document"),
    ({"document": {"Version": "2012-10-17"}}, "INVALID_DOCUMENT", "document"),
    ({"document": {**DOCUMENT, "statement": []}}, "INVALID_DOCUMENT", "document"),
    ({"document": '{"Statement": NaN}'}, "INVALID_DOCUMENT", "document"),
    ({"document": '{"Statement": "\\ud800"}'}, "INVALID_DOCUMENT", "document"),
]


async def test_of_two_who_change_the_same_version_one_is_told(
    ask: Ask, policy: str, owner: Owner, tenant: Tenant
) -> None:
    """Otherwise the second would take back what the first has added, and nobody would know."""
    read = {"policyId": policy, "expectedVersion": 1}
    assert (await done(ask, "updatePolicy", **read, description="first"))["version"] == 2
    before = await contents(owner, tenant)
    code, field, message = await refused(ask, "updatePolicy", **read, description="second")
    assert (code, field) == ("VERSION_CONFLICT", ["expectedVersion"])
    assert "at version 2" in message
    assert "not at 1" in message
    # Whatever it asks for, be it what is so already, or what is refused for itself.
    assert (await refused(ask, "updatePolicy", **read, description="first"))[0] == "VERSION_CONFLICT"
    assert (await refused(ask, "updatePolicy", **read, name=""))[0] == "VERSION_CONFLICT"
    assert await contents(owner, tenant) == before
    assert (await done(ask, "updatePolicy", policyId=policy, expectedVersion=2, description="second"))["version"] == 3
    answers = await asyncio.gather(
        *(send(ask, "updatePolicy", policyId=policy, expectedVersion=3, description=f"at once {i}") for i in range(4))
    )
    errors = [error["code"] for answer in answers for error in answer["userErrors"]]
    assert errors == ["VERSION_CONFLICT"] * 3


@pytest.mark.parametrize(("wrong", "code", "field"), REFUSED, ids=lambda value: str(value)[:40])
async def test_a_wrong_policy_is_refused_and_changes_nothing(
    ask: Ask, policy: str, owner: Owner, tenant: Tenant, wrong: Mapping[str, Any], code: str, field: str
) -> None:
    other = await done(ask, "createPolicy", name="Other", description="", document=DOCUMENT)
    before = await contents(owner, tenant)
    answer = await refused(ask, "createPolicy", **{"name": "Wanted", "description": "", "document": DOCUMENT, **wrong})
    assert answer[:2] == (code, [field])
    assert (await refused(ask, "updatePolicy", policyId=other["id"], **wrong))[:2] == (code, [field])
    assert await contents(owner, tenant) == before


async def test_the_place_of_a_fault_in_the_text_is_told(ask: Ask) -> None:
    code, _, message = await refused(ask, "createPolicy", name="p", description="", document='{\n  "Version": }')
    assert (code, "line 2, column 14" in message) == ("INVALID_DOCUMENT", True)


async def test_a_change_is_another_version_and_the_same_is_none(
    ask: Ask, policy: str, worker_engine: AsyncEngine
) -> None:
    await settle(worker_engine, policy)
    same = await done(ask, "updatePolicy", policyId=policy, name="No storage", document=DOCUMENT)
    assert (same["version"], same["state"], same["nextAttemptAt"]) == (1, "ACTIVE", None)
    wider = {
        **DOCUMENT,
        "Statement": [{"Effect": "Deny", "Action": ["s3:DeleteBucket", "kms:*"], "Resource": "*"}],
    }
    changed = await done(ask, "updatePolicy", policyId=policy, document=wider)
    assert (changed["version"], changed["state"], changed["document"]) == (2, "PENDING", wider)
    assert changed["nextAttemptAt"] is not None
    newest, first = changed["versions"]
    assert (newest["number"], newest["document"], first["document"]) == (2, wider, DOCUMENT)
    assert '+        "kms:*"' in newest["diff"].splitlines()
    renamed = await done(ask, "updatePolicy", policyId=policy, name="NO STORAGE")
    assert (renamed["version"], renamed["versions"][0]["diff"]) == (3, "")


async def test_each_of_several_changes_at_once_tells_what_it_changed(ask: Ask, policy: str) -> None:
    """Whoever comes second has compared with a document that is not the one before any more, and does so again."""
    documents = [
        {**DOCUMENT, "Statement": [{"Effect": "Deny", "Action": f"s3:{name}Bucket", "Resource": "*"}]}
        for name in ("Create", "List", "*", "Create*")
    ]
    await asyncio.gather(*(done(ask, "updatePolicy", policyId=policy, document=each) for each in documents))
    renamed = await done(ask, "updatePolicy", policyId=policy, name="Renamed")
    versions = renamed["versions"][::-1]
    assert [each["number"] for each in versions] == list(range(1, len(documents) + 3))
    for before, after in itertools.pairwise(versions[:-1]):
        assert patched(before["document"], after["diff"]) == json.dumps(after["document"], indent=2).splitlines()


async def test_documents_are_not_compared_on_the_event_loop(ask: Ask, policy: str) -> None:
    """Two whose comparison takes 0.3 s: the CPU of this thread, which is that of the event loop."""
    one, other = (
        tagged([each for n in range(1_250) for each in (chr(0xA1 + n % 1_200), chr(first + n))])
        for first in (0x3000, 0x4E00)
    )
    took = []
    for document in (one, other, one, other):
        started = time.thread_time()
        await done(ask, "updatePolicy", policyId=policy, document=json.dumps(document))
        took.append(time.thread_time() - started)
    assert min(took[1:]) < 0.1


async def test_a_policy_is_attached_once_to_each_target(
    ask: Ask, policy: str, tenant: Tenant, type_id: UUID, owner: Owner
) -> None:
    targets = (
        {"tenancy": True},
        {"accountTypeId": encode("typ", type_id)},
        {"accountId": encode("acc", tenant.account_id)},
    )
    for target in targets:
        attachment = await done(ask, "attachPolicy", policyId=policy, target=target)
        assert (attachment["state"], attachment["policy"]) == ("PENDING", {"id": policy})
    before = await contents(owner, tenant)
    for target in targets:
        assert (await refused(ask, "attachPolicy", policyId=policy, target=target))[:2] == (
            "ALREADY_ATTACHED",
            ["target"],
        )
    assert await contents(owner, tenant) == before
    assert len(before["policy_attachment"]) == 3
    code, field, message = await refused(ask, "deletePolicy", policyId=policy)
    assert (code, field) == ("POLICY_IN_USE", ["policyId"])
    assert "3 targets" in message


async def test_of_many_requests_to_attach_one_is_served(ask: Ask, policy: str) -> None:
    answers = await asyncio.gather(
        *(send(ask, "attachPolicy", policyId=policy, target={"tenancy": True}) for _ in range(6))
    )
    errors = [error["code"] for answer in answers for error in answer["userErrors"]]
    assert errors == ["ALREADY_ATTACHED"] * 5


async def test_what_was_being_detached_is_kept_when_it_is_attached_again(ask: Ask, policy: str, owner: Owner) -> None:
    attached = await done(ask, "attachPolicy", policyId=policy, target={"tenancy": True})
    detached = await done(ask, "detachPolicy", policyId=policy, target={"tenancy": True})
    assert detached == {**attached, "state": "DETACHING"}
    assert (await refused(ask, "deletePolicy", policyId=policy))[0] == "POLICY_IN_USE"
    assert await done(ask, "attachPolicy", policyId=policy, target={"tenancy": True}) == attached
    states = await owner.fetch(
        "SELECT sequence, attachment->>'state' AS state FROM policy_event WHERE policy_id = $1 ORDER BY 1",
        decode(policy, "pol"),
    )
    assert [tuple(row) for row in states] == [(1, None), (2, "PENDING"), (3, "DETACHING"), (4, "PENDING")]


@pytest.mark.parametrize(
    ("target", "code", "field"),
    [
        ({"tenancy": False}, "VALIDATION", "tenancy"),
        ({"accountTypeId": encode("typ", uuid4())}, "NOT_FOUND", "accountTypeId"),
        ({"accountId": encode("acc", uuid4())}, "NOT_FOUND", "accountId"),
        ({"accountId": encode("typ", uuid4())}, "VALIDATION", "accountId"),
        ({"accountId": "nonsense"}, "VALIDATION", "accountId"),
    ],
)
async def test_a_wrong_target_is_refused(
    ask: Ask, policy: str, owner: Owner, tenant: Tenant, target: dict[str, object], code: str, field: str
) -> None:
    before = await contents(owner, tenant)
    assert (await refused(ask, "attachPolicy", policyId=policy, target=target))[:2] == (code, ["target", field])
    assert await contents(owner, tenant) == before


async def test_what_no_policy_can_affect_is_no_target(
    ask: Ask, policy: str, owner: Owner, tenant: Tenant, type_id: UUID
) -> None:
    account = {"accountId": encode("acc", tenant.account_id)}
    await owner.execute("UPDATE account SET status = 'CANCELLED' WHERE id = $1", tenant.account_id)
    assert (await refused(ask, "attachPolicy", policyId=policy, target=account))[0] == "PROTECTED"
    await owner.execute("UPDATE account SET status = 'ACTIVE', role = 'MANAGEMENT' WHERE id = $1", tenant.account_id)
    code, _, message = await refused(ask, "attachPolicy", policyId=policy, target=account)
    assert (code, "management account" in message) == ("PROTECTED", True)
    await owner.execute("UPDATE account_type SET name = 'Management', foundation = true WHERE id = $1", type_id)
    management = {"accountTypeId": encode("typ", type_id)}
    assert (await refused(ask, "attachPolicy", policyId=policy, target=management))[0] == "PROTECTED"


async def test_what_is_not_attached_is_not_detached(
    ask: Ask, policy: str, owner: Owner, tenant: Tenant, type_id: UUID
) -> None:
    await done(ask, "attachPolicy", policyId=policy, target={"tenancy": True})
    before = await contents(owner, tenant)
    for target in ({"accountTypeId": encode("typ", type_id)}, {"accountId": encode("acc", uuid4())}):
        assert (await refused(ask, "detachPolicy", policyId=policy, target=target))[:2] == ("NOT_ATTACHED", ["target"])
    assert await contents(owner, tenant) == before


async def test_a_policy_that_is_being_deleted_is_left_alone(ask: Ask, policy: str) -> None:
    deleting = await done(ask, "deletePolicy", policyId=policy)
    assert deleting["state"] == "DELETING"
    for name, change in (("updatePolicy", {"name": "Other"}), ("attachPolicy", {"target": {"tenancy": True}})):
        assert (await refused(ask, name, policyId=policy, **change))[0] == "ROLLOUT_IN_PROGRESS"
    code, _, message = await refused(ask, "createPolicy", name="no storage", description="", document=DOCUMENT)
    assert (code, "is being deleted" in message) == ("NAME_IN_USE", True)


async def test_what_is_managed_is_protected(ask: Ask, policy: str, owner: Owner, tenant: Tenant, type_id: UUID) -> None:
    await done(ask, "attachPolicy", policyId=policy, target={"tenancy": True})
    await owner.execute("UPDATE policy SET managed = true WHERE id = $1", decode(policy, "pol"))
    before = await contents(owner, tenant)
    for name, input_ in (
        ("updatePolicy", {"name": "Other"}),
        ("deletePolicy", {}),
        ("attachPolicy", {"target": {"accountTypeId": encode("typ", type_id)}}),
        ("detachPolicy", {"target": {"tenancy": True}}),
    ):
        assert (await refused(ask, name, policyId=policy, **input_))[:2] == ("PROTECTED", ["policyId"])
    assert await contents(owner, tenant) == before


async def test_what_failed_is_retried(ask: Ask, policy: str, owner: Owner, worker_engine: AsyncEngine) -> None:
    assert (await refused(ask, "retryPolicyRollout", policyId=policy))[0] == "ROLLOUT_IN_PROGRESS"
    await settle(worker_engine, policy)
    assert (await refused(ask, "retryPolicyRollout", policyId=policy))[0] == "NOTHING_TO_RETRY"
    await done(ask, "attachPolicy", policyId=policy, target={"tenancy": True})
    for table in ("policy", "policy_attachment"):
        column = "id" if table == "policy" else "policy_id"
        await owner.execute(
            f"UPDATE {table} SET state = 'FAILED', error_code = 'c', error_message = 'm', error_class = 'PERMANENT'"
            f" WHERE {column} = $1",
            decode(policy, "pol"),
        )
    await settle(worker_engine, policy)
    retried = await done(ask, "retryPolicyRollout", policyId=policy)
    assert (retried["state"], retried["attachments"][0]["state"]) == ("PENDING", "PENDING")
    assert retried["nextAttemptAt"] is not None


async def test_another_tenancy_is_out_of_reach(
    ask: Ask, policy: str, new_tenant: NewTenant, server: httpx.AsyncClient, owner: Owner, tenant: Tenant
) -> None:
    other = await new_tenant()
    before = await contents(owner, tenant)
    for name, input_ in (
        ("updatePolicy", {"name": "x"}),
        ("deletePolicy", {}),
        ("attachPolicy", {"target": {"tenancy": True}}),
        ("detachPolicy", {"target": {"tenancy": True}}),
        ("retryPolicyRollout", {}),
    ):
        query = MUTATION % (name[0].upper() + name[1:], name, "")
        body = {"query": query, "variables": {"input": {"policyId": policy, **input_}}}
        answer = (await server.post("/graphql", json=body, headers=other.headers)).json()
        assert [error["code"] for error in answer["data"][name]["userErrors"]] == ["NOT_FOUND"], name
    theirs = {"accountId": encode("acc", other.account_id)}
    assert (await refused(ask, "attachPolicy", policyId=policy, target=theirs))[0] == "NOT_FOUND"
    assert await contents(owner, tenant) == before


async def test_who_asked_last_is_told_by_the_rows_and_by_their_events(
    ask: Ask, policy: str, server: httpx.AsyncClient, tenant: Tenant, worker_engine: AsyncEngine, owner: Owner
) -> None:
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "second", Role.ADMIN)
    key, target, seen = decode(policy, "pol"), {"tenancy": True}, 0

    async def second(name: str, **input_: object) -> None:
        query = MUTATION % (name[0].upper() + name[1:], name, "")
        body = {"query": query, "variables": {"input": {"policyId": policy, **input_}}}
        answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
        assert answer["data"][name]["userErrors"] == []

    async def told() -> list[tuple[str, str | None]]:
        """Who made the policy or the attachment, and who asked last, by each event since the last look."""
        nonlocal seen
        rows = await owner.fetch(
            "SELECT sequence, coalesce(attachment, policy) AS row FROM policy_event"
            " WHERE policy_id = $1 AND sequence > $2 ORDER BY sequence",
            *(key, seen),
        )
        seen = rows[-1]["sequence"]
        found = [json.loads(row["row"]) for row in rows]
        return [(row["created_by_name"], row["requested_by_name"]) for row in found]

    assert await told() == [("admin", "admin")]
    await done(ask, "attachPolicy", policyId=policy, target=target)
    assert await told() == [("admin", "admin")]
    await second("detachPolicy", target=target)
    assert await told() == [("admin", "second")]
    await done(ask, "attachPolicy", policyId=policy, target=target)
    await owner.execute(
        "UPDATE policy_attachment SET state = 'FAILED', error_code = 'c', error_message = 'm' WHERE policy_id = $1", key
    )
    await second("retryPolicyRollout")
    assert await told() == [("admin", "admin"), ("admin", "second")]
    await second("updatePolicy", description="second")
    await owner.execute("UPDATE policy SET error_code = 'c' WHERE id = $1", key)
    await done(ask, "retryPolicyRollout", policyId=policy)
    assert await told() == [("admin", "second"), ("admin", "admin")]
    actors = "createdBy { name } requestedBy { kind name }"
    query = f"query($id: ID!) {{ policy(by: {{id: $id}}) {{ {actors} attachments {{ {actors} }} }} }}"
    shown = {"createdBy": {"name": "admin"}, "requestedBy": {"kind": "API_TOKEN", "name": "admin"}}
    by_second = {**shown, "requestedBy": {"kind": "API_TOKEN", "name": "second"}}
    assert (await ask(query, id=policy))["policy"] == {**shown, "attachments": [by_second]}
    await owner.execute("DELETE FROM policy_attachment WHERE policy_id = $1", key)
    await second("deletePolicy")
    assert await told() == [("admin", "second")]
    # Of what was asked for before it was kept, nobody knows.
    await owner.execute("UPDATE policy SET requested_by_kind = NULL, requested_by_name = NULL WHERE id = $1", key)
    assert (await ask(query, id=policy))["policy"]["requestedBy"] is None


async def test_who_is_no_administrator_may_not(
    server: httpx.AsyncClient, tenant: Tenant, policy: str, worker_engine: AsyncEngine
) -> None:
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "operator", Role.OPERATOR)
    body = {
        "query": MUTATION % ("DeletePolicy", "deletePolicy", ""),
        "variables": {"input": {"policyId": policy}},
    }
    answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
    assert [error["code"] for error in answer["data"]["deletePolicy"]["userErrors"]] == ["FORBIDDEN"]
