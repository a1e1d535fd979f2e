"""Our processes as forks of one that has imported everything: starting Python and importing what a process needs takes
half a second of CPU, and the tests that break processes start hundreds.

A fork runs its module as `python -m` does, in a session of its own, with the environment and the log that it is given.
Processes are started as a platform starts them in `make rehearse`, in the demo and in most other tests.

    pytest ─▶ `python -m tests.preloaded` ─▶ a keeper for each process, which reports its end ─▶ the process
"""

from __future__ import annotations

import ctypes
import gc
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Client, Connection
from pathlib import Path
from signal import SIG_DFL, SIG_IGN, SIGCHLD, SIGKILL, Signals, signal
from threading import Lock
from typing import Any, NamedTuple
from unittest.mock import patch

from argon2 import PasswordHasher

from demo.embedded import Child
from runtime import passwords
from tests import rsa_keys

ROOT = Path(__file__).parent.parent
PACKAGES = ("api", "worker", "simulator", "cli")
MODULES = (
    # run one of those after they have altered it
    "tests.scenarios.kill_at_step",
    "tests.scenarios.with_wrong_clock",
    # no-op jobs of the benchmark of queues
    "bench.noop.lane",
    "bench.noop.lua_loop",
    "bench.noop.stock_arq",
)

PRIMES = 8
"""Of the keys that a simulator makes, which the processes beside it then know: more than any stack has accounts."""

_LIBC = ctypes.CDLL(None)


class Start(NamedTuple):
    """A process that is wanted."""

    module: str
    arguments: tuple[str, ...]
    env: dict[str, str]
    log: str


class Preloaded:
    """The process that forks."""

    def __init__(self, directory: Path) -> None:
        self._address = directory / "preloaded"
        argv = (sys.executable, "-m", "tests.preloaded", self._address)
        self._child = Child(argv, log=directory / "preloaded.log", cwd=ROOT, env={"PATH": os.environ.get("PATH", "")})
        self._child.await_ready(self._address.exists, "the preloaded process")

    def stop(self) -> None:
        """End it and all that it has started."""
        self._child.end(SIGKILL)

    @contextmanager
    def replacing_starts(self) -> Iterator[None]:
        """Let `Service`, `Process` and the benchmark of queues fork what is preloaded. An environment for Python itself
        needs a new Python.
        """

        def start(argv: Sequence[str | Path], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None) -> Child:
            python, option, module, *arguments = map(str, argv)
            is_preloaded = (python, option) == (sys.executable, "-m") and module in (*PACKAGES, *MODULES)
            if not is_preloaded or cwd != ROOT or env is None or any(name.startswith("PYTHON") for name in env):
                return Child(argv, log=log, cwd=cwd, env=env)
            log.touch()
            return ForkedChild(Client(str(self._address)), Start(module, tuple(arguments), dict(env), str(log)))

        with ExitStack() as stack:
            for module in ("demo.service", "tests.servers", "bench.queue_run"):
                stack.enter_context(patch(f"{module}.Child", start))
            yield


class ForkedChild(Child):
    """A child that is a fork of the preloaded process."""

    def __init__(self, keeper: Connection[Any, Any], start: Start) -> None:
        keeper.send(tuple(start))
        self._process = _Forked(keeper, start)  # type: ignore[assignment]  # what `Child` uses of a Popen
        self.log = Path(start.log)


class _Forked:
    """The part of a `subprocess.Popen` that `Child` uses."""

    def __init__(self, keeper: Connection[Any, Any], start: Start) -> None:
        self.pid: int = keeper.recv()
        self._start = start
        self._keeper = keeper
        self._exit_code: int | None = None
        self._lock = Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self._exit_code is None and self._keeper.poll():
                self._exit_code = os.waitstatus_to_exitcode(self._keeper.recv())
            return self._exit_code

    def wait(self, timeout_s: float) -> int:
        self._keeper.poll(timeout_s)  # also true after the end
        exit_code = self.poll()
        if exit_code is None:
            raise subprocess.TimeoutExpired([self._start.module, *self._start.arguments], timeout_s)
        return exit_code

    def send_signal(self, signum: Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and its keeper is about to report that
                os.kill(self.pid, signum)


def main() -> None:
    """Import all that processes import, and fork. Goes on in each forked process as that process."""
    for module in (*(f"{package}.__main__" for package in PACKAGES), *MODULES):
        import_module(module)
        del sys.modules[module]  # it runs anew as `__main__`
    import_module("api.application")  # which `python -m api` imports when it starts
    # Operators sign in with a hash that takes a tenth of a second of CPU on purpose.
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    rsa_keys.install(PRIMES)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has none of the threads that an import started"  # noqa: PTH208
    gc.collect()
    gc.freeze()
    start = _accepted(Path(sys.argv[1]))
    sys.argv[:] = [start.module, *start.arguments]
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


def _accepted(address: Path) -> Start:
    """Fork a keeper for each caller; it forks the process, in which alone this returns."""
    unheard = address.with_suffix(".unheard")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(unheard))
        listener.listen(100)
        unheard.rename(address)
        signal(SIGCHLD, SIG_IGN)  # nobody waits for a keeper
        while True:
            caller = listener.accept()[0]
            if _fork() == 0:
                break
            caller.close()
    signal(SIGCHLD, SIG_DFL)
    with Connection(caller.detach()) as connection:
        start = Start(*connection.recv())
        if pid := _fork():
            connection.send(os.waitpid(pid, 0)[1])
            os._exit(0)
        _become(start)
        connection.send(os.getpid())  # its session exists: the caller may kill all of it
    return start


def _fork() -> int:
    """As `os.fork`; the new process ends with this one, as the children of `demo.embedded` do."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        PR_SET_PDEATHSIG = 1  # noqa: N806 -- the kernel's name
        _LIBC.prctl(PR_SET_PDEATHSIG, int(SIGKILL))
        if os.getppid() != parent:
            os._exit(1)
    return pid


def _become(start: Start) -> None:
    os.setsid()
    log = os.open(start.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    os.environ.clear()
    os.environ.update(start.env)
    time.tzset()


if __name__ == "__main__":
    main()
