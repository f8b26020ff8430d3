"""The types of Relay connections, and the identity that every Node has."""

from enum import StrEnum
from typing import Generic, TypeVar

import strawberry

from server.graphql.scalars import expose

T = TypeVar("T")


@strawberry.interface(description="An object with an id of its own, by which `node` finds it again.")
class Node:
    id: strawberry.ID = strawberry.field(description="Opaque, and the same for as long as the object exists.")


class OrderDirection(StrEnum):
    ASC = "ASC"
    DESC = "DESC"


expose(OrderDirection, "Which way a list is ordered.", ASC="Smallest or oldest first.", DESC="Largest or newest first.")


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether anything follows this page.")
    has_previous_page: bool = strawberry.field(description="Whether anything precedes this page.")
    start_cursor: str | None = strawberry.field(description="Give it as `before` for the page before; null when empty.")
    end_cursor: str | None = strawberry.field(description="Give it as `after` for the next page; null when empty.")


@strawberry.type(description="An element of a list with its place there.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(
        description="Opaque: a place in an order, good for the same field in the same order, for any parent or filter."
    )
    node: T


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    edges: list[Edge[T]]
    nodes: list[T] = strawberry.field(description="The nodes of `edges`, for who needs no cursors.")
    page_info: PageInfo
    total_count: int = strawberry.field(
        description="The length of the whole list under its filter, counted when asked for."
    )
