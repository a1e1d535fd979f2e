"""Requests that a stranger can cause at a channel: few, however many callbacks are forged, and each is admitted."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from channels.transport import CALLING
from core.admission import Admitted, CallKind, Urgency, Wait
from core.errors import CallbackRejected, ChannelNotCalled, ChannelUnavailable
from flows.callback import receive_callback
from runtime.gate import admitted_request
from simulator.kernel.base import Message
from simulator.kernel.traffic import Arrival
from storage.redis.admission.names import calls_key
from storage.redis.admission.script import SPAN
from tests.flows.conftest import FlowHarness
from tests.flows.test_disputes import SILENT, AtChannel

RATE = 5


async def at_paypal(harness: FlowHarness, verify_webhooks: str) -> AtChannel:
    there = AtChannel(harness, "paypal")
    credentials = there.config.credentials | {"verify_webhooks": verify_webhooks}
    there.config = replace(there.config, rate_per_s=RATE, credentials=credentials)
    return there


async def deliver(harness: FlowHarness, name: str, message: Message) -> bool:
    """Whether the callback was taken."""
    try:
        await receive_callback(harness.resources, name, message.headers, message.body)
    except (CallbackRejected, ChannelUnavailable):
        return False
    return True


def calls_since(harness: FlowHarness, at: float) -> list[Arrival]:
    return harness.simulation.traffic.since(at)


@pytest.mark.parametrize("mode", ["endpoint", "offline"])
async def test_forged_callbacks_of_paypal_stay_within_the_share_of_strangers(harness: FlowHarness, mode: str) -> None:
    """200 of them made 200 calls at a rate of 5. The merchant's own calls go on beside them."""
    there = await at_paypal(harness, mode)
    order = await there.placed_order()
    there.simulation.pay(there.key(order), SILENT)
    there.simulation.capture(there.account, there.key(order).number, there.simulation.now())
    message = there.message(there.event(order))
    began_at, seconds = time.time(), time.monotonic()
    forged = [
        replace(
            message,
            headers=message.headers | {"paypal-cert-url": f"{message.headers['paypal-cert-url']}{number}"},
        )
        for number in range(200)
    ]
    taken = await asyncio.gather(*(deliver(harness, there.name, one) for one in forged))
    assert not any(taken)
    windows = 1 + (time.monotonic() - seconds) / (10 * 1.1 / RATE)
    assert len(calls_since(harness, began_at)) <= 2 * windows
    await there.query(order)
    assert "query" in {arrival.kind for arrival in calls_since(harness, began_at)}


class CountingAdmission:
    """Admits or refuses as told, and keeps what was asked of it."""

    def __init__(self, *answers: Admitted | Wait) -> None:
        self.requested: list[tuple[CallKind, Urgency, bool]] = []
        self.reported: list[tuple[bool | None, str]] = []
        self._answers = list(answers)

    async def admit(
        self, account: str, rate_per_s: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool = False
    ) -> Admitted | Wait:
        del account, rate_per_s
        self.requested.append((kind, urgency, past_breaker))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def report(self, account: str, kind: CallKind, *, answered: bool | None, reservation: str = "") -> None:
        del account, kind
        self.reported.append((answered, reservation))

    async def end_request(self, account: str, reservation: str) -> None:
        del account, reservation

    async def open_breakers(self, accounts: object) -> list[tuple[str, CallKind]]:
        del accounts
        return []

    async def calls_in_use(self, accounts: object) -> dict[str, int]:
        del accounts
        return {}

    def count_with_older(self, *, are_there: bool) -> None:
        del are_there

    async def learn(self, accounts: object) -> None:
        del accounts


async def test_a_further_request_of_a_call_waits_for_the_rate_and_reports_its_end(harness: FlowHarness) -> None:
    account = (await harness.resources.accounts.get("main")).config
    admission = CountingAdmission(Wait(0.0, "rate"), Admitted("r-1"))
    async with admitted_request(admission, account, CallKind.QUERY, Urgency.FRESH):
        assert admission.reported == []
    assert admission.requested == [(CallKind.QUERY, Urgency.FRESH, True)] * 2
    assert admission.reported == [(True, "r-1")]


async def test_a_request_that_fails_reports_that_it_was_not_answered(harness: FlowHarness) -> None:
    account = (await harness.resources.accounts.get("main")).config
    admission = CountingAdmission(Admitted("r-1"))
    with pytest.raises(ChannelUnavailable):
        async with admitted_request(admission, account, CallKind.VERIFY, Urgency.FRESH):
            raise ChannelUnavailable("timed_out")
    assert admission.reported == [(False, "r-1")]


@pytest.mark.parametrize(
    ("urgency", "wait_s"), [(Urgency.STRANGER, 0.1), (Urgency.FRESH, 60.0)], ids=["a stranger never waits", "not long"]
)
async def test_a_request_that_may_not_be_made_now_is_not_made(
    harness: FlowHarness, urgency: Urgency, wait_s: float
) -> None:
    account = (await harness.resources.accounts.get("main")).config
    admission = CountingAdmission(Wait(wait_s, "share"))
    with pytest.raises(ChannelNotCalled, match="share"):
        async with admitted_request(admission, account, CallKind.VERIFY, urgency):
            pytest.fail("it is refused")
    assert (len(admission.requested), admission.reported) == (1, [])


async def test_every_request_of_a_call_is_admitted(harness: FlowHarness) -> None:
    """The token's too: a query whose token has ended is two requests, and two of the rate."""
    there = await at_paypal(harness, "offline")
    order = await there.placed_order()
    account = await harness.resources.accounts.get(there.name)
    account.channel._api._token = ""  # type: ignore[attr-defined]
    logs = [(number * SPAN, (number + 1) * SPAN) for number in (1, 2)]  # of fresh calls, of scheduled ones
    before = [await harness.resources.redis.zcount(calls_key(there.name), *log) for log in logs]
    await there.query(order)
    after = [await harness.resources.redis.zcount(calls_key(there.name), *log) for log in logs]
    assert [late - early for early, late in zip(before, after, strict=True)] == [1, 1]


async def test_what_is_renewed_in_time_is_admitted_beside_strangers(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await harness.resources.accounts.get("main")
    callings = []

    async def keep_current() -> None:
        callings.append(CALLING.get())

    monkeypatch.setattr(account.channel, "keep_current", keep_current)
    assert await harness.resources.accounts.keep_current() == 0
    [calling] = callings
    assert calling is not None
    assert (calling.kind, calling.urgency, calling.gate) == (CallKind.VERIFY, Urgency.FRESH, account.gate)
    assert CALLING.get() is None
