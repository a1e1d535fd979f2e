"""The page's script, style, icon and service worker, read once at start and named by their content."""

from __future__ import annotations

from pathlib import Path

import msgspec

from api.http import hashed
from api.http.packing import packed
from api.http.response import Response
from api.pages.texts import TEXTS
from api.sdk import files as sdk

_FOLDER = Path(__file__).parent / "static"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_OF_ORDERS = ("order.js", "live.js", "order.css", "icon.svg")


def _load() -> dict[str, bytes]:
    """The files by name. The script is given the texts, so that they stand in one place only."""
    texts = msgspec.json.encode({lang: dict(texts) for lang, texts in TEXTS.items()})
    script = (_FOLDER / "order.js").read_bytes().replace(b"__TEXTS__", texts).replace(b"__MODULE__", sdk.URL.encode())
    return {
        "order.js": script,
        "live.js": (_FOLDER / "live.js").read_bytes(),
        "order.css": (_FOLDER / "order.css").read_bytes(),
        "icon.svg": (_FOLDER / "icon.svg").read_bytes(),
        "reference.css": (_FOLDER / "reference.css").read_bytes(),
    }


_CONTENT = _load()
_FILES = {
    name: packed(Response(body=content, content_type=_TYPES[name.rpartition(".")[2]]))
    for name, content in _CONTENT.items()
}


def url(name: str) -> str:
    """`order.js` → `/o/static/order.0123456789ab.js`."""
    return hashed.url(name, _CONTENT[name])


def find(hashed_name: str) -> Response | None:
    """The file of a hashed name, or None."""
    return hashed.find(hashed_name, _FILES)


def service_worker(shell: bytes, more: list[str]) -> bytes:
    """The worker with the shell and the files that it keeps, `more` among them. Its bytes change with theirs, so
    browsers fetch it anew.
    """
    kept = [*(url(name) for name in sorted(_OF_ORDERS)), sdk.URL, *more]
    script = (_FOLDER / "sw.js").read_bytes()
    version = hashed.digest(shell + script + "".join(kept).encode())
    return script.replace(b"__ASSETS__", msgspec.json.encode(kept)).replace(b"__VERSION__", f'"{version}"'.encode())
