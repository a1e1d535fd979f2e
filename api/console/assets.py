"""The console's style, scripts and icon, read once at start and named by their content."""

from __future__ import annotations

from pathlib import Path

from api.context import Context
from api.http import hashed
from api.http.packing import packed
from api.http.request import Request
from api.http.response import Response
from core.errors import NotFound

_FOLDER = Path(__file__).parent / "static"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

_CONTENT = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir())}
_FILES = {
    name: packed(Response(body=content, content_type=_TYPES[name.rpartition(".")[2]]))
    for name, content in _CONTENT.items()
}
_URLS = {name: hashed.url(name, content, "/ops/static") for name, content in _CONTENT.items()}


def url(name: str) -> str:
    """`ops.css` → `/ops/static/ops.0123456789ab.css`."""
    return _URLS[name]


async def serve_asset(_context: Context, request: Request) -> Response:
    file = hashed.find(request.params["name"], _FILES)
    if file is None:
        raise NotFound("there is no such file")
    return file
