"""Nets: each part that a net lacks is off in the real service, and nothing else is."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

import flows.callback
import flows.close
import flows.query
import flows.sweep
import worker.__main__ as worker_main
import worker.jobs
from api.refreshes import Refreshes
from core.account import AccountConfig
from core.checkout import CheckoutRules
from core.decision import Outcome
from core.errors import DatabaseUnavailable
from core.evidence import Source
from core.order import PendingKind
from core.settings import read_settings
from runtime.accounts import Account
from storage.postgres import pending
from tests.simulation.nets import NETS, NEVER_S, NODROP, FixedGaps, switch_off

NOW = datetime(2026, 11, 25, tzinfo=UTC)
KEY = SimpleNamespace(channel_account="alipay", out_trade_no="01aa")
RESOURCES = cast("Any", SimpleNamespace(db=None, settings=read_settings({}), clock=None))

OFF = {
    "callback": {"drain", "sweep_callbacks", "sweep_pending", "rearm", "undelivered", "reconcile"},
    "inbox": {"sweep_callbacks", "sweep_pending", "rearm", "undelivered", "reconcile"},
    "seconds": {"sweep_callbacks", "sweep_pending", "rearm", "undelivered", "reconcile"},
    "minutes": {"sweep_callbacks", "sweep_pending", "rearm", "undelivered", "reconcile"},
    "look_back": {"sweep_callbacks", "rearm", "undelivered", "reconcile"},
    "queries": {"sweep_callbacks", "sweep_pending", "rearm", "undelivered", "reconcile"},
    "page": {"sweep_callbacks", "sweep_pending", "rearm", "undelivered", "reconcile"},
    "sweep": {"undelivered", "reconcile"},
    "undelivered": {"reconcile"},
    "nodrop": set[str](),
}


class Later:
    """Rows that were put off, and for how long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays_s: list[float] = []
        monkeypatch.setattr(pending, "reschedule", self._reschedule)

    async def _reschedule(self, _db: object, _leased: object, *, delay_s: float) -> int:
        self.delays_s.append(delay_s)
        return 2


def off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(NETS[name], monkeypatch.setattr)


def leased(kind: PendingKind) -> Any:
    return SimpleNamespace(kind=kind, key=KEY, order_no="W1-0", arm_no=1)


def test_each_net_has_what_the_one_before_it_has() -> None:
    plain = [net for net in NETS.values() if not net.looks_back_s]
    for before, net in pairwise(plain):
        assert net.loops_off <= before.loops_off
        assert before.ways <= net.ways
    assert plain[-1] == NODROP


@pytest.mark.parametrize("name", NETS)
def test_loops_of_a_part_that_is_off_are_not_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> set[str]:
        return {loop.name for loop in vars(worker_main)["upkeep_loops"](RESOURCES, cast("Any", None), asyncio.Event())}

    whole = names()
    off(name, monkeypatch)
    assert whole - names() == OFF[name]


def test_all_measures_are_the_service_as_it_is() -> None:
    switched: list[str] = []
    switch_off(NODROP, lambda _, name, __: switched.append(name))
    assert switched == []


# -- callbacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_written", [True, False])
def test_without_an_inbox_a_callback_is_acknowledged_only_once_its_order_is_written(
    is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(*_: object) -> bool:
        return is_written

    monkeypatch.setattr(flows.callback, "_handle_within_budget", handle)
    off("callback", monkeypatch)
    handling = flows.callback._handle_in_request(RESOURCES, cast("Any", None))
    if is_written:
        asyncio.run(handling)
        return
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(handling)


def test_without_an_inbox_nothing_is_put_off_parked_or_compensated(monkeypatch: pytest.MonkeyPatch) -> None:
    off("callback", monkeypatch)
    nothing = cast("Any", None)
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(vars(flows.callback)["reschedule_callback"](nothing, nothing, nothing))
    asyncio.run(vars(flows.callback)["park_callback"](nothing, nothing))
    asyncio.run(worker.jobs.compensate_callback({"resources": None}, "1", 1))


# -- queries -----------------------------------------------------------------------------------------------------------


def test_fixed_queries_end_after_the_last_gap() -> None:
    gaps = FixedGaps(gaps_s=(60.0, 300.0))
    assert [gaps.gap_s(attempt) for attempt in (1, 2, 3, 40)] == [60.0, 300.0, NEVER_S, NEVER_S]
    following = gaps.next_while_payable(1, "01aa", 10.0)
    assert (following.attempt, following.delay_s, following.is_exhausted) == (2, 300.0, False)
    assert not gaps.next_try(2, "01aa").is_exhausted


@pytest.mark.parametrize(("name", "first_s"), [("inbox", NEVER_S), ("seconds", 5.0), ("minutes", 60.0), ("page", 60.0)])
def test_payments_of_an_account_have_the_gaps_of_the_net(
    name: str, first_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    off(name, monkeypatch)
    channel = cast("Any", SimpleNamespace(checkouts=CheckoutRules()))
    config = AccountConfig(name="alipay", channel="alipay", credentials={})
    rules = Account(config, channel, read_settings({}), cast("Any", None)).rules
    assert rules.backoff.gap_s(1) == first_s
    assert isinstance(rules.backoff, FixedGaps) is (NETS[name].gaps_s is not None)
    assert (rules.payable_margin_s == NEVER_S) is (NETS[name].gaps_s is not None)


def test_with_fixed_queries_no_deadline_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    later = Later(monkeypatch)
    off("minutes", monkeypatch)
    assert asyncio.run(flows.sweep._resolve(RESOURCES, leased(PendingKind.DEADLINE))) is Outcome.STALE
    assert asyncio.run(flows.close.close_leased(RESOURCES, leased(PendingKind.DEADLINE))) is Outcome.STALE
    assert later.delays_s == [NEVER_S, NEVER_S]


@pytest.mark.parametrize(
    ("name", "age_s", "is_queried"),
    [("look_back", 600.0, True), ("look_back", 700.0, False), ("callback", 1.0, False), ("inbox", 1.0, False)],
)
def test_a_look_back_sees_no_payment_that_is_older_and_without_queries_none_at_all(
    name: str, age_s: float, is_queried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    queried: list[object] = []

    async def query(_resources: object, row: object, _state: object, *, by: Source) -> Outcome:
        queried.append((row, by))
        return Outcome.STILL_OPEN

    later = Later(monkeypatch)
    payment = SimpleNamespace(created_at=NOW - timedelta(seconds=age_s))
    state = cast("Any", SimpleNamespace(now=NOW, payment=lambda _: payment))
    monkeypatch.setattr("tests.simulation.nets.query_leased", query)
    off(name, monkeypatch)
    asyncio.run(flows.query.query_leased(RESOURCES, leased(PendingKind.QUERY), state, by=Source.SWEEP))
    assert len(queried) == is_queried
    assert later.delays_s == ([] if is_queried else [NEVER_S])
    assert vars(flows.sweep)["query_leased"] is flows.query.query_leased


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("queries", 0), ("page", 2)])
def test_pages_query_a_channel_only_in_a_net_that_has_it(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed: list[str] = []

    async def refresh(_resources: object, order_no: str, **_: object) -> None:
        refreshed.append(order_no)

    monkeypatch.setattr("api.refreshes.refresh_order", refresh)
    off(name, monkeypatch)

    async def look() -> None:
        refreshes = Refreshes(RESOURCES)
        await refreshes.come_back("W1-0", wait_s=1.0)
        await refreshes.refresh("W1-0", wait_s=1.0)

    asyncio.run(look())
    assert len(refreshed) == count
