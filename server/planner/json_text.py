"""SQL that builds JSON as text: twice as fast in PostgreSQL as its JSON constructors."""

from graphql import GraphQLOutputType, get_named_type, get_nullable_type, is_enum_type, is_list_type

RFC3339 = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


class JsonText:
    """A concatenation of fixed text and SQL expressions of type text, with as few operators as it takes."""

    def __init__(self, text: str = "") -> None:
        self._parts: list[tuple[bool, str]] = []
        self.text(text)

    def text(self, text: str) -> "JsonText":
        if self._parts and self._parts[-1][0]:
            text = self._parts.pop()[1] + text
        if text:
            self._parts.append((True, text))
        return self

    def sql(self, expression: str) -> "JsonText":
        self._parts.append((False, f"({expression})"))
        return self

    def json(self, other: "JsonText | str") -> "JsonText":
        """What another holds, or SQL of JSON."""
        if isinstance(other, str):
            return self.sql(other)
        for fixed, part in other._parts:
            if fixed:
                self.text(part)
            else:
                self._parts.append((fixed, part))
        return self

    def __str__(self) -> str:
        return " || ".join(literal(part) if fixed else part for fixed, part in self._parts) or "''"


class JsonObject:
    """A JSON object, one member at a time."""

    def __init__(self) -> None:
        self._text = JsonText()
        self._separator = "{"

    def fixed(self, key: str, json: str) -> None:
        self._text.text(f'{self._separator}"{key}":{json}')
        self._separator = ","

    def member(self, key: str, json: JsonText | str) -> None:
        self.fixed(key, "")
        self._text.json(json)

    def end(self) -> JsonText:
        """The finished object."""
        return self._text.text("{}" if self._separator == "{" else "}")


def literal(text: str) -> str:
    """A SQL string literal of text that comes from the schema."""
    return "'" + text.replace("'", "''") + "'"


def array(elements: str) -> JsonText:
    """A JSON array from comma-joined elements, which may be SQL null for none."""
    return JsonText("[").sql(f"coalesce({elements}, '')").text("]")


def fixed_timestamp(expression: str) -> str:
    """RFC 3339 in UTC, always with microseconds, as cursors have it."""
    return f"to_char({expression} at time zone 'UTC', {RFC3339})"


def node_id(expression: str, prefix: str) -> JsonText:
    return JsonText(f'"{prefix}_').sql(f"replace({expression}::text, '-', '')").text('"')


def leaf(expression: str, type_: GraphQLOutputType) -> JsonText:
    """A scalar, an enum or a list of them, as JSON; SQL null stays null.

    A moment is RFC 3339 in the time zone of the connection, without zeros at the end of its fraction: to_char would
    give each the same length, but a page has 1,400 of them, and it takes twice as long.
    """
    if is_list_type(get_nullable_type(type_)):
        return JsonText().sql(f"to_json({expression})::text")
    named = get_named_type(type_)
    if named.name in {"Int", "Boolean", "JSON"}:
        return JsonText().sql(f"{expression}::text")
    if is_enum_type(named):
        # Needs no escaping: a check constraint holds every enum column to its names.
        return quoted(expression)
    return JsonText().sql(f"to_json({expression})::text")


def quoted(expression: str) -> JsonText:
    return JsonText('"').sql(expression).text('"')


def never_null(json: JsonText | str, name: str) -> str:
    """SQL of JSON that fails, with the name in its error, where the other is SQL null."""
    # No expression of SQL raises an error; what depends on random() is at least not tried while planning.
    message = literal(f"{name} is null, which it may not be")
    return f"coalesce({json}, ({message} || left(random()::text, 0))::integer::text)"


def nullable(json: JsonText | str) -> str:
    """SQL of JSON that is null where the other is SQL null."""
    return f"coalesce({json}, 'null')"
