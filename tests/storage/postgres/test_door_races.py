"""Many writers at the one door: one version each, no gap, exactly one effect; a loser writes nothing."""

import asyncio
from functools import partial
from itertools import count as counting
from typing import Any

from msgspec.structs import replace

from core.decision import Arm, Case, Change, Decision, Event, Notification, Outcome
from core.errors import ConflictsExhausted
from core.evidence import Approved, Source
from core.lifecycle import Rules, on_query, start_payment
from core.order import (
    CaseReason,
    OrderState,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    deadline_key,
)
from storage.postgres.database import Database
from storage.postgres.door.transition import CONFLICTS_MAX, transition
from tests.storage.postgres.tools import (
    closed,
    commit_evidence,
    count,
    decide_evidence,
    get_state,
    if_there,
    moved,
    noted,
    number,
    opened,
    paid,
    placed,
    rows,
    started,
    terms_of,
    versions,
)

WRITERS = 40


async def test_true_callbacks_at_once_are_one_version_and_one_notification(database_url: str) -> None:
    """From several processes, each with a pool of its own."""
    async with opened(database_url) as one, opened(database_url) as two, opened(database_url) as three:
        await placed(one)
        processes = [one, two, three]
        done = await asyncio.gather(*(commit_evidence(processes[n % 3], "A-1", paid()) for n in range(WRITERS)))
        outcomes = sorted(committed.decision.outcome for committed in done)
        assert outcomes == [Outcome.NOTHING_NEW] * (WRITERS - 1) + [Outcome.PAID]
        assert await versions(one, "A-1") == [1, 2]
        assert await count(one, "notifications") == 1


async def test_writers_that_race_get_a_version_each_without_a_gap(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await placed(one)
        done = await asyncio.gather(*(moved([one, two][n % 2], "A-1", noted) for n in range(12)))
        assert sorted(committed.version or 0 for committed in done) == list(range(2, 14))
        assert await versions(one, "A-1") == list(range(1, 14))


async def test_a_storm_ends_in_an_error_and_in_no_gap(db: Database) -> None:
    """A writer that loses too often gives up with nothing written, and is tried again later."""
    await placed(db)
    done = await asyncio.gather(*(moved(db, "A-1", noted) for _ in range(4 * CONFLICTS_MAX)), return_exceptions=True)
    lost = [error for error in done if isinstance(error, ConflictsExhausted)]
    assert all(isinstance(error, ConflictsExhausted) for error in done if isinstance(error, BaseException))
    assert await versions(db, "A-1") == list(range(1, 2 + len(done) - len(lost)))


async def test_a_capture_and_the_start_of_another_payment_never_both_win(database_url: str) -> None:
    """Both were decided when the payment was approved and nothing else was there. The loser decides again."""
    approved = Approved(**number("A-1")._asdict(), amount=8888, currency="CNY")
    capture = partial(on_query, key=number("A-1"), evidence=approved, rules=Rules(), by=Source.QUERY)
    outcomes = set()
    async with opened(database_url) as one, opened(database_url) as two:
        for at in range(12):
            order_no = f"A-{at + 1}"
            key, second = number(order_no), number(order_no, "wechat")
            await placed(one, order_no, page_token=f"page-token-{at}")
            evidence = replace(approved, out_trade_no=key.out_trade_no)
            start = partial(start_payment, terms=terms_of(second), rules=Rules(), queried={key: None})
            decisions = [partial(capture, key=key, evidence=evidence), start]
            racing = decisions if at % 2 else decisions[::-1]
            done = await asyncio.gather(
                *(moved(db, order_no, decide) for db, decide in zip([one, two], racing, strict=True))
            )
            committed = {row.decision.outcome for row in done}
            outcomes |= committed
            assert committed in (
                {Outcome.CAPTURE_REQUESTED, Outcome.UNCLEAR},
                {Outcome.STARTED, Outcome.STILL_OPEN},
            )
    assert {Outcome.CAPTURE_REQUESTED, Outcome.STARTED} & outcomes


async def test_of_two_decisions_on_one_state_one_wins_and_the_other_decides_again(database_url: str) -> None:
    """The second payment that would have paid the order becomes a double payment when it finds it paid."""
    second = number("A-1", "wechat")
    async with opened(database_url) as one, opened(database_url) as two:
        await placed(one)
        await started(one, "A-1", second)
        known = await get_state(one)
        done = await asyncio.gather(
            transition(one, "A-1", if_there(decide_evidence("A-1", paid())), known=known),
            transition(two, "A-1", if_there(decide_evidence("A-1", paid(key=second), key=second)), known=known),
        )
        outcomes = {committed.decision.outcome for committed in done}
        assert outcomes == {Outcome.PAID, Outcome.DOUBLE_PAYMENT}
        state = await get_state(one)
        assert [payment.status for payment in state.payments] == [PaymentStatus.PAID] * 2
        assert await versions(one, "A-1") == [1, 2, 3, 4]
        assert await count(one, "notifications", "type = 'order.paid'") == 1


async def test_a_decision_on_a_state_that_has_moved_on_writes_nothing_of_it(db: Database) -> None:
    """Not its payments, rows, cases, event or notification: everything hangs on the version."""
    await placed(db)
    stale = await get_state(db)
    await commit_evidence(db, "A-1", closed())
    tries = counting(1)

    def decide(state: OrderState | None) -> Decision:
        if next(tries) == 1:
            assert state == stale
            return full_decision(stale)
        return Decision(outcome=Outcome.STALE)

    before = await everything(db)
    committed = await transition(db, "A-1", decide, known=stale)
    assert (committed.decision.outcome, next(tries)) == (Outcome.STALE, 3)
    assert await everything(db) == before


def full_decision(state: OrderState) -> Decision:
    """Something for every table that belongs to an order."""
    order = replace(state.order, version=state.order.version + 1)
    key = PaymentKey("wechat", "wechat-of-a-loser")
    payment = replace(state.payments[0], channel_account=key.channel_account, out_trade_no=key.out_trade_no)
    new = replace(payment, attempt_no=2)
    arm = Arm(key=key, kind=PendingKind.QUERY, order_no="A-1", attempt=1, delay_s=60.0)
    change = Change(
        order=order,
        event=Event(kind=Outcome.STARTED, by=Source.API, key=key),
        new_payments=(new,),
        payments=(replace(state.payments[0], refunded_amount=1),),
        resolved=(deadline_key("A-1"),),
        arm=(arm,),
        cases=(Case(reason=CaseReason.PAID_LATE, key=None, detail=""),),
        notification=Notification(id="msg_loser", type="order.paid", url="https://shop.test", body=b"{}"),
    )
    rearm = Arm(
        key=deadline_key("A-1"), kind=PendingKind.DEADLINE, order_no="A-1", attempt=9, delay_s=0.0, expected_arm_no=1
    )
    return Decision(outcome=Outcome.STARTED, change=change, rearm=(rearm,))


async def everything(db: Database) -> list[Any]:
    tables = ("orders", "payments", "pending", "order_events", "cases", "notifications", "observations")
    return [await rows(db, table) for table in tables]


async def test_one_loser_of_many_decides_again_and_the_others_are_done_once(db: Database) -> None:
    for order_no in ("A-1", "A-2", "A-3"):
        await placed(db, order_no)
    known = {order_no: await get_state(db, order_no) for order_no in ("A-1", "A-2", "A-3")}
    await moved(db, "A-2", noted)
    tries: dict[str, int] = dict.fromkeys(known, 0)

    def decide(state: OrderState | None) -> Decision:
        assert state is not None
        tries[state.order.order_no] += 1
        return noted(state)

    done = await asyncio.gather(*(transition(db, order_no, decide, known=state) for order_no, state in known.items()))
    assert tries == {"A-1": 1, "A-2": 2, "A-3": 1}
    assert [one.version for one in done] == [2, 3, 2]


async def test_an_order_placed_many_times_at_once_is_one_order(database_url: str) -> None:
    """Every request has a number and a page token of its own: the payments of the losers do not exist."""
    async with opened(database_url) as one, opened(database_url) as two:
        done = await asyncio.gather(
            *(
                placed(
                    [one, two][n % 2],
                    payment=terms_of(PaymentKey("alipay", f"alipay-{n:06}")),
                    page_token=f"page-token-{n}",
                )
                for n in range(WRITERS)
            )
        )
        outcomes = sorted(committed.decision.outcome for committed in done)
        assert outcomes == [Outcome.PLACED] + [Outcome.SAME] * (WRITERS - 1)
        assert (await count(one, "orders"), await count(one, "payments"), await count(one, "pending")) == (1, 1, 2)


async def test_attempts_started_at_once_are_numbered_without_a_gap(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await placed(one)
        keys = [PaymentKey(f"account-{n}", f"number-{n:06}") for n in range(8)]
        await asyncio.gather(*(started([one, two][n % 2], "A-1", key) for n, key in enumerate(keys)))
        assert sorted(row["attempt_no"] for row in await rows(one, "payments")) == list(range(1, 10))
        assert await versions(one, "A-1") == list(range(1, 10))


async def test_orders_locked_in_any_order_do_not_stay_locked(database_url: str) -> None:
    """Batches of two processes over the same orders, which come the other way round: they are locked in one order."""
    names = [f"A-{n}" for n in range(1, 9)]
    async with opened(database_url) as one, opened(database_url) as two:
        for name in names:
            await placed(one, name)
        batches = [names, names[::-1]] * 3
        await asyncio.gather(
            *(transition([one, two][n % 2], name, if_there(noted)) for n, batch in enumerate(batches) for name in batch)
        )
        for name in names:
            assert await versions(one, name) == list(range(1, 8))
