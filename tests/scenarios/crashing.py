"""Run the api or the worker and kill it with SIGKILL at a named step, without a hook in production code:

    python -m tests.scenarios.crashing worker --at flows.ask._ask:after --nth 2

The function is wrapped before the process begins. It is named where it is *used*: whoever imported a name keeps what it
got, so `flows.callback.insert_callback` dies in that flow alone, and `storage.postgres.callbacks.insert_callback`
nowhere. A function that is used as `callbacks.finish` is named in its own module, and dies in every flow.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib import import_module
from inspect import iscoroutinefunction
from itertools import count
from signal import SIGKILL
from types import ModuleType
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
T = TypeVar("T")


def die_at(step: str, nth: int) -> None:
    """Wrap the function of `module.function:before` or `…:after` so that its `nth` call is this process's last."""
    name, _, when = step.rpartition(":")
    if when not in ("before", "after"):
        raise click.BadParameter("a step is module.function:before or module.function:after")
    owner, attribute = _place_of(name)
    function = getattr(owner, attribute)
    calls = count(1)

    def die() -> None:
        if next(calls) == nth:
            os.write(2, f"killed {step}\n".encode())
            os.kill(os.getpid(), SIGKILL)

    before, after = (die, _live) if when == "before" else (_live, die)
    mortal = _mortal_coroutine if iscoroutinefunction(function) else _mortal
    setattr(owner, attribute, mortal(function, before=before, after=after))


def _live() -> None:
    """Not at this side of the call."""


def _mortal(function: Callable[P, T], *, before: Callable[[], None], after: Callable[[], None]) -> Callable[P, T]:
    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before()
        answer = function(*args, **kwargs)
        after()
        return answer

    return wrapped


def _mortal_coroutine(
    function: Callable[P, Awaitable[T]], *, before: Callable[[], None], after: Callable[[], None]
) -> Callable[P, Awaitable[T]]:
    @wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before()
        answer = await function(*args, **kwargs)
        after()
        return answer

    return wrapped


def _place_of(name: str) -> tuple[ModuleType | type, str]:
    """The module, or the class in it, that holds the function, and the function's name there."""
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        try:
            owner: ModuleType | type = import_module(".".join(path[:length]))
        except ModuleNotFoundError:
            continue
        for part in path[length:-1]:
            owner = getattr(owner, part)
        return owner, path[-1]
    raise click.BadParameter(f"{name} is in no module")


@click.command(help=__doc__)
@click.argument("process", type=click.Choice(["api", "worker"]))
@click.option("--at", "step", required=True, help="module.function:before or :after, where it is used.")
@click.option("--nth", type=click.IntRange(1), default=1, help="Which call of it is the last.")
def main(process: str, step: str, nth: int) -> None:
    die_at(step, nth)
    sys.argv[1:] = []
    runpy.run_module(process, run_name="__main__")


if __name__ == "__main__":
    main()
