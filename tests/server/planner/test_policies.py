"""Reads of policies: a list of related rows through a table between, a union, and a document that is JSON."""

from server.graphql.ids import encode
from tests.server.planner.world import DOCUMENT, HOSTILE, POLICIES, Side

FIRST, SECOND, THIRD, NOWHERE = POLICIES


async def test_a_policy_with_what_it_is_attached_to(ours: Side) -> None:
    query = """query($by: PolicyBy!) { policy(by: $by) {
        __typename id name description document managed state
        attachments { id state policy { name } target {
            __typename
            ... on Node { id }
            ... on Tenancy { name }
            ... on AccountType { kind: name accounts(first: 1) { totalCount } }
            ... on Account { name tags { key } accountType { name } }
        } }
    } }"""
    first = ours.policies[FIRST]
    attachments = [encode("att", key) for key in ours.attachments]
    policy = (await ours.ask(query, by={"name": FIRST.upper()}))["policy"]
    targets = [each.pop("target") for each in policy["attachments"]]
    assert policy == {
        "__typename": "Policy",
        "id": encode("pol", first),
        "name": FIRST,
        "description": HOSTILE[0],
        "document": DOCUMENT,
        "managed": True,
        "state": "ACTIVE",
        "attachments": [
            {"id": attachments[0], "state": "PENDING", "policy": {"name": FIRST}},
            {"id": attachments[1], "state": "ACTIVE", "policy": {"name": FIRST}},
            {"id": attachments[2], "state": "ACTIVE", "policy": {"name": FIRST}},
        ],
    }
    tenancy, type_, account = targets
    assert tenancy == {"__typename": "Tenancy", "id": encode("ten", ours.tenancy), "name": "ours \\ \"'"}
    assert (type_["__typename"], type_["id"], type_["kind"]) == (
        "AccountType",
        encode("typ", ours.types["general"]),
        "general",
    )
    assert type_["accounts"]["totalCount"] == 15
    assert (account["name"], account["accountType"]) == ("member 00", {"name": "Sandbox"})
    assert await ours.ask(query, by={"id": encode("pol", first)}) == await ours.ask(query, by={"name": FIRST})


async def test_the_policies_of_a_type(ours: Side) -> None:
    types = (await ours.ask("{ accountTypes { nodes { name policies { name managed } } } }"))["accountTypes"]["nodes"]
    assert {each["name"]: [policy["name"] for policy in each["policies"]] for each in types} == {
        "Foundation": [],
        "general": sorted([FIRST, SECOND]),
        "Sandbox": [],
    }


async def test_a_page_of_policies(ours: Side) -> None:
    query = """query($filter: PolicyFilter, $order: PolicyOrder) { policies(filter: $filter, orderBy: $order) {
        totalCount nodes { name } } }"""

    async def names(**variables: object) -> list[str]:
        page = (await ours.ask(query, **variables))["policies"]
        assert page["totalCount"] == len(page["nodes"])
        return [node["name"] for node in page["nodes"]]

    assert set(await names()) == set(POLICIES)
    assert await names(filter={"managed": True}) == [FIRST]
    assert await names(filter={"search": "QUOTED"}) == [SECOND]
    newest = {"field": "CREATED_AT", "direction": "DESC"}
    assert await names(order=newest, filter={"managed": False}) == [NOWHERE, THIRD, SECOND]


async def test_policies_and_attachments_are_nodes(ours: Side, theirs: Side) -> None:
    query = "query($id: ID!) { node(id: $id) { __typename id ... on PolicyAttachment { target { __typename } } } }"
    policy, attachment = encode("pol", ours.policies[THIRD]), encode("att", ours.attachments[-1])
    assert await ours.ask(query, id=policy) == {"node": {"__typename": "Policy", "id": policy}}
    assert await ours.ask(query, id=attachment) == {
        "node": {"__typename": "PolicyAttachment", "id": attachment, "target": {"__typename": "Account"}}
    }
    assert await theirs.ask(query, id=policy) == {"node": None}


async def test_the_policies_that_reach_an_account_and_how(ours: Side) -> None:
    query = """query($name: String!) { account(by: {name: $name}) {
        effectivePolicies { via state policy { name } attachment { id target { __typename } } }
    } }"""

    async def reaching(name: str) -> list[tuple[str, str, str]]:
        found = (await ours.ask(query, name=name))["account"]["effectivePolicies"]
        ids = [encode("att", key) for key in ours.attachments]
        assert {each["attachment"]["id"] for each in found} <= set(ids)
        return [(each["via"], each["state"], each["policy"]["name"]) for each in found]

    of_tenancy = ("TENANCY", "PENDING", FIRST)
    assert await reaching("member 00") == [of_tenancy, ("ACCOUNT", "ACTIVE", FIRST), ("ACCOUNT", "ACTIVE", THIRD)]
    of_type = [("ACCOUNT_TYPE", "ACTIVE", FIRST), ("ACCOUNT_TYPE", "ACTIVE", SECOND)]
    assert await reaching("Member 01") == [of_tenancy, *of_type]
    assert await reaching("Security") == [of_tenancy]
    assert await reaching("Management") == []


async def test_the_policies_that_reach_a_page_of_accounts_are_one_statement(ours: Side) -> None:
    query = "{ accounts(first: 50) { nodes { name effectivePolicies { via policy { id } attachment { id } } } } }"
    ours.reader.statements.clear()
    accounts = (await ours.ask(query))["accounts"]["nodes"]
    assert len(ours.reader.statements) == 1
    assert {len(each["effectivePolicies"]) for each in accounts} == {0, 1, 3}


async def test_what_has_drifted(ours: Side) -> None:
    query = """{ tenancy { policiesCheckedAt policyComparison { error { code class } } policyDrift {
        kind foundAt detail mending awsTargetId name description document policy { name }
        target { __typename ... on Node { id } }
    } } }"""
    before = len(ours.reader.statements)
    tenancy = (await ours.ask(query))["tenancy"]
    assert len(ours.reader.statements) == before + 1
    assert tenancy["policiesCheckedAt"] == "2026-01-01T00:00:00+00:00"
    assert tenancy["policyComparison"] == {"error": {"code": "AccessDeniedException", "class": "NEEDS_PERSON"}}
    drift = tenancy["policyDrift"]
    assert {(each["policy"]["name"], each["kind"], each["awsTargetId"]) for each in drift} == {
        (FIRST, "DETACHED", "ou-abcd-12345678"),
        (FIRST, "ATTACHED_ELSEWHERE", "r-abcd"),
        (FIRST, "ATTACHED_ELSEWHERE", "ou-abcd-unknown0"),
        (SECOND, "DOCUMENT_CHANGED", None),
        (THIRD, "DETACHED", "000000000003"),
        (THIRD, "POLICY_MISSING", None),
    }
    assert [each["foundAt"] for each in drift] == sorted(each["foundAt"] for each in drift)
    assert {each["awsTargetId"]: each["target"] for each in drift} == {
        "ou-abcd-12345678": {"__typename": "AccountType", "id": encode("typ", ours.types["general"])},
        "r-abcd": {"__typename": "Tenancy", "id": encode("ten", ours.tenancy)},
        "ou-abcd-unknown0": None,
        "000000000003": {"__typename": "Account", "id": ours.account_id("member 00")},
        None: None,
    }
    [changed] = [each for each in drift if each["kind"] == "DOCUMENT_CHANGED"]
    assert (changed["name"], changed["description"], changed["document"]) == (HOSTILE[1], HOSTILE[1], DOCUMENT)
    policies = (await ours.ask("{ policies { nodes { name drift { kind } } } }"))["policies"]["nodes"]
    assert {each["name"]: len(each["drift"]) for each in policies} == {FIRST: 3, SECOND: 1, THIRD: 2, NOWHERE: 0}
