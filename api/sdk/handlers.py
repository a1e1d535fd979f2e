"""The handlers of `/sdk/`: the module's files by version, and a page that shows how to embed it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from msgspec.structs import replace

from api.context import Context
from api.http.packing import packed
from api.http.request import Request
from api.http.response import IMMUTABLE, NO_STORE, Response, html_response
from api.pages.reference import page
from api.sdk import files
from core.errors import NotFound

_FOR_ALL = (("access-control-allow-origin", "*"), ("cross-origin-resource-policy", "cross-origin"))
_MEDIA_TYPES = {files.NAME: "text/javascript; charset=utf-8", files.TYPES: "text/plain; charset=utf-8"}


def responses_of(contents: Mapping[str, bytes]) -> Mapping[str, Response]:
    """The files of one version, by name."""
    return {
        name: packed(Response(body=body, content_type=_MEDIA_TYPES[name], headers=_FOR_ALL))
        for name, body in contents.items()
    }


_VERSIONS = {version: responses_of(contents) for version, contents in files.read_versions(files.EARLIER).items()}


async def serve_file(_context: Context, request: Request) -> Response:
    """A file of the module, for any site: it is the same for all.

    An unknown version gets the current file, uncached: during a deploy a page of one release asks a process of another.
    """
    name, version = request.params["name"], request.params["version"]
    if name not in _MEDIA_TYPES:
        raise NotFound("no such file")
    response = _VERSIONS.get(version, _VERSIONS[files.VERSION])[name]
    caching = IMMUTABLE if version in _VERSIONS else NO_STORE
    return replace(response, headers=(caching, *response.headers))


async def show_sdk(context: Context, _request: Request) -> Response:
    return html_response(page("nodrop: order-status", _main(context.resources.settings.public_url.rstrip("/"))))


def embedding(public_url: str) -> str:
    """The lines that a shop puts into its page."""
    return (
        f'<script type="module" src="{public_url}{files.URL}"\n'
        f'        integrity="{files.INTEGRITY}"\n'
        '        crossorigin="anonymous"></script>\n'
        f'<nodrop-order url="{public_url}/o/TOKEN">\n'
        f'  <a href="{public_url}/o/TOKEN">See your payment</a>\n'
        "</nodrop-order>"
    )


def _main(public_url: str) -> str:
    return (
        f"<h1>order-status {files.VERSION}</h1>\n"
        "<p>Shows the state of an order in a page of the shop, until it is definite. The address in <code>url</code> "
        "is the order's <code>order_page</code>; the shop's origin is in <code>PAGE_ORIGINS</code>.</p>\n"
        f"<pre>{escape(embedding(public_url))}</pre>\n"
        f'<ul>\n<li><a href="{files.URL}">{files.NAME}</a>, <code>{files.INTEGRITY}</code></li>\n'
        f'<li><a href="/sdk/{files.VERSION}/{files.TYPES}">{files.TYPES}</a>, its types</li>\n</ul>'
    )
