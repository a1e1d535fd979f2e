"""Pages of a shop on an origin of its own."""

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.connections import serving


class ShopSite:
    """A web server with the pages that a test puts into it. Any other address is a 404."""

    def __init__(self) -> None:
        self.origin = ""
        self.pages: dict[str, str] = {}

    def put(self, path: str, html: str) -> str:
        """Put a page there; its address."""
        self.pages[path] = html
        return self.origin + path

    async def answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        html = self.pages.get(head.split(b" ", 2)[1].decode())
        body = (html or "nothing here").encode()
        status = b"200 OK" if html else b"404 Not Found"
        writer.write(b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-type: text/html; charset=utf-8\r\n" % status)
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()


@asynccontextmanager
async def serve_shop() -> AsyncIterator[ShopSite]:
    """Serve one on a free port."""
    site = ShopSite()
    async with serving(site.answer) as port:
        site.origin = f"http://127.0.0.1:{port}"
        yield site
