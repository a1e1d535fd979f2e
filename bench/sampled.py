"""The command `python -m bench.sampled OUT MODULE`: runs a module, and samples where its main thread spends CPU.

SIGUSR2 begins anew. At the end the samples are written to OUT, as `Samples` in JSON.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

import msgspec

INTERVAL_S = 0.004
"""Of CPU, not of time: an idle process has no samples. Linux counts in ticks of about this length."""

_ROOT = Path(__file__).parent.parent
_NAME_PARTS = 3
"""Of the path of a library's file."""


class Samples(msgspec.Struct, frozen=True):
    """Number of samples, by function: in itself, and in it or in what it called."""

    count: int
    own: dict[str, int]
    with_called: dict[str, int]


class Sampler:
    """Samples by code object; names are made at the end."""

    def __init__(self) -> None:
        self._own: Counter[CodeType] = Counter()
        self._with_called: Counter[CodeType] = Counter()

    def begin(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR2, self._clear)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def end(self, output: Path) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one may be on its way
        samples = Samples(self._own.total(), _by_name(self._own), _by_name(self._with_called))
        output.write_bytes(msgspec.json.encode(samples))

    def _sample(self, _signum: int, frame: FrameType | None) -> None:
        codes = []
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        if codes:
            self._own[codes[0]] += 1
            self._with_called.update(set(codes))

    def _clear(self, _signum: int, _frame: FrameType | None) -> None:
        self._own.clear()
        self._with_called.clear()


def main() -> None:
    output, module, *arguments = sys.argv[1:]
    sampler, leave = Sampler(), os._exit

    def end(code: int) -> None:
        sampler.end(Path(output))
        leave(code)

    os._exit = end  # type: ignore[assignment]  # how the product's processes end
    sys.argv = [module, *arguments]
    sampler.begin()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sampler.end(Path(output))


def _by_name(samples: Counter[CodeType]) -> dict[str, int]:
    named: Counter[str] = Counter()
    for code, count in samples.items():
        named[_name(code)] += count
    return dict(named)


def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
        return f"{path.relative_to(_ROOT)}:{code.co_qualname}"
    return f"{'/'.join(path.parts[-_NAME_PARTS:])}:{code.co_qualname}"


if __name__ == "__main__":
    main()
