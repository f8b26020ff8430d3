"""Pages: every order, forwards and backwards, and the flags beside them."""

from typing import Any

import pytest

from tests.server.planner.world import Side

PAGE = """
query($first: Int, $after: String, $last: Int, $before: String, $order: AccountOrder, $filter: AccountFilter) {
  accounts(first: $first, after: $after, last: $last, before: $before, orderBy: $order, filter: $filter) {
    totalCount nodes { name } edges { cursor }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
ORDERS = [
    {"field": field, "direction": direction}
    for field in ("NAME", "CREATED_AT", "UPDATED_AT")
    for direction in ("ASC", "DESC")
]


async def page(side: Side, **variables: Any) -> Any:
    return (await side.ask(PAGE, **variables))["accounts"]


def names(page: Any) -> list[str]:
    return [node["name"] for node in page["nodes"]]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order['field']} {order['direction']}")
async def test_backwards_is_forwards_reversed(ours: Side, order: dict[str, str]) -> None:
    everything = names(await page(ours, first=100, order=order))
    assert sorted(everything) == sorted(ours.accounts)
    if order["field"] == "NAME":
        assert everything == sorted(everything, key=str.lower, reverse=order["direction"] == "DESC")

    forwards: list[str] = []
    info: dict[str, Any] = {"hasNextPage": True, "endCursor": None}
    while info["hasNextPage"]:
        found = await page(ours, first=7, after=info["endCursor"], order=order)
        assert found["pageInfo"]["hasPreviousPage"] is bool(forwards)
        assert found["totalCount"] == len(ours.accounts)
        forwards += names(found)
        info = found["pageInfo"]
    assert forwards == everything

    backwards: list[str] = []
    info = {"hasPreviousPage": True, "startCursor": None}
    while info["hasPreviousPage"]:
        found = await page(ours, last=7, before=info["startCursor"], order=order)
        assert found["pageInfo"]["hasNextPage"] is bool(backwards)
        assert found["pageInfo"]["startCursor"] == found["edges"][0]["cursor"]
        backwards = names(found) + backwards
        info = found["pageInfo"]
    assert backwards == everything


async def test_newest_first_when_no_order_is_given(ours: Side) -> None:
    newest = {"field": "CREATED_AT", "direction": "DESC"}
    assert await page(ours, first=10) == await page(ours, first=10, order=newest)
    assert (await page(ours, first=3))["nodes"][0]["name"] == list(ours.accounts)[-1]


async def test_between_two_cursors(ours: Side) -> None:
    edges = (await page(ours, first=20))["edges"]
    everything = names(await page(ours, first=20))
    between = {"after": edges[3]["cursor"], "before": edges[9]["cursor"]}
    for size, expected, following, preceding in (
        ({}, everything[4:9], True, True),
        ({"first": 5}, everything[4:9], True, True),
        ({"first": 2}, everything[4:6], True, True),
        ({"last": 2}, everything[7:9], True, True),
    ):
        found = await page(ours, **size, **between)
        assert names(found) == expected
        assert found["pageInfo"]["hasNextPage"] is following
        assert found["pageInfo"]["hasPreviousPage"] is preceding
        assert found["totalCount"] == len(ours.accounts)


async def test_sizes(ours: Side) -> None:
    everything = names(await page(ours, first=100))
    cursor = (await page(ours, first=100))["edges"][-1]["cursor"]
    assert names(await page(ours)) == everything[:50]
    assert names(await page(ours, last=1)) == everything[-1:]
    # `before` alone means the page that ends there.
    assert names(await page(ours, before=cursor)) == everything[-51:-1]
    assert names(await page(ours, first=None, last=None, after=None, order=None, filter=None)) == everything[:50]


async def test_beyond_the_end(ours: Side) -> None:
    cursor = (await page(ours, first=100))["pageInfo"]["endCursor"]
    found = await page(ours, first=5, after=cursor)
    info = {"hasNextPage": False, "hasPreviousPage": True, "startCursor": None, "endCursor": None}
    assert found == {"totalCount": len(ours.accounts), "nodes": [], "edges": [], "pageInfo": info}


async def test_any_part_of_a_connection_alone(ours: Side) -> None:
    total = len(ours.accounts)
    for selection, expected in (
        ("__typename", {"__typename": "AccountConnection"}),
        ("totalCount", {"totalCount": total}),
        ("pageInfo { hasNextPage }", {"pageInfo": {"hasNextPage": True}}),
        ("pageInfo { hasPreviousPage }", {"pageInfo": {"hasPreviousPage": False}}),
        ("pageInfo { __typename }", {"pageInfo": {"__typename": "PageInfo"}}),
        ("edges { __typename }", {"edges": [{"__typename": "AccountEdge"}]}),
        ("nodes { __typename }", {"nodes": [{"__typename": "Account"}]}),
        ("edges { node { __typename } }", {"edges": [{"node": {"__typename": "Account"}}]}),
    ):
        assert (await ours.ask(f"{{ accounts(first: 1) {{ {selection} }} }}"))["accounts"] == expected


async def test_pages_below_another_object(ours: Side) -> None:
    query = """query($after: String, $before: String) { accountType(by: {name: "GENERAL"}) {
        accounts(first: 4, after: $after) { totalCount nodes { name } pageInfo { hasNextPage endCursor } }
        before: accounts(last: 100, before: $before) { nodes { name } pageInfo { hasNextPage } } } }"""
    everything: list[str] = []
    cursor: str | None = None
    while True:
        type_ = (await ours.ask(query, after=cursor, before=cursor))["accountType"]
        if cursor is not None:
            assert names(type_["before"]) == everything[:-1]
        everything += names(type_["accounts"])
        assert type_["accounts"]["totalCount"] == len(set(everything)) or type_["accounts"]["pageInfo"]["hasNextPage"]
        if not type_["accounts"]["pageInfo"]["hasNextPage"]:
            break
        cursor = type_["accounts"]["pageInfo"]["endCursor"]
    [general] = [
        names(node["accounts"])
        for node in (await ours.ask("{ accountTypes { nodes { name accounts(first: 100) { nodes { name } } } } }"))[
            "accountTypes"
        ]["nodes"]
        if node["name"] == "general"
    ]
    assert everything == general


async def test_account_types_by_name_and_by_creation(ours: Side) -> None:
    query = "query($order: AccountTypeOrder, $filter: AccountTypeFilter) {"
    query += " accountTypes(orderBy: $order, filter: $filter) { nodes { name } } }"
    for variables, expected in (
        ({}, ["Foundation", "general", "Sandbox"]),
        ({"order": {"field": "CREATED_AT", "direction": "DESC"}}, ["Sandbox", "general", "Foundation"]),
        ({"filter": {"foundation": True}}, ["Foundation"]),
        ({"filter": {"foundation": False, "search": "AND"}}, ["Sandbox"]),
    ):
        assert names((await ours.ask(query, **variables))["accountTypes"]) == expected
