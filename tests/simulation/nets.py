"""The nets of a world: which measures against lost payments the service has, from callbacks alone to all of them.

Nothing is written a second time. What a net lacks is switched off in the real service, in the process of the world and
before its simulated processes start: loops that are not started, jobs that do nothing or are due at other times, pages
that query no channel. Delivery to the merchant, refunds and the queue's own upkeep are the same in all nets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

import flows.callback
import flows.close
import flows.query
import flows.sweep
import worker.__main__ as worker_main
import worker.jobs
from api.refreshes import Refreshes
from core.backoff import Backoff, NextTry
from core.decision import Outcome
from core.errors import DatabaseUnavailable
from core.evidence import Source
from core.order import OrderState
from flows.query import query_leased
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.inbox import StoredCallback
from storage.postgres.orders import find_state_by_payment
from storage.postgres.pending import Leased
from worker.loops import Loop

NEVER_S = 400 * 86_400.0
"""Later than the end of any world."""

Replace = Callable[[Any, str, Any], object]
"""`setattr`, or what undoes it at the end of a test."""


class Net(msgspec.Struct, frozen=True, kw_only=True):
    """Measures that are there. `title` is what the net adds to the one before it.

    `inbox`: callbacks are stored, confirmed by a query, and compensated. Without it a callback is verified, its order
    is written at once, and only then it is acknowledged: its channel alone repeats it. `gaps_s` are the gaps of the
    queries of a payment; None: nodrop's n² minutes, and the query at the order's deadline. `looks_back_s`: queries come
    from a look at the database, which sees no payment that is older. `page`: a buyer who comes back, or looks, has the
    channel queried. `sweep`: overdue rows are found in Postgres, and Redis is armed again after a loss.
    """

    name: str
    title: str
    inbox: bool = True
    gaps_s: tuple[float, ...] | None = None
    looks_back_s: float = 0.0
    page: bool = False
    sweep: bool = False
    undelivered: bool = False
    reconciliation: bool = False

    @property
    def loops_off(self) -> frozenset[str]:
        """Loops of the worker that are not started."""
        have = {
            "drain": self.inbox,
            "sweep_callbacks": self.sweep,
            "sweep_pending": self.sweep or self.looks_back_s > 0,
            "rearm": self.sweep,
            "undelivered": self.undelivered,
            "reconcile": self.reconciliation,
        }
        return frozenset(name for name, is_on in have.items() if not is_on)

    @property
    def ways(self) -> frozenset[Source]:
        """The ways in which a payment can become paid. `API`: the merchant starts a second payment of an order, and the
        first one is queried before. `CLOSE`: the other payment of an order that is paid, or was started anew, is closed
        and queried.
        """
        have = {
            Source.CALLBACK: True,
            Source.API: True,
            Source.CLOSE: True,
            Source.COMPENSATION: self.inbox,
            Source.QUERY: self.gaps_s != (),
            Source.REFRESH: self.page,
            Source.SWEEP: self.sweep or self.looks_back_s > 0,
            Source.UNDELIVERED: self.undelivered,
            Source.RECONCILIATION: self.reconciliation,
        }
        return frozenset(source for source, is_on in have.items() if is_on)


NODROP = Net(
    name="nodrop", title="+ reconciliation: nodrop", page=True, sweep=True, undelivered=True, reconciliation=True
)

NETS: Mapping[str, Net] = MappingProxyType(
    {
        net.name: net
        for net in (
            Net(name="callback", title="callback only", inbox=False, gaps_s=()),
            Net(name="inbox", title="+ inbox, compensation", gaps_s=()),
            Net(name="seconds", title="+ 6 queries, each 5 s", gaps_s=(5.0,) * 6),
            Net(name="minutes", title="or 60 s, 5 × 5 min", gaps_s=(60.0, *(300.0,) * 5)),
            Net(name="look_back", title="or each minute for 10", gaps_s=(60.0,) * 10, looks_back_s=660.0),
            Net(name="queries", title="n² queries instead"),
            Net(name="page", title="+ query on return", page=True),
            Net(name="sweep", title="+ sweep", page=True, sweep=True),
            Net(name="undelivered", title="+ undelivered list", page=True, sweep=True, undelivered=True),
            NODROP,
        )
    }
)
"""By name. Each has what the one before it has; the three with fixed queries stand beside each other."""


class FixedGaps(Backoff, frozen=True, kw_only=True):
    """Queries at fixed gaps, as many systems make them, and none after the last. That is no reason for a case."""

    gaps_s: tuple[float, ...] = ()

    def is_exhausted(self, attempt: int) -> bool:  # noqa: ARG002
        return False

    def gap_s(self, attempt: int, key: str = "") -> float:  # noqa: ARG002
        return self.gaps_s[attempt - 1] if attempt <= len(self.gaps_s) else NEVER_S

    def next_while_payable(self, attempt: int, key: str, age_s: float) -> NextTry:  # noqa: ARG002
        return self.next_try(attempt, key)


def switch_off(net: Net, set_to: Replace = setattr) -> None:
    """Switch off in this process what the net lacks."""
    if net.loops_off:
        set_to(worker_main, "upkeep_loops", _without(vars(worker_main)["upkeep_loops"], net.loops_off))
    if not net.inbox:
        _write_straight(set_to)
    if net.gaps_s is not None:
        _fix_queries(net.gaps_s, set_to)
    if net.looks_back_s or net.gaps_s == ():  # a lease that is taken over would be a query, too
        young = _of_young(query_leased, net.looks_back_s)
        for module in (flows.query, flows.sweep):
            set_to(module, "query_leased", young)
    if not net.page:
        for name in ("come_back", "refresh"):
            set_to(Refreshes, name, _query_nothing)


def _without(upkeep_loops: Callable[..., tuple[Loop, ...]], names: frozenset[str]) -> Callable[..., tuple[Loop, ...]]:
    def some_loops(*args: Any) -> tuple[Loop, ...]:
        return tuple(loop for loop in upkeep_loops(*args) if loop.name not in names)

    return some_loops


# -- no inbox ----------------------------------------------------------------------------------------------------------


def _write_straight(set_to: Replace) -> None:
    """Acknowledge a callback once its order is written. The row in the inbox is then only the callback's own record."""
    handle_within_budget = flows.callback._handle_within_budget

    async def handle(resources: Resources, stored: StoredCallback) -> None:
        if not await handle_within_budget(resources, stored):
            raise DatabaseUnavailable("the order is not written")

    set_to(flows.callback, "_handle_in_request", handle)
    set_to(flows.callback, "reschedule_callback", _try_once)
    set_to(flows.callback, "park_callback", _keep_nothing)
    set_to(worker.jobs, "compensate", _compensate_nothing)


async def _try_once(*_: object) -> None:
    raise DatabaseUnavailable("nobody repeats it here")


async def _keep_nothing(*_: object) -> None: ...


async def _compensate_nothing(*_: object) -> Outcome:
    return Outcome.STALE


# -- other queries -----------------------------------------------------------------------------------------------------


def _fix_queries(gaps_s: tuple[float, ...], set_to: Replace) -> None:
    """Query at fixed gaps, and neither at the order's deadline nor after a close."""
    open_as_ever = Account.__init__

    def open_account(account: Account, *args: Any, **named: Any) -> None:
        open_as_ever(account, *args, **named)
        account.rules = replace(account.rules, backoff=FixedGaps(gaps_s=gaps_s), payable_margin_s=NEVER_S)

    set_to(Account, "__init__", open_account)
    for module in (flows.close, flows.sweep):
        set_to(module, "close_leased", _leave_open)


async def _leave_open(resources: Resources, leased: Leased, state: OrderState | None = None) -> Outcome:
    """As `close_leased`, but the order stays as it is."""
    await pending.reschedule(resources.db, leased, delay_s=NEVER_S)
    return Outcome.STALE


def _of_young(query: Callable[..., Any], looks_back_s: float) -> Callable[..., Any]:
    """The query, but only of a payment that is not older than this."""

    async def query_young(
        resources: Resources, leased: Leased, state: OrderState | None = None, *, by: Source
    ) -> Outcome:
        state = state or await find_state_by_payment(resources.db, leased.key)
        payment = None if state is None else state.payment(leased.key)
        if state is None or payment is None or state.now - payment.created_at <= timedelta(seconds=looks_back_s):
            outcome: Outcome = await query(resources, leased, state, by=by)
            return outcome
        await pending.reschedule(resources.db, leased, delay_s=NEVER_S)
        return Outcome.STALE

    return query_young


async def _query_nothing(_refreshes: Refreshes, _order_no: str, *, wait_s: float) -> None:
    """As `Refreshes.come_back` and `refresh`: the page shows what is known."""
