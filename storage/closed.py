"""The error of uvloop for a connection that was used once more after its loss was noticed: a loss, and no bug."""

from __future__ import annotations


def is_closed_handle(error: RuntimeError) -> bool:
    """Whether uvloop raised it. A connection that is lost while it begins is used so, for example by a listener."""
    return str(error).endswith("the handler is closed")
