"""Reads of access: groups, their members and roles, and who can reach an account, in one statement."""

from server.graphql.ids import encode
from tests.server.planner.world import GROUPS, HOSTILE, Side


async def test_groups_users_and_access_take_one_statement_each_request(ours: Side) -> None:
    query = """{
        groups { nodes { name members { email groups { name } } access { role accountType { name } state } } }
        users(filter: {search: "user3"}) { totalCount nodes { name groups { name } } }
        account(by: {name: "Member 01"}) { access { group { name } role state reason error roleName } }
        accountType(by: {name: "general"}) { access { group { name } role state applyToNewAccounts } }
    }"""
    ours.reader.statements.clear()
    data = await ours.ask(query)
    assert len(ours.reader.statements) == 4  # a statement for each root field, where the ordinary executor reads
    groups = {each["name"]: each for each in data["groups"]["nodes"]}
    assert {*groups} == {*GROUPS}
    assert [user["email"][:5] for user in groups["Platform"]["members"]] == ["User0", "User2", "User1"]
    assert groups["empty"] == {"name": "empty", "members": [], "access": []}
    assert data["users"] == {"totalCount": 1, "nodes": [{"name": "Ann", "groups": [{"name": GROUPS[1]}]}]}
    first, second = data["account"]["access"]
    assert (first["group"]["name"], first["role"], first["state"]) == ("Platform", "READONLY", "FAILED")
    assert first["error"] == HOSTILE[1]
    assert first["reason"] == "Granted on the account type general, which the account joined later."
    assert second["roleName"] == "freehold-developer-group-1"
    assert [(each["role"], each["state"]) for each in data["accountType"]["access"]] == [
        ("ADMIN", "ACTIVE"),
        ("READONLY", "FAILED"),
        ("DEVELOPER", "PENDING"),
    ]


async def test_nobody_sees_the_groups_of_another_tenancy(ours: Side, theirs: Side) -> None:
    query = "query($id: ID!) { node(id: $id) { __typename id } }"
    for prefix, key in (("grp", ours.groups["Platform"]), ("usr", next(iter(ours.users.values())))):
        name = {"grp": "Group", "usr": "User"}[prefix]
        id_ = encode(prefix, key)
        assert await ours.ask(query, id=id_) == {"node": {"__typename": name, "id": id_}}
        assert await theirs.ask(query, id=id_) == {"node": None}
