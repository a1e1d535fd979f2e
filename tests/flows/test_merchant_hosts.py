"""The breaker by merchant host, and the notifications that wait for a parked one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import pytest_asyncio

from flows.merchant_hosts import (
    BUSY_WAIT_S,
    HUNG_MAX,
    OPEN_S,
    OPEN_S_MAX,
    PER_HOST_MAX,
    SLOW_S,
    SUSPECTS_MAX,
    MerchantHosts,
)
from flows.notify import Notifier, push_claimed, push_notification
from flows.signers import Signers
from storage.postgres import notifications
from tests.flows.conftest import FlowHarness
from tests.flows.test_notify import OK, outgoing_notification, paid_order, row_of, scripted_merchant

TIMEOUT_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hosts(clock: Clock) -> MerchantHosts:
    return MerchantHosts(TIMEOUT_S, clock=clock)


def hang(hosts: MerchantHosts, clock: Clock, count: int = 1, host: str = "shop") -> None:
    """Deliveries at once that all end without an answer after the time-out."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(hosts.delivery(host))
        clock.now += TIMEOUT_S


def answer(hosts: MerchantHosts, host: str = "shop") -> None:
    with hosts.delivery(host) as under_way:
        under_way.is_answered = True


# -- the breaker -------------------------------------------------------------------------------------------------------


def test_a_host_that_hangs_is_parked_and_others_are_not(hosts: MerchantHosts, clock: Clock) -> None:
    hang(hosts, clock, HUNG_MAX - 1)
    assert hosts.wait_s("shop") == 0
    hang(hosts, clock)
    assert hosts.wait_s("shop") == OPEN_S
    assert hosts.wait_s("other") == 0


def test_deliveries_that_hang_at_once_park_a_host_once(hosts: MerchantHosts, clock: Clock) -> None:
    hang(hosts, clock, PER_HOST_MAX)
    assert hosts.wait_s("shop") == OPEN_S


def test_one_delivery_probes_a_parked_host(hosts: MerchantHosts, clock: Clock) -> None:
    hang(hosts, clock, HUNG_MAX)
    clock.now += OPEN_S
    assert hosts.wait_s("shop") == 0
    with hosts.delivery("shop"):
        assert hosts.wait_s("shop") == TIMEOUT_S
        clock.now += TIMEOUT_S
    assert hosts.wait_s("shop") == 2 * OPEN_S


def test_after_one_that_hung_a_host_gets_one_at_a_time(hosts: MerchantHosts, clock: Clock) -> None:
    """A hundred hosts that hung once must not get all that waits for them."""
    hang(hosts, clock)
    hosts.parked("shop", "http://shop/a")
    assert hosts.resumable("shop") == (["http://shop/a"], 1)
    with hosts.delivery("shop"):
        assert hosts.wait_s("shop") == TIMEOUT_S
        assert hosts.resumable("shop") == ([], 0)


def test_the_pauses_of_a_parked_host_grow_to_a_minute(hosts: MerchantHosts, clock: Clock) -> None:
    hang(hosts, clock, HUNG_MAX)
    pauses = []
    for _ in range(6):
        pauses.append(hosts.wait_s("shop"))
        clock.now += pauses[-1]
        hang(hosts, clock)
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0, OPEN_S_MAX]


def test_an_answer_ends_the_parking(hosts: MerchantHosts, clock: Clock) -> None:
    hang(hosts, clock, HUNG_MAX)
    clock.now += OPEN_S
    answer(hosts)
    hang(hosts, clock, HUNG_MAX - 1)
    assert hosts.wait_s("shop") == 0, "it begins to count anew"


def test_a_quick_failure_is_no_hanging(hosts: MerchantHosts, clock: Clock) -> None:
    """A refused connection holds no slot: each notification waits by itself."""
    for _ in range(10 * HUNG_MAX):
        with hosts.delivery("shop"):
            clock.now += 0.1
    assert hosts.wait_s("shop") == 0


def test_a_host_has_so_many_deliveries_at_a_time(hosts: MerchantHosts) -> None:
    with ExitStack() as stack:
        for _ in range(PER_HOST_MAX):
            assert hosts.wait_s("shop") == 0
            stack.enter_context(hosts.delivery("shop"))
        assert hosts.wait_s("shop") == BUSY_WAIT_S
        assert not hosts.is_hanging("shop"), "it is busy: its other notifications are not parked"
        assert hosts.wait_s("other") == 0
    assert hosts.wait_s("shop") == 0


def test_a_host_that_does_not_answer_gets_no_more_before_its_first_time_out(hosts: MerchantHosts, clock: Clock) -> None:
    with hosts.delivery("shop"):
        clock.now += SLOW_S / 2
        assert hosts.wait_s("shop") == 0
        clock.now += SLOW_S
        assert hosts.wait_s("shop") == TIMEOUT_S


def test_hosts_that_hung_have_a_part_of_the_lane_together(hosts: MerchantHosts, clock: Clock) -> None:
    names = [f"shop-{n}" for n in range(SUSPECTS_MAX + 1)]
    for name in names:
        hang(hosts, clock, host=name)
    with ExitStack() as stack:
        for name in names[:-1]:
            assert hosts.wait_s(name) == 0
            stack.enter_context(hosts.delivery(name))
        assert hosts.wait_s(names[-1]) == TIMEOUT_S
        assert hosts.wait_s("other") == 0
    assert hosts.wait_s(names[-1]) == 0


def test_a_host_without_work_is_forgotten(hosts: MerchantHosts, clock: Clock) -> None:
    hang(hosts, clock)
    hosts.parked("shop", "http://shop/a")
    answer(hosts)
    assert hosts.resumable("shop") == (["http://shop/a"], 2)
    hosts.resumed("shop")
    assert vars(hosts)["_hosts"] == {}


# -- its notifications -------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def notifier(harness: FlowHarness) -> AsyncIterator[Notifier]:
    async with Notifier(harness.resources.settings) as notifier:
        yield notifier


async def test_the_notifications_of_a_parked_host_wait_as_a_whole_and_are_delivered_when_it_is_back(
    harness: FlowHarness, notifier: Notifier
) -> None:
    """None is sent to it meanwhile, none uses an attempt, and an answer brings all of them at once."""
    clock, db = Clock(), harness.resources.db
    notifier.hosts = MerchantHosts(TIMEOUT_S, clock=clock)
    hang(notifier.hosts, clock, HUNG_MAX, host="127.0.0.1")
    async with scripted_merchant(*[OK] * 4) as merchant:
        ids = [await paid_order(harness, merchant.url) for _ in range(4)]
        claimed = await notifications.claim(db, ids[0], 20, arm_no=1)
        assert claimed is not None
        assert await push_claimed(harness.resources, notifier, claimed) == "parked"
        rows = [await row_of(harness, notification_id) for notification_id in ids]
        assert [row["attempt"] for row in rows] == [1] * 4
        assert [row["arm_no"] for row in rows] == [2] * 4, "the others were parked with the first"
        assert all(row["due_in_s"] > OPEN_S - 2 for row in rows)
        assert merchant.connections == 0

        clock.now += OPEN_S
        await harness.make_due()
        assert await push_notification(harness.resources, notifier, ids[0], 2) == "200"

        for notification_id in ids[1:]:
            row = await row_of(harness, notification_id)
            assert row["due_in_s"] <= 0
            assert await push_notification(harness.resources, notifier, notification_id, row["arm_no"]) == "200"
        assert len(merchant.requests) == 4


async def test_what_a_host_did_not_answer_in_time_is_delivered_when_it_is_back(
    harness: FlowHarness, notifier: Notifier
) -> None:
    """Its next attempt is minutes away, and the host is known to answer."""
    clock, db = Clock(), harness.resources.db
    notifier.hosts = MerchantHosts(TIMEOUT_S, clock=clock)
    async with scripted_merchant(OK) as merchant:
        unanswered, probe = [await paid_order(harness, merchant.url) for _ in range(2)]
        claimed = await notifications.claim(db, unanswered, 20, arm_no=1)
        assert claimed is not None
        await notifications.reschedule(db, claimed, attempt=2, delay_s=240.0, status="timed_out")
        hang(notifier.hosts, clock, HUNG_MAX, host="127.0.0.1")
        assert await push_notification(harness.resources, notifier, probe, 1) == "parked"

        clock.now += OPEN_S
        await harness.fetch_value("UPDATE notifications SET due_at = now() WHERE id = $1 RETURNING 1", probe)
        assert await push_notification(harness.resources, notifier, probe, 2) == "200"

        row = await row_of(harness, unanswered)
        assert (row["attempt"], row["due_in_s"] <= 0) == (2, True)


async def test_a_probe_that_hangs_parks_the_host_again(harness: FlowHarness, notifier: Notifier) -> None:
    clock, db = Clock(), harness.resources.db
    notifier.hosts = MerchantHosts(TIMEOUT_S, clock=clock)
    hang(notifier.hosts, clock, HUNG_MAX, host="127.0.0.1")
    clock.now += OPEN_S

    async def hang_once(*_: object, **__: object) -> str:
        clock.now += TIMEOUT_S
        raise TimeoutError

    async with scripted_merchant() as merchant:
        ids = [await paid_order(harness, merchant.url) for _ in range(2)]
        probe, waiting = ids
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("flows.notify.resolve", hang_once)
            assert await push_notification(harness.resources, notifier, probe, 1) == "timed_out"
        assert (await row_of(harness, probe))["attempt"] == 2
        row = await row_of(harness, waiting)
        assert (row["attempt"], row["arm_no"]) == (1, 2)
        assert row["due_in_s"] > OPEN_S
    assert await notifications.claim(db, waiting, 20, arm_no=1) is None


async def test_notifications_that_waited_for_secrets_take_no_more_places_than_a_host_has(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them found the host free, before they waited."""
    is_read, is_resolved, db = asyncio.Event(), asyncio.Event(), harness.resources.db
    most = 0

    async def read() -> dict[str, tuple[str, ...] | None]:
        await is_read.wait()
        return {}

    async def resolve(*_: object, **__: object) -> list[str]:
        nonlocal most
        most += 1
        await is_resolved.wait()
        return []

    monkeypatch.setattr("flows.notify.resolve", resolve)
    late = await paid_order(harness, "http://127.0.0.1:9/notify")
    claimed = await notifications.claim(db, late, 20, arm_no=1)
    assert claimed is not None
    settings = harness.resources.settings
    async with Notifier(settings, signers=Signers(settings, read)) as notifier:
        others = [outgoing_notification("http://127.0.0.1:9/notify") for _ in range(PER_HOST_MAX)]
        deliveries = [asyncio.ensure_future(notifier.deliver(other)) for other in others]
        pushed = asyncio.ensure_future(push_claimed(harness.resources, notifier, claimed))
        await asyncio.sleep(0)
        is_read.set()
        done, _ = await asyncio.wait([pushed], timeout=60)
        is_resolved.set()
        assert done, "it does not wait for the others"
        assert await pushed == "parked"
        await asyncio.gather(*deliveries)
    assert most == PER_HOST_MAX
    assert (await row_of(harness, late))["attempt"] == 1


async def test_a_burst_for_one_host_is_delivered_without_being_put_off(
    harness: FlowHarness, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers soon, so what finds no place waits for one."""
    monkeypatch.setattr("flows.merchant_hosts.PER_HOST_MAX", 2)
    count = 5
    async with scripted_merchant(*[OK] * count) as merchant:
        ids = [await paid_order(harness, merchant.url) for _ in range(count)]
        pushed = (push_notification(harness.resources, notifier, message_id, arm_no=1) for message_id in ids)
        assert await asyncio.gather(*pushed) == ["200"] * count
    assert merchant.open_most <= 2
    assert {(await row_of(harness, message_id))["arm_no"] for message_id in ids} == {1}


async def test_few_notifications_wait_for_a_place(hosts: MerchantHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane full of those that wait would deliver to no other host."""
    monkeypatch.setattr("flows.merchant_hosts.WAITING_MAX", 2)
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        first.enter_context(hosts.delivery("shop"))
        for _ in range(PER_HOST_MAX - 1):
            stack.enter_context(hosts.delivery("shop"))
        waiting = [asyncio.ensure_future(hosts.wait_for_place("shop")) for _ in range(2)]
        await asyncio.sleep(0)
        assert await hosts.wait_for_place("shop") == BUSY_WAIT_S
        assert not any(each.done() for each in waiting)
        waiting[0].cancel()
        await asyncio.sleep(0)
        first.close()
        assert await waiting[1] == 0


async def test_nobody_waits_for_a_place_of_one_that_has_them_all_free(hosts: MerchantHosts) -> None:
    """Deliveries that end together wake all for whom there is a place: whoever is woken begins only some turns later,
    and nobody else would wake the rest.
    """
    with ExitStack() as stack:
        for _ in range(PER_HOST_MAX):
            stack.enter_context(hosts.delivery("shop"))
        waiting = [asyncio.ensure_future(hosts.wait_for_place("shop")) for _ in range(2 * PER_HOST_MAX)]
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert all(each.done() for each in waiting)


async def test_nobody_waits_for_a_host_that_hangs(hosts: MerchantHosts, clock: Clock) -> None:
    with ExitStack() as stack:
        for _ in range(PER_HOST_MAX):
            stack.enter_context(hosts.delivery("shop"))
        clock.now += SLOW_S + 0.1
        assert await hosts.wait_for_place("shop") == TIMEOUT_S


async def test_a_delivery_under_way_is_seen_by_the_next(notifier: Notifier) -> None:
    """Checking and taking a place are one step: nothing runs between them."""
    async with scripted_merchant(*[OK] * PER_HOST_MAX) as merchant:
        tasks = [
            asyncio.ensure_future(notifier.deliver(outgoing_notification(merchant.url))) for _ in range(PER_HOST_MAX)
        ]
        await asyncio.sleep(0)
        assert notifier.hosts.wait_s("127.0.0.1") > 0
        await asyncio.gather(*tasks)
