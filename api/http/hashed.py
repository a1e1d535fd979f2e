"""Files whose addresses hold a hash of their content, `/o/static/NAME.HASH.ENDING`: browsers keep them for ever."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from msgspec.structs import replace

from api.http.response import IMMUTABLE, NO_STORE, Response

_NAME = re.compile(r"([a-z-]+)\.([0-9a-f]{12})\.([a-z]{2,4})", re.ASCII)


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]


def url(name: str, content: bytes, folder: str = "/o/static") -> str:
    """`order.js` → `/o/static/order.0123456789ab.js`."""
    stem, _, ending = name.rpartition(".")
    return f"{folder}/{stem}.{digest(content)}.{ending}"


def find(hashed_name: str, files: Mapping[str, Response]) -> Response | None:
    """The file of a hashed name, or None. `files` has them by plain name.

    During a deploy a page of one release asks a process of another: it gets the current file, uncached.
    """
    match = _NAME.fullmatch(hashed_name)
    file = files.get(f"{match[1]}.{match[3]}") if match else None
    if match is None or file is None:
        return None
    caching = IMMUTABLE if match[2] == digest(file.body) else NO_STORE
    return replace(file, headers=(caching, *file.headers))
