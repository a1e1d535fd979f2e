"""The breaker hears of every call that went out and had no answer, and of no other."""

import asyncio
from contextlib import suppress

import pytest

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
