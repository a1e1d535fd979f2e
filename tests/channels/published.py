"""Signature vectors published by the channels and their SDKs: independent proof of how we read the protocols."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(__file__).parents[3] / "shared" / "vectors"


def published(name: str) -> dict[str, Any]:
    """One file of vectors by its name without `.json`, from CHANNEL_VECTORS or from beside the checkout.

    They belong to others, so the checkout does not contain them; without them the test is skipped.
    """
    file = Path(os.environ.get("CHANNEL_VECTORS", BESIDE)) / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"the published vectors {name}.json are not here: CHANNEL_VECTORS names their directory")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
