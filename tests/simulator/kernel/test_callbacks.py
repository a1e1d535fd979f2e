"""Callbacks: how they look, when they come again, what acknowledges them, and each fault that befalls them."""

import asyncio
import time
from hashlib import sha256
from itertools import pairwise

import httpx
import pytest
from msgspec.structs import replace

from simulator.kernel.deliveries import SentAs
from simulator.kernel.faults import Fault
from simulator.kit.asgi import Cut, Hang, Reply, Request, Response
from simulator.sandbox.channel import RESEND_GAPS_S, Sandbox
from simulator.servers import serve_channels
from tests.simulator.conftest import OK, SPEED, Channel, Receiver, until
from tests.simulator.sandbox_client import ACCOUNT, SECRET, is_callback_signed, parts

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = Response(status=500)


async def paid(channel: Channel, receiver: Receiver, *numbers: str, **at_fault: str) -> None:
    for number in numbers:
        await channel.api.create(number, callback_url=receiver.url)
        assert (await channel.pay(number, **at_fault)).status_code == 200


async def test_callback_says_what_was_paid(channel: Channel, receiver: Receiver) -> None:
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    (_, request), (body,) = receiver.requests[0], receiver.bodies()
    assert request.headers["content-type"] == "application/json"
    assert body["id"] == request.headers["sandbox-callback-id"]
    assert (body["type"], set(body)) == ("payment.paid", {"id", "type", "created_at", "payment"})
    assert body["payment"] == (await channel.api.query("number-1")).json()
    assert is_callback_signed(request.headers, request.body)


async def test_refund_is_called_back_too(channel: Channel, receiver: Receiver) -> None:
    await paid(channel, receiver, "number-1")
    await channel.api.refund("number-1", "refund-1", 8)
    await until(lambda: len(receiver.requests) == 2)
    body = receiver.bodies()[1]
    assert body["type"] == "refund.succeeded"
    assert (body["refund"]["refund_no"], body["payment"]["status"]) == ("refund-1", "refunded")


async def test_acknowledged_callback_is_recorded_and_never_resent(channel: Channel, receiver: Receiver) -> None:
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    (row,) = (await channel.ledger()).acknowledged
    (_, request) = receiver.requests[0]
    assert row.callback_id == request.headers["sandbox-callback-id"]
    assert row.body_sha256 == sha256(request.body).hexdigest()
    assert row.sent_as is SentAs.GENUINE
    assert await all_that_comes(channel, receiver) == ["number-1"]


async def all_that_comes(channel: Channel, receiver: Receiver) -> list[str]:
    """The numbers called back, when nothing is under way or planned any more."""
    await until(lambda: channel.simulation.sender.under_way == 0)
    return receiver.numbers()


@pytest.mark.parametrize(
    ("status", "body", "acknowledges"),
    [
        (200, b"ok", True),
        (200, b'"ok"', False),
        (200, b"OK", False),
        (200, b"ok\n", False),
        (200, b" ok", False),
        (200, b"", False),
        (200, b'{"code":"ok"}', False),
        (200, b"o" * 1000, False),
        (201, b"ok", False),
        (202, b"ok", False),
        (204, b"", False),
        (302, b"ok", False),
        (400, b"ok", False),
        (500, b"ok", False),
    ],
)
async def test_only_two_bytes_acknowledge(
    channel: Channel, receiver: Receiver, status: int, body: bytes, *, acknowledges: bool
) -> None:
    """After the answer under test the receiver says ok, so that a refused one shows by coming again."""
    responses = iter([Response(status=status, body=body, headers=(("location", "/callbacks/main"),))])
    receiver.response = lambda _: next(responses, OK)
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    assert len(receiver.requests) == (1 if acknowledges else 2)
    assert channel.tally("number-1").refused == (0 if acknowledges else 1)


@pytest.mark.parametrize("broken", [Cut(response=OK, keep=1), Cut(response=OK, keep=0)])
async def test_broken_answer_does_not_acknowledge(channel: Channel, receiver: Receiver, broken: Cut) -> None:
    responses = iter([broken])
    receiver.response = lambda _: next(responses, OK)
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    assert len(receiver.requests) == 2


async def test_late_answer_does_not_acknowledge(
    channel: Channel, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is the channel's own and not compressed; shortened here, for five seconds are long."""
    assert Sandbox.acknowledge_within_s == 5.0
    monkeypatch.setattr(Sandbox, "acknowledge_within_s", 0.05)
    responses: list[Reply] = [Hang(seconds=10)]
    receiver.response = lambda _: responses.pop() if responses else OK
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    assert len(receiver.requests) == 2


async def test_resends_have_same_id_and_body_and_keep_the_schedule(channel: Channel, receiver: Receiver) -> None:
    receiver.response = lambda _: OK if len(receiver.requests) == 5 else REFUSED
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    times = [at for at, _ in receiver.requests]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    wanted = [gap / SPEED for gap in RESEND_GAPS_S[:4]]
    assert all(wanted_s <= gap < wanted_s + 2 for gap, wanted_s in zip(gaps, wanted, strict=True)), gaps
    assert len({request.body for _, request in receiver.requests}) == 1
    assert len({request.headers["sandbox-callback-id"] for _, request in receiver.requests}) == 1
    assert all(is_callback_signed(request.headers, request.body) for _, request in receiver.requests)


async def test_resend_is_freshly_signed(channel: Channel, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resend after a key was rotated is signed with the key that is first by then."""
    account = channel.simulation.accounts["m-1001"]

    def rotate(_: Request) -> Reply:
        if len(receiver.requests) > 1:
            return OK
        rotated = replace(account, keys={"k3": "the newest secret of all, and long enough"})
        monkeypatch.setitem(channel.simulation.accounts, "m-1001", rotated)
        return REFUSED

    receiver.response = rotate
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    assert [parts(request.headers["sandbox-signature"])["k"] for _, request in receiver.requests] == ["k2", "k3"]


async def test_schedule_ends_after_sixteen_attempts(http: httpx.AsyncClient, receiver: Receiver) -> None:
    """15 gaps, 24 h 4 min in all; a hundred thousand times as fast."""
    assert (len(RESEND_GAPS_S), sum(RESEND_GAPS_S)) == (15, 24 * 3600 + 4 * 60)
    receiver.response = lambda _: REFUSED
    async with serve_channels(speed=200_000) as (url, simulation):
        channel = Channel(url, simulation, http)
        await http.put(f"{url}/control/accounts", json=[ACCOUNT])
        await paid(channel, receiver, "number-1")
        await until(lambda: channel.tally("number-1").exhausted)
        assert (channel.tally("number-1").sent, len(receiver.requests)) == (16, 16)


async def test_receiver_that_is_not_there_is_called_again(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.pay("number-1")
    await until(lambda: channel.tally("number-1").sent >= 2)
    assert channel.tally("number-1").last_status is None


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "counted"), [("lost", "lost"), ("event_never_generated", "never_generated")])
async def test_lost_callback_never_comes(channel: Channel, receiver: Receiver, fault: str, counted: str) -> None:
    await channel.faults(**{fault: 1})
    await paid(channel, receiver, "number-1")
    assert await all_that_comes(channel, receiver) == []
    assert getattr(channel.tally("number-1"), counted) == 1
    assert (await channel.payment("number-1")).status == "paid"


async def test_late_callback_comes_late(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(late=1, late_s=0.1)
    began = asyncio.get_running_loop().time()
    await paid(channel, receiver, "number-1")
    await until(lambda: receiver.requests)
    assert receiver.requests[0][0] - began >= 0.1


async def test_doubled_callback_comes_twice_at_once(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(doubled=1)
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged == 2)
    first, second = (request for _, request in receiver.requests)
    assert (first.body, first.headers["sandbox-callback-id"]) == (second.body, second.headers["sandbox-callback-id"])


async def test_reordered_callback_comes_after_a_later_one(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(reordered_max_s=10)
    await paid(channel, receiver, "number-1", callback="reordered")
    await paid(channel, receiver, "number-2")
    await until(lambda: len(receiver.requests) == 2)
    assert receiver.numbers() == ["number-2", "number-1"]


async def test_reordered_callback_does_not_wait_for_ever(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(reordered=1, reordered_max_s=0.05)
    await paid(channel, receiver, "number-1")
    await until(lambda: receiver.requests)


async def test_a_wrong_amount_is_signed_and_only_in_the_message(channel: Channel, receiver: Receiver) -> None:
    """Acknowledged, it is not sent again: only a query repairs it."""
    await channel.faults(wrong_amount=1)
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    (_, request), (body,) = receiver.requests[0], receiver.bodies()
    assert is_callback_signed(request.headers, request.body)
    assert body["payment"]["amount"] == 8889
    assert (await channel.api.query("number-1")).json()["amount"] == 8888
    assert (await channel.ledger()).acknowledged[0].sent_as is SentAs.WRONG_AMOUNT


def first_is_wrong(channel: Channel, number: str) -> bool:
    """Whether the faults befall the first delivery and spare the second."""
    applies = channel.simulation.faults.applies
    return [applies(Fault.WRONG_AMOUNT, number, attempt) for attempt in (1, 2)] == [True, False]


async def test_wrong_amount_is_true_again_when_resent(channel: Channel, receiver: Receiver) -> None:
    receiver.response = lambda _: REFUSED if len(receiver.requests) == 1 else OK
    await channel.api.create("number-1", callback_url=receiver.url)
    await channel.faults(wrong_amount=0.5)
    number = next(number for number in map("number-{}".format, range(100)) if first_is_wrong(channel, number))
    await paid(channel, receiver, number)
    await until(lambda: channel.tally(number).acknowledged)
    assert [body["payment"]["amount"] for body in receiver.bodies()] == [8889, 8888]


async def test_stale_callback_is_an_hour_old(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(stale=1)
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").acknowledged)
    (_, request) = receiver.requests[0]
    assert abs(int(parts(request.headers["sandbox-signature"])["t"]) - (time.time() - 3600)) < 60
    assert (await channel.ledger()).acknowledged[0].sent_as is SentAs.STALE


async def test_forged_callbacks_claim_what_is_not_true(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(forged=1)
    await channel.api.create("number-1", callback_url=receiver.url)
    await until(lambda: channel.tally("number-1").forged_acknowledged == 2)
    assert [body["payment"]["status"] for body in receiver.bodies()] == ["paid", "paid"]
    assert not any(is_callback_signed(request.headers, request.body, SECRET) for _, request in receiver.requests)
    assert (await channel.payment("number-1")).status == "unpaid"
    assert {row.sent_as for row in (await channel.ledger()).acknowledged} == {SentAs.FORGED}


async def test_forged_callback_is_not_resent(channel: Channel, receiver: Receiver) -> None:
    receiver.response = lambda _: REFUSED
    await channel.faults(forged=1)
    await channel.api.create("number-1", callback_url=receiver.url)
    await until(lambda: len(receiver.requests) == 2)
    assert await all_that_comes(channel, receiver) == ["number-1", "number-1"]


async def test_blocked_callbacks_come_when_the_network_is_back(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(callbacks_blocked=True)
    await paid(channel, receiver, "number-1")
    await until(lambda: channel.tally("number-1").blocked >= 2)
    assert receiver.requests == []
    await channel.faults()
    await until(lambda: channel.tally("number-1").acknowledged)


async def test_callback_on_request_comes_whatever_the_faults(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(lost=1)
    await paid(channel, receiver, "number-1")
    address = f"{channel.url}/control/payments/number-1/callback"
    response = await channel.http.post(address)
    assert response.json() == {"acknowledged": True, "status": 200}
    receiver.response = lambda _: REFUSED
    assert (await channel.http.post(address)).json() == {"acknowledged": False, "status": 500}
    assert len({request.body for _, request in receiver.requests}) == 1


async def test_callback_on_request_ends_the_resends(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(callbacks_blocked=True)
    await paid(channel, receiver, "number-1")
    await channel.http.post(f"{channel.url}/control/payments/number-1/callback")
    await channel.faults()
    assert await all_that_comes(channel, receiver) == ["number-1"]


async def test_callback_about_an_unpaid_payment_is_refused(channel: Channel) -> None:
    await channel.api.create("number-1")
    assert (await channel.http.post(f"{channel.url}/control/payments/number-1/callback")).status_code == 409


async def test_same_seed_befalls_the_same_payments(channel: Channel, receiver: Receiver) -> None:
    """Two runs in opposite order, with everything that may befall an event."""
    numbers = [f"number-{n}" for n in range(24)]

    async def befell(order: list[str]) -> dict[str, tuple[int, int, int, int]]:
        await channel.http.post(f"{channel.url}/control/reset", json={"seed": 3})
        await channel.faults(lost=0.3, event_never_generated=0.2, doubled=0.3, late=0.3, late_s=0.01)
        await asyncio.gather(*(paid(channel, receiver, number) for number in order))
        tallies = {number: channel.tally(number) for number in numbers}
        await until(lambda: all(t.acknowledged or t.lost or t.never_generated for t in tallies.values()))
        return {number: (t.lost, t.never_generated, t.doubled, t.late) for number, t in tallies.items()}

    first = await befell(numbers)
    assert first == await befell(numbers[::-1])
    assert len(set(first.values())) > 3
