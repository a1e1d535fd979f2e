"""The page's script, style, icon and service worker, read once at start and named by their content."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec.structs import replace

from api.http.packing import packed
from api.http.response import IMMUTABLE, NO_STORE, Response
from api.pages.texts import TEXTS
from api.sdk import files as sdk

_FOLDER = Path(__file__).parent / "static"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_OF_ORDERS = ("order.js", "live.js", "order.css", "icon.svg")
_NAME = re.compile(r"([a-z]+)\.([0-9a-f]{12})\.(css|js|svg)", re.ASCII)


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


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]


_CONTENT = _load()
_FILES = {
    name: packed(Response(body=content, content_type=_TYPES[name.rpartition(".")[2]]))
    for name, content in _CONTENT.items()
}


def url(name: str) -> str:
    """`order.js` → `/o/static/order.0123456789ab.js`."""
    stem, _, ending = name.rpartition(".")
    return f"/o/static/{stem}.{_digest(_CONTENT[name])}.{ending}"


def find(name: str) -> Response | None:
    """The file of a hashed name, or None.

    During a deploy a page of one release asks a process of another: it gets the current file, uncached.
    """
    match = _NAME.fullmatch(name)
    content = _CONTENT.get(f"{match[1]}.{match[3]}") if match else None
    if match is None or content is None:
        return None
    caching = IMMUTABLE if match[2] == _digest(content) else NO_STORE
    file = _FILES[f"{match[1]}.{match[3]}"]
    return replace(file, headers=(caching, *file.headers))


def service_worker(shell: bytes, more: list[str]) -> bytes:
    """The worker with the shell and the files that it keeps, `more` among them. Its bytes change with theirs, so
    browsers fetch it anew.
    """
    kept = [*(url(name) for name in sorted(_OF_ORDERS)), sdk.URL, *more]
    script = (_FOLDER / "sw.js").read_bytes()
    version = _digest(shell + script + "".join(kept).encode())
    return script.replace(b"__ASSETS__", msgspec.json.encode(kept)).replace(b"__VERSION__", f'"{version}"'.encode())
