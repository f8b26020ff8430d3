"""Arguments: filters and lookups, and what is refused with a located error that says what would be right."""

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.graphql.ids import encode
from tests.server.planner.world import HOSTILE, Side

FILTERED = "query($filter: AccountFilter) { accounts(first: 100, filter: $filter) { totalCount nodes { name } } }"


async def filtered(side: Side, **filter_: Any) -> set[str]:
    accounts = (await side.ask(FILTERED, filter=filter_))["accounts"]
    found = {node["name"] for node in accounts["nodes"]}
    assert accounts["totalCount"] == len(accounts["nodes"]) == len(found)
    return found


def cursor(*content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


async def test_filters(ours: Side) -> None:
    everything = set(ours.accounts)
    foundation = {"Management", "Security", "Logging"}
    in_error = await filtered(ours, status=["ERROR"])
    assert in_error
    assert await filtered(ours, status=["CANCELLED"]) == {"given up"}
    assert in_error | await filtered(ours, status=["ACTIVE"]) == everything - {"given up"}
    assert await filtered(ours, status=["ERROR", "ACTIVE"]) == everything - {"given up"}
    assert await filtered(ours, status=["CLOSED"]) == set()
    assert await filtered(ours, role=["SECURITY", "LOGGING", "MANAGEMENT"]) == foundation
    types = [encode("typ", ours.types[name]) for name in ("Foundation", "Sandbox")]
    assert await filtered(ours, accountTypeId=types[:1]) == foundation
    assert await filtered(ours, accountTypeId=types) > foundation
    assert await filtered(ours, accountTypeId=[encode("typ", uuid4())]) == set()
    assert await filtered(ours, accountTypeId=types, role=["SECURITY"], status=["ACTIVE"]) == {"Security"}
    # What restricts nothing.
    nothing: dict[str, Any]
    for nothing in ({}, {"status": None}, {"status": [], "tag": [], "search": None}, {"search": ""}):
        assert await filtered(ours, **nothing) == everything


@pytest.mark.parametrize("select", ["__typename", "pageInfo { hasPreviousPage }", "pageInfo { __typename }"])
async def test_a_filter_of_which_nothing_is_asked(ours: Side, select: str) -> None:
    for filter_ in ({"search": "x"}, {"tag": [{"key": "team"}], "status": ["ERROR"]}):
        query = f"query($filter: AccountFilter) {{ accounts(last: 1, filter: $filter) {{ {select} }} }}"
        assert (await ours.ask(query, filter=filter_))["accounts"]


async def test_every_tag_given_must_be_there(ours: Side) -> None:
    team = await filtered(ours, tag=[{"key": "team"}])
    first = await filtered(ours, tag=[{"key": "team", "value": "t0"}])
    both = await filtered(ours, tag=[{"key": "team", "value": "t0"}, {"key": "stage", "value": "prod"}])
    assert both < first < team < set(ours.accounts)
    assert await filtered(ours, tag=[{"key": "team", "value": "t0"}, {"key": "team", "value": "t1"}]) == set()
    assert await filtered(ours, tag=[{"key": "hostile", "value": None}]) == set(HOSTILE)
    assert await filtered(ours, tag=[{"key": "TEAM"}]) == set()


async def test_search_finds_parts_of_names_addresses_aliases_and_numbers(ours: Side) -> None:
    assert await filtered(ours, search="MEMBER 0") == {name for name in ours.accounts if "ember 0" in name}
    assert await filtered(ours, search="+3@EXAMPLE") == {"member 00"}
    assert await filtered(ours, search="000000000003") == {"member 00"}
    assert await filtered(ours, search="%") == {text for text in HOSTILE if "%" in text}
    assert await filtered(ours, search="_") == {text for text in HOSTILE if "_" in text}
    assert await filtered(ours, search="\\") == {text for text in HOSTILE if "\\" in text}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_text_is_only_text(ours: Side, text: str) -> None:
    assert await filtered(ours, search=text) == {text}
    assert await filtered(ours, tag=[{"key": "hostile", "value": text}]) == {text}
    assert await filtered(ours, tag=[{"key": text, "value": ""}]) == {text}
    query = "query($by: AccountBy!) { account(by: $by) { name alias tags { key value } } }"
    account = (await ours.ask(query, by={"name": text}))["account"]
    assert account["name"] == account["alias"] == text
    assert {(tag["key"], tag["value"]) for tag in account["tags"]} == {("hostile", text), (text, "")}
    literal = json.dumps(text)
    assert (await ours.ask(f"{{ account(by: {{name: {literal}}}) {{ name }} }}"))["account"]["name"] == text
    assert await ours.ask(query, by={"awsAccountId": text}) == {"account": None}
    assert await ours.ask("query($n: String!) { accountType(by: {name: $n}) { id } }", n=text) == {"accountType": None}


async def test_lookups(ours: Side) -> None:
    query = "query($by: AccountBy!) { account(by: $by) { name } }"
    for by in ({"id": ours.account_id("member 00")}, {"awsAccountId": "000000000003"}, {"name": "MEMBER 00"}):
        assert await ours.ask(query, by=by) == {"account": {"name": "member 00"}}
    type_ = "query($by: AccountTypeBy!) { accountType(by: $by) { name } }"
    for by in ({"id": encode("typ", ours.types["general"])}, {"name": "GENERAL"}):
        assert await ours.ask(type_, by=by) == {"accountType": {"name": "general"}}
    by_variable = "query($id: ID!) { account(by: {id: $id}) { name } }"
    assert await ours.ask(by_variable, id=ours.account_id("Security")) == {"account": {"name": "Security"}}


@pytest.mark.parametrize("by", [{}, {"name": None}, {"name": "a", "awsAccountId": "b"}], ids=str)
async def test_a_lookup_takes_exactly_one_condition(ours: Side, by: dict[str, str]) -> None:
    error = await ours.refused("query($by: AccountBy!) { account(by: $by) { name } }", by=by)
    assert "exactly one" in error["message"].lower() or "non-null" in error["message"]
    assert error.get("extensions", {}).get("code") != "INTERNAL"


REFUSED: dict[str, tuple[str, list[str], str]] = {
    "first 0": ("accounts(first: 0)", ["first"], "from 1 to 100, not 0"),
    "first 101": ("accounts(first: 101)", ["first"], "from 1 to 100, not 101"),
    "first -1": ("accounts(first: -1)", ["first"], "from 1 to 100, not -1"),
    "last 0": ("accounts(last: 0)", ["last"], "from 1 to 100, not 0"),
    "last 101": ("accounts(last: 101)", ["last"], "from 1 to 100, not 101"),
    "both": ("accounts(first: 1, last: 1)", ["last"], "`first` or `last`, not both"),
    "no cursor": ('accounts(after: "x")', ["after"], "`after` is not a cursor"),
    "empty cursor": ('accounts(before: "")', ["before"], "`before` is not a cursor"),
    "id": (
        'accounts(filter: {accountTypeId: ["x"]})',
        ["filter", "accountTypeId"],
        "'x' is not an id; the id of an account type looks like typ_ and",
    ),
    "id of another type": (
        'accounts(filter: {accountTypeId: ["acc_00000000000000000000000000000000"]})',
        ["filter", "accountTypeId"],
        "is the id of an account, not of an account type",
    ),
    "NUL": (r'accounts(filter: {search: "a\u0000b"})', ["filter", "search"], "NUL character"),
    "NUL in a list": (r'accounts(filter: {tag: [{key: "\u0000"}]})', ["filter", "tag"], "NUL character"),
    "list too long": (f"accounts(filter: {{status: [{'ACTIVE ' * 101}]}})", ["filter", "status"], "At most 100"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(ours: Side, name: str) -> None:
    call, field, message = REFUSED[name]
    for selection in ("__typename", "totalCount", "nodes { id }"):
        error = await ours.refused(f"{{\n  mine: {call} {{ {selection} }}\n}}")
        assert message in error["message"]
        assert error["extensions"] == {"code": "VALIDATION", "field": ["mine", *field]}
        assert error["path"] == ["mine"]
        assert error["locations"] == [{"line": 2, "column": 3}]


async def test_what_is_refused_below_the_root(ours: Side) -> None:
    query = '{\n  account(by: {name: "nobody"}) {\n    setups(first: 0) { __typename }\n  }\n}'
    error = await ours.refused(query)
    assert error["extensions"] == {"code": "VALIDATION", "field": ["account", "setups", "first"]}
    assert error["locations"] == [{"line": 3, "column": 5}]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["NUL", "half a surrogate pair"])
async def test_text_that_no_database_holds(ours: Side, text: str) -> None:
    for query, field in (
        ("query($t: String!) { account(by: {name: $t}) { id } }", ["account", "by", "name"]),
        ("query($t: String!) { account(by: {awsAccountId: $t}) { id } }", ["account", "by", "awsAccountId"]),
        ("query($t: ID!) { account(by: {id: $t}) { id } }", ["account", "by", "id"]),
        ("query($t: ID!) { node(id: $t) { id } }", ["node", "id"]),
        (
            "query($t: String!) { accountTypes(filter: {search: $t}) { nodes { id } } }",
            ["accountTypes", "filter", "search"],
        ),
        ("query($t: String!) { accounts(after: $t) { nodes { id } } }", ["accounts", "after"]),
    ):
        error = await ours.refused(query, t=text)
        assert error["extensions"] == {"code": "VALIDATION", "field": field}
        # The message can be sent.
        json.dumps(error, ensure_ascii=False).encode()


async def test_ids_that_are_not(ours: Side) -> None:
    good = ours.account_id("Security")
    for text in (
        "",
        "acc",
        good.upper(),
        good + "0",
        good[:-1],
        " " + good,
        good + "\n",
        "xyz_" + good[4:],
        "a" * 5000,
    ):
        error = await ours.refused("query($t: ID!) { node(id: $t) { id } }", t=text)
        assert error["extensions"]["code"] == "VALIDATION"
        assert "is not an id" in error["message"]
        assert len(error["message"]) < 200
    error = await ours.refused("query($t: ID!) { accountType(by: {id: $t}) { id } }", t=good)
    assert error["message"] == f"`id`: '{good}' is the id of an account, not of an account type."


async def test_cursors_from_elsewhere(ours: Side) -> None:
    order = "orderBy: {field: NAME, direction: ASC}"
    by_name = f"query($after: String) {{ accounts({order}, after: $after) {{ edges {{ cursor }} }} }}"
    good = (await ours.ask(by_name))["accounts"]["edges"][0]["cursor"]
    for query, message in (
        ("query($c: String) { accounts(after: $c) { totalCount } }", "another order"),
        (
            "query($c: String) { accounts(before: $c, orderBy: {field: NAME, direction: DESC}) { totalCount } }",
            "another order",
        ),
        ("query($c: String) { accountTypes(after: $c) { totalCount } }", "another list"),
        ('query($c: String) { account(by: {name: "x"}) { setups(after: $c) { totalCount } } }', "another list"),
    ):
        error = await ours.refused(query, c=good)
        assert message in error["message"]
        assert error["extensions"]["code"] == "VALIDATION"


ID = str(UUID(int=1))


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "é",
        "====",
        cursor(),
        cursor(1),
        cursor(2, "Query.accounts", "CREATED_AT", False, "2026-01-01T00:00:00.000000Z", ID),
        cursor(1, "Query.accounts", "CREATED_AT", False, "2026-01-01T00:00:00.000000Z", "x"),
        cursor(1, "Query.accounts", "CREATED_AT", False, "2026-01-01T00:00:00.000000Z", 5),
        cursor(1, "Query.accounts", "CREATED_AT", False, "2026-01-01T00:00:00.000000+99:99", ID),
        cursor(1, "Query.accounts", "CREATED_AT", False, "9999-99-99T00:00:00.000000Z", ID),
        cursor(1, "Query.accounts", "CREATED_AT", False, 7, ID),
        cursor(1, "Query.accounts", "CREATED_AT", False, None, ID),
        cursor(1, "Query.accounts", "CREATED_AT", False, ["2026-01-01T00:00:00.000000Z"], ID),
        cursor(1, "Query.accounts", "CREATED_AT", False, ID),
        cursor(1, "Query.accounts", {"a": []}, False, "2026-01-01T00:00:00.000000Z", ID),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        base64.urlsafe_b64encode(b"5").decode(),
        base64.urlsafe_b64encode(b"null").decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
    ids=range(19),
)
async def test_cursors_that_are_none(ours: Side, text: str) -> None:
    error = await ours.refused("query($c: String) { accounts(after: $c) { totalCount } }", c=text)
    assert error["extensions"] == {"code": "VALIDATION", "field": ["accounts", "after"]}


async def test_a_cursor_with_text_that_no_database_holds(ours: Side) -> None:
    query = "query($c: String) { accounts(after: $c, orderBy: {field: NAME, direction: ASC}) { totalCount } }"
    for key in ("a\0", "\ud800", 3, None):
        error = await ours.refused(query, c=cursor(1, "Query.accounts", "NAME", True, key, ID))
        assert error["extensions"] == {"code": "VALIDATION", "field": ["accounts", "after"]}


async def test_a_lookup_by_more_than_one_field_has_a_code(ours: Side) -> None:
    for by in ('{name: "x", awsAccountId: "1"}', "{}", '{id: "x", nope: 1}'):
        result = await ours.execute(f"{{ account(by: {by}) {{ id }} }}")
        assert result.errors
        assert {(error.extensions or {}).get("code") for error in result.errors} == {"VALIDATION"}
    error = await ours.refused("query($by: AccountBy!) { account(by: $by) { id } }", by={"name": "x", "id": "y"})
    assert error["extensions"] == {"code": "VALIDATION"}
