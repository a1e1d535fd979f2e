"""The access lists of the documentation: enough for each role, nothing beyond, and what is missing is named."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import redis as blocking
from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError
from structlog.testing import capture_logs

from core.admission import UNANSWERED_MAX, CallKind, Urgency
from core.jobs import Job, JobName, Lane, query_payment
from core.order import PaymentKey
from demo.embedded import EmbeddedRedis
from storage.redis.admission.names import state_key
from storage.redis.admission.shared import SharedAdmission
from storage.redis.changes import Changes
from storage.redis.checks import check_redis, keep_identity
from storage.redis.delay_queue import DelayQueue
from storage.redis.nudges import Nudges
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from storage.redis.rights import missing_rights
from storage.sealing import Sealer
from tests.servers import ROOT, eventually
from tests.storage.redis.tools import follow_ups_of, job_client_of
from tests.storage.tls_server import REDIS_SERVER
from worker.lane import LaneWorker

OPERATIONS = (ROOT / "docs/operations.md").read_text()
LISTS = {line.split()[2]: line for line in re.findall(r"^ACL SETUSER .+$", OPERATIONS, re.MULTILINE)}
WEB, WORKER = "nodrop-web", "nodrop-worker"
SEALER = Sealer.from_setting("test:" + "A" * 43 + "=")
CALLBACK = ParkedCallback(account="shop", headers={}, body=b"{}", received_at=datetime(2026, 11, 23, 4, tzinfo=UTC))

SELDOM = {"select", "ping"}
"""Used with another database number than 0, and on a connection that hears nothing for long."""


@pytest.fixture(params=["embedded", "Debian's"])
def server(
    request: pytest.FixtureRequest, server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[Server]":
    if request.param == "Debian's":
        if not REDIS_SERVER.exists():
            pytest.skip("no redis-server here; on Debian: apt-get install redis-server")
        monkeypatch.setattr("demo.embedded.redis.find_redis_binary", lambda: REDIS_SERVER)
    with EmbeddedRedis(server_directory) as started, blocking.Redis.from_url(started.url, socket_timeout=60) as admin:
        for line in LISTS.values():
            cast("Any", admin).execute_command(*line.split())
        yield Server(started.url, admin)


class Server:
    """A server with the users of the documentation, as its administrator sees it."""

    def __init__(self, url: str, admin: blocking.Redis) -> None:
        self._url = url
        self.admin = admin

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[ArqRedis]:
        async with job_client_of(f"redis://{user}:PASSWORD@127.0.0.1:{urlsplit(self._url).port}/0") as client:
            yield client

    def take_back(self, user: str, *rights: str) -> None:
        cast("Any", self.admin).execute_command("ACL", "SETUSER", user, *rights)

    def refused(self) -> list[str]:
        """Commands that the server refused, without the name that the client tells at every connection."""
        entries = cast("list[dict[str, Any]]", self.admin.acl_log())
        return [entry["object"] for entry in entries if not entry["object"].startswith("client")]

    def used(self) -> set[str]:
        """Commands that ran since the last call, those of scripts among them."""
        stats = self.admin.info("commandstats")
        ran = {name.removeprefix("cmdstat_").partition("|")[0] for name in cast("dict[str, Any]", stats)}
        self.admin.config_resetstat()
        return ran - {"acl", "auth", "hello", "client", "config"}


def granted(user: str) -> set[str]:
    return {word[1:] for word in LISTS[user].split() if word.startswith("+")}


def query(number: int) -> Job:
    return query_payment(PaymentKey("shop", f"trade-{number}"), 1)


async def serve(redis: ArqRedis, server: Server) -> None:
    """Do with Redis everything that a web process does."""
    await use_everywhere(redis, server)
    queue, parked, changes = DelayQueue(redis), ParkedCallbacks(redis, SEALER), Changes(redis)
    await queue.depth(Lane.QUERIES)
    await parked.park(CALLBACK)
    await parked.count()
    await SharedAdmission(redis, processes=4).open_breakers(["shop"])
    listening = asyncio.create_task(changes.listen())
    with changes.subscribe("A-1") as subscription:
        await eventually(lambda: subscription.wait(0.01))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def work(redis: ArqRedis, server: Server) -> None:
    """Do with Redis everything that a worker does."""
    await use_everywhere(redis, server)
    queue, parked = DelayQueue(redis), ParkedCallbacks(redis, SEALER)
    epoch = await queue.epoch()
    await queue.mark_rearmed(epoch)
    server.admin.hset("nodrop:{parked}:callbacks", "unreadable", "{")
    server.admin.hset("nodrop:{parked}:callbacks", "handled", "{}")
    await parked.parked(10)
    await parked.unpark([b"handled"])
    await run_jobs(redis)
    nudges = Nudges(redis)
    listening = asyncio.create_task(nudges.listen())
    await eventually(lambda: nudges.is_listening)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def use_everywhere(redis: ArqRedis, server: Server) -> None:
    await check_redis(redis)
    await keep_identity(redis, "ours")
    admission, queue = SharedAdmission(redis, processes=4, has_older=True), DelayQueue(redis)
    for urgency in Urgency:
        for _ in range(6):
            await admission.admit("shop", 5, CallKind.QUERY, urgency)
    for _ in range(UNANSWERED_MAX):
        await admission.report("shop", CallKind.QUERY, answered=False)
    server.admin.hset("nodrop:{admission}:shop:breaker:query", "until", "1")
    server.admin.hset(state_key("shop"), "until:query", "1")
    await admission.report("shop", CallKind.QUERY, answered=False)  # the probe of a breaker that is half open
    await admission.report("shop", CallKind.QUERY, answered=True)
    for _ in range(2):
        await queue.arm([query(1), query(2), query(3)])
    await queue.cancel([query(1), query(2), query(3)])
    await follow_ups_of(redis).add(changes=[("A-1", 1)])


async def run_jobs(redis: ArqRedis) -> None:
    """One job that runs, one that no worker knows, one that is given back."""
    ran = asyncio.Event()

    async def run(_ctx: dict[str, Any], _account: str, out_trade_no: str, _arm_no: int) -> None:
        if out_trade_no == "trade-1":
            ran.set()
        else:
            await asyncio.Event().wait()

    unknown = Job(lane=Lane.QUERIES, name=JobName.PUSH_NOTIFICATION, id="n:1:1", args=())
    await DelayQueue(redis).arm([query(1), query(2), unknown])
    worker = LaneWorker(redis, Lane.QUERIES, {"query_payment": run}, process="here")
    assert await worker.run_once() == 3
    await eventually(ran.is_set)
    await worker.drain(0.2)


async def send(redis: ArqRedis, *command: str) -> None:
    await cast("Any", redis).execute_command(*command)


ROLES = {WEB: serve, WORKER: work}


@pytest.mark.parametrize("user", ROLES)
async def test_each_role_may_do_what_it_does_and_nothing_else(server: Server, user: str) -> None:
    async with server.client(user) as redis:
        server.used()
        with capture_logs() as lines:
            await ROLES[user](redis, server)
        used = server.used()
        assert server.refused() == [], lines
        assert granted(user) - used <= SELDOM
        for command in ("FLUSHALL", "KEYS *", "CONFIG GET *", "GET other", "PUBLISH other x"):
            with pytest.raises(NoPermissionError):
                await send(redis, *command.split())


@pytest.mark.parametrize("user", ROLES)
async def test_nothing_is_missing_of_a_documented_list(server: Server, user: str) -> None:
    async with server.client(user) as redis:
        missing = await missing_rights(redis)
        assert (missing.web == [], missing.worker == []) == (user == WEB, user == WORKER), missing
        assert server.admin.keys("*") == []


@pytest.mark.parametrize(
    ("rights", "name"),
    [
        (("-evalsha",), "EVALSHA"),
        (("-publish",), "PUBLISH nodrop:changes"),
        (("resetchannels",), "SUBSCRIBE nodrop:changes"),
        (
            ("resetkeys", "~nodrop:*", "~arq:*{fresh-0}*", "~arq:*{queries-0}*"),
            "ZADD arq:queue:{notifications-0}:check",
        ),
        (("resetkeys", "~arq:*"), "HSET nodrop:{admission:check}:state"),
    ],
)
async def test_a_missing_right_is_named(server: Server, rights: tuple[str, ...], name: str) -> None:
    server.take_back(WEB, *rights)
    async with server.client(WEB) as redis:
        assert name in (await missing_rights(redis)).web
