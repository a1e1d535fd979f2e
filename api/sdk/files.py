"""The module that shops embed: its bytes, version and integrity hash, read once at start.

A shop may name a version together with its hash, so the bytes of a version never change: `releases.json` has the hash
of each, and a test compares.
"""

from __future__ import annotations

import base64
from hashlib import sha384
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent / "order-status"
NAME = "order-status.js"
TYPES = "order-status.d.ts"

MODULE = (FOLDER / NAME).read_bytes()
VERSION: str = msgspec.json.decode((FOLDER / "package.json").read_bytes())["version"]
FILES = {NAME: MODULE, TYPES: (FOLDER / TYPES).read_bytes()}
URL = f"/sdk/{VERSION}/{NAME}"


def integrity(content: bytes) -> str:
    """Return the text of an `integrity` attribute: "sha384-…"."""
    return f"sha384-{base64.b64encode(sha384(content).digest()).decode()}"


INTEGRITY = integrity(MODULE)
