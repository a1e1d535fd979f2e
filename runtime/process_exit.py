"""The end of a process that may have called a channel."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def end_process(code: int = 0) -> NoReturn:
    """End the process with this code; without the interpreter's own end, if pyreqwest is loaded.

    Its threads may still release what a call held, and abort the process when the interpreter has gone: one process in
    ten whose channel was not there ended with SIGABRT instead of its exit code.
    """
    if "pyreqwest" not in sys.modules:
        sys.exit(code)
    with suppress(OSError, ValueError):  # a pipe whose reader has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
