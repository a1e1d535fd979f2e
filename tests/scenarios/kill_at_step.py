"""Run the api, the worker or a command and kill it with SIGKILL at a named step, without hooks in production code:

    python -m tests.scenarios.kill_at_step worker --at flows.ask._ask:after --nth 2
    python -m tests.scenarios.kill_at_step cli migrate --at storage.postgres.migrate._build:after

The function is wrapped before the process begins. Name it where it is *used*: a module keeps the function that it
imported, so `flows.callback.insert_callback` is killed in that flow only, and
`storage.postgres.callbacks.insert_callback` nowhere. A function that is used as `callbacks.finish` is named in its own
module, and is killed in every flow. With `--items 3` a call counts only with a list of three items at least.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from itertools import count
from signal import SIGKILL
from typing import ParamSpec, TypeVar

import click

from tests.kill_steps import place_of

P = ParamSpec("P")
T = TypeVar("T")


def kill_at_step(step: str, nth: int, items: int = 0) -> None:
    """Wrap the function of `module.function:before` or `…:after`: its `nth` call kills this process; with `items`, the
    `nth` of those with a list of so many.
    """
    name, _, when = step.rpartition(":")
    if when not in ("before", "after"):
        raise click.BadParameter("a step is module.function:before or module.function:after")
    try:
        owner, attribute = place_of(name)
    except LookupError as error:
        raise click.BadParameter(str(error)) from error
    function = getattr(owner, attribute)
    calls = count(1)

    def kill(*args: object) -> None:
        if max((len(arg) for arg in args if isinstance(arg, list)), default=0) >= items and next(calls) == nth:
            os.write(2, f"killed {step}\n".encode())
            os.kill(os.getpid(), SIGKILL)

    before, after = (kill, _do_nothing) if when == "before" else (_do_nothing, kill)
    wrap = _wrapped_coroutine if iscoroutinefunction(function) else _wrapped
    setattr(owner, attribute, wrap(function, before=before, after=after))


def _do_nothing(*_args: object) -> None:
    """The other side of the call."""


def _wrapped(function: Callable[P, T], *, before: Callable[..., None], after: Callable[..., None]) -> Callable[P, T]:
    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before(*args)
        result = function(*args, **kwargs)
        after(*args)
        return result

    return wrapped


def _wrapped_coroutine(
    function: Callable[P, Awaitable[T]], *, before: Callable[..., None], after: Callable[..., None]
) -> Callable[P, Awaitable[T]]:
    @wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before(*args)
        result = await function(*args, **kwargs)
        after(*args)
        return result

    return wrapped


@click.command(help=__doc__)
@click.argument("process", type=click.Choice(["api", "worker", "cli"]))
@click.argument("arguments", nargs=-1)
@click.option("--at", "step", required=True, help="module.function:before or :after, where it is used.")
@click.option("--nth", type=click.IntRange(1), default=1, help="Number of the call that kills the process.")
@click.option("--items", type=click.IntRange(0), default=0, help="Count only calls with a list of so many items.")
def main(process: str, arguments: tuple[str, ...], step: str, nth: int, items: int) -> None:
    kill_at_step(step, nth, items)
    sys.argv[1:] = arguments
    runpy.run_module(process, run_name="__main__")


if __name__ == "__main__":
    main()
