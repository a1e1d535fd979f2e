"""Names of the steps at which processes are killed: `module.function`, where a function is used.

A module keeps the function that it imported, so `flows.callback.insert_callback` is the one of that flow only. A
function that is used as `callbacks.finish` is named in its own module, and is the one of every flow.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def place_of(name: str) -> tuple[ModuleType | type, str]:
    """Return the module or class that has the function, and the function's name in it. Raises LookupError."""
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        try:
            owner: ModuleType | type = import_module(".".join(path[:length]))
        except ModuleNotFoundError:
            continue
        for part in path[length:-1]:
            owner = getattr(owner, part)
        return owner, path[-1]
    raise LookupError(f"no module has {name}")
