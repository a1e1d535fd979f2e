"""A network without faults and delays, for tests of the inner half: connections lead straight to applications."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

_NOTHING_COMES: Any = type("_Socket", (), {"fileno": staticmethod(lambda: 0)})()


class Answer:
    """The response of an application."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")


async def call(app: App, method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """Make one request."""
    parts = urlsplit(url)
    sent = {"host": parts.netloc or "127.0.0.1:8000", "content-length": str(len(body)), **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
        "state": {},
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    answer = Answer()
    await app(scope, receive, answer.take)
    return answer


class DirectNetwork:
    """Applications by port."""

    def __init__(self, apps: dict[int, App]) -> None:
        self.apps = apps

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        if port not in self.apps:
            raise ConnectionRefusedError
        protocol = factory()
        transport = _Transport(self, protocol, host, port)
        protocol.connection_made(transport)
        return transport, protocol


class _Transport(asyncio.Transport):
    def __init__(self, network: DirectNetwork, protocol: Any, host: str, port: int) -> None:
        super().__init__({"socket": _NOTHING_COMES})
        self._network = network
        self._protocol = protocol
        self._address = f"http://{host}:{port}"
        self._port = port
        self._data = b""
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._is_closing = True

    close = abort

    def write(self, data: Any) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if found and len(rest) >= int(headers.get("content-length", "0")):
            self._data = b""
            method, target, _ = lines[0].split(" ")
            self._task = asyncio.get_running_loop().create_task(self._answer(method, target, headers, rest))

    async def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        answer = await call(self._network.apps[self._port], method, self._address + target, headers, body)
        lines = [f"HTTP/1.1 {answer.status} -\r\n".encode()]
        lines += [name + b": " + value + b"\r\n" for name, value in answer.headers]
        if not self._is_closing:
            self._protocol.data_received(b"".join(lines) + b"\r\n" + answer.body)
