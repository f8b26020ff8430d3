"""Valid queries drawn from a schema: any of its fields, in every form that the language has for asking for them."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import graphql
from graphql import GraphQLCompositeType, GraphQLField, GraphQLInputType, GraphQLSchema, Undefined, get_named_type
from graphql.validation.rules.variables_in_allowed_position import allowed_variable_usage
from hypothesis import strategies as st

# What a document may have with its fragments expanded; `values` is a quarter of the cost that the server allows, as its
# estimate doubles with each page of 100.
MOST = {"aliases": 30, "directives": 20, "values": 8_000}
PAGE, LIST = 50, 10
NAMES: Sequence[tuple[str | None, ...]] = (*[(None,), ("First",)] * 4, ("First", "Second"))
# One is the likeliest, for it to be that of several fields; PostgreSQL would cut the last two to the same 63 bytes.
ALIASES = (*"aaabA", f"{'long' * 16}1", f"{'long' * 16}2")
DIRECTIVES = (*[("skip",), ("include",)] * 4, ("skip", "include"), ("include", "skip"))
TEXT = st.text(max_size=6)
SCALARS = {"Boolean": st.booleans(), "ID": TEXT, "Int": st.integers(0, 12), "String": TEXT}
T = TypeVar("T")
_below = cache(lambda number: st.integers(0, number - 1))


@dataclass(frozen=True)
class Generated:
    """A request: a valid document, the variables to send with it, and the name that chooses among its operations."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None


def operations(
    schema: GraphQLSchema, values: Mapping[str, Sequence[Any]], *, most_fields: int = 25, deepest: int = 6
) -> st.SearchStrategy[Generated]:
    """Queries without introspection; `most_fields` and `deepest` bound their fields, with fragments expanded.

    They validate against `schema`, which has to be built from SDL for `@oneOf` to be known. `values` has what to give
    as an argument or a field of an input object: the pool for `Query.accounts.after` or `AccountBy.name` if there is
    one, else for `after` or `name`, else for the type, such as `ID`. What has no pool is drawn from its type; Float
    and custom scalars need one. The elements of a list come from the pool one by one. What is in a pool twice comes
    twice as often; what makes no valid literal, such as an Int of 40 bits, is only sent in a variable.
    """

    @st.composite
    def generated(draw: st.DrawFn) -> Generated:
        return _Document(_Inputs(draw, schema, values), most_fields, deepest).request()

    return generated()


@dataclass(frozen=True, eq=False)
class _Variable:
    name: str
    type: GraphQLInputType
    default: graphql.ConstValueNode | None
    given: Any  # may be Undefined

    def __str__(self) -> str:
        return f"${self.name}: {self.type}{f' = {graphql.print_ast(self.default)}' if self.default else ''}"


def _literal(value: Any, type_: GraphQLInputType) -> str:
    if isinstance(value, _Variable):
        return f"${value.name}"
    nullable, named = graphql.get_nullable_type(type_), get_named_type(type_)
    if isinstance(value, list) and graphql.is_list_type(nullable):
        return f"[{', '.join(_literal(each, nullable.of_type) for each in value)}]"
    if isinstance(value, dict) and graphql.is_input_object_type(named):
        return f"{{{', '.join(f'{name}: {_literal(each, named.fields[name].type)}' for name, each in value.items())}}}"
    return value if isinstance(value, str) and graphql.is_enum_type(named) else json.dumps(value, ensure_ascii=False)


def _parsed(value: Any, type_: GraphQLInputType) -> graphql.ConstValueNode | None:
    """The literal for a value without variables; None where a document cannot have it."""
    try:
        node = graphql.parse_const_value(_literal(value, type_))
    except graphql.GraphQLSyntaxError:  # half a surrogate pair
        return None
    return None if graphql.coerce_input_literal(node, type_) is Undefined else node


class _Inputs:
    """Draws what a document gives to arguments, where any part may be a variable, and the JSON beside it.

    `names` are the keys of the pools to look for before that of the type.
    """

    def __init__(self, draw: st.DrawFn, schema: GraphQLSchema, pools: Mapping[str, Sequence[Any]]) -> None:
        self.draw = draw
        self.schema = schema
        self._pools = pools
        self.variables: list[_Variable] = []
        # Every use of a variable, in the order in which the document is drawn.
        self.uses: list[_Variable] = []

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.draw(_below(len(choices)))]

    def happens(self, times: int, of: int) -> bool:
        return self.draw(_below(of)) >= of - times

    def value(self, type_: GraphQLInputType, *names: str, is_json: bool = False, in_one_of: bool = False) -> Any:
        if not is_json and self.happens(1, 4):
            return self._variable(type_, names, in_one_of)
        if graphql.is_nullable_type(type_) and not in_one_of and self.happens(1, 8):
            return None
        nullable: Any = graphql.get_nullable_type(type_)
        named: Any = get_named_type(type_)
        if graphql.is_list_type(nullable) and not self.happens(1, 8):  # for one value may stand for a list of it
            return [self.value(nullable.of_type, *names, is_json=is_json) for _ in range(self.pick(range(4)))]
        for name in (*names, named.name):
            if pool := self._pools.get(name):
                value = self.pick(pool)
                return value if is_json or _parsed(value, named) else self._variable(type_, names, in_one_of)
        if graphql.is_input_object_type(named):
            return self._members(named, is_json)
        return self.pick(list(named.values)) if graphql.is_enum_type(named) else self.draw(SCALARS[named.name])

    def _members(self, of: graphql.GraphQLInputObjectType, is_json: bool) -> dict[str, Any]:
        names = [self.pick(list(of.fields))] if of.is_one_of else list(of.fields)
        return {
            name: self.value(each.type, f"{of.name}.{name}", name, is_json=is_json, in_one_of=of.is_one_of)
            for name, each in ((name, of.fields[name]) for name in names)
            if of.is_one_of or graphql.is_required_input_field(each) or self.happens(1, 3)
        }

    def _variable(self, type_: GraphQLInputType, names: Sequence[str], in_one_of: bool) -> _Variable:
        usable = [each for each in self.variables if graphql.is_non_null_type(each.type) or not in_one_of]
        fitting = [
            each for each in usable if allowed_variable_usage(self.schema, each.type, each.default, type_, Undefined)
        ]
        if not fitting or self.happens(1, 2):
            fitting = [self._declare(type_, names, in_one_of)]
        self.uses.append(self.pick(fitting))
        return self.uses[-1]

    def _declare(self, type_: GraphQLInputType, names: Sequence[str], in_one_of: bool) -> _Variable:
        nullable: Any = graphql.get_nullable_type(type_)
        is_strict = in_one_of or graphql.is_non_null_type(type_) or self.happens(1, 3)
        type_ = graphql.GraphQLNonNull(nullable) if is_strict else nullable
        default, given = None, Undefined
        if self.happens(1, 3):
            default = _parsed(self.value(type_, *names, is_json=True), type_)
            if default and not in_one_of and self.happens(1, 2):
                type_ = nullable  # as the default is there when the variable is not
        if not ((default or type_ is nullable) and self.happens(1, 4)):
            given = self.value(type_, *names, is_json=True)
        self.variables.append(_Variable(f"v{len(self.variables) + 1}", type_, default, given))
        return self.variables[-1]


@dataclass(frozen=True)
class _Place:
    """Where selections go: below a field of type `of`, under a condition of `type`; `times` as the server reckons."""

    of: GraphQLCompositeType
    type: GraphQLCompositeType
    times: int = 1
    depth: int = 0

    def size(self, definition: GraphQLField) -> int:
        """How much one object has below a field, at most."""
        if graphql.is_leaf_type(get_named_type(definition.type)):
            return 0
        if "first" in definition.args:
            return PAGE
        is_list = graphql.is_list_type(graphql.get_nullable_type(definition.type))
        return LIST if is_list and not self.type.name.endswith("Connection") else 1


@dataclass(frozen=True)
class _Call:
    """A field with its arguments, and the variables in them."""

    place: _Place
    key: str
    name: str
    definition: GraphQLField
    arguments: str
    uses: Sequence[_Variable]

    def merges(self, other: "_Call") -> bool:
        """Whether both may be in one object, which is below fields that merge and so are `of` one type."""
        if (self.place.of, self.key) != (other.place.of, other.key):
            return True
        types = {self.place.type, other.place.type}
        never_both = len(types) > 1 and all(map(graphql.is_object_type, types))
        is_alike = str(self.definition.type) == str(other.definition.type)
        return is_alike and (never_both or (self.name, self.arguments) == (other.name, other.arguments))


@dataclass(frozen=True)
class _Fragment:
    name: str
    body: str
    place: _Place
    cost: Mapping[str, int]
    uses: Sequence[_Variable]


@st.composite
def _perhaps(draw: st.DrawFn, times: int, of: int, make: Callable[[_Place], str], place: _Place) -> str | None:
    """What is drawn as one is also dropped as one while an example shrinks."""
    return make(place) if draw(_below(of)) >= of - times else None


class _Document:
    """Draws one document; `_left` is what may still be in it."""

    def __init__(self, inputs: _Inputs, most_fields: int, deepest: int) -> None:
        self._inputs = inputs
        self._pick, self._happens = inputs.pick, inputs.happens
        self._deepest = deepest
        self._left = Counter({**MOST, "fields": most_fields - 1})  # the second operation may need one when none is left
        self._fragments: list[_Fragment] = []
        self._calls: list[_Call] = []

    def request(self) -> Generated:
        names = self._pick(NAMES)
        parts = [self._operation(name) for name in names]
        parts += [f"fragment {each.name} {each.body}" for each in self._fragments]
        variables = {each.name: each.given for each in self._inputs.variables if each.given is not Undefined}
        return Generated("\n".join(parts), variables, self._pick(names if len(names) > 1 else (None, *names)))

    def _operation(self, name: str | None) -> str:
        root: Any = self._inputs.schema.query_type
        start = len(self._inputs.uses)
        body = self._selections(_Place(root, root))
        variables = ", ".join(map(str, dict.fromkeys(self._inputs.uses[start:])))
        head = (name or "") + (f"({variables})" if variables else "")
        return f"query {head} {body}" if head else body

    def _affords(self, **cost: int) -> bool:
        return all(self._left[what] >= much for what, much in cost.items())

    def _selections(self, place: _Place) -> str:
        parts: list[str] = []
        out_of = 3 if place.depth < 2 or not graphql.is_object_type(place.type) else 4
        while not parts or self._affords(fields=1, values=place.times):
            part = self._inputs.draw(_perhaps(2, out_of if parts else 2, self._selection, place))
            if part is None:
                break
            parts.append(part)
        return "{\n  " + "\n".join(parts).replace("\n", "\n  ") + "\n}"

    def _selection(self, place: _Place) -> str:
        kinds = (*[self._field] * 7, self._repeated, self._spread, self._inline)
        return self._pick(kinds if graphql.is_object_type(place.type) else (*kinds[6:], self._inline))(place)

    def _field(self, place: _Place) -> str:
        own: Mapping[str, GraphQLField] = getattr(place.type, "fields", {})  # a union has none
        start, fields = len(self._inputs.uses), {"__typename": graphql.TypeNameMetaFieldDef, **own}
        # What has arguments has more to go wrong, so it comes more often.
        names = [each for each in fields for _ in range(1 + len(fields[each].args) // 2)]
        name = self._pick([each for each in names if self._is_affordable(place, fields[each])] or ["__typename"])
        arguments = ", ".join(
            f"{each}: {_literal(self._inputs.value(of.type, f'{place.type.name}.{name}.{each}', each), of.type)}"
            for each, of in fields[name].args.items()
            if graphql.is_required_argument(of) or self._happens(1, 3)
        )
        # Where keys are often shared: at the root, and between fields of several types.
        has_alias = self._happens(1, 2 if place.depth == 0 or place.type is not place.of else 5)
        key = self._pick(self._pick((ALIASES, (name, *own)))) if has_alias and self._affords(aliases=1) else name
        call = _Call(place, key, name, fields[name], arguments and f"({arguments})", self._inputs.uses[start:])
        is_free = all(map(call.merges, self._calls))
        return self._select(place, call if is_free else replace(call, key=f"a{self._left['aliases']}"))

    def _is_affordable(self, place: _Place, definition: GraphQLField) -> bool:
        size = place.size(definition)
        is_high = not size or place.depth + 1 < self._deepest
        return is_high and self._affords(aliases=1, fields=2 if size else 1, values=place.times * (1 + size))

    def _select(self, place: _Place, call: _Call) -> str:
        self._left.subtract({"fields": 1, "values": place.times, "aliases": call.key != call.name})
        self._calls.append(call)
        self._inputs.uses += call.uses
        alias = "" if call.key == call.name else f"{call.key}: "
        text = f"{alias}{call.name}{call.arguments}{self._directives()}"
        type_ = get_named_type(call.definition.type)
        if not graphql.is_composite_type(type_):
            return text
        below = _Place(type_, type_, place.times * place.size(call.definition), place.depth + 1)
        return f"{text} {self._selections(below)}"

    def _repeated(self, place: _Place) -> str:
        """A field that is selected somewhere, often here, so that what is below it has to be merged."""
        calls = [each for each in self._calls if (each.place.of, each.place.type) == (place.of, place.type)]
        calls = [each for each in calls if place.size(each.definition) and self._is_affordable(place, each.definition)]
        return self._select(place, self._pick(calls)) if calls else self._field(place)

    def _conditions(self, place: _Place) -> list[GraphQLCompositeType]:
        composite = filter(graphql.is_composite_type, self._inputs.schema.type_map.values())
        return [each for each in composite if graphql.do_types_overlap(self._inputs.schema, place.type, each)]

    def _inline(self, place: _Place) -> str:
        condition = self._pick((None, *self._conditions(place)))
        head = f"...{f' on {condition.name}' if condition else ''}{self._directives()}"
        return f"{head} {self._selections(replace(place, type=condition or place.type))}"

    def _spread(self, place: _Place) -> str:
        conditions = self._conditions(place)
        fitting = [each for each in self._fragments if each.place.of is place.of and each.place.type in conditions]
        fitting = [each for each in fitting if each.place.depth >= place.depth and each.place.times >= place.times]
        fitting = [each for each in fitting if self._affords(**each.cost)]
        if fitting and self._happens(2, 3):
            fragment = self._pick(fitting)
            self._left.subtract(fragment.cost)
            self._inputs.uses += fragment.uses
        else:
            left, start = self._left.copy(), len(self._inputs.uses)
            where = replace(place, type=self._pick(conditions))
            body = f"on {where.type.name} {self._selections(where)}"
            name = f"F{len(self._fragments) + 1}"
            fragment = _Fragment(name, body, where, left - self._left, self._inputs.uses[start:])
            self._fragments.append(fragment)
        return f"...{fragment.name}{self._directives()}"

    def _directives(self) -> str:
        if not (self._affords(directives=2) and self._happens(1, 10)):
            return ""
        names = self._pick(DIRECTIVES)
        self._left.subtract({"directives": len(names)})
        of = graphql.GraphQLSkipDirective.args["if"].type
        return "".join(f" @{name}(if: {_literal(self._inputs.value(of, 'if'), of)})" for name in names)
