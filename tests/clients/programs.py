"""The snippets of docs/notifications.md as running programs: each extracted from the document, unchanged, and served
with what is beside this file in `snippets/`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

import pytest

from demo.embedded import Child, free_port
from tests.conftest import AUTHORITIES
from tests.servers import ROOT, eventually

TEXT = (ROOT / "docs" / "notifications.md").read_text()
SNIPPETS = Path(__file__).parent / "snippets"
BUILD_S = 300
INSTALL_S = 300

TABLES = """
CREATE TABLE orders (order_no VARCHAR(64) PRIMARY KEY, version BIGINT DEFAULT 0, status VARCHAR(40) DEFAULT '');
CREATE TABLE work (order_no VARCHAR(64) PRIMARY KEY, kind VARCHAR(20) NOT NULL);
CREATE TABLE effects (line TEXT);
CREATE TRIGGER effect AFTER UPDATE ON orders
BEGIN INSERT INTO effects VALUES (new.order_no || ' ' || new.version); END;
"""
"""The shop's tables. The trigger counts the effects."""


def block(name: str) -> str:
    """The block of the document whose first line names this file."""
    pattern = rf"^```\w+\n((?:<\?php\n)?(?:#|//) {re.escape(name)}\n.*?)^```$"
    (code,) = re.findall(pattern, TEXT, re.MULTILINE | re.DOTALL)
    return str(code)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`blocks` are of the document; `files` are of `snippets/`, with their names in the program. `python` in a command
    is the interpreter. `installs`: the packages of a framework, with pip or npm.
    """

    blocks: Sequence[str]
    files: Mapping[str, str]
    run: str
    needs: Sequence[str] = ()
    build: str = ""
    installs: str = ""
    has_database: bool = False


RECIPES = {
    "python": Recipe(
        blocks=["notifications.py"], files={"serve.py": "serve.py"}, run="python serve.py", has_database=True
    ),
    "node": Recipe(
        blocks=["notifications.js"],
        files={"serve.js": "serve.js", "handle.js": "handle.js"},
        run="node serve.js",
        needs=["node"],
    ),
    "php": Recipe(
        blocks=["notifications.php"],
        files={"handle.php": "handle.php"},
        run="php -d display_errors=1 -S 127.0.0.1:PORT notifications.php",
        needs=["php"],
    ),
    "java": Recipe(
        blocks=["Notifications.java"],
        files={"Main.java": "Main.java"},
        build="javac -d . Main.java Notifications.java",
        run="java -cp . Main",
        needs=["java", "javac"],
    ),
    "go": Recipe(
        blocks=["notifications.go"],
        files={"main.go": "main.go"},
        build="go build -o server main.go notifications.go",
        run="./server",
        needs=["go"],
    ),
    "fastapi": Recipe(
        blocks=["notifications.py", "fastapi_app.py"],
        files={},
        run="python -m uvicorn --host 127.0.0.1 --port PORT fastapi_app:app",
        installs="pip",
        has_database=True,
    ),
    "django": Recipe(
        blocks=["notifications.py", "shop/views.py"],
        files={
            "serve_django.py": "serve_django.py",
            "django_models.py": "shop/models.py",
            "django_urls.py": "shop/urls.py",
            "__init__.py": "shop/__init__.py",
        },
        run="python serve_django.py",
        installs="pip",
        has_database=True,
    ),
    "express": Recipe(
        blocks=["notifications.js", "express_app.js"],
        files={name: name for name in ("serve.js", "handle.js", "package.json", "package-lock.json")},
        run="node serve.js",
        needs=["node", "npm"],
        installs="npm",
    ),
}


@dataclass
class Program:
    """A snippet in a folder of its own, and a process of it once it is started. `another` shares the folder."""

    recipe: Recipe
    home: Path
    python: Path
    url: str = ""
    child: Child | None = None

    def another(self) -> Program:
        return Program(self.recipe, self.home, self.python)

    def build(self) -> None:
        for name in self.recipe.blocks:
            self._write(name, block(name))
        for source, target in self.recipe.files.items():
            self._write(target, (SNIPPETS / source).read_text())
        if self.recipe.installs == "npm":
            install(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], self.home)
        if self.recipe.build:
            run(self._argv(self.recipe.build), self.home, self._env())
        if self.recipe.has_database:
            with closing(sqlite3.connect(self.database)) as db:
                db.executescript(TABLES)

    async def start(self, secrets: str) -> None:
        """Serve notifications at `url`."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/notifications"
        env = self._env() | {"PORT": str(port), "NODROP_SECRETS": secrets}
        argv = [part.replace("PORT", str(port)) for part in self._argv(self.recipe.run)]
        log = self.home / f"log-{port}"
        self.child = Child(argv, log=log, cwd=self.home, env=env)
        await eventually(lambda: self._is_listening(port, log))

    def stop(self) -> None:
        if self.child is not None:
            self.child.end(SIGKILL)

    # -- the shop ------------------------------------------------------------------------------------------------------

    def expect(self, order_no: str) -> None:
        """Give the shop this order."""
        if self.recipe.has_database:
            self._execute(f"INSERT INTO orders (order_no) VALUES ('{order_no}')")  # noqa: S608

    def effects(self, order_no: str) -> list[str]:
        """Versions whose effect the order had."""
        if self.recipe.has_database:
            with closing(sqlite3.connect(self.database, timeout=120)) as db:
                lines = [line for (line,) in db.execute("SELECT line FROM effects")]
        else:
            lines = self._effects.read_text().splitlines() if self._effects.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{order_no} ")]

    def work(self, order_no: str) -> list[str]:
        """Kinds of work to be done for the order, where the program has a database."""
        with closing(sqlite3.connect(self.database, timeout=120)) as db:
            return [kind for (kind,) in db.execute("SELECT kind FROM work WHERE order_no = ?", (order_no,))]

    def break_down(self) -> None:
        """Make every effect fail."""
        if self.recipe.has_database:
            self._execute("ALTER TABLE work RENAME TO away")
        else:
            self._fail.touch()

    def recover(self) -> None:
        if self.recipe.has_database:
            self._execute("ALTER TABLE away RENAME TO work")
        else:
            self._fail.unlink()

    # -- files ---------------------------------------------------------------------------------------------------------

    @property
    def database(self) -> Path:
        return self.home / "shop.db"

    @property
    def _effects(self) -> Path:
        return self.home / "effects"

    @property
    def _fail(self) -> Path:
        return self.home / "fail"

    def _write(self, name: str, text: str) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=120)) as db, db:
            db.execute(sql)

    def _argv(self, command: str) -> list[str]:
        return [str(self.python) if part == "python" else part for part in command.split(" ")]

    def _env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GOPROXY": "off",
            "DATABASE": str(self.database),
            "EFFECTS": str(self._effects),
            "FAIL": str(self._fail),
        }

    def _is_listening(self, port: int, log: Path) -> bool:
        assert self.child is not None
        assert self.child.exit_code is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


def skip_without_runtime(recipe: Recipe) -> None:
    """Skip the test where the runtime is missing."""
    missing = [name for name in recipe.needs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} here")


def python_with_frameworks(home: Path) -> Path:
    """The interpreter of an environment with what `snippets/requirements.txt` locks."""
    python = home / "environment" / "bin" / "python"
    run([sys.executable, "-m", "venv", str(python.parents[1])], home, None)
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes")
    install([str(python), "-m", "pip", "install", *options, "-r", str(SNIPPETS / "requirements.txt")], home)
    return python


def install(argv: list[str], home: Path) -> None:
    """Run a command that needs the network; skip the test where there is none."""
    inherited = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"} | AUTHORITIES
    ended = subprocess.run(argv, cwd=home, env=inherited, capture_output=True, timeout=INSTALL_S, check=False)
    if ended.returncode:
        pytest.skip(f"it cannot be installed here: {ended.stderr.decode(errors='replace')[-300:]}")


def run(argv: list[str], home: Path, env: Mapping[str, str] | None) -> None:
    ended = subprocess.run(argv, cwd=home, env=env, capture_output=True, timeout=BUILD_S, check=False)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
