"""What the API must answer, worked out from rows in memory: without SQL, without the planner and its mapping.

The schema is built from its SDL, and graphql-core runs it with resolvers that filter, sort and slice lists: as the
schema's descriptions say, and as plainly as it goes. The form of ids is all that is shared with what is tested.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, TypeAlias
from uuid import UUID

import graphql
from graphql import DocumentNode, FragmentDefinitionNode, GraphQLObjectType, GraphQLSchema, execute_sync
from graphql.execution.collect_fields import FragmentDetails, GroupedFieldSet, collect_fields, collect_subfields
from graphql.execution.values import VariableValues, get_argument_values, get_variable_values

from server.graphql.ids import decode, encode, parse
from server.schema import schema

Row: TypeAlias = dict[str, Any]
Arguments: TypeAlias = Mapping[str, Any]
# A sort key, which is a text or a moment, and an id.
Position: TypeAlias = tuple[Any, UUID]

# The types of the rows that are nodes, and the prefixes of the ids in each type.
TYPES = {
    "tenancy": "Tenancy",
    "account": "Account",
    "account_type": "AccountType",
    "setup": "AccountSetup",
    "policy": "Policy",
    "policy_attachment": "PolicyAttachment",
    "user_group": "Group",
    "person": "User",
}
NODES = dict(zip(("ten", "acc", "typ", "set", "pol", "att", "grp", "usr"), TYPES, strict=True))
PREFIXES = {**{TYPES[table]: prefix for prefix, table in NODES.items()}, "Actor": "tok", "Viewer": "tok"}
TABLES = (*TYPES, "tag", "stage", "stage_definition", "api_token", "event_counter", "policy_version")
TABLES += ("group_membership", "access_grant", "account_access", "quota", "policy_drift", "policy_comparison")
# By code, in their order; of the accounts AWS documents none.
DOCUMENTED = {
    "ACCOUNTS": None,
    "ORGANIZATIONAL_UNITS": 2_000,
    "POLICIES": 10_000,
    "POLICIES_PER_TARGET": 10,
    "POLICY_SIZE": 10_240,
}
LOOKUPS = {
    "Query.account": "acc",
    "Query.accountType": "typ",
    "Query.policy": "pol",
    "Query.group": "grp",
    "Query.user": "usr",
}
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Listing:
    """A field with pages: its table, the order when none is given, and the column that has the id of the parent."""

    table: str
    order_by: Arguments
    parent: str | None = None
    searched: tuple[str, ...] = ()
    # The column of the parent that it is.
    of_parent: str = "id"
    # The state of rows that are not listed.
    hidden: str | None = None


BY_KEY, BY_VALUE = {"field": "KEY", "direction": "ASC"}, {"field": "VALUE", "direction": "ASC"}
BY_NAME = {"field": "NAME", "direction": "ASC"}
NEWEST = {"field": "CREATED_AT", "direction": "DESC"}
LISTINGS = {
    "Query.accounts": Listing("account", NEWEST, searched=("name", "email", "alias", "aws_account_id")),
    "Query.accountTypes": Listing("account_type", BY_NAME, searched=("name",), hidden="DELETED"),
    "Query.policies": Listing("policy", BY_NAME, searched=("name", "description")),
    "Query.groups": Listing("user_group", BY_NAME, searched=("name",)),
    "Query.users": Listing("person", BY_NAME, searched=("name", "email")),
    "Query.tagKeys": Listing("tag_key", BY_KEY),
    "TagKey.values": Listing("tag_value", BY_VALUE, parent="key", of_parent="key"),
    "AccountType.accounts": Listing("account", NEWEST, parent="account_type_id"),
    "Account.setups": Listing("setup", {"field": "REQUESTED_AT", "direction": "DESC"}, parent="account_id"),
}


class Page:
    """What the arguments of a list ask for; raises ValueError for what is to be refused."""

    def __init__(self, field: str, arguments: Arguments) -> None:
        given = {name: value for name, value in arguments.items() if value is not None}
        sizes = [given[name] for name in ("first", "last") if name in given] or [50]
        if len(sizes) > 1 or not 1 <= sizes[0] <= 100:
            raise ValueError("Give `first` or `last`, from 1 to 100.")
        order = given.get("orderBy", LISTINGS[field].order_by)
        self._key, self._ascending = order["field"], order["direction"] == "ASC"
        self._is_text = self._key in ("NAME", "KEY", "VALUE")
        self._context = [1, field, self._key, self._ascending]
        self._size = sizes[0]
        self._backward = "last" in given or ("before" in given and not {"first", "after"} & given.keys())
        self._after, self._before = (self._read_cursor(given.get(name)) for name in ("after", "before"))
        self.filter = {name: wanted for name, wanted in given.get("filter", {}).items() if wanted not in (None, [])}
        check_filter(self.filter)

    def connection(self, found: Iterable[Row]) -> Row:
        """The page of the rows that meet the filter."""
        rows = sorted(found, key=self._position, reverse=not self._ascending)
        places = [self._position(row) for row in rows]
        start = sum(not self._precedes(self._after, each) for each in places) if self._after else 0
        end = sum(self._precedes(each, self._before) for each in places) if self._before else len(rows)
        window = rows[start:end]
        page = window[-self._size :] if self._backward else window[: self._size]
        has_more = len(page) < len(window)
        edges = [{"node": row, "cursor": self._cursor(row)} for row in page]
        info = {
            "has_previous_page": start > 0 or (self._backward and has_more),
            "has_next_page": end < len(rows) or (not self._backward and has_more),
            "start_cursor": edges[0]["cursor"] if edges else None,
            "end_cursor": edges[-1]["cursor"] if edges else None,
        }
        return {"edges": edges, "nodes": page, "page_info": info, "total_count": len(rows)}

    def _position(self, row: Row) -> Position:
        key = row[self._key.lower()]
        return lower(key) if self._key == "NAME" else key, row["id"]

    def _precedes(self, one: Position, other: Position) -> bool:
        return one < other if self._ascending else one > other

    def _cursor(self, row: Row) -> str:
        key, id_ = self._position(row)
        text = json.dumps(key if self._is_text else key.astimezone(UTC).strftime(TIME), ensure_ascii=False)
        content = f'{json.dumps(self._context)[:-1]},{text},"{id_}"]'
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    def _read_cursor(self, cursor: str | None) -> Position | None:
        if cursor is None:
            return None
        match json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)):
            case [*context, str(key), str(id_)] if context == self._context:
                check_text(key)
                return key if self._is_text else datetime.strptime(key, TIME).replace(tzinfo=UTC), UUID(id_)
        raise ValueError("It is no cursor of this list in this order.")


class Reference:
    """The answers to one viewer."""

    def __init__(self, rows: Mapping[str, Sequence[Row]], token: UUID) -> None:
        self._rows = rows
        self._token = token
        # What says @oneOf is in the SDL alone.
        self._schema = graphql.build_schema(schema.as_str())
        self._resolvers = self._relations()

    @classmethod
    async def load(cls, connection: Any, tenancy: UUID, token: UUID) -> "Reference":
        """The rows of the tenancy, over an asyncpg connection that sees them all."""
        rows: dict[str, list[Row]] = {}
        for table in TABLES:
            owner = "id" if table == "tenancy" else "tenancy_id"
            found = await connection.fetch(f"select * from {table}")
            rows[table] = [read_row(table, each) for each in found if each.get(owner, tenancy) == tenancy]
        return cls({**rows, **counted_tags(rows)}, token)

    def answer(self, query: str, variables: Mapping[str, Any], operation_name: str | None) -> dict[str, Any] | None:
        """The `data` of the response to a request whose document is valid; None when there are errors in it."""
        document = graphql.parse(query)
        try:
            check_selection(self._schema, document, variables, operation_name)
        except (ValueError, RecursionError, graphql.GraphQLError):
            return None
        result = execute_sync(self._schema, document, None, None, dict(variables), operation_name, self._resolve)
        return None if result.errors else result.data

    def _resolve(self, source: Row, info: graphql.GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        name = f"{info.parent_type}.{info.field_name}"
        if name in self._resolvers:
            return self._resolvers[name](source, read(name, arguments))
        value = source[snake_case(info.field_name)]
        if isinstance(value, UUID):
            return encode(PREFIXES[info.parent_type.name], value)
        return rfc3339(value) if isinstance(value, datetime) else value

    def _relations(self) -> Mapping[str, Callable[[Row, Any], Any]]:
        """What is no column of the same name."""
        every, one = self._all, self._one
        by_position, by_time = itemgetter("position"), itemgetter("created_at", "id")
        return {
            **{field: partial(self._lookup, NODES[prefix]) for field, prefix in LOOKUPS.items()},
            **{field: partial(self._page, listing) for field, listing in LISTINGS.items()},
            "Query.node": lambda _, found: one(found[0], id=found[1]),
            "Query.viewer": lambda *_: one("api_token", id=self._token),
            "Query.tenancy": lambda *_: one("tenancy"),
            "Query.stageCatalogue": lambda *_: sorted(every("stage_definition"), key=by_position),
            "Viewer.tenancy": lambda *_: one("tenancy"),
            "Viewer.tokenId": lambda row, _: encode("tok", row["id"]),
            "Tenancy.lastPosition": lambda *_: (one("event_counter") or {"last_position": 0})["last_position"],
            "Tenancy.quotas": lambda *_: [self._quota(code) for code in DOCUMENTED],
            "Tenancy.policyDrift": lambda *_: sorted(
                every("policy_drift"), key=itemgetter("found_at", "policy_id", "kind", "aws_target_id")
            ),
            "Tenancy.policiesCheckedAt": lambda *_: self._checked_at(),
            "Tenancy.policyComparison": lambda *_: one("policy_comparison"),
            "PolicyComparison.error": self._error,
            "Tenancy.security": lambda *_: one("account", role="SECURITY"),
            "Tenancy.logging": lambda *_: one("account", role="LOGGING"),
            "Account.lastSequence": lambda row, _: row["last_seq"],
            "Account.accountType": lambda row, _: one("account_type", id=row["account_type_id"]),
            "Account.tags": lambda row, _: sorted(every("tag", account_id=row["id"]), key=itemgetter("key")),
            "Account.setup": lambda row, _: max(
                every("setup", account_id=row["id"]), key=itemgetter("requested_at", "id"), default=None
            ),
            "Account.createdBy": lambda row, _: below("created_by_", row),
            "Account.effectivePolicies": self._effective_policies,
            "EffectivePolicy.policy": lambda row, _: one("policy", id=row["policy_id"]),
            "EffectivePolicy.attachment": lambda row, _: row,
            "EffectivePolicy.via": lambda row, _: (
                "ACCOUNT" if row["account_id"] else "ACCOUNT_TYPE" if row["account_type_id"] else "TENANCY"
            ),
            "AccountType.policies": self._policies,
            "AccountType.organizationalUnitName": lambda row, _: row["aws_name"],
            "AccountSetup.account": lambda row, _: one("account", id=row["account_id"]),
            "AccountSetup.stages": lambda row, _: sorted(every("stage", setup_id=row["id"]), key=by_position),
            "AccountSetup.progress": lambda row, _: progress(every("stage", setup_id=row["id"])),
            **dict.fromkeys(
                ("SetupStage.error", "AccountType.error", "Policy.error", "PolicyAttachment.error"), self._error
            ),
            "Policy.createdBy": lambda row, _: below("created_by_", row),
            **dict.fromkeys(
                ("Policy.requestedBy", "PolicyAttachment.requestedBy"),
                lambda row, _: below("requested_by_", row) if row["requested_by_kind"] else None,
            ),
            "Policy.lastSequence": lambda row, _: row["last_seq"],
            "Policy.versions": lambda row, _: sorted(
                every("policy_version", policy_id=row["id"]), key=itemgetter("number"), reverse=True
            ),
            "PolicyVersion.createdBy": lambda row, _: below("created_by_", row),
            "PolicyAttachment.createdBy": lambda row, _: below("created_by_", row),
            "Policy.attachments": lambda row, _: sorted(every("policy_attachment", policy_id=row["id"]), key=by_time),
            "Policy.drift": lambda row, _: sorted(
                every("policy_drift", policy_id=row["id"]), key=itemgetter("found_at", "kind", "aws_target_id")
            ),
            "PolicyDrift.policy": lambda row, _: one("policy", id=row["policy_id"]),
            "PolicyDrift.awsTargetId": lambda row, _: row["aws_target_id"] or None,
            "PolicyDrift.target": lambda row, _: (
                one("account", id=row["account_id"])
                or one("account_type", id=row["account_type_id"])
                or one("tenancy", id=row["target_tenancy_id"])
            ),
            "PolicyAttachment.policy": lambda row, _: one("policy", id=row["policy_id"]),
            "PolicyAttachment.target": lambda row, _: (
                one("account", id=row["account_id"]) or one("account_type", id=row["account_type_id"]) or one("tenancy")
            ),
            "Group.members": lambda row, _: self._through("group_id", row, "user_id", "person"),
            "User.groups": lambda row, _: self._through("user_id", row, "group_id", "user_group"),
            "Group.access": lambda row, _: sorted(
                every("access_grant", group_id=row["id"]), key=itemgetter("account_type_id", "role")
            ),
            "AccountType.access": lambda row, _: self._by_group(every("access_grant", account_type_id=row["id"])),
            "Account.access": lambda row, _: self._by_group(every("account_access", account_id=row["id"])),
            "AccessGrant.group": lambda row, _: one("user_group", id=row["group_id"]),
            "AccessGrant.accountType": lambda row, _: one("account_type", id=row["account_type_id"]),
            "AccessGrant.roleName": lambda row, _: "-".join(
                ("freehold", row["role"].lower(), *(each["slug"] for each in every("user_group", id=row["group_id"])))
            ),
            "AccessGrant.applyToNewAccounts": lambda row, _: self._grant(row).get("apply_to_new_accounts"),
            "AccessGrant.state": lambda row, _: row.get("state") or self._state(row),
            "AccessGrant.reason": lambda row, _: self._reason(row),
            "AccessGrant.error": lambda row, _: row.get("error"),
        }

    def _error(self, row: Row, _: Any) -> Row | None:
        return None if row["error_code"] is None else below("error_", row)

    def _checked_at(self) -> str | None:
        found = self._one("policy_comparison")
        return None if found is None or found["checked_at"] is None else rfc3339(found["checked_at"])

    def _all(self, table: str, **columns: Any) -> list[Row]:
        return [row for row in self._rows[table] if all(row[name] == value for name, value in columns.items())]

    def _one(self, table: str, **columns: Any) -> Row | None:
        return next(iter(self._all(table, **columns)), None)

    def _lookup(self, table: str, _: Row, by: tuple[str, Any]) -> Row | None:
        name, value = by
        if name in ("name", "email"):
            found = (row for row in self._all(table) if lower(row[name]) == lower(value))
            given_up = ("CANCELLED", "DELETED")
            return next((row for row in found if row.get("status", row.get("state")) not in given_up), None)
        return self._one(table, **{snake_case(name): value})

    def _page(self, listing: Listing, parent: Row, page: Page) -> Row:
        rows = self._all(listing.table, **({listing.parent: parent[listing.of_parent]} if listing.parent else {}))
        rows = [row for row in rows if listing.hidden is None or row["state"] != listing.hidden]
        wanted = page.filter.items()
        return page.connection(row for row in rows if all(self._meets(row, listing, *each) for each in wanted))

    def _meets(self, row: Row, listing: Listing, name: str, wanted: Any) -> bool:
        match name:
            case "search":
                return any(lower(wanted) in lower(row[each]) for each in listing.searched if row[each] is not None)
            case "tag":
                return all(self._has_tag(row, **each) for each in wanted)
            case "accountTypeId":
                return encode("typ", row["account_type_id"]) in wanted
        return row[name] in wanted if isinstance(wanted, list) else row[name] is wanted

    def _has_tag(self, account: Row, key: str, value: str | None = None) -> bool:
        tags = self._all("tag", account_id=account["id"], key=key)
        return any(value in (None, tag["value"]) for tag in tags)

    def _effective_policies(self, account: Row, _: None) -> list[Row]:
        """The attachments that reach the account, from the tenancy down."""
        if account["role"] == "MANAGEMENT":
            return []
        on_type = {"account_type_id": account["account_type_id"]}
        ways = ({"account_type_id": None, "account_id": None}, on_type, {"account_id": account["id"]})
        oldest = itemgetter("created_at", "id")
        return [row for way in ways for row in sorted(self._all("policy_attachment", **way), key=oldest)]

    def _policies(self, type_: Row, _: None) -> list[Row]:
        attached = [each["policy_id"] for each in self._all("policy_attachment", account_type_id=type_["id"])]
        return sorted((row for row in self._all("policy") if row["id"] in attached), key=itemgetter("name"))

    def _through(self, mine: str, row: Row, theirs: str, table: str) -> list[Row]:
        keys = [each[theirs] for each in self._all("group_membership", **{mine: row["id"]})]
        return sorted((each for each in self._all(table) if each["id"] in keys), key=itemgetter("name", "id"))

    def _quota(self, code: str) -> Row:
        row = self._one("quota", code=code) or {"aws_limit": None, "set_limit": None, "read_at": None}
        known = {"SET": row["set_limit"], "AWS": row["aws_limit"], "DOCUMENTED": DOCUMENTED[code]}
        source = next(source for source, limit in known.items() if limit is not None or source == "DOCUMENTED")
        return {
            "__typename": "Quota",
            "code": code,
            "limit": known[source],
            "used": self._used(code),
            "source": source,
            "read_at": row["read_at"],
        }

    def _used(self, code: str) -> int:
        match code:
            case "ACCOUNTS":
                return sum(account["status"] != "CANCELLED" for account in self._all("account"))
            case "ORGANIZATIONAL_UNITS":
                return 3 + len(
                    [row for row in self._all("account_type", foundation=False) if row["state"] != "DELETED"]
                )
            case "POLICIES":
                return len(self._all("policy"))
            case "POLICIES_PER_TARGET":
                targets = Counter((a["account_type_id"], a["account_id"]) for a in self._all("policy_attachment"))
                return 1 + max(targets.values())
            case _:
                texts = (
                    json.dumps(each["document"], ensure_ascii=False, separators=(",", ":"))
                    for each in self._all("policy")
                )
                return max(map(len, texts))

    def _by_group(self, rows: Iterable[Row]) -> list[Row]:
        names = {group["id"]: group["name"] for group in self._all("user_group")}
        return sorted(rows, key=lambda row: (names[row["group_id"]], row["role"]))

    def _grant(self, row: Row) -> Row:
        key = {name: row[name] for name in ("account_type_id", "group_id", "role")}
        return self._one("access_grant", **key) or {}

    def _state(self, grant: Row) -> str:
        key = {name: grant[name] for name in ("account_type_id", "group_id", "role")}
        states = {row["state"] for row in self._all("account_access", **key)}
        return next((state for state in ("FAILED", "PENDING") if state in states), "ACTIVE")

    def _reason(self, row: Row) -> str:
        type_ = self._one("account_type", id=row["account_type_id"])
        assert type_ is not None
        on = f"on the account type {type_['name']}"
        match row.get("cause"):
            case "GRANTED":
                return f"Granted {on} when the account was in it."
            case "JOINED":
                return f"Granted {on}, which the account joined later."
            case "REVOKED":
                return f"Was revoked {on}; the role is being removed."
            case "LEFT":
                return f"The account has left the account type {type_['name']}; the role is being removed."
        if row["apply_to_new_accounts"]:
            return f"Granted {on} and to accounts that join it."
        return f"Granted {on} to the accounts of then, not to those that join it."


def check_selection(schema: GraphQLSchema, document: DocumentNode, given: Arguments, name: str | None) -> None:
    """Raises ValueError or GraphQLError for an argument that is to be refused, even where no object has the field."""
    operation = graphql.get_operation_ast(document, name)
    if operation is None:
        raise ValueError("Which operation is not said.")
    variables = get_variable_values(schema, operation.variable_definitions or (), dict(given))
    if isinstance(variables, list):
        raise variables[0]
    fragments = {
        n.name.value: FragmentDetails(n) for n in document.definitions if isinstance(n, FragmentDefinitionNode)
    }

    def check(type_: GraphQLObjectType, fields: GroupedFieldSet) -> None:
        for details in fields.values():
            for each in check_field(schema, type_, details[0].node, variables):
                check(each, collect_subfields(schema, fragments, variables, operation, each, details).grouped_field_set)

    root: Any = schema.query_type
    check(root, collect_fields(schema, fragments, variables, root, operation).grouped_field_set)


def check_field(
    schema: GraphQLSchema, type_: GraphQLObjectType, node: graphql.FieldNode, variables: VariableValues
) -> Sequence[GraphQLObjectType]:
    """Checks the arguments; returns the types of which an object may be there."""
    if node.name.value not in type_.fields:
        return ()
    field, name = type_.fields[node.name.value], f"{type_}.{node.name.value}"
    found = read(name, get_argument_values(field, node, variables))
    of: Any = schema.type_map[TYPES[found[0]]] if name == "Query.node" else graphql.get_named_type(field.type)
    if graphql.is_abstract_type(of):
        return schema.get_possible_types(of)
    return (of,) if graphql.is_object_type(of) else ()


def read(field: str, arguments: Arguments) -> Any:
    """What the arguments of a field ask for; raises ValueError for what is to be refused."""
    check_text(arguments)
    if field in LISTINGS:
        return Page(field, arguments)
    if field in LOOKUPS:
        [(name, value)] = arguments["by"].items()
        return name, decode(value, LOOKUPS[field]) if name == "id" else value
    if field == "Query.node":
        prefix, key = parse(arguments["id"])
        if prefix not in NODES:
            raise ValueError("It is not the id of a Node.")
        return NODES[prefix], key
    return None


def check_filter(filter: Arguments) -> None:
    """Raises ValueError for lists that are too long and for ids that are none."""
    for name, wanted in filter.items():
        if isinstance(wanted, list) and len(wanted) > (10 if name == "tag" else 100):
            raise ValueError("There are too many values.")
    for each in filter.get("accountTypeId", ()):
        decode(each, "typ")


def check_text(value: object) -> None:
    """Raises ValueError for text in any part of a value that PostgreSQL cannot hold."""
    if isinstance(value, str):
        value.encode()  # not half of a surrogate pair
        if "\0" in value:
            raise ValueError("It has a NUL character.")
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            check_text(each)


@lru_cache(maxsize=4096)
def lower(text: str) -> str:
    """As PostgreSQL's locale C.UTF-8: every character for itself, and it stays one character."""
    return "".join(each.lower()[0] for each in text)


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)


def rfc3339(moment: datetime) -> str:
    """In UTC, without zeros at the end of the fraction."""
    return re.sub(r"\.?0+(?=\+)", "", moment.astimezone(UTC).isoformat(timespec="microseconds"))


def progress(stages: Sequence[Row]) -> int:
    over = sum(each["status"] in ("COMPLETED", "SKIPPED") for each in stages)
    return 100 * over // len(stages) if stages else 0


def counted_tags(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The keys and the values of tags, each with how many accounts have it."""
    gone = {account["id"] for account in rows["account"] if account["status"] == "CANCELLED"}
    tags = [tag for tag in rows["tag"] if tag["account_id"] not in gone]
    columns = {"tag_key": ("key",), "tag_value": ("key", "value")}
    return {
        table: [
            {
                **dict(zip(names, found, strict=True)),
                "account_count": count,
                "id": UUID(hashlib.md5(found[-1].encode(), usedforsecurity=False).hexdigest()),
            }
            for found, count in Counter(tuple(tag[name] for name in names) for tag in tags).items()
        ]
        for table, names in columns.items()
    }


def below(prefix: str, row: Row) -> Row:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}


def read_row(table: str, record: Mapping[str, Any]) -> Row:
    is_json = ("controls", "document")
    row = {name: json.loads(value) if name in is_json and value else value for name, value in record.items()}
    return {**row, "__typename": TYPES.get(table)}
