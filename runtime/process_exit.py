"""The end of a process that may have called a channel."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int = 0) -> NoReturn:
    """End the process with this code; past the interpreter's own end, if pyreqwest is loaded.

    Its threads may still be letting go of what a call held, and abort the process when there is no interpreter left to
    let go to: one in ten whose channel was not there ended with SIGABRT instead of its exit code.
    """
    if "pyreqwest" not in sys.modules:
        sys.exit(code)
    with suppress(OSError, ValueError):  # a pipe that nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
