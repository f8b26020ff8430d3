"""Reads of tags: the keys and values that accounts have, with how many have them, in one statement."""

from typing import Any

from tests.server.planner.world import HOSTILE, MEMBERS, Side

KEYS = """query($first: Int, $after: String) { tagKeys(first: $first, after: $after) {
  totalCount pageInfo { hasNextPage endCursor }
  nodes { key accountCount values(first: $first) { totalCount nodes { value accountCount } } }
} }"""


async def keys(side: Side, **page: object) -> dict[str, Any]:
    found: dict[str, Any] = (await side.ask(KEYS, **page))["tagKeys"]
    return found


async def test_keys_and_values_come_in_order_with_their_accounts_in_one_statement(ours: Side) -> None:
    ours.reader.statements.clear()
    found = await keys(ours)
    assert len(ours.reader.statements) == 1
    assert [each["key"] for each in found["nodes"]] == sorted((*HOSTILE, "hostile", "stage", "team"))
    by_key = {each["key"]: each for each in found["nodes"]}
    # All but one of the members and the foundation accounts.
    assert (by_key["team"]["accountCount"], by_key["hostile"]["accountCount"]) == (3 + MEMBERS - 1, len(HOSTILE))
    assert [each["value"] for each in by_key["hostile"]["values"]["nodes"]] == sorted(HOSTILE)
    for each in found["nodes"]:
        assert sum(value["accountCount"] for value in each["values"]["nodes"]) == each["accountCount"]
        assert each["values"]["totalCount"] == len(each["values"]["nodes"])


async def test_each_count_is_that_of_the_accounts_which_the_filter_finds(ours: Side) -> None:
    count = """query($tag: TagFilter!) {
      accounts(filter: {status: [ACTIVE, ERROR], tag: [$tag]}) { totalCount }
    }"""
    for key in (await keys(ours))["nodes"]:
        asked = [({"key": key["key"]}, key["accountCount"])]
        asked += [
            ({"key": key["key"], "value": each["value"]}, each["accountCount"]) for each in key["values"]["nodes"]
        ]
        for tag, expected in asked:
            assert (await ours.ask(count, tag=tag))["accounts"]["totalCount"] == expected, tag


async def test_a_cancelled_account_and_another_tenancy_count_for_nothing(ours: Side, theirs: Side) -> None:
    cancelled = await ours.ask(
        '{ account(by: {name: "given up"}) { id } accounts(filter: {tag: [{key: "left"}]}) { totalCount } }'
    )
    assert cancelled == {"account": None, "accounts": {"totalCount": 1}}
    found = await keys(ours)
    assert "left" not in {each["key"] for each in found["nodes"]}
    assert found == await keys(theirs)


async def test_they_come_in_pages(ours: Side) -> None:
    whole, found, after = (await keys(ours))["nodes"], [], None
    while True:
        page = await keys(ours, first=2, after=after)
        assert len(page["nodes"]) <= 2
        assert page["totalCount"] == len(whole)
        assert all(len(each["values"]["nodes"]) <= 2 for each in page["nodes"])
        found += [each["key"] for each in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert found == [each["key"] for each in whole]
