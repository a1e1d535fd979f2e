"""A small browser: open a page, read its form and links, press a button, follow a redirect."""

from __future__ import annotations

import time
from html.parser import HTMLParser
from typing import Any, Self
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import msgspec

from simulator.kit.asgi import BadBody, decode
from simulator.kit.http_client import AnyClient, NoResponse, exchange, http_client

REDIRECTS_MAX = 5
PAGE_BYTES_MAX = 1024 * 1024
TIMEOUT_S = 20.0
"""About the time after which a person reloads."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The page's form; `buttons` are (name, value) pairs in page order."""

    action: str
    method: str
    buttons: tuple[tuple[str, str], ...]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A shown page. `http_status` is 0 without a response; `state` is the page's `data-status`."""

    url: str
    http_status: int
    body: bytes = b""
    form: Form | None = None
    links: dict[str, str] = {}
    state: str = ""


class Browser:
    """A browser that follows redirects, keeps no cookies, and never raises for network errors. Enter it before use.

    `referer` is what it says of where it comes from; empty: nothing.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, *, referer: str = "", client: AnyClient | None = None) -> None:
        self._timeout_s = timeout_s
        self._referer = {"referer": referer} if referer else {}
        self._client = client or http_client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def open(self, url: str) -> Page:
        """Open a URL with GET."""
        return await self._go("GET", url)

    async def press(self, page: Page, value: str) -> Page:
        """Press the button with `value` of the page's form; raises LookupError if there is none."""
        form = page.form
        button = next((button for button in form.buttons if button[1] == value), None) if form else None
        if form is None or button is None:
            raise LookupError(f"no button {value!r} on this page")
        return await self._go(form.method.upper(), urljoin(page.url, form.action), urlencode([button]).encode())

    async def send(self, url: str) -> Page:
        """Send an empty POST, as a page's script does for a button outside a form."""
        return await self._go("POST", url, b"")

    async def _go(self, method: str, url: str, body: bytes | None = None) -> Page:
        until = time.monotonic() + self._timeout_s
        page = Page(url=url, http_status=0)
        try:
            for _ in range(REDIRECTS_MAX + 1):
                page, location = await self._exchange(method, url, body, until - time.monotonic())
                if not location:
                    break
                url = urljoin(url, location)
                if page.http_status not in _KEEP_METHOD:
                    method, body = "GET", None
        except NoResponse:
            return Page(url=url, http_status=0)
        return page

    async def _exchange(self, method: str, url: str, body: bytes | None, within_s: float) -> tuple[Page, str]:
        headers = {"accept": "text/html, application/json"} | self._referer
        if body is not None:
            # A browser sends its origin with every POST, and a form in this encoding.
            headers["content-type"] = "application/x-www-form-urlencoded"
            headers["origin"] = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        response = await exchange(
            self._client, method, url, headers=headers, body=body, within_s=within_s, body_bytes_max=PAGE_BYTES_MAX
        )
        location = response.location if response.status in _REDIRECTS else ""
        return _read(url, response.status, response.body), location


def _read(url: str, status: int, body: bytes) -> Page:
    reader = _Reader()
    reader.feed(body.decode("utf-8", "replace"))
    return Page(url=url, http_status=status, body=body, form=reader.form(), links=reader.links, state=reader.state)


def below(order_page: str, name: str) -> str:
    """Return a URL below the order page's, with the same query."""
    parts = urlsplit(order_page)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def status_on(page: Page) -> str:
    """Return the `status` of a JSON object, else the page's state; empty without either."""
    try:
        document: dict[str, Any] = decode(page.body, dict[str, Any])
    except BadBody:
        return page.state
    status = document.get("status", "")
    return status if status and isinstance(status, str) else page.state


class _Reader(HTMLParser):
    """Parser of a page: its first form with buttons, its links by id, its first `data-status`."""

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.state = ""
        self._form: tuple[str, str] | None = None
        self._buttons: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.state = self.state or found.get("data-status", "")
        if tag == "form" and self._form is None:
            self._form = (found.get("action", ""), found.get("method", "get"))
        elif tag == "button" and self._form is not None:
            self._buttons.append((found.get("name", ""), found.get("value", "")))
        elif tag == "a" and "id" in found:
            self.links[found["id"]] = found.get("href", "")

    def form(self) -> Form | None:
        if self._form is None:
            return None
        action, method = self._form
        return Form(action=action, method=method, buttons=tuple(self._buttons))
