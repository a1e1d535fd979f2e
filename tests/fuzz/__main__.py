"""`python -m tests.fuzz TARGET [libFuzzer's options]`: look for input that raises anything but a declared error.

`make fuzz` runs it in the environment that has atheris, for as long as `ARGS` says.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["channels", "core"]):
    from tests.fuzz.targets import names, target


def main() -> None:
    """Start from valid input; findings are written below the directory for artifacts."""
    if len(sys.argv) < 2 or sys.argv[1] not in names():
        sys.exit(f"python -m tests.fuzz TARGET [libFuzzer's options]; targets: {', '.join(names())}")
    fuzzed = target(sys.argv.pop(1))
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(fuzzed.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], fuzzed.read)
        atheris.Fuzz()


main()
