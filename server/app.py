"""The whole server in one constructor: what it serves, what it opens when it starts and closes when it stops."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from arq.connections import ArqRedis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.config import Settings
from server.context import Context, Viewer
from server.database import create_engine
from server.embedded.ports import require_free_port
from server.graphql.endpoint import Endpoint
from server.graphql.hub import Hub
from server.graphql.schema import Schema
from server.identity.service import Authenticator
from server.loops import stop
from server.outages import Outage, cause_of, is_away
from server.planner.reader import COMMAND_SECONDS, Reader
from server.relay import connect, relay
from server.roles import APP, DatabaseRefused
from server.roles import connect as connect_as
from server.schema import schema as the_schema
from server.serving import create_server

READY_SECONDS = 2.0
# Not redirected to the first: WebSockets do not follow.
ADDRESSES = ("/graphql", "/graphql/")

logger = logging.getLogger(__name__)


def create_app(settings: Settings, schema: Schema = the_schema) -> ASGIApp:
    """The ASGI application. It starts whether or not PostgreSQL and Redis answer, and serves as soon as they do.

    Raises ConfigurationError when `database_url` or `redis_url` is not set.
    """
    database_url = settings.require("database_url")
    engine = create_engine(database_url, APP, command_seconds=COMMAND_SECONDS)
    queue = connect(settings.require("redis_url"))
    reader = Reader(database_url)
    hub = Hub(database_url)

    def context_for(viewer: Viewer) -> Context:
        return Context(viewer, engine, reader, hub)

    endpoint = Endpoint(schema, Authenticator(engine), context_for, reader, allowed_origins=settings.allowed_origins)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            stack.push_async_callback(queue.aclose)
            stack.push_async_callback(reader.close)
            await hub.open()
            stack.push_async_callback(hub.close)
            relaying = asyncio.create_task(relay(engine, queue, hub.outbox), name="relay")
            stack.push_async_callback(stop, relaying)
            yield

    no_database = Outage(logger, "This server says on /readyz that it is out of service")
    no_redis = Outage(logger, "This server says on /readyz that it works without Valkey")

    async def ready(request: Request) -> Response:
        database, redis = await asyncio.gather(
            _state(lambda: _ask_database(engine), no_database), _state(lambda: _ask_redis(queue), no_redis)
        )
        # Without Redis everything is answered, and jobs wait in the outbox: no reason to take a server out of service.
        return JSONResponse({"database": database, "redis": redis}, 200 if database == "ok" else 503)

    rest = Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/graphql")),
            Route("/console", lambda request: RedirectResponse("/graphql")),
            Route("/healthz", lambda request: JSONResponse({"status": "ok"})),
            Route("/readyz", ready),
        ],
        lifespan=lifespan,
    )

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # The endpoint answers for its own errors, and going through Starlette takes as long as a short read.
        await (endpoint if scope.get("path") in ADDRESSES else rest)(scope, receive, send)

    return _shared(application, settings.allowed_origins) if settings.allowed_origins else application


def _shared(application: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application for the pages of other sites too."""
    return CORSMiddleware(
        application,
        allow_origins=origins,
        allow_methods=["POST"],
        allow_headers=["authorization", "content-type"],
        max_age=600,
    )


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; returns when every connection is closed.

    Raises FreeholdError when a setting is missing or wrong. A PostgreSQL that is away is waited for.
    """
    require_free_port(settings.host, settings.port, "FREEHOLD_PORT", "FREEHOLD_HOST")
    asyncio.run(_try_to_sign_in(settings.require(APP.setting)))
    server = create_server(create_app(settings), settings.host, settings.port)
    # What is loaded by now stays. Looking through it for garbage would hold every request up for some 50 ms.
    gc.freeze()
    with suppress(KeyboardInterrupt):
        server.run()


async def _try_to_sign_in(database_url: str) -> None:
    """Raise DatabaseRefused while whoever has set the URL is there to put it right."""
    try:
        connection = await connect_as(APP, database_url)
    except DatabaseRefused:
        raise
    except Exception as error:
        if not is_away(error):
            raise
        logger.warning("The server starts without PostgreSQL: %s", cause_of(error))
    else:
        await connection.close()


async def _state(ask: Callable[[], Awaitable[None]], outage: Outage) -> str:
    try:
        async with asyncio.timeout(READY_SECONDS):
            await ask()
    except Exception as error:
        # The message may name users and hosts, and whoever asks here has shown no token.
        outage.begin(error)
        return f"no answer within {READY_SECONDS:g} s" if isinstance(error, TimeoutError) else "unavailable"
    outage.end()
    return "ok"


async def _ask_database(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _ask_redis(queue: ArqRedis) -> None:
    await queue.ping()
