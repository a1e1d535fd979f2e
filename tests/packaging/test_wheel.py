"""The project's wheel: it has every file of the packages, and its command and processes work without a checkout."""

import os
import re
import sys
from pathlib import Path
from signal import SIGTERM
from zipfile import ZipFile

import httpx
import pytest

from demo.embedded import Child, free_port
from demo.service import NO_TLS
from tests.api.conftest import MASTER_KEYS
from tests.packaging.test_packages import python_folders
from tests.platform.deploy import Failed, copy_checkout, run
from tests.servers import LIMIT_S, ROOT, eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

PIP: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
NEEDS_MORE = ("bench.peers.",)
"""Modules of other projects' benchmarks, whose libraries are in environments of their own."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", place / "wheels"]
    run([*build, copy_checkout(place)], "the wheel could not be built", env=os.environ, timeout_s=LIMIT_S)
    (built,) = (place / "wheels").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that has the wheel alone; the interpreter of the tests has the dependencies."""
    place = tmp_path_factory.mktemp("installed")
    install: list[str | Path] = [*PIP, "install", "--no-deps", "--no-index", "--target", place, wheel]
    run(install, "the wheel could not be installed", env=os.environ, timeout_s=LIMIT_S)
    return place


@pytest.fixture
def environment(installed: Path, database_url: str, redis_url: str) -> dict[str, str]:
    port = free_port()
    return {
        "PATH": f"{installed / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(installed),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "NODROP_MASTER_KEYS": MASTER_KEYS,
        "NOTIFY_SECRETS": "whsec_" + "A" * 43 + "=",
        "OPS": "1",
    }


def test_it_has_the_files_of_every_package_and_no_others(wheel: Path) -> None:
    listing: list[str | Path] = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    tops = {folder.partition(".")[0] for folder in python_folders()}
    listed = run(listing, "git does not tell what there is", env=os.environ).splitlines()
    files = {name for name in listed if name.partition("/")[0] in tops and not name.endswith(".md")}
    with ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith(".md")} == files


def test_every_module_can_be_imported(environment: dict[str, str], tmp_path: Path) -> None:
    names = sorted(
        ".".join(file.relative_to(environment["PYTHONPATH"]).with_suffix("").parts).removesuffix(".__init__")
        for file in Path(environment["PYTHONPATH"]).rglob("*.py")
    )
    names = [name for name in names if not name.endswith(".__main__") and not name.startswith(NEEDS_MORE)]
    assert {"api.pages.html", "storage.postgres.migrations", "worker.lane"} <= set(names)
    program = "import sys, importlib\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    argv: list[str | Path] = [sys.executable, "-W", "error", "-c", program, *names]
    where = run(argv, "a module cannot be imported", env=environment, cwd=tmp_path, timeout_s=LIMIT_S).splitlines()
    assert len(where) == len(names)
    assert all(Path(file).is_relative_to(environment["PYTHONPATH"]) for file in where)


def test_the_command_is_there(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    assert (installed / "bin/nodrop").is_file()
    run(["nodrop", "migrate"], "nodrop migrate failed", env=environment, cwd=tmp_path)
    checked = run(["nodrop", "config", "check"], "the configuration is wrong", env=environment, cwd=tmp_path)
    assert re.search(r"^DATABASE_URL +OK ", checked, re.MULTILINE)


def test_the_demo_says_that_a_deployment_has_it_not(environment: dict[str, str], tmp_path: Path) -> None:
    """The packages of the demo are in the wheel; what they need is an extra."""
    program = "import sys; sys.modules['pyreqwest'] = None; from cli.__main__ import main; main()"
    with pytest.raises(
        Failed, match=r"Error: `nodrop demo` needs pyreqwest.*, which a deployment has not: use `make demo`"
    ):
        run([sys.executable, "-c", program, "demo"], "it failed", env=environment, cwd=tmp_path)


async def test_its_processes_serve(environment: dict[str, str], tmp_path: Path) -> None:
    processes = [
        Child([sys.executable, "-m", module], log=tmp_path / module, cwd=tmp_path, env=environment)
        for module in ("api", "worker")
    ]
    try:
        async with httpx.AsyncClient(
            base_url=environment["PUBLIC_URL"], verify=NO_TLS, trust_env=False, timeout=60
        ) as client:
            await eventually(lambda: _is_ready(client, processes))
            for address in ("/docs", "/openapi.json", "/problems/not_found", "/o/shell", "/o/sw.js", "/ops/signin"):
                assert (await client.get(address)).status_code == httpx.codes.OK, address
        await eventually(lambda: "worker_started" in (tmp_path / "worker").read_text())
    finally:
        for process in processes:
            process.end(SIGTERM)


async def _is_ready(client: httpx.AsyncClient, processes: list[Child]) -> bool:
    assert [process.exit_code for process in processes] == [None, None]
    try:
        return (await client.get("/readyz")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
