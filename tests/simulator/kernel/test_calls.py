"""Calls that go wrong: without effect, with effect and no answer, and with a well-signed untruth."""

import asyncio
from contextlib import suppress

import httpx
import pytest

from simulator.kernel.faults import CallKind
from simulator.kernel.traffic import busiest_second
from tests.simulator.conftest import Channel, Receiver, StoppedClock, until
from tests.simulator.sandbox_client import is_answer_signed

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def is_created(channel: Channel, number: str) -> bool:
    return any(row.out_trade_no == number for row in (await channel.ledger()).payments)


async def outcome(channel: Channel, number: str) -> str:
    """A client's view of one query: the payment's status, the error's code or status, or how it broke."""
    try:
        response = await channel.api.query(number)
    except httpx.HTTPError as error:
        return type(error).__name__
    if "sandbox-signature" not in response.headers:
        return f"unsigned {response.status_code}"
    if not is_answer_signed(response):
        return "signature does not fit"
    body: dict[str, str] = response.json()
    return body.get("status") or body["code"]


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"cut": 1}, "RemoteProtocolError"),
        ({"truncated": 1}, "signature does not fit"),
        ({"html_error": 1}, "unsigned 200"),
        ({"down": True}, "unsigned 503"),
        ({"timed_out": 1, "hang_s": 0.02}, "RemoteProtocolError"),
        ({"blackhole": True, "hang_s": 0.02}, "RemoteProtocolError"),
        ({"slow": 1, "slow_s": 0.02}, "unpaid"),
    ],
)
async def test_a_query_fails_as_requested_and_then_works_again(
    channel: Channel, fault: dict[str, object], seen: str
) -> None:
    await channel.api.create("number-1")
    await channel.faults(**fault)
    assert await outcome(channel, "number-1") == seen
    await channel.faults()
    assert await outcome(channel, "number-1") == "unpaid"


async def test_server_errors_are_several_and_unsigned(channel: Channel) -> None:
    await channel.faults(answered_5xx=1)
    seen = {await outcome(channel, f"number-{n}") for n in range(30)}
    assert seen == {"unsigned 500", "unsigned 502", "unsigned 503", "unsigned 504"}


@pytest.mark.parametrize(
    ("fault", "has_effect"),
    [
        ({"answered_5xx": 1}, False),
        ({"html_error": 1}, False),
        ({"timed_out": 1, "hang_s": 0.01}, False),
        ({"down": True}, False),
        ({"blackhole": True, "hang_s": 0.01}, False),
        ({"cut": 1}, True),
        ({"truncated": 1}, True),
        ({"create_answer_lost": 1}, True),
        ({"slow": 1, "slow_s": 0.01}, True),
    ],
)
async def test_create_that_goes_wrong_has_an_effect_or_none(
    channel: Channel, fault: dict[str, object], *, has_effect: bool
) -> None:
    await channel.faults(**fault)
    with suppress(httpx.RemoteProtocolError):
        await channel.api.create("number-1")
    assert await is_created(channel, "number-1") is has_effect


@pytest.mark.parametrize("what", ["create", "close"])
async def test_lost_answer_is_an_error_or_none_at_all_and_the_effect_stays(channel: Channel, what: str) -> None:
    """Both ways of losing it occur, and a call of the other kind is answered."""
    numbers = [f"number-{n}" for n in range(12)]
    seen = set()
    if what == "close":
        for number in numbers:
            await channel.api.create(number)
    await channel.faults(**{f"{what}_answer_lost": 1})
    for number in numbers:
        try:
            response = await (channel.api.create(number) if what == "create" else channel.api.close(number))
            seen.add(f"unsigned {response.status_code}" if "sandbox-signature" not in response.headers else "answered")
        except httpx.RemoteProtocolError:
            seen.add("nothing")
    assert "nothing" in seen
    assert seen - {"nothing"} <= {"unsigned 502", "unsigned 504"}
    assert len(seen) > 1
    wanted = "unpaid" if what == "create" else "closed"
    assert {await outcome(channel, number) for number in numbers} == {wanted}


async def test_faults_keep_to_the_kinds_of_call_that_are_named(channel: Channel) -> None:
    await channel.faults(answered_5xx=1, affected=[CallKind.QUERY])
    assert (await channel.api.create("number-1")).status_code == 200
    assert (await outcome(channel, "number-1")).startswith("unsigned 5")
    assert (await channel.api.close("number-1")).status_code == 200


async def test_same_seed_breaks_the_same_calls(channel: Channel) -> None:
    """Two runs in opposite order; the first, second and third query of a number are decided apart."""
    numbers = [f"number-{n}" for n in range(12)]

    async def seen(order: list[str], seed: int) -> dict[str, list[str]]:
        await channel.http.post(f"{channel.url}/control/reset", json={"seed": seed})
        for number in order:
            await channel.api.create(number)
        await channel.faults(answered_5xx=0.3, html_error=0.2, cut=0.2, truncated=0.2)
        return {number: [await outcome(channel, number) for _ in range(3)] for number in order}

    first = await seen(numbers, 5)
    assert first == await seen(numbers[::-1], 5)
    assert first != await seen(numbers, 6)
    assert len({outcome for outcomes in first.values() for outcome in outcomes}) > 4


# -- untruths ----------------------------------------------------------------------------------------------------------


async def test_unknown_at_first_then_known(channel: Channel, stopped_clock: StoppedClock) -> None:
    """Neither query nor close finds it; afterwards both do."""
    await channel.faults(not_found_first=1, not_found_first_s=0.5)
    await channel.api.create("number-1")
    assert await outcome(channel, "number-1") == "PAYMENT_NOT_EXIST"
    assert (await channel.api.close("number-1")).status_code == 404
    stopped_clock.forward(0.5)
    assert await outcome(channel, "number-1") == "unpaid"
    assert (await channel.api.close("number-1")).status_code == 200


async def test_unknown_at_first_is_known_once_paid(channel: Channel) -> None:
    await channel.faults(not_found_first=1, not_found_first_s=60)
    await channel.api.create("number-1")
    assert await outcome(channel, "number-1") == "PAYMENT_NOT_EXIST"
    await channel.pay("number-1")
    assert await outcome(channel, "number-1") == "paid"


async def test_wrong_amount_in_query_is_well_signed(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.pay("number-1")
    await channel.faults(wrong_amount_in_query=1)
    response = await channel.api.query("number-1")
    assert is_answer_signed(response)
    assert (response.json()["amount"], (await channel.payment("number-1")).amount) == (8889, 8888)


async def test_answer_of_another_order_is_right_in_all_but_the_number(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.faults(other_order=1)
    response = await channel.api.query("number-1")
    assert is_answer_signed(response)
    assert (response.json()["status"], response.json()["amount"]) == ("paid", 8888)
    assert response.json()["out_trade_no"] != "number-1"
    assert (await channel.payment("number-1")).status == "unpaid"


async def test_query_of_one_payment_can_be_spoilt_for_good(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.pay("number-1", call="cut")
    assert {await outcome(channel, "number-1") for _ in range(3)} == {"RemoteProtocolError"}


async def test_money_arrives_after_close(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(settles_after_close=1, settle_after_s=0.05)
    await channel.api.create("number-1", callback_url=receiver.url)
    assert (await channel.api.close("number-1")).json()["status"] == "closed"
    assert (await channel.api.close("number-1")).json()["status"] == "closed"
    await until(lambda: receiver.requests)
    payment = await channel.payment("number-1")
    assert (payment.status, payment.settled_late) == ("paid", True)
    assert (await channel.api.close("number-1")).json()["code"] == "ALREADY_PAID"
    assert await outcome(channel, "number-1") == "paid"


async def test_money_arrives_for_a_closed_payment_when_it_is_asked_for(channel: Channel, receiver: Receiver) -> None:
    await channel.api.create("number-1", callback_url=receiver.url)
    address = f"{channel.url}/control/payments/number-1/pay-late"
    assert (await channel.http.post(address)).status_code == 409
    await channel.api.close("number-1")
    assert (await channel.http.post(address)).json()["status"] == "paid"
    await until(lambda: receiver.requests)
    assert (await channel.payment("number-1")).settled_late
    assert (await channel.http.post(address)).status_code == 409


async def test_statement_is_spoilt_row_by_row(channel: Channel, stopped_clock: StoppedClock) -> None:
    numbers = [f"number-{n}" for n in range(30)]
    for number in numbers:
        await channel.api.create(number)
        await channel.pay(number)
    await channel.faults(statement_omits=0.3, statement_wrong_amount=0.3, statement_malformed=0.3)
    response = await channel.api.send("GET", f"/v1/statement?date={stopped_clock.at:%Y-%m-%d}")
    rows = [line.split(",") for line in response.text.splitlines()[1:]]
    assert is_answer_signed(response)
    assert 0 < len(rows) < 30
    assert {len(row) for row in rows} == {2, 8}
    assert {row[4] for row in rows if len(row) == 8} == {"8888", "8889"}


# -- load --------------------------------------------------------------------------------------------------------------


async def test_calls_beyond_the_rate_are_refused_and_signed(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one second, which on a busy machine ends before the last of these calls arrives."""
    monkeypatch.setattr("simulator.kernel.dispatch.steady_s", lambda: 1000.0)
    await channel.faults(rate_limit_per_s=10)
    responses = await asyncio.gather(*(channel.api.query(f"number-{n}") for n in range(25)))
    limited = [response for response in responses if response.status_code == 429]
    assert len(limited) == 15
    assert limited[0].json()["code"] == "RATE_LIMITED"
    assert limited[0].headers["retry-after"] == "1"
    assert is_answer_signed(limited[0])


async def test_arrivals_are_recorded_whatever_became_of_them(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.faults(answered_5xx=1)
    await channel.api.query("number-1")
    await channel.faults(down=True)
    await channel.api.query("number-2")
    response = await channel.http.get(f"{channel.url}/control/arrivals")
    document = response.json()
    assert [tuple(row[1:]) for row in document["arrivals"]] == [
        ("m-1001", "create", "number-1"),
        ("m-1001", "query", "number-1"),
        ("m-1001", "query", "number-2"),
    ]
    assert document["forgotten"] == 0
    times = [row[0] for row in document["arrivals"]]
    assert document["busiest_second"] == busiest_second(times)
    later = (await channel.http.get(f"{channel.url}/control/arrivals?since={times[1]:.9f}")).json()
    assert [row[3] for row in later["arrivals"]][-1] == "number-2"
    assert len(later["arrivals"]) < 3
