"""The only network of a world. Each HTTP exchange is a call of an ASGI application in this process, over a link that
delays, cuts, doubles, truncates and loses by the seed; there are no names, certificates and sockets.

The product speaks real bytes: `create_connection` stands in for the loop's. The simulators have `client`. A request
that was sent is answered by a task of its own: whoever waits for it may time out or crash, and the other side acts.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import httptools
import msgspec

from simulator.kit.http_client import ClientResponse, NoResponse, OtherClient
from tests.simulation.faults import FaultBook

HOST = "127.0.0.1"
PRODUCT = "product"
"""The name of all processes of ours in the names of links."""

HTML_ERROR = b"<!doctype html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
STATUSES = (500, 502, 503, 504)
CRASH_WITHIN_S = 0.2
"""Longer than an exchange without faults and what follows it."""

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.Protocol)

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
"""An ASGI application."""


class Wire(NamedTuple):
    """A request as it was sent; header names are lower case."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Answer(NamedTuple):
    """A response. `is_whole`: its body came to its end."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    is_whole: bool = True


class Lost(Exception):
    """There is no response: `refused` before anything was sent, or `cut`."""


class Process(Protocol):
    """A process of the product. `app` None: it does not listen. `ended` is done when it has crashed or stopped."""

    @property
    def app(self) -> App | None: ...

    @property
    def ended(self) -> asyncio.Future[None]: ...

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]: ...

    def crash(self) -> None: ...


class LinkFaults(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the requests over a link, from 0 to 1, and its delays in seconds, one way."""

    refused: float = 0.0
    # Without effect: the connection ends before the request is there; a router answers in the server's place.
    cut_before: float = 0.0
    answered_5xx: float = 0.0
    html_error: float = 0.0
    # With effect: the connection ends before the response is there, or within its body; its end is dropped; 5xx.
    cut_after: float = 0.0
    cut_within: float = 0.0
    truncated: float = 0.0
    failed_after: float = 0.0
    # The request comes a second time, up to a minute later, and nobody waits for the response.
    doubled: float = 0.0
    # One way takes `slow_s`, so what was sent later may be there before.
    slow: float = 0.0
    slow_s: tuple[float, float] = (1.0, 30.0)
    delay_s: tuple[float, float] = (0.004, 0.06)


NO_FAULTS = LinkFaults()


class Blackout(msgspec.Struct, frozen=True, kw_only=True):
    """An outage of links, in seconds since the world began. `link` is a whole name, or its beginning before `>` or its
    end after it with `*` for the rest. `is_silent`: requests hang to its end, else they are refused.
    """

    name: str
    link: str
    from_s: float
    until_s: float
    is_silent: bool = False

    def covers(self, link: str, now_s: float) -> bool:
        return self.from_s <= now_s < self.until_s and _matches(self.link, link)


class Server(NamedTuple):
    """The far end of a port. `pick` chooses the process for a request, else `app` answers outside of all processes."""

    name: str
    app: App | None = None
    pick: Callable[[], Process | None] | None = None


class Network:
    """All links of a world. Make it outside of every process's context: that one is for what is not ours."""

    def __init__(self, book: FaultBook) -> None:
        self.book = book
        self.sent: defaultdict[str, list[float]] = defaultdict(list)
        """When requests were sent, by link, in seconds since the world began."""
        self._servers: dict[int, Server] = {}
        self._faults: dict[str, LinkFaults] = {}
        self._faults_by_link: dict[str, LinkFaults] = {}
        self._blackouts: tuple[Blackout, ...] = ()
        self._are_faults_on = True
        self.crash_share = 0.0
        """Share of the exchanges of processes in whose middle one of them crashes."""

        self._nth: Counter[str] = Counter()
        self._outside: Context = copy_context()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._quiet = _Quiet()

    # -- what it is made of --------------------------------------------------------------------------------------------

    def serve(self, port: int, server: Server) -> None:
        self._servers[port] = server

    def set_faults(self, faults: dict[str, LinkFaults], blackouts: tuple[Blackout, ...] = ()) -> None:
        """Set the faults of links by their names, as in `Blackout`; the first that matches holds."""
        self._faults, self._blackouts = faults, blackouts
        self._faults_by_link.clear()

    def end_faults(self) -> None:
        """From now on all goes well."""
        self._are_faults_on = False
        self.crash_share = 0.0
        self._faults_by_link.clear()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._quiet.close()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it outside of all processes."""
        task = self._outside.copy().run(asyncio.get_running_loop().create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def client(self, sender: str | Callable[[str], str], name: str = "") -> OtherClient:
        """Return the client of a simulator. `sender` may depend on the URL; `name` begins the names of its requests,
        which else are made of their numbers.
        """
        return _Client(self, sender, name)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def carry(
        self, sender: str, port: int, request: Wire, name: str = "", *, caller: Process | None = None
    ) -> Answer:
        """Carry a request to the server at a port, and its response back. Raises Lost."""
        server = self._servers.get(port)
        if server is None:
            raise Lost("refused")
        link = f"{sender}>{server.name}"
        self.sent[link].append(self.book.elapsed())
        faults, key = self.faults_of(link), self._key(link, request, name)
        await self.blackout(link)
        if caller is not None:
            self._may_crash(caller, f"{key} calling")
        if faults is NO_FAULTS:
            await asyncio.sleep(self._delay_s(faults, f"{key} there"))
            answer = await self._answer(server, request, key)
            await asyncio.sleep(self._delay_s(faults, f"{key} back"))
            return answer
        return await self._carry_badly(server, request, faults, key)

    async def _carry_badly(self, server: Server, request: Wire, faults: LinkFaults, key: str) -> Answer:
        applies = self.book.applies
        if applies(f"{key} refused", faults.refused):
            raise Lost("refused")
        await asyncio.sleep(self._delay_s(faults, f"{key} there"))
        if applies(f"{key} cut_before", faults.cut_before):
            raise Lost("cut")
        if applies(f"{key} answered_5xx", faults.answered_5xx):
            return _server_error(self.book.draw(f"{key} status"))
        if applies(f"{key} html_error", faults.html_error):
            return Answer(200, ((b"content-type", b"text/html; charset=utf-8"),), HTML_ERROR)
        if applies(f"{key} doubled", faults.doubled):
            self.spawn(self._come_again(server, request, key, self.book.between(f"{key} again", 0.0, 60.0)))
        answer = await self._answer(server, request, key)
        if applies(f"{key} cut_after", faults.cut_after):
            raise Lost("cut")
        if applies(f"{key} failed_after", faults.failed_after):
            return _server_error(self.book.draw(f"{key} status"))
        await asyncio.sleep(self._delay_s(faults, f"{key} back"))
        if answer.body and applies(f"{key} cut_within", faults.cut_within):
            return answer._replace(body=answer.body[: len(answer.body) // 2], is_whole=False)
        if answer.body and applies(f"{key} truncated", faults.truncated):
            half = answer.body[: len(answer.body) // 2]
            others = tuple(pair for pair in answer.headers if pair[0] != b"content-length")
            return answer._replace(headers=(*others, (b"content-length", b"%d" % len(half))), body=half)
        return answer

    async def blackout(self, link: str) -> None:
        """Return at once, unless there is an outage of this link. Raises Lost."""
        if not self._are_faults_on:
            return
        for outage in self._blackouts:
            if outage.covers(link, self.book.elapsed()) and self.book.stands(outage.name):
                if outage.is_silent:
                    await asyncio.sleep(outage.until_s - self.book.elapsed())
                    raise Lost("cut")
                raise Lost("refused")

    def faults_of(self, link: str) -> LinkFaults:
        known = self._faults_by_link.get(link)
        if known is None:
            matching = (faults for name, faults in self._faults.items() if _matches(name, link))
            known = next(matching, NO_FAULTS) if self._are_faults_on else NO_FAULTS
            self._faults_by_link[link] = known
        return known

    async def _come_again(self, server: Server, request: Wire, key: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with suppress(Lost):
            await self._answer(server, request, f"{key} again")

    def _may_crash(self, process: Process, name: str) -> None:
        """Crash a process within the next moments of an exchange, if the seed wants it: its fault."""
        if self.book.applies(f"{name} crash", self.crash_share):
            after_s = self.book.between(f"{name} crash_s", 0.0, CRASH_WITHIN_S)
            self._outside.copy().run(asyncio.get_running_loop().call_later, after_s, process.crash)

    async def _answer(self, server: Server, request: Wire, key: str) -> Answer:
        """Let the server act on the request. It does so to its end, even if nobody waits any more."""
        gone = asyncio.Event()
        if server.app is not None:
            serving = self.spawn(_call(server.app, request, gone))
            ended: asyncio.Future[None] | None = None
        else:
            process = None if server.pick is None else server.pick()
            if process is None or process.app is None:
                raise Lost("refused")
            try:
                serving, ended = process.spawn(_call(process.app, request, gone)), process.ended
            except OSError:
                raise Lost("refused") from None
            self._may_crash(process, f"{key} serving")
        try:
            if ended is None:
                return await asyncio.shield(serving)
            waited_for: set[asyncio.Future[Any]] = {serving, ended}
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            gone.set()
            raise
        if not serving.done():
            raise Lost("cut")
        return serving.result()

    def _key(self, link: str, request: Wire, name: str) -> str:
        """Return the name of a request, with its count: the third query of a payment is another one than the second."""
        if not name:
            names = self.book.names
            path = request.target.partition("?")[0]
            number = names.first_in(f"{request.target} {request.body.decode('latin-1')}")
            name = f"{request.method} {names.within(path)} {number}"
        key = f"{link} {name}"
        self._nth[key] += 1
        return f"{key} #{self._nth[key]}"

    def _delay_s(self, faults: LinkFaults, name: str) -> float:
        if faults.slow and self.book.applies(f"{name} slow", faults.slow):
            return self.book.between(f"{name} slow_s", *faults.slow_s)
        return self.book.between(name, *faults.delay_s)

    # -- connections of the product ------------------------------------------------------------------------------------

    async def create_connection(self, factory: Callable[[], P], host: str, port: int) -> tuple[asyncio.Transport, P]:
        """Connect to a server, as the loop does. Raises OSError."""
        del host
        server = self._servers.get(port)
        if server is None:
            raise ConnectionRefusedError
        try:
            await self.blackout(f"{PRODUCT}>{server.name}")
        except Lost:
            raise ConnectionRefusedError from None
        protocol = factory()
        transport = _Connection(self, port, protocol, self._quiet)
        protocol.connection_made(transport)
        return transport, protocol


class _Client:
    """The client of a simulator, as `simulator.kit.http_client` takes it."""

    def __init__(self, network: Network, sender: str | Callable[[str], str], name: str) -> None:
        self._network = network
        self._sender = sender
        self._name = name

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        within_s: float,
        body_bytes_max: int,
        body: bytes | None,
    ) -> ClientResponse:
        """Raises NoResponse."""
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        sent = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc}
        if body is not None:
            sent["content-length"] = str(len(body))
        pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items())
        request = Wire(method, target, pairs, body or b"")
        sender = self._sender if isinstance(self._sender, str) else self._sender(url)
        name = self._name and f"{self._name} {method}"
        try:
            async with asyncio.timeout(within_s):
                answer = await self._network.carry(sender, parts.port or 80, request, name)
        except (Lost, TimeoutError) as error:
            raise NoResponse(type(error).__name__) from error
        if not answer.is_whole and len(answer.body) <= body_bytes_max:
            raise NoResponse("cut")
        location = next((value.decode("latin-1") for key, value in answer.headers if key.lower() == b"location"), "")
        return ClientResponse(answer.status, location, answer.body[: body_bytes_max + 1])

    async def close(self) -> None:
        """Do nothing: it has no connection of its own."""


class _Quiet:
    """The socket of a connection on which nothing has come: the product polls it before it uses a connection again."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        return self._reader

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class _Connection(asyncio.Transport):
    """One connection of the product: bytes of requests go in, those of responses come out."""

    def __init__(self, network: Network, port: int, protocol: asyncio.Protocol, quiet: _Quiet) -> None:
        super().__init__({"socket": quiet, "peername": (HOST, port)})
        self._network = network
        self._port = port
        self._protocol = protocol
        self._is_closing = False
        self._carrying: asyncio.Task[None] | None = None
        self._requests = _Requests(self._on_request)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._requests.feed(bytes(data))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    def _on_request(self, request: Wire) -> None:
        current = getattr(asyncio.get_running_loop(), "current_process", lambda: None)
        self._carrying = self._network.spawn(self._carry(request, current()))

    async def _carry(self, request: Wire, caller: Process | None) -> None:
        try:
            answer = await self._network.carry(PRODUCT, self._port, request, caller=caller)
        except Lost:
            self._end(ConnectionResetError())
            return
        if not self._is_closing:
            self._protocol.data_received(_bytes_of(answer))
            if not answer.is_whole:
                self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        carrying = self._carrying
        if carrying is not None and not carrying.done() and carrying is not asyncio.current_task():
            carrying.cancel()
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)


class _Requests:
    """A parser of requests; httptools calls the methods that begin with `on_`."""

    def __init__(self, take: Callable[[Wire], None]) -> None:
        self._take = take
        self._target, self._body = b"", b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("ascii")
        request = Wire(method, self._target.decode("latin-1"), tuple(self._headers), self._body)
        self._target, self._body, self._headers = b"", b"", []
        self._take(request)


async def _call(app: App, request: Wire, gone: asyncio.Event) -> Answer:
    """Call the application with a whole request, and return what it sent."""
    path, _, query = request.target.partition("?")
    is_read = False
    status, headers, body, is_whole = 0, (), bytearray(), False

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, headers, is_whole
        if message["type"] == "http.response.start":
            status, headers = message["status"], tuple(message["headers"])
        else:
            body.extend(message.get("body", b""))
            is_whole = not message.get("more_body", False)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": list(request.headers),
        "client": (HOST, 40_000),
        "server": (HOST, 0),
        "state": {"is_whole": True},
    }
    await app(scope, receive, send)
    return Answer(status, headers, bytes(body), is_whole)


def _bytes_of(answer: Answer) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % pair for pair in answer.headers)
    if not any(name.lower() == b"content-length" for name, _ in answer.headers):
        lines += b"content-length: %d\r\n" % len(answer.body)
    return b"HTTP/1.1 %d x\r\n%s\r\n%s" % (answer.status, lines, answer.body)


def _server_error(drawn: float) -> Answer:
    return Answer(STATUSES[int(drawn * len(STATUSES))], ((b"content-type", b"text/plain"),), b"upstream error\n")


def _matches(pattern: str, link: str) -> bool:
    """Return whether a link is meant: `product>alipay`, `product>*`, `*>alipay`, `*>*`."""
    wanted, names = pattern.split(">"), link.split(">")
    return all(part in ("*", name) for part, name in zip(wanted, names, strict=True))
