"""A child process that does not outlive its parent, and facts about other processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGCONT, SIGKILL, Signals
from typing import Final, NamedTuple

from demo.embedded.errors import ServerFailedError

START_S: Final = 120.0  # recovery after a kill under load takes seconds, and the machine may be small and busy
STOP_S: Final = 20.0  # Postgres's fast shutdown writes a checkpoint
_POLL_S: Final = 0.005
_LOG_TAIL_LINES: Final = 25

# Requests a signal on the parent's death from the kernel, then executes the program. A fresh interpreter,
# because code between fork and exec is not safe in a process with threads. A change of user makes the kernel forget the
# request: the user comes first.
_LAUNCHER: Final = """
import ctypes, os, sys
death_signal, parent, uid, gid = map(int, sys.argv[1:5])
if uid:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        sys.exit("the parent died first")
os.execvp(sys.argv[5], sys.argv[5:])
"""

# To the kernel the parent is the *thread* that forked: what is started from a thread that ends would end with it. This
# one lasts as long as the process.
_SPAWNER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class User(NamedTuple):
    """User and group of a child."""

    uid: int
    gid: int


class Child:
    """A process in a session of its own: Ctrl-C in the terminal reaches only the parent, which ends its children.

    When the parent dies, Linux sends `death_signal` to the child. Without `env` the child inherits almost no variable:
    PGPORT, LANG and others would change a server's behaviour.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        death_signal: Signals = SIGKILL,
        user: User | None = None,
    ) -> None:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, int(death_signal), os.getpid(), *(user or (0, 0))]
        with log.open("ab") as output:
            self._process = _SPAWNER.submit(
                subprocess.Popen[bytes],
                [str(part) for part in (*launcher, *argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=_bare_environment() if env is None else env,
                start_new_session=True,
            ).result()
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    def send(self, signal: Signals) -> None:
        """Send a signal; does nothing after the end."""
        self._process.send_signal(signal)

    def wait(self, timeout_s: float) -> int:
        """Return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._process.wait(timeout_s)

    def end(self, signal: Signals, timeout_s: float = STOP_S) -> int:
        """Send `signal` and SIGCONT, in case it is stopped, and SIGKILL if it still runs after `timeout_s`."""
        self.send(signal)
        self.send(SIGCONT)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.send(SIGKILL)
            return self.wait(timeout_s)

    def await_ready(self, is_ready: Callable[[], bool], name: str) -> None:
        """Return once `is_ready` holds.

        Raises:
            ServerFailedError: it ended, or was killed because it was not ready after `START_S`.
        """
        poll_until(lambda: self.exit_code is not None or is_ready(), START_S)
        if self.exit_code is not None:
            raise ServerFailedError(f"{name} ended with {self.exit_code}; the end of {self.log}:\n{tail(self.log)}")
        if not is_ready():
            self.end(SIGKILL)
            raise ServerFailedError(f"{name} was not ready after {START_S} s; the end of {self.log}:\n{tail(self.log)}")


def poll_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether `condition` became true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])


def children_of(pid: int) -> list[int]:
    """Return the child processes of `pid`, read from /proc; none where there is no /proc."""
    statuses = Path("/proc").glob("[0-9]*/stat")
    return [int(status.parent.name) for status in statuses if _state_and_parent(status)[1] == pid]


def is_alive(pid: int) -> bool:
    """Return whether it runs, by /proc. A zombie does not: in a container it is often never reaped."""
    return _state_and_parent(Path(f"/proc/{pid}/stat"))[0] not in {"", "Z", "X"}


def _state_and_parent(status: Path) -> tuple[str, int]:
    try:
        state, parent = status.read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return state, int(parent)


def _bare_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ} | {"LC_ALL": "C"}
