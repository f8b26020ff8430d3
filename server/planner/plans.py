"""Plans of one query: from a request's variables to the one statement that answers it, compiled once.

What decides the SQL is asked in a fixed order: the viewer's role and the variables of @skip and @include come first,
then the shape of each field's arguments. Each answer leads to the next question or to the finished statement, so a plan
is found by asking, and nothing of a request's values is kept.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from graphql import GraphQLError

from server.identity.models import Role
from server.planner.compiler import Compiler
from server.planner.rows import Unmapped
from server.planner.selection import Document, Operation
from server.planner.statement import Call, Planned, Statement, TooLarge, Values

# A query whose variables decide about more statements than this starts again with none.
MOST_PLANS = 64
# What a plan, or a query without one, takes in bytes besides SQL.
_PLAN = 2_000


class _Question:
    """The arguments to look at next, and where each shape of them leads."""

    __slots__ = ("answers", "call")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.answers: dict[object, _Step] = {}


# None: the ordinary executor has to run the query.
_Step: TypeAlias = "_Question | Statement | None"
_MISSING: Any = object()


class Plans:
    """The plans of one query. `size` is about how many bytes they take.

    `conditions` are the variables that @skip and @include ask in its document.
    """

    def __init__(self, document: Document, conditions: Iterable[str]) -> None:
        self.size = _PLAN
        self._document = document
        self._conditions = tuple(sorted(conditions))
        self._first: dict[object, _Step] = {}
        self._number = 0

    def plan(self, given: Mapping[str, Any], role: Role) -> Planned | None:
        """The statement that answers the query for viewers of a role; `given` are its variables.

        None when the ordinary executor has to answer: the query reads what is not in the database, or there is an error
        to locate.
        """
        document = self._document
        variables = document.variables(given)
        if variables is None:
            return None
        step = self._first.get(self._beginning(role, variables.coerced), _MISSING)
        answers: list[Values] = []
        try:
            while type(step) is _Question:
                shape, values = step.call.evaluate(variables)
                answers.append(values)
                step = step.answers.get(shape, _MISSING)
            if step is _MISSING:
                return self._compile(Operation(document, variables), role)
        except GraphQLError:
            return None
        return None if step is None else Planned(step, answers)

    def _beginning(self, role: Role, variables: Mapping[str, Any]) -> object:
        return (role, *map(variables.get, self._conditions)) if self._conditions else role

    def _compile(self, operation: Operation, role: Role) -> Planned | None:
        """A plan made anew and kept; raises GraphQLError for what has to be located."""
        compiler = Compiler(operation, role, typed=False)
        if self._number >= MOST_PLANS:
            self.size, self._number = _PLAN, 0
            self._first.clear()
        steps, answer = self._first, self._beginning(role, operation.variables.coerced)
        statement: Statement | None = None
        try:
            statement = compiler.response()
        except TooLarge:
            # Other values may have shapes that make it shorter.
            pass
        except Unmapped:
            # Whatever the values.
            compiler.placeholders.calls.clear()
        for call, shape in compiler.placeholders.calls:
            question = steps.setdefault(answer, _Question(call))
            assert isinstance(question, _Question), "the same answers lead to the same question"
            steps, answer = question.answers, shape
        steps[answer] = statement
        self._number += 1
        self.size += _PLAN + (0 if statement is None else len(statement.sql))
        return None if statement is None else Planned(statement, compiler.placeholders.answers)
