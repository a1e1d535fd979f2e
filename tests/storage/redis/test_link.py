"""The loss of Redis for everything that uses it, on a Redis in this process that can be cut off and brought back."""

from datetime import UTC, datetime

import pytest
from fakeredis import FakeServer
from structlog.testing import capture_logs

from core.admission import Admitted, CallKind, Urgency, Wait
from core.errors import RedisUnavailable
from core.jobs import query_payment
from core.order import PaymentKey
from storage.redis.admission.names import calls_key
from storage.redis.admission.script import RETURN_S
from storage.redis.admission.shared import SharedAdmission
from storage.redis.client import RedisLink
from storage.redis.delay_queue import PUBLISH_PAUSE_S, DelayQueue
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from tests.sealed import SEALER
from tests.storage.redis.tools import fake_client_of, follow_ups_of

JOB = query_payment(PaymentKey("shop", "trade-1"), 1)
CALLBACK = ParkedCallback(account="shop", headers={}, body=b"{}", received_at=datetime(2026, 11, 23, 4, tzinfo=UTC))


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(version=(7,))


def test_the_gaps_grow_to_five_seconds_and_start_again_after_an_answer() -> None:
    link = RedisLink("test")
    assert [link.lost(OSError()) for _ in range(7)] == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0]
    link.up()
    assert link.lost(OSError()) == 0.1


def test_each_change_is_logged_once_with_its_place_and_without_the_errors_text() -> None:
    link = RedisLink("lane", lane="queries")
    with capture_logs() as lines:
        link.up()
        link.lost(OSError("secret"))
        link.lost(OSError("secret"))
        link.up()
        link.up()
    assert [(line["event"], line["of"], line["lane"]) for line in lines] == [
        ("redis_link_lost", "lane", "queries"),
        ("redis_link_restored", "lane", "queries"),
    ]
    assert "secret" not in str(lines)


async def test_queue_and_parked_callbacks_raise_while_it_is_lost_and_lose_nothing_of_before(server: FakeServer) -> None:
    async with fake_client_of(server) as redis:
        queue, parked = DelayQueue(redis), ParkedCallbacks(redis, SEALER)
        await queue.arm([JOB])
        server.connected = False
        for call in (queue.arm([JOB]), queue.epoch(), parked.park(CALLBACK), parked.count()):
            with pytest.raises(RedisUnavailable, match="ConnectionError"):
                await call
        server.connected = True
        assert await queue.arm([JOB]) == 0
        await parked.park(CALLBACK)
        assert await parked.count() == 1


async def test_admission_is_local_while_it_is_lost_and_shared_again_after_both_waits(server: FakeServer) -> None:
    now = 1000.0
    async with fake_client_of(server) as redis:
        admission = SharedAdmission(redis, processes=1, clock=lambda: now)

        async def reason() -> str:
            result = await admission.admit("shop", 10, CallKind.QUERY, Urgency.SCHEDULED)
            return result.reason if isinstance(result, Wait) else "admitted"

        server.connected = False
        assert await reason() == "changing_over"
        now += 1.2
        assert await reason() == "admitted"
        server.connected = True
        now += 1.0
        assert await reason() == "changing_over"
        now += RETURN_S
        assert await reason() == "admitted"
        assert await redis.zcard(calls_key("shop")) == 1


async def test_reports_never_raise_and_open_the_local_breaker(server: FakeServer) -> None:
    now = 1000.0
    async with fake_client_of(server) as redis:
        admission = SharedAdmission(redis, processes=1, clock=lambda: now)
        server.connected = False
        for _ in range(10):
            await admission.report("shop", CallKind.QUERY, answered=False)
        now += 1.2
        result = await admission.admit("shop", 10, CallKind.QUERY, Urgency.FRESH)
        assert not isinstance(result, Admitted)
        assert result.reason == "breaker"


async def test_publishing_pauses_after_a_failure_and_is_logged_once(server: FakeServer) -> None:
    async with fake_client_of(server) as redis:
        follow_ups = follow_ups_of(redis)
        with capture_logs() as lines:
            server.connected = False
            with pytest.raises(RedisUnavailable):
                await follow_ups.add(changes=[("A-1", 1)])
            server.connected = True
            await follow_ups.add(changes=[("A-1", 1)])  # within the pause
            assert [line["event"] for line in lines] == ["redis_link_lost"]
            follow_ups._mute_until -= PUBLISH_PAUSE_S
            await follow_ups.add(changes=[("A-1", 1)])
    assert [line["event"] for line in lines] == ["redis_link_lost", "redis_link_restored"]


async def test_jobs_are_armed_within_the_pause_of_publishing(server: FakeServer) -> None:
    async with fake_client_of(server) as redis:
        follow_ups = follow_ups_of(redis)
        server.connected = False
        with pytest.raises(RedisUnavailable):
            await follow_ups.add(arm=[JOB], changes=[("A-1", 1)])
        server.connected = True
        await follow_ups.add(arm=[JOB])
        assert (await DelayQueue(redis).depth(JOB.lane)).queued == 1
