"""`python -m tests.fuzz TARGET[,TARGET…] [libFuzzer's options]`: look for input that raises an undeclared error.

`make fuzz` runs it in the environment that has atheris, for as long as `ARGS` says. Several targets run one after
another, each in a process of its own: to prepare the code takes longer than a short run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["channels", "core"]):
    from tests.fuzz.targets import names, target


def main() -> None:
    given = sys.argv.pop(1).split(",") if len(sys.argv) > 1 else []
    if not given or not set(given) <= set(names()):
        sys.exit(f"python -m tests.fuzz TARGET[,TARGET…] [libFuzzer's options]; targets: {', '.join(names())}")
    if len(given) == 1:
        fuzz(given[0])
    failed = [name for name in given if not _passes(name)]
    sys.exit(f"findings of {', '.join(failed)}" if failed else 0)


def fuzz(name: str) -> None:
    """Start from valid input, and end the process; findings are written below the directory for artifacts."""
    fuzzed = target(name)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(fuzzed.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], fuzzed.read)
        atheris.Fuzz()


def _passes(name: str) -> bool:
    pid = os.fork()
    if pid == 0:
        fuzz(name)
    _, status = os.waitpid(pid, 0)
    return status == 0


main()
