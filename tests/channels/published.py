"""Signature vectors that the channels and their SDKs have published: proof of our reading that nobody here wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(__file__).parents[3] / "shared" / "vectors"


def published(name: str) -> dict[str, Any]:
    """A file of them, by its name without `.json`, from the directory in CHANNEL_VECTORS or from beside the checkout.

    They are other people's, so the checkout does not hold them: the test is skipped where they are not there.
    """
    file = Path(os.environ.get("CHANNEL_VECTORS", BESIDE)) / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"the published vectors {name}.json are not here: CHANNEL_VECTORS names their directory")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
