"""Random bytes of a world, made from its seed: for each simulated process a stream of its own, so that one more secret
in one of them changes nothing in the others.
"""

from __future__ import annotations

import os
import random
from hashlib import sha256
from random import Random
from typing import Any

from tests.simulation.clock import CURRENT


def stream(seed: int, name: str) -> Random:
    """Random numbers that depend on seed and name alone."""
    return Random(sha256(f"{seed} {name}".encode()).digest())


def install(seed: int) -> None:
    """Replace the sources of this process for good: `os.urandom`, and with it `secrets`, `uuid` and `SystemRandom`."""
    streams: dict[str, Random] = {}

    def urandom(size: int) -> bytes:
        name = getattr(CURRENT.get(), "label", "")
        if name not in streams:
            streams[name] = stream(seed, f"bytes of {name}")
        return streams[name].randbytes(size)

    os.urandom = urandom
    of_random: Any = random
    of_random._urandom = urandom
    random.seed(f"{seed} random")
