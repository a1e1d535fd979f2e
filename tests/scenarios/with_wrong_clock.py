"""Run the api or the worker with a clock that is wrong, without hooks in production code:

python -m tests.scenarios.with_wrong_clock api --by-s 600
"""

from __future__ import annotations

import runpy
import sys
import time
from functools import partial
from unittest.mock import patch

import click

from runtime.clock import Clock


@click.command()
@click.argument("process", type=click.Choice(["api", "worker"]))
@click.option("--by-s", type=float, required=True, help="Seconds that its clock is ahead; behind, if negative.")
def main(process: str, by_s: float) -> None:
    """Replace the clock that the process makes for itself, then begin it."""
    sys.argv[1:] = []
    with patch("runtime.resources.Clock", partial(Clock, wall=lambda: time.time() + by_s)):
        runpy.run_module(process, run_name="__main__")


if __name__ == "__main__":
    main()
