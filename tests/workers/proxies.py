"""What stands between a worker and the services that it uses, to break the connection at a chosen moment."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import parse_qs, urlsplit

from aiohttp import ClientSession, web

Fault = Callable[[web.Request, Callable[[], Awaitable[web.Response]]], Awaitable[web.StreamResponse]]

REQUEST_ID = "11111111-2222-3333-4444-555555555555"


class AwsProxy:
    """Passes calls on to the simulator, unless a fault is set for the operation; counts them by operation."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._faults: dict[str, list[Fault]] = {}
        self._held: list[Held] = []
        self.calls: Counter[str] = Counter()
        self.url = ""

    def fail(self, operation: str, *faults: Fault) -> None:
        """The next calls of the operation meet these faults, one each."""
        self._faults.setdefault(operation, []).extend(faults)
        self._held.extend(fault for fault in faults if isinstance(fault, Held))

    def reset(self) -> None:
        self._faults.clear()
        for held in self._held:
            held.release()
        self._held.clear()
        self.calls.clear()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        async with ClientSession(auto_decompress=False) as self._session:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application, handler_cancellation=False)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                self.reset()
                await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        # Whole before anything else: from here on AWS has heard it, whatever becomes of the client.
        await request.read()
        operation = await operation_of(request)
        self.calls[operation] += 1
        fault = self.fault_for(operation)
        if fault is None:
            return await self._forward(request)
        return await fault(request, lambda: self._forward(request))

    def fault_for(self, operation: str) -> Fault | None:
        """What the call that has just come in meets."""
        faults = self._faults.get(operation)
        return faults.pop(0) if faults else None

    async def _forward(self, request: web.Request) -> web.Response:
        answer = await self._session.request(
            request.method, self._endpoint + request.path_qs, headers=request.headers, data=await request.read()
        )
        async with answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
            return web.Response(status=answer.status, headers=headers, body=await answer.read())


async def operation_of(request: web.Request) -> str:
    target = request.headers.get("X-Amz-Target")
    if target:
        return target.rpartition(".")[2]
    form = parse_qs((await request.read()).decode("latin-1"))
    return form["Action"][0] if "Action" in form else request.path


async def lose_answer(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
    """AWS carries the call out, and the connection breaks before the answer."""
    await forward()
    return _hang_up(request)


async def lose_request(request: web.Request, _: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
    """The connection breaks before AWS hears of the call."""
    return _hang_up(request)


def answer(body: dict[str, object], status: int = 200) -> Fault:
    """The proxy answers in the place of AWS, in the JSON protocol."""

    async def fault(_: web.Request, __: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        headers = {"x-amzn-RequestId": REQUEST_ID, "Content-Type": "application/x-amz-json-1.1"}
        return web.Response(status=status, headers=headers, body=json.dumps(body).encode())

    return fault


def refuse(code: str, status: int = 400, **fields: object) -> Fault:
    """AWS refuses the call, in the protocol of the request."""
    message = f"{code} by the test"
    as_json = answer({"__type": code, "message": message, **fields}, status)

    async def fault(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        if "X-Amz-Target" in request.headers:
            return await as_json(request, forward)
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        body = f"<ErrorResponse>{error}<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
        return web.Response(status=status, content_type="text/xml", text=body)

    return fault


class Held:
    """A fault that keeps calls waiting until `release`, after AWS has carried them out or they met another fault."""

    def __init__(self, fault: Fault | None = None) -> None:
        self._fault = fault
        self.reached = asyncio.Event()
        self.waiting = 0
        self._released = asyncio.Event()

    async def __call__(
        self, request: web.Request, forward: Callable[[], Awaitable[web.Response]]
    ) -> web.StreamResponse:
        result = await (forward() if self._fault is None else self._fault(request, forward))
        self.waiting += 1
        self.reached.set()
        await self._released.wait()
        return result

    def release(self) -> None:
        self._released.set()


class Late(Held):
    """A fault that keeps a call from AWS until `arrive`, whatever has become of whoever sent it."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = asyncio.Event()

    async def __call__(
        self, request: web.Request, forward: Callable[[], Awaitable[web.Response]]
    ) -> web.StreamResponse:
        self.reached.set()
        await self._released.wait()
        result = await forward()
        self._arrived.set()
        return result

    async def arrive(self) -> None:
        """Let it reach AWS, and wait until AWS has carried it out."""
        self.release()
        await self._arrived.wait()


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        # Otherwise the client was faster.
        request.transport.abort()
    return web.Response()


class Gate:
    """A TCP port in front of another one, that can be shut: connections break and new ones are refused.

    Stalled, it keeps them and lets nothing pass, as when the other side is frozen.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._port = 0

    @property
    def url(self) -> str:
        credentials, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}").geturl()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._flowing.set()

    def stall(self) -> None:
        self._flowing.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._parts.hostname is not None
        far_reader, far_writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
