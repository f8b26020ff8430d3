"""A server of its own and a tenancy, as the tests of account assurance have them, and ways to change who has access."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from tests.server.assurance.conftest import Ask, ask, engine, new_tenant, owner, server, settings, tenant, worker_engine

__all__ = ["ask", "engine", "new_tenant", "owner", "server", "settings", "tenant", "worker_engine"]

# Runs a mutation of one input; returns its payload.
Run: TypeAlias = Callable[..., Awaitable[dict[str, Any]]]
# As Run, for what must be accepted; returns what the payload has beside its user errors.
Done: TypeAlias = Callable[..., Awaitable[Any]]
# What each mutation shows beside its user errors.
SELECTIONS = {
    "createGroup": "group { id name members { id } access { role } }",
    "updateGroup": "group { id name }",
    "deleteGroup": "deletedGroupId",
    "addGroupMembers": "group { members { email } }",
    "removeGroupMembers": "group { members { email } }",
    "createUser": "user { id name email groups { name } }",
    "updateUser": "user { id name email }",
    "deleteUser": "deletedUserId",
    "createAccountType": "accountType { id }",
    "updateAccountType": "accountType { id name state organizationalUnitName nextAttemptAt error { code } }",
    "deleteAccountType": "accountType { state nextAttemptAt access { role } }",
    "createAccount": "account { id access { role reason } setup { id } }",
    "updateAccount": "account { access { role state reason } }",
    "cancelAccountSetup": "account { status access { role } }",
    "setAccountTypeAccess": """accountType { name access {
        group { name } role managedPolicyArn roleName applyToNewAccounts state reason error accountType { name }
    } }""",
}
INPUTS = {"addGroupMembers": "GroupMembersInput", "removeGroupMembers": "GroupMembersInput"}


def document(mutation: str) -> str:
    input_ = INPUTS.get(mutation, f"{mutation[0].upper()}{mutation[1:]}Input")
    return f"""mutation($input: {input_}!) {{
        {mutation}(input: $input) {{ {SELECTIONS[mutation]} userErrors {{ code message field }} }}
    }}"""


@pytest.fixture
def run(ask: Ask) -> Run:
    async def mutate(mutation: str, **values: object) -> dict[str, Any]:
        payload: dict[str, Any] = (await ask(document(mutation), input=values))[mutation]
        return payload

    return mutate


@pytest.fixture
def done(run: Run) -> Done:
    async def mutate(mutation: str, **values: object) -> Any:
        payload = await run(mutation, **values)
        assert payload.pop("userErrors") == []
        [result] = payload.values()
        return result

    return mutate
