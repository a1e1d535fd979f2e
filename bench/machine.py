"""Facts of the machine for the report, without its name and paths."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec

from demo.embedded import find_postgres_binaries, find_redis_binary

ROOT = Path(__file__).parent.parent
LIBRARIES = (
    *("arq", "asyncpg", "cryptography", "hiredis", "httptools", "httpx", "msgspec"),
    *("pyreqwest", "redis", "standardwebhooks", "structlog", "uvicorn", "uvloop"),
)
SYNCED_WRITES = 50
LOOPS = 9
LOOP_STEPS = 100_000
_PAGE = bytes(8192)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Facts on which figures depend. `synced_write_ms`: median of 8 KiB and fdatasync in the data directory."""

    cores: int
    cpu: str
    memory_mib: int
    system: str
    file_system: str
    synced_write_ms: float
    load_before: float
    python: str
    libraries: dict[str, str]
    servers: dict[str, str]
    commit: str


def describe(directory: Path) -> Machine:
    """Describe this machine; `directory` is the servers' data directory."""
    return Machine(
        cores=_cores(),
        cpu=_cpu(),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        file_system=_file_system(directory),
        synced_write_ms=round(_synced_write_s(directory) * 1000, 3),
        load_before=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
        servers={
            "postgres": _first_line(str(find_postgres_binaries() / "postgres"), "--version"),
            "redis": _first_line(str(find_redis_binary()), "--version"),
        },
        commit=_commit(),
    )


def loop_ms() -> float:
    """CPU milliseconds of a loop that is always the same: the median of `LOOPS`.

    Where neighbours share the processor it takes up to twice as long, and so does everything else.
    """
    return round(median(_loop_s() for _ in range(LOOPS)) * 1000, 2)


def _loop_s() -> float:
    began = time.process_time()
    total = 0
    for step in range(LOOP_STEPS):
        total += step * step
    return time.process_time() - began


def _cores() -> int:
    """Return the cores of this process; a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _file_system(directory: Path) -> str:
    """Return the type of the innermost mount. On tmpfs a synced write costs nothing."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    parents = [(len(path), kind) for path, kind in mounts if directory.resolve().is_relative_to(path)]
    return max(parents, default=(0, ""))[1]


def _synced_write_s(directory: Path) -> float:
    sync = getattr(os, "fdatasync", os.fsync)
    place = directory / "synced"
    times = []
    with place.open("wb", buffering=0) as file:
        for _ in range(SYNCED_WRITES):
            began = time.perf_counter()
            file.write(_PAGE)
            sync(file.fileno())
            times.append(time.perf_counter() - began)
    place.unlink()
    return median(times)


def _commit() -> str:
    """Return the short commit, with a plus if files differ from it; empty outside a repository."""
    git = shutil.which("git")
    if git is None:
        return ""
    commit = _first_line(git, "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    return commit + ("+" if commit and _first_line(git, "-C", str(ROOT), "status", "--porcelain") else "")


def _first_line(*command: str) -> str:
    """Return the first line of a program's output; empty if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 -- found above
    return next(iter(done.stdout.splitlines()), "") if done.returncode == 0 else ""
