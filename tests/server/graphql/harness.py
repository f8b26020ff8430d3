"""The endpoint over the tests' schema, as an application to serve."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from server.context import Context, Viewer
from server.graphql.endpoint import Endpoint
from server.graphql.hub import Hub
from server.identity.service import Authenticator
from server.planner.reader import Reader
from tests.server.graphql.schema import schema

ORIGIN = "https://console.example.com"


def endpoint(engine: AsyncEngine, hub: Hub, **options: Any) -> Endpoint:
    # Nothing in this schema has a plan, so it never connects.
    reader = Reader("postgresql://127.0.0.1:1/none")

    def context_for(viewer: Viewer) -> Context:
        return Context(viewer, engine, reader, hub)

    authenticate = Authenticator(engine, seconds_to_live=0)
    return Endpoint(schema, authenticate, context_for, reader, allowed_origins=[ORIGIN], **options)


def application(endpoint: Endpoint) -> Starlette:
    return Starlette(routes=[Route("/graphql", endpoint), WebSocketRoute("/graphql", endpoint)])


@dataclass(frozen=True)
class Address:
    port: int

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"{self.root}/graphql"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/graphql"
