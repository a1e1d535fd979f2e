"""Real servers for every test that asks for them, a database of its own for each, and which tests are unit tests."""

import asyncio
import faulthandler
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest
import redis
import structlog
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import HealthCheck, settings

from demo.embedded import EmbeddedPostgres, EmbeddedRedis, temporary_directory
from tests import rsa_keys
from tests.databases import ReusedDatabase
from tests.kept_pools import KeptPools
from tests.preloaded import Preloaded
from tests.servers import find_chromium

# ci: the same examples at each run, so that a failure is somebody's change. few: where the examples are not the point,
# as at another date. wide: what a clean checkout must pass. deep: HYPOTHESIS_PROFILE=deep make test
settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("wide", max_examples=300, derandomize=True, deadline=None)
settings.register_profile("few", max_examples=10, derandomize=True, deadline=None)
settings.register_profile(
    "deep", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


TESTS = Path(__file__).parent

AUTHORITIES = {name: os.environ.pop(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
os.environ["SSL_CERT_FILE"] = str(TESTS / "authority.pem")
"""Trusted by every client and process of the tests that names no other: to read all authorities of a system takes it
30 ms of CPU."""

# Each collection of garbage looks through thousands of collected tests: a tenth of the CPU of tests without servers.
# None is garbage: there is no collection before they are all there, and later ones do not look at them.
gc.set_threshold(10_000, 20, 10)
gc.disable()

rsa_keys.install()

# Rich draws a trace with the values of all variables, which takes a second of CPU.
*_processors, _ = structlog.get_config()["processors"]
structlog.configure(
    processors=[*_processors, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
)

UNIT_FOLDERS = frozenset({"api", "clients", "core", "docs", "flows", "packaging", "runtime", "storage", "worker"})
"""A test in one of these is a unit test unless it uses a server or is marked so. All other folders start processes, or
serve the channels' side over HTTP."""

MEMORY = Path("/dev/shm")  # noqa: S108 -- the folder in it is ours alone
MEMORY_MIN_BYTES = 4 << 30
"""Room for the servers of several processes of pytest, with some to spare."""

_LONG = {folder: rank for rank, folder in enumerate(("chaos", "scenarios", "browser", "bench", "fuzz", "oracles"))}
"""Folders of long tests, longest first: at the end every core still has short ones, and no core waits for another."""

KEEPS_POOLS = frozenset({"api", "flows", "storage", "worker"})
"""Folders whose tests are not about the sessions of Postgres, but for those with `new_sessions`."""

SERVER_FIXTURES = frozenset({"servers_home", "chromium"})
"""Every fixture of a server, a database or a browser uses one of these."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark `servers` on every test that is no unit test, so that nobody keeps a list. Long tests run first."""
    items.sort(key=lambda item: _LONG.get(_folder_of(item), len(_LONG)))
    for item in items:
        if item.get_closest_marker("network") and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "authorities_of_the_system")
        if _folder_of(item) not in UNIT_FOLDERS or not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("servers")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def _folder_of(item: pytest.Item) -> str:
    """From `tests/FOLDER/…`. To split ten thousand paths takes each process half a second."""
    return item.nodeid.split("/", 2)[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """A unit test that starts a process fails: it belongs to the others."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("servers") is None:
            patch.setattr(subprocess.Popen, "__init__", _refuse_process)
        return (yield)


def _refuse_process(_process: object, command: object, *_: object, **__: object) -> None:
    pytest.fail(f"a unit test started a process ({command!r}): mark it `servers`")


class Watch:
    """Shows where a test hangs, even when no signal reaches it: after `HANGS_S`, or up to `OFF_S` sooner.

    pytest's own way starts and ends a thread for each test, and waits for its end: a millisecond on a busy machine.
    """

    HANGS_S, OFF_S = 330.0, 30.0

    def __init__(self) -> None:
        self._began_at = -self.OFF_S

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        if monotonic() - self._began_at >= self.OFF_S:
            self._began_at = monotonic()
            faulthandler.dump_traceback_later(self.HANGS_S, file=self._output)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._output = session.config.stash[fault_handler_stderr_fd_key]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        faulthandler.cancel_dump_traceback_later()


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("faulthandler"):
        config.pluginmanager.register(Watch())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and find_chromium() is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium-headless-shell fonts-wqy-microhei")


@pytest.fixture
def authorities_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that install from the network."""
    monkeypatch.delenv("SSL_CERT_FILE")
    for name, value in AUTHORITIES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium, for tests marked `browser`."""
    found = find_chromium()
    assert found is not None, "only tests marked `browser` may ask for it"
    return found


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """Folder where the servers of this session keep their data. Postgres could not use `tmp_path` when we are root.

    In memory where there is enough: a server writes some forty megabytes before its first test.
    """
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_MIN_BYTES
    with temporary_directory(MEMORY if has_room else None) as home:
        yield home


@pytest.fixture(scope="session")
def forking(servers_home: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Makes a block in which our processes are forked, for folders whose tests start many and do not test how one
    starts. Nothing is forked where a fork does not end with its parent.
    """
    if sys.platform != "linux":
        yield nullcontext
        return
    preloaded = Preloaded(servers_home)
    yield preloaded.replacing_starts
    preloaded.stop()


@pytest.fixture
def server_directory(servers_home: Path) -> Path:
    """For a server of the test's own, to be stopped, frozen or killed: the session's are everybody's."""
    return servers_home / uuid4().hex


@pytest.fixture(scope="session")
def postgres(servers_home: Path) -> Iterator[EmbeddedPostgres]:
    """The session's Postgres. Not to be stopped."""
    from tests.clusters import hash_once

    with EmbeddedPostgres(servers_home / "postgres", fsync=False, max_connections=200) as server:
        hash_once(server)
        yield server


@pytest.fixture(scope="session")
def redis_server(servers_home: Path) -> Iterator[EmbeddedRedis]:
    """The session's Redis. Not to be stopped or configured."""
    with EmbeddedRedis(servers_home / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """A database with every migration applied, to be cloned."""
    from storage.postgres.migrate import migrate

    name = "nodrop_template"
    postgres.create_database(name)
    asyncio.run(migrate(postgres.url(name)))
    return name


@pytest.fixture(scope="session")
async def kept_pools() -> AsyncIterator[KeptPools]:
    pools = KeptPools(asyncio.get_running_loop())
    with pools.replacing_pools():
        yield pools


@pytest.fixture(scope="session")
def reused_database(
    postgres: EmbeddedPostgres, template_database: str, kept_pools: KeptPools
) -> Iterator[ReusedDatabase]:
    database = ReusedDatabase(postgres, template_database, kept_pools)
    yield database
    database.close()


@pytest.fixture
def new_sessions() -> None:
    """For a test of the sessions of Postgres in a folder of others."""


@pytest.fixture
def database_url(reused_database: ReusedDatabase, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database without a row. What a test leaves there is gone for the next."""
    is_about_sessions = _folder_of(request.node) not in KEEPS_POOLS or "new_sessions" in request.fixturenames
    yield reused_database.lend(keeps_pools=not is_about_sessions)
    reused_database.take_back()


@pytest.fixture
def new_database_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """A migrated database of the test's own, for tests of what Postgres knows of tables that nobody has used."""
    yield from _database(postgres, template_database)


@pytest.fixture
def unmigrated_database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database of the test's own without a table, for tests of the migrations themselves."""
    yield from _database(postgres, None)


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """An empty Redis; what the test before left there is gone."""
    with redis.Redis.from_url(redis_server.url, socket_timeout=60) as client:
        client.flushall()
    return redis_server.url


def _database(postgres: EmbeddedPostgres, template: str | None) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    postgres.create_database(name, template)
    yield postgres.url(name)
    postgres.drop_database(name)
