"""The breaker hears of every call that went out and had no answer, and of no other."""

import asyncio
from contextlib import suppress

import pytest
from msgspec.structs import replace

from channels.transport import admitted
from core.admission import UNANSWERED_MAX, CallKind, Urgency
from core.errors import (
    CaptureDeclined,
    ChannelNotCalled,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    InvalidRequest,
)
from flows.channel_call import call_channel
from runtime.accounts import Account
from tests.flows.conftest import FlowHarness

OPEN = [("main", CallKind.QUERY)]


async def call(harness: FlowHarness, error: BaseException | None) -> None:
    """A call of the channel that ends like this."""

    async def answer() -> None:
        if error is not None:
            raise error

    account = await harness.resources.accounts.get("main")
    with suppress(BaseException):  # a cancellation too
        await call_channel(harness.resources, account, CallKind.QUERY, Urgency.FRESH, answer)


@pytest.mark.parametrize(
    "error", [ChannelUnavailable("timed_out"), asyncio.CancelledError(), RuntimeError("a bug")], ids=type
)
async def test_calls_without_an_answer_open_the_breaker(harness: FlowHarness, error: BaseException) -> None:
    for _ in range(UNANSWERED_MAX):
        assert await harness.resources.admission.open_breakers(["main"]) == []
        await call(harness, error)
    assert await harness.resources.admission.open_breakers(["main"]) == OPEN


async def test_a_call_that_was_not_made_is_neither_an_answer_nor_none(harness: FlowHarness) -> None:
    """As an answer it would close the breaker of a channel that is down, as none it would open that of a sound one."""
    for _ in range(UNANSWERED_MAX):
        await call(harness, ChannelNotCalled("no_connection_free"))
    assert await harness.resources.admission.open_breakers(["main"]) == []
    for error in (*[ChannelUnavailable("timed_out")] * (UNANSWERED_MAX - 1), ChannelNotCalled("no_connection_free")):
        await call(harness, error)
    assert await harness.resources.admission.open_breakers(["main"]) == []
    await call(harness, ChannelUnavailable("timed_out"))
    assert await harness.resources.admission.open_breakers(["main"]) == OPEN


@pytest.mark.parametrize(
    "error",
    [None, ChannelRefused("NO_RIGHT"), CaptureDeclined("NO_MONEY"), ChannelUnreadable("?"), InvalidRequest("openid")],
    ids=str,
)
async def test_any_answer_begins_the_count_again(harness: FlowHarness, error: Exception | None) -> None:
    silent = [ChannelUnavailable("timed_out")] * (UNANSWERED_MAX - 1)
    for one in (*silent, error, *silent):
        await call(harness, one)
    assert await harness.resources.admission.open_breakers(["main"]) == []


@pytest.mark.parametrize(("rate", "calls"), [(1, 1), (5, 5)], ids=["a call alone", "as many calls as the rate"])
async def test_no_call_waits_for_the_end_of_its_own_reservation(harness: FlowHarness, rate: int, calls: int) -> None:
    """Each of them has a further request. Its place is that of the first one, a second after that has ended."""
    account = await harness.resources.accounts.get("main")
    account = Account(
        replace(account.config, rate_per_s=rate),
        account.channel,
        harness.resources.settings,
        harness.resources.admission,
    )
    ends: list[float] = []

    async def two_requests() -> str:
        for _ in range(2):
            async with admitted():
                await asyncio.sleep(0)
            ends.append(asyncio.get_running_loop().time())
        return "both"

    async def call() -> object:
        return await call_channel(harness.resources, account, CallKind.QUERY, Urgency.SCHEDULED, two_requests)

    assert [await task for task in [asyncio.ensure_future(call()) for _ in range(calls)]] == ["both"] * calls
    assert min(ends[calls:]) - ends[0] >= 1.0, "the rate counts both"
