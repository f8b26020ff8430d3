"""GraphQL reads as SQL: a mapping beside the types, and one statement per root field. Knows no domain."""

from server.planner.lists import ListPlan
from server.planner.read import (
    check_filter,
    install,
    plan_list,
    read_each,
    read_greatest,
    read_list,
    read_number,
    read_payload,
)

__all__ = [
    "ListPlan",
    "check_filter",
    "install",
    "plan_list",
    "read_each",
    "read_greatest",
    "read_list",
    "read_number",
    "read_payload",
]
