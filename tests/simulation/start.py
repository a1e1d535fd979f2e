"""The start of a world's process. `begin` comes before anything of the product is imported: whatever module takes
`time.monotonic` or `os.urandom` with it then takes the world's.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from tests.simulation import clock, entropy

T = TypeVar("T")

_ADDR_NO_RANDOMIZE = 0x0040000
_CONTAINERS_MAX = 100_000

PRODUCT = ("api", "channels", "flows", "runtime", "simulator", "storage", "worker")


def begin(seed: int, *, first_s: float = clock.FIRST_S) -> None:
    """Make this process a world's: the same hashes, clocks and random bytes in each run with this seed.

    It executes itself again once, with the hash seed in its environment.
    """
    early = sorted(name for name in sys.modules if name.partition(".")[0] in PRODUCT)
    if early:
        raise RuntimeError(f"imported before the clocks were replaced: {', '.join(early)}")
    hash_seed = str(seed % 4_294_967_295 + 1)
    if os.environ.get("PYTHONHASHSEED") != hash_seed:
        _execute_again(hash_seed)
    os.getpid = lambda: 1  # in names of processes and of connections
    socket.gethostname = lambda: "world"
    gc.set_threshold(_CONTAINERS_MAX, 50, 100)
    clock.install(first_s)
    entropy.install(seed)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it on the loop of a world.

    The loop is not closed: what a dead process has left must not run any more. End the process with `os._exit`.
    """
    from tests.simulation.loop import WorldLoop

    clock.CURRENT.set(None)  # said in every context that is copied from this one
    return WorldLoop().run_until_complete(main())


def _execute_again(hash_seed: str) -> NoReturn:
    """Start over with this hash seed and, on Linux, with the same addresses: sets of objects are sorted by them."""
    os.environ["PYTHONHASHSEED"] = hash_seed
    if sys.platform == "linux":
        ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
