"""The module that shops embed: its bytes, version and integrity hash, read once at start.

A shop may name a version together with its hash, so the bytes of a version never change, and a server serves all of
them: `releases/VERSION/` keeps the files of an earlier one. `releases.json` has the hash of each, and a test compares.
"""

from __future__ import annotations

import base64
from hashlib import sha384
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent / "order-status"
NAME = "order-status.js"
TYPES = "order-status.d.ts"

EARLIER = FOLDER.parent / "releases"


def _read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (NAME, TYPES)}


FILES = _read(FOLDER)
MODULE = FILES[NAME]
VERSION: str = msgspec.json.decode((FOLDER / "package.json").read_bytes())["version"]
URL = f"/sdk/{VERSION}/{NAME}"


def integrity(content: bytes) -> str:
    """Return the text of an `integrity` attribute: "sha384-…"."""
    return f"sha384-{base64.b64encode(sha384(content).digest()).decode()}"


INTEGRITY = integrity(MODULE)


def read_versions(earlier: Path) -> dict[str, dict[str, bytes]]:
    """The files of every published version, by version and name."""
    return {folder.name: _read(folder) for folder in earlier.glob("*") if folder.is_dir()} | {VERSION: FILES}
