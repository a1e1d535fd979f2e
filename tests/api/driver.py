"""Calls the ASGI application as a server does, one message at a time, and counts what it reads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from api.context import Context
from api.http.asgi import App
from api.http.request import Message

WAIT_S = 120.0


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A whole response. `reads` is the number of pieces of the body that were read before it."""

    status: int
    headers: dict[str, str]
    body: bytes
    reads: int
    set_cookies: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def problem(self) -> str:
        """The slug of the problem, which this response must be."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        address, _, slug = str(self.json["type"]).rpartition("/problems/")
        assert address.startswith("http://127.0.0.1:"), "it is absolute"
        return slug


class Client:
    """One caller at one address. The body is sent in the pieces given; `ends=False` never sends its end."""

    def __init__(self, app: App[Context], *, api_key: str = "", address: str = "203.0.113.9") -> None:
        self.app = app
        self.api_key = api_key
        self.address = address

    async def call(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterable[bytes] = b"",
        json: object = None,
        headers: dict[str, str] | None = None,
        ends: bool = True,
        gone: bool = False,
    ) -> Response:
        """One whole exchange. `gone`: the client goes away after what it has sent of the body."""
        pieces = [msgspec.json.encode(json)] if json is not None else [body] if isinstance(body, bytes) else list(body)
        declared = {"content-type": "application/json"} if json is not None else {}
        if isinstance(body, bytes):
            declared["content-length"] = str(sum(map(len, pieces)))
        else:
            declared["transfer-encoding"] = "chunked"
        sent: list[Message] = []
        left, reads = list(pieces), 0

        async def receive() -> Message:
            nonlocal reads
            reads += not sent
            if not left and gone:
                return {"type": "http.disconnect"}
            if not left:
                if sent:  # after the response: the rest of the body is discarded
                    return {"type": "http.disconnect"}
                await asyncio.Event().wait()
            piece = left.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends or gone}

        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(WAIT_S * 4):
            await self.app(self._scope(method, target, declared | (headers or {})), receive, send)
        return _response(sent, reads)

    async def get(self, target: str, **headers: str) -> Response:
        return await self.call("GET", target, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def post(self, target: str, json: object = None, **headers: str) -> Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.call("POST", target, json=json, headers=named)

    @asynccontextmanager
    async def stream(self, target: str, **headers: str) -> AsyncIterator["Stream"]:
        """An event stream; at the end of the block the client goes away."""
        gone = asyncio.Event()
        stream = Stream()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        scope = self._scope("GET", target, {name.replace("_", "-"): text for name, text in headers.items()})
        task = asyncio.create_task(self.app(scope, receive, stream.send))
        try:
            yield stream
        finally:
            gone.set()
            async with asyncio.timeout(WAIT_S):
                await task

    def _scope(self, method: str, target: str, headers: dict[str, str]) -> dict[str, Any]:
        path, _, query = target.partition("?")
        named = {"host": "pay.test"} | ({"authorization": f"Bearer {self.api_key}"} if self.api_key else {}) | headers
        return {
            "type": "http",
            "method": method,
            "raw_path": path.encode("latin-1"),
            "path": path,
            "query_string": query.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()],
            "client": (self.address, 50_000),
        }


class Stream:
    """The events that a stream has sent so far."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.is_over = False
        self._more = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
            self.is_over = not message.get("more_body", False)
        self._more.set()

    @property
    def states(self) -> list[dict[str, Any]]:
        """The data of every event that has an id, with the id as `id`."""
        blocks = [block.split("\n") for block in self.text.split("\n\n") if block.startswith("id: ")]
        return [{"id": lines[0][4:], **msgspec.json.decode(lines[1][6:])} for lines in blocks]

    async def until(self, condition: Callable[["Stream"], object]) -> None:
        """Wait until it holds of this stream."""
        async with asyncio.timeout(WAIT_S):
            while not condition(self):
                self._more.clear()
                await self._more.wait()


def _response(sent: list[Message], reads: int) -> Response:
    if not sent:
        return Response(status=0, headers={}, body=b"", reads=reads)
    headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    cookies = tuple(value.decode("latin-1") for name, value in sent[0]["headers"] if name == b"set-cookie")
    return Response(status=sent[0]["status"], headers=headers, body=body, reads=reads, set_cookies=cookies)
