"""The steps of a platform with a checkout: an environment from the lock, a copy of the files, the Procfile's lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM

from demo.embedded import Child
from tests.servers import ROOT

LOCK = "requirements.txt"
INSTALL_S = 300.0
COMMAND_S = 60.0

NOT_IN_PRODUCTION = ("bench", "demo.embedded", "simulator", "tests")
"""Folders of ours that a platform has and no process of it imports."""

_LINE = re.compile(r"^(\w+): *(?=\S)", re.MULTILINE)
_IMPORTED = re.compile(r"\.1 +\| import time: +\d+ \| +\d+ \| +(\S+)")
_STOPPED = re.compile(r"(\w+)\.1 stopped \(rc=(-?\d+)\)")
_NAME = re.compile(r"^([A-Za-z0-9._-]+)", re.MULTILINE)


class Failed(Exception):
    """The rehearsal did not go well; the message is for the person at the terminal."""


class Platform:
    """A copy of the checkout with its environment and its variables, and nothing else of this machine's."""

    def __init__(self, commands: Path, checkout: Path, log: Path, variables: Mapping[str, str]) -> None:
        path = f"{commands}:/usr/local/bin:/usr/bin:/bin"
        self.env = {"PATH": path, "HOME": str(checkout), "LANG": "C.UTF-8", **variables}
        self._commands = commands
        self._checkout = checkout
        self._log = log

    def command(self, *arguments: str, given: str = "") -> str:
        """`python -m cli …`, as an operator runs it there; what it printed."""
        argv: list[str | Path] = [self._commands / "python", "-m", "cli", *arguments]
        failure = f"`python -m cli {' '.join(arguments)}` failed"
        return run(argv, failure, env=self.env, cwd=self._checkout, given=given).strip()

    def start(self, *names: str) -> Child:
        """Honcho with these lines of the Procfile; Python writes down what it imports.

        The shell that honcho puts in front of each line gives its place to the program: else SIGTERM ends that shell as
        well, and its exit code would hide the program's.
        """
        lines = _LINE.sub(r"\1: exec ", (self._checkout / "Procfile").read_text())
        procfile = self._checkout / "Procfile.exec"
        procfile.write_text(lines)
        honcho = [sys.executable, "-P", "-m", "honcho", "--no-colour", "--procfile", procfile.name, "start", *names]
        env = self.env | {"PYTHONPROFILEIMPORTTIME": "1"}
        return Child(honcho, log=self._log, cwd=self._checkout, env=env, death_signal=SIGTERM)

    def output(self) -> str:
        """Return the output of honcho and its processes."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def make_environment(directory: Path) -> Path:
    """An environment with the locked packages alone; where its commands are."""
    place = directory / "environment"
    # Only this step has our own environment, which names the package index.
    run([sys.executable, "-m", "venv", place], "a virtual environment could not be made", env=os.environ)
    pip: list[str | Path] = [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--quiet", "--require-hashes", "--requirement", ROOT / LOCK]
    run(install, f"pip could not install {LOCK} by its hashes", env=os.environ, timeout_s=INSTALL_S)
    listed = json.loads(run([*pip, "list", "--format=json"], "pip could not list what is there", env=os.environ))
    beside = not_locked((package["name"] for package in listed), (ROOT / LOCK).read_text())
    if beside:
        raise Failed(f"{', '.join(beside)} came into the environment, and {LOCK} does not name it")
    return place / "bin"


def copy_checkout(directory: Path) -> Path:
    """The files that a commit of the working tree would hold, and nothing that git ignores."""
    place = directory / "checkout"
    listing: list[str | Path] = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = run(listing, "git does not tell what belongs to the checkout", env=os.environ).split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    for needed in ("Procfile", LOCK):
        if not (place / needed).is_file():
            raise Failed(f"{needed} is not in the checkout, and a platform looks for it")
    return place


def not_locked(installed: Iterable[str], lock: str) -> list[str]:
    """Installed packages that the lock does not name. Every environment has pip, and before Python 3.12 setuptools."""
    locked = {_plain(name) for name in _NAME.findall(lock)} | {"pip", "setuptools"}
    return sorted({_plain(name) for name in installed} - locked)


def exit_codes(output: str) -> dict[str, int]:
    """Exit codes of the processes as honcho prints them, by their names in the Procfile."""
    return {name: int(code) for name, code in _STOPPED.findall(output)}


def imported(output: str) -> set[str]:
    """The modules that the processes say they have imported."""
    return set(_IMPORTED.findall(output))


def development_only(modules: Iterable[str]) -> list[str]:
    """Those that have no business in production."""
    return sorted(
        module for module in modules if any(f"{module}.".startswith(f"{name}.") for name in NOT_IN_PRODUCTION)
    )


def run(
    argv: Sequence[str | Path],
    failure: str,
    *,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    given: str = "",
    timeout_s: float = COMMAND_S,
) -> str:
    """Output of a program.

    Raises:
        Failed: `failure`, and the end of what the program complained about.
    """
    try:
        done = subprocess.run(
            argv, env=env, cwd=cwd, input=given, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{failure} ({type(error).__name__})") from None
    if done.returncode != 0:
        raise Failed(f"{failure}:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _plain(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
