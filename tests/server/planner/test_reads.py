"""What is read: every field, aliases, fragments, directives, nulls; one statement for each root field."""

from typing import Any

from server.graphql.ids import encode
from tests.server.planner.world import CONTROLS, HOSTILE, Side, World

EVERYTHING = """
query Everything($first: Int = 10) {
  accounts(first: $first) {
    totalCount
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    nodes { name }
    edges {
      cursor
      node {
        __typename id name alias email awsAccountId role origin status
        accountType { id name foundation organizationalUnitId }
        tags { key value }
        setup { ...Setup account { name } }
        setups(first: 1) { totalCount pageInfo { hasNextPage } edges { cursor node { id kind } } nodes { id } }
        createdAt createdBy { kind name id } updatedAt
      }
    }
  }
}
fragment Setup on AccountSetup {
  id kind status progress requestedAt startedAt finishedAt
  stages {
    name title position status attempts startedAt finishedAt nextAttemptAt
    controls { benchmark version id }
    error { code message class awsRequestId }
  }
}
"""


async def test_a_page_of_accounts_with_everything(ours: Side) -> None:
    accounts = (await ours.ask(EVERYTHING, first=50))["accounts"]
    edges = accounts["edges"]
    assert accounts["totalCount"] == len(edges) == len(ours.accounts)
    assert accounts["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": False,
        "startCursor": edges[0]["cursor"],
        "endCursor": edges[-1]["cursor"],
    }
    assert [edge["node"]["name"] for edge in edges] == [node["name"] for node in accounts["nodes"]]
    by_name = {edge["node"]["name"]: edge["node"] for edge in edges}
    assert by_name.keys() == ours.accounts.keys()
    account = by_name["member 00"]
    [set_up] = account["setups"].pop("edges")
    assert account == {
        "__typename": "Account",
        "id": ours.account_id("member 00"),
        "name": "member 00",
        "alias": None,
        "email": "aws+3@example.com",
        "awsAccountId": "000000000003",
        "role": "MEMBER",
        "origin": "CREATED",
        "status": "ACTIVE",
        "accountType": {
            "id": encode("typ", ours.types["Sandbox"]),
            "name": "Sandbox",
            "foundation": False,
            "organizationalUnitId": None,
        },
        "tags": [{"key": "stage", "value": "prod"}, {"key": "team", "value": "t0"}],
        "setup": setup(ours),
        "setups": {
            "totalCount": 2,
            "pageInfo": {"hasNextPage": True},
            "nodes": [{"id": encode("set", ours.setups[1])}],
        },
        "createdAt": "2026-01-01T03:00:00+00:00",
        "createdBy": {"kind": "API_TOKEN", "name": "admin", "id": encode("tok", ours.token)},
        "updatedAt": "2025-12-31T20:59:59.999997+00:00",
    }
    assert set_up["node"] == {"id": encode("set", ours.setups[1]), "kind": "REASSURE"}
    assert by_name["Security"]["createdBy"] == {"kind": "SYSTEM", "name": "admin", "id": None}


def setup(ours: Side) -> dict[str, Any]:
    never = {"startedAt": None, "finishedAt": None, "nextAttemptAt": None, "attempts": 0}
    error = {"code": "AccessDenied", "message": HOSTILE[1], "class": "NEEDS_PERSON", "awsRequestId": None}
    first = {"name": "first", "title": "First", "position": 1, "status": "COMPLETED"}
    second = {"name": "second", "title": "Second", "position": 2, "status": "FAILED"}
    return {
        "id": encode("set", ours.setups[1]),
        "kind": "REASSURE",
        "progress": 50,
        "status": "FAILED",
        "requestedAt": "2026-01-01T00:01:00+00:00",
        "startedAt": "2026-01-01T00:01:00.000005+00:00",
        "finishedAt": None,
        "stages": [
            {**first, **never, "controls": CONTROLS, "error": None},
            {**second, **never, "controls": [], "error": error},
        ],
        "account": {"name": "member 00"},
    }


async def test_what_is_not_there_is_null_or_empty(ours: Side) -> None:
    data = await ours.ask(
        "query($name: String!) { account(by: {name: $name}) {"
        " awsAccountId alias tags { key } setup { id } setups { nodes { id } edges { cursor } totalCount"
        " pageInfo { startCursor endCursor hasNextPage hasPreviousPage } } }"
        ' gone: account(by: {name: "nobody"}) { id } type: accountType(by: {name: "nothing"}) { id } }',
        name=HOSTILE[0],
    )
    assert data["account"]["setup"] is None
    assert data["account"]["setups"] == {
        "nodes": [],
        "edges": [],
        "totalCount": 0,
        "pageInfo": {"startCursor": None, "endCursor": None, "hasNextPage": False, "hasPreviousPage": False},
    }
    assert data["gone"] is data["type"] is None
    assert (await ours.ask('{ account(by: {name: "member 02"}) { tags { key } } }'))["account"]["tags"] == []


async def test_one_alias_one_answer(ours: Side) -> None:
    data = await ours.ask(
        """{
          one: accounts(first: 1, orderBy: {field: NAME, direction: ASC}, filter: {search: "member"}) { nodes { name } }
          two: accounts(first: 2, filter: {role: [SECURITY, LOGGING]}, orderBy: {field: NAME, direction: ASC}) {
            count: totalCount all: totalCount
            nodes { called: name name again: accountType { kind: name } } nodes { role }
          }
          a: account(by: {name: "MEMBER 00"}) {
            last: setups(last: 1) { nodes { kind } } first: setups(first: 1) { nodes { kind } }
          }
        }"""
    )
    assert data["one"] == {"nodes": [{"name": "member 00"}]}
    foundation = {"kind": "Foundation"}
    assert data["two"] == {
        "count": 2,
        "all": 2,
        "nodes": [
            {"called": "Logging", "name": "Logging", "again": foundation, "role": "LOGGING"},
            {"called": "Security", "name": "Security", "again": foundation, "role": "SECURITY"},
        ],
    }
    assert data["a"] == {"last": {"nodes": [{"kind": "CREATE"}]}, "first": {"nodes": [{"kind": "REASSURE"}]}}


async def test_fragments_merge_and_directives_leave_out(ours: Side) -> None:
    query = """
    query($no: Boolean!, $yes: Boolean = true) {
      account(by: {name: "member 00"}) {
        ...Name
        ... on Node { id @skip(if: $yes) __typename }
        ... @include(if: $no) { email }
        accountType { name }
        ...Type @include(if: $yes)
        alias @include(if: $yes) @skip(if: $yes)
      }
      gone: tenancy @include(if: $no) { id }
    }
    fragment Name on Account { name accountType { ...Both } }
    fragment Type on Account { accountType { foundation } }
    fragment Both on AccountType { id }
    """
    data = await ours.ask(query, no=False)
    type_ = {"id": encode("typ", ours.types["Sandbox"]), "name": "Sandbox", "foundation": False}
    assert data == {"account": {"name": "member 00", "accountType": type_, "__typename": "Account"}}


async def test_a_node_of_every_type(ours: Side) -> None:
    for type_, id_ in {
        "Tenancy": encode("ten", ours.tenancy),
        "Account": ours.account_id("Security"),
        "AccountType": encode("typ", ours.types["general"]),
        "AccountSetup": encode("set", ours.setups[0]),
    }.items():
        fragments = f"... on {type_} {{ __typename }} ... on Account {{ email }} ... on Tenancy {{ regions }}"
        node = (await ours.ask(f"query($id: ID!) {{ node(id: $id) {{ {fragments} id }} }}", id=id_))["node"]
        assert (node["__typename"], node["id"]) == (type_, id_)
        assert ("email" in node, "regions" in node) == (type_ == "Account", type_ == "Tenancy")
    by_id = "query($id: ID!) { node(id: $id) { id } }"
    assert await ours.ask(by_id, id=encode("acc", ours.tenancy)) == {"node": None}
    token = encode("tok", ours.token)
    error = await ours.refused(by_id, id=token)
    assert error["message"] == f"`id`: '{token}' is not the id of a Node."
    assert error["extensions"] == {"code": "VALIDATION", "field": ["node", "id"]}


async def test_tenancy_viewer_types_and_catalogue(ours: Side) -> None:
    data = await ours.ask(
        """{
          tenancy { id name state awsOrganizationId homeRegion regions security { name } logging { name role } }
          viewer { name role tokenId tenancy { id } }
          accountTypes { nodes { name foundation accounts(first: 2) { totalCount nodes { name } } } }
          stageCatalogue { name title description position controls { id version benchmark } permissions roles }
        }"""
    )
    id_ = encode("ten", ours.tenancy)
    assert data["tenancy"] == {
        "id": id_,
        "name": "ours \\ \"'",
        "state": "ACTIVE",
        "awsOrganizationId": None,
        "homeRegion": "eu-central-1",
        "regions": ["eu-central-1", "us-east-1"],
        "security": {"name": "Security"},
        "logging": {"name": "Logging", "role": "LOGGING"},
    }
    token = encode("tok", ours.token)
    assert data["viewer"] == {"name": "admin", "role": "ADMIN", "tokenId": token, "tenancy": {"id": id_}}
    assert [node["name"] for node in data["accountTypes"]["nodes"]] == ["Foundation", "general", "Sandbox"]
    assert data["accountTypes"]["nodes"][0]["accounts"] == {
        "totalCount": 3,
        "nodes": [{"name": "Logging"}, {"name": "Security"}],
    }
    first, second = data["stageCatalogue"]
    assert (first["name"], first["controls"], first["roles"], first["permissions"]) == ("first", [], [], [])
    assert second == {
        "name": "second",
        "title": "Second",
        "description": "b",
        "position": 2,
        "controls": CONTROLS,
        "permissions": ["a:Go"],
        "roles": ["MEMBER", "SECURITY"],
    }


async def test_one_statement_for_each_root_field(ours: Side) -> None:
    ours.reader.statements.clear()
    await ours.ask(EVERYTHING)
    assert len(ours.reader.statements) == 1
    await ours.ask("{ a: tenancy { id } b: tenancy { id } viewer { name } __typename __schema { __typename } }")
    assert len(ours.reader.statements) == 4


async def test_a_tenancy_sees_itself_alone(world: World) -> None:
    ours, theirs = world.ours, world.theirs
    for side, other in ((ours, theirs), (theirs, ours)):
        data = await side.ask("{ accounts(first: 100) { totalCount nodes { id } } tenancy { id } }")
        assert data["tenancy"]["id"] == encode("ten", side.tenancy)
        assert data["accounts"]["totalCount"] == len(side.accounts)
        assert {node["id"] for node in data["accounts"]["nodes"]} == set(map(side.account_id, side.accounts))
        for foreign in (
            other.account_id("Security"),
            encode("ten", other.tenancy),
            encode("typ", other.types["general"]),
            encode("set", other.setups[0]),
        ):
            assert await side.ask("query($id: ID!) { node(id: $id) { id } }", id=foreign) == {"node": None}
        id_ = other.account_id("Security")
        assert await side.ask("query($id: ID!) { account(by: {id: $id}) { id } }", id=id_) == {"account": None}


async def test_the_predicate_does_not_rest_on_row_level_security(ours: Side) -> None:
    """Every table in a statement is compared with the viewer's tenancy."""
    ours.reader.statements.clear()
    await ours.ask(EVERYTHING)
    [statement] = ours.reader.statements
    scans = [statement.count(f'from "{table}" ') for table in ("account", "account_type", "tag", "setup", "stage")]
    assert min(scans) > 0
    assert statement.count('"tenancy_id" = $1::uuid') == sum(scans)


async def test_as_deep_and_as_wide_as_a_document_may_be(ours: Side) -> None:
    inner = " ".join(f"a{number}: name" for number in range(50))
    for _ in range(5):
        inner = f"accountType {{ accounts(first: 1) {{ nodes {{ {inner} }} }} }}"
    account = (await ours.ask(f'{{ account(by: {{name: "Security"}}) {{ {inner} }} }}'))["account"]
    for _ in range(5):
        [account] = account["accountType"]["accounts"]["nodes"]
    assert set(account.values()) == {"Logging"}
    assert len(account) == 50
