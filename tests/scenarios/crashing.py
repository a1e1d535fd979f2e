"""Run the api or the worker and kill it with SIGKILL at a named step, without a hook in production code:

    python -m tests.scenarios.crashing worker --at flows.query.ask:after --nth 2

The function is wrapped before the process begins. It is named where it is *used*: whoever imported a name keeps what it
got, so `flows.receive.insert_callback` dies in that flow alone, and `storage.callbacks.insert_callback` nowhere.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import iscoroutinefunction
from itertools import count
from signal import SIGKILL
from typing import Any

import click


def die_at(step: str, nth: int) -> None:
    """Wrap the function of `module.function:before` or `…:after` so that its `nth` call is this process's last."""
    name, _, when = step.rpartition(":")
    if when not in ("before", "after"):
        raise click.BadParameter("a step is module.function:before or module.function:after")
    owner, attribute = _place_of(name)
    calls = count(1)

    def is_last() -> bool:
        return next(calls) == nth

    setattr(owner, attribute, _mortal(getattr(owner, attribute), step, when, is_last))


def _mortal(function: Callable[..., Any], step: str, when: str, is_last: Callable[[], bool]) -> Callable[..., Any]:
    def die() -> None:
        os.write(2, f"killed {step}\n".encode())
        os.kill(os.getpid(), SIGKILL)

    @wraps(function)
    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        dies = is_last()
        if dies and when == "before":
            die()
        answer = await function(*args, **kwargs)
        if dies:
            die()
        return answer

    @wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        dies = is_last()
        if dies and when == "before":
            die()
        answer = function(*args, **kwargs)
        if dies:
            die()
        return answer

    return asynchronous if iscoroutinefunction(function) else synchronous


def _place_of(name: str) -> tuple[Any, str]:
    """The module, or the class in it, that holds the function, and the function's name there."""
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        try:
            owner: Any = import_module(".".join(path[:length]))
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
