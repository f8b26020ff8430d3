"""Connections: one page of rows by keyset, with the flags, the cursors and the count that are selected."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graphql import GraphQLObjectType, get_named_type

from server.planner import json_text
from server.planner.arguments import AFTER, BEFORE, Page, Restriction, cursor_prefix, read_page
from server.planner.json_text import JsonObject, JsonText
from server.planner.kinds import Pages
from server.planner.rows import Row, Selected

if TYPE_CHECKING:
    from server.planner.compiler import Compiler


def query(compiler: "Compiler", mapped: Pages, selected: Selected, parent: Row) -> str:
    """The query of a connection's JSON."""
    name = str(selected)

    def read(arguments: Mapping[str, Any]) -> tuple[Page, list[object]]:
        return read_page(mapped, name, arguments, selected.field.args)

    page, values = compiler.call(selected, read)
    return _Connection(compiler, mapped, selected, parent, page, values).query()


class _Connection:
    """Writes one connection.

    One row more than the page has is read to tell whether there are more, and left out before anything is joined to
    it. Of the others `n` counts from the end at which reading begins and `found` is how many were read; `element` is
    those rows again, as pieces of JSON.
    """

    def __init__(
        self, compiler: "Compiler", mapped: Pages, selected: Selected, parent: Row, page: Page, values: int
    ) -> None:
        self.compiler = compiler
        self.selected = selected
        self.page = page
        self.values = values
        self.key = mapped.keys[page.order]
        self.name = str(selected)
        node = get_named_type(selected.target.fields["nodes"].type)
        assert isinstance(node, GraphQLObjectType)
        self.node = node
        self.row = compiler.scan(node)
        self.counter = mapped.counters.get(frozenset(each.name for each in page.restrictions))
        self.on = mapped.on
        self.where = [] if mapped.where is None else [mapped.where.format(row=self.row.alias)]
        self.parent = parent
        self.element = Row(compiler.alias(), self.row.source)
        self.columns: list[str] = []
        self.joins: list[str] = []
        self.reads_page = False

    def query(self) -> str:
        json = self._object(
            self.selected,
            {
                "edges": lambda child: self._list(child, self._edge),
                "nodes": lambda child: self._list(child, self._node),
                "pageInfo": self._page_info,
                "totalCount": self._total_count,
            },
        )
        if not self.reads_page:
            return f"select {json} as j"
        page = self.element.alias
        columns = ", ".join([f"{page}.found", *(f"{each} as c{n}" for n, each in enumerate(self.columns))])
        # In the order of the list; what is aggregated from the elements follows it.
        order = f"order by {page}.n{' desc' if self.page.backward else ''}"
        return (
            f"select {json} as j from (select {columns} from ({self._rows()}) {page} {' '.join(self.joins)}"
            f" where {page}.n <= {self.page.size} {order}) element"
        )

    def _object(self, selected: Selected, members: Mapping[str, Callable[[Selected], JsonText | str]]) -> JsonText:
        """An object of the connection itself, whose fields are the same for every type of node."""
        json = JsonObject()
        for child in self.compiler.children(selected.target, selected):
            if child.name == "__typename":
                json.fixed(child.key, f'"{selected.target.name}"')
            else:
                json.member(child.key, members[child.name](child))
        return json.end()

    def _rows(self) -> str:
        order = self._order(self.page.ascending is not self.page.backward)
        where = self._filter()
        if self.page.after:
            where.append(self._beside(AFTER, ">"))
        if self.page.before:
            where.append(self._beside(BEFORE, "<"))
        numbered = (
            f"select {self.row.alias}.*, row_number() over (order by {order}) as n"
            f" {self.compiler.source(self.row, where)} order by {order} limit {self.page.size + 1}"
        )
        return f"select *, count(*) over () as found from ({numbered}) numbered"

    def _filter(self) -> list[str]:
        """The conditions of the whole list. PostgreSQL refuses values that a statement does not use, so only on use."""
        return [
            *self.where,
            *(f"{self.row.column(theirs)} = {self.parent.column(ours)}" for theirs, ours in self.on.items()),
            *self.compiler.restricted(self.page.restrictions, self.values, self.row),
        ]

    def _order(self, ascending: bool) -> str:
        direction = "asc" if ascending else "desc"
        return f"{self._sort_key(self.row)} {direction}, {self.row.column('id')} {direction}"

    def _sort_key(self, row: Row) -> str:
        return self.key.sql.format(row=row.alias)

    def _beside(self, cursor: int, operator: str) -> str:
        """The rows on one side of a cursor, where `>` is what follows it in the order of the list."""
        if not self.page.ascending:
            operator = operator.translate({ord("<"): ">", ord(">"): "<"})
        use = self.compiler.placeholders.use
        position = f"{use(self.values, cursor, self.key.type)}, {use(self.values, cursor + 1, 'uuid')}"
        return f"({self._sort_key(self.row)}, {self.row.column('id')}) {operator} ({position})"

    def _column(self, expression: str) -> str:
        """A piece of every element's JSON, written once however often it is selected."""
        self.reads_page = True
        if expression not in self.columns:
            self.columns.append(expression)
        return f"element.c{self.columns.index(expression)}"

    def _list(self, selected: Selected, piece: Callable[[Selected], JsonText]) -> JsonText:
        return json_text.array(f"string_agg({self._column(str(piece(selected)))}, ',')")

    def _node(self, selected: Selected) -> JsonText:
        return self.compiler.body(self.node, selected, self.element, self.joins)

    def _edge(self, selected: Selected) -> JsonText:
        return self._object(
            selected,
            {
                "cursor": lambda _: json_text.quoted(self._cursor(*self._position())),
                "node": self._node,
            },
        )

    def _position(self) -> tuple[str, str]:
        """Where an element lies: its sort key and its id."""
        return self._sort_key(self.element), self.element.column("id")

    def _cursor(self, key: str, id_: str) -> str:
        """The opaque cursor of a position: base64url of a JSON array, without padding; null for a null id."""
        if self.key.type == "timestamptz":
            key = json_text.fixed_timestamp(key)
        fields = JsonText(cursor_prefix(self.name, self.page) + ",")
        fields.sql(f"to_json({key})::text").text(',"').sql(f"{id_}::text").text('"]')
        return f"translate(encode(convert_to({fields}, 'UTF8'), 'base64'), E'+/=\\n', '-_')"

    def _page_info(self, selected: Selected) -> JsonText:
        backward = self.page.backward
        members: dict[str, Callable[[Selected], JsonText | str]] = {
            "hasNextPage": lambda _: self._is_beyond(BEFORE) if backward else self._has_more(BEFORE),
            "hasPreviousPage": lambda _: self._has_more(AFTER) if backward else self._is_beyond(AFTER),
            "startCursor": lambda _: self._cursor_at("1"),
            "endCursor": lambda _: self._cursor_at("count(*)"),
        }
        return self._object(selected, members)

    def _has_more(self, cursor: int) -> str:
        """Whether reading on finds more: a row too many for the page, or one at or beyond the cursor it stopped at."""
        self.reads_page = True
        return f"(coalesce(min(element.found) > {self.page.size}, false) or {self._beyond(cursor)})::text"

    def _is_beyond(self, cursor: int) -> str:
        return f"({self._beyond(cursor)})::text"

    def _beyond(self, cursor: int) -> str:
        """Whether there are rows at or beyond a cursor, on the side that the page leaves out."""
        given = self.page.after if cursor == AFTER else self.page.before
        if not given:
            return "false"
        where = [*self._filter(), self._beside(cursor, "<=" if cursor == AFTER else ">=")]
        return f"exists (select {self.compiler.source(self.row, where)})"

    def _cursor_at(self, place: str) -> str:
        """The cursor of the element at a place, from 1, or null when there is none."""
        key, id_ = (f"(array_agg({self._column(each)}))[{place}]" for each in self._position())
        return json_text.nullable(json_text.quoted(self._cursor(key, id_)))

    def _total_count(self, _: Selected) -> str:
        if self.counter is None:
            return f"(select count(*)::text {self.compiler.source(self.row, self._filter())})"
        use, restrictions = self.compiler.placeholders.use, self.page.restrictions
        values = {
            r.name: use(self.values, r.value, r.condition.type) for r in restrictions if isinstance(r, Restriction)
        }
        return f"{self.counter.format(parent=self.parent.alias, tenancy=self.compiler.tenancy(), **values)}::text"
