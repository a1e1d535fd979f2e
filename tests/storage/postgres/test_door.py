"""The one door, on a real Postgres: what its one statement writes, and what the database refuses."""

import asyncio
from datetime import UTC, datetime
from functools import partial

import asyncpg
import pytest
from msgspec.structs import asdict, replace

from core.decision import Change, Decision, Event, Observation, Outcome
from core.dispute import DisputeKind, DisputeState
from core.errors import NumberTaken, TransactionClaimed
from core.evidence import Disputed, Refunded, Source, Unclear
from core.lifecycle import (
    LatePolicy,
    Rules,
    on_callback,
    on_close_requested,
    on_created,
    on_deadline,
    on_dispute,
    on_refresh,
    start_payment,
)
from core.order import (
    CaseReason,
    Checkout,
    OrderState,
    OrderStatus,
    Origin,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    deadline_key,
)
from storage.postgres.database import Database
from storage.postgres.door.transition import transition, transition_existing
from storage.postgres.orders import find_state, timeline
from tests.storage.postgres.tools import (
    RULES,
    DecideThere,
    closed,
    commit_evidence,
    count,
    decide_evidence,
    get_state,
    if_there,
    moved,
    number,
    opened,
    paid,
    placed,
    rows,
    started,
    terms_of,
    unpaid,
    versions,
)

# -- what one statement writes -----------------------------------------------------------------------------------------


async def test_an_order_and_its_payment_are_stored_as_they_were_decided(db: Database) -> None:
    placed_order = (await placed(db)).state_after
    stored = await get_state(db)
    assert placed_order is not None
    assert (stored.order, stored.payments) == (placed_order.order, placed_order.payments)
    assert (stored.order.amount, stored.payments[0].amount) == (8888, 8888)
    paid_order = (await commit_evidence(db, "A-1", paid())).state_after
    stored = await get_state(db)
    assert paid_order is not None
    assert (stored.order, stored.payments) == (paid_order.order, paid_order.payments)


async def test_placing_writes_order_payment_rows_and_event_and_tells_what_it_armed(db: Database) -> None:
    committed = await placed(db, metadata={"cart": "7"}, return_url="https://shop.test/done")
    state = await get_state(db)
    assert (committed.version, state.order.status, state.order.version) == (1, OrderStatus.PAYING, 1)
    assert (state.order.metadata, state.order.return_url) == ({"cart": "7"}, "https://shop.test/done")
    assert [payment.key for payment in state.payments] == [number("A-1")]
    assert {row.key: (row.kind, row.attempt, row.arm_no) for row in state.pending} == {
        number("A-1"): (PendingKind.QUERY, 1, 1),
        deadline_key("A-1"): (PendingKind.DEADLINE, 1, 1),
    }
    assert {armed.key: round(armed.delay_s) for armed in committed.armed} == {
        number("A-1"): 60,
        deadline_key("A-1"): 1800,
    }
    assert await versions(db, "A-1") == [1]


async def test_what_was_decided_is_what_is_read(db: Database) -> None:
    """Every field there and back, to the microsecond; the state after is known without reading again."""
    await placed(db, payment=terms_of(number("A-1"), method="page", channel_reference="ref-1"))
    checkout = Checkout(kind="redirect", value="https://pay.test/1?a=1&b=ü")
    until = datetime(2031, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    committed = await moved(
        db,
        "A-1",
        lambda state: on_created(
            state, number("A-1"), checkout=checkout, channel_reference="ref-2", payable_until=until
        ),
    )
    state = await get_state(db)
    assert committed.decision.change is not None
    assert (state.order,) == (committed.decision.change.order,)
    assert state.payments == committed.decision.change.payments
    assert (state.payments[0].checkout, state.payments[0].payable_until) == (checkout, until)
    after = committed.state_after
    assert after is not None
    assert (after.order, after.payments, after.open_cases) == (state.order, state.payments, state.open_cases)


async def test_an_unknown_refunded_sum_is_read_as_unknown_and_becomes_known(db: Database) -> None:
    """Unknown is not 0: read as 0 the payment would look like a sale."""
    await placed(db)
    unknown = Refunded(**asdict(paid()), refunded_amount=None)
    await commit_evidence(db, "A-1", unknown)
    state = await get_state(db)
    assert (state.order.status, state.payments[0].refunded_amount) == (OrderStatus.PAYING, None)
    columns = "refunded_amount, is_refund_amount_unknown"
    assert [tuple(row.values()) for row in await rows(db, "payments", columns)] == [(0, True)]

    await commit_evidence(db, "A-1", replace(unknown, refunds={"console-1": 30}))
    [payment] = (await get_state(db)).payments
    assert (payment.refunded_amount, payment.channel_refunds) == (30, {"console-1": 30})
    assert [tuple(row.values()) for row in await rows(db, "payments", columns)] == [(30, False)]


async def test_paying_resolves_its_rows_and_tells_the_merchant_in_the_same_statement(db: Database) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    await placed(db)
    committed = await commit_evidence(db, "A-1", paid(at=at))
    state = await get_state(db)
    assert (state.order.status, state.order.paid_by, state.order.paid_at) == (OrderStatus.PAID, number("A-1"), at)
    assert (state.payments[0].status, state.payments[0].channel_transaction_id) == (PaymentStatus.PAID, "t-alipay-A-1")
    assert (state.pending, committed.armed) == ((), ())
    assert {gone.key for gone in committed.cancelled} == {number("A-1"), deadline_key("A-1")}
    [notification] = await rows(db, "notifications", "id, order_no, version, type, url, body, attempt, arm_no")
    assert committed.decision.change is not None
    expected = committed.decision.change.notification
    assert expected is not None
    assert (notification["id"], notification["body"]) == (expected.id, expected.body)
    assert (notification["version"], notification["type"]) == (committed.version, "order.paid")
    assert committed.notification_id == expected.id


async def test_the_timeline_is_events_and_observations_together(db: Database) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", unpaid())
    await commit_evidence(db, "A-1", Unclear(**number("A-1")._asdict(), reason="timeout"))
    await commit_evidence(db, "A-1", paid())
    entries = await timeline(db, "A-1")
    assert [(entry.version, entry.kind, entry.note) for entry in entries] == [
        (1, "placed", ""),
        (None, "unpaid_seen", ""),
        (None, "unclear_seen", "timeout"),
        (2, "paid", ""),
    ]
    assert entries[-1].evidence is not None
    assert entries[-1].evidence["channel_transaction_id"] == "t-alipay-A-1"
    assert (entries[1].account, entries[1].out_trade_no, entries[1].by) == (*number("A-1"), "query")


async def test_an_observation_takes_no_version(db: Database) -> None:
    await placed(db)
    for _ in range(3):
        assert (await commit_evidence(db, "A-1", unpaid())).version is None
    assert (await get_state(db)).order.version == 1
    assert await count(db, "observations") == 3


async def test_a_decision_without_effect_writes_nothing(db: Database) -> None:
    committed = await transition(db, "A-1", lambda _: Decision(outcome=Outcome.STALE))
    assert (committed.state, committed.version, committed.armed) == (None, None, ())


async def test_many_orders_move_in_one_statement(db: Database) -> None:
    """Each by its own decision, with its own rows in the result."""
    for order_no in ("A-1", "A-2", "A-3"):
        await placed(db, order_no)
    decisions = {
        "A-1": decide_evidence("A-1", paid("A-1")),
        "A-2": decide_evidence("A-2", unpaid("A-2"), arm_no=1),
        "A-3": decide_evidence("A-3", closed("A-3")),
        "A-9": lambda _: Decision(outcome=Outcome.STALE),
    }
    moves = [transition(db, order_no, if_there(decide)) for order_no, decide in decisions.items()]
    done = dict(zip(decisions, await asyncio.gather(*moves), strict=True))
    assert {order_no: one.version for order_no, one in done.items()} == {"A-1": 2, "A-2": None, "A-3": 2, "A-9": None}
    assert [armed.arm_no for armed in done["A-2"].armed] == [2]
    assert (done["A-1"].armed, [armed.arm_no for armed in done["A-3"].armed]) == ((), [2])
    assert {gone.key for gone in done["A-1"].cancelled} == {number("A-1"), deadline_key("A-1")}
    assert (done["A-1"].notification_id is not None, done["A-3"].notification_id) == (True, None)


# -- what the database refuses -----------------------------------------------------------------------------------------


async def test_a_channel_transaction_pays_one_order(db: Database) -> None:
    await placed(db, "A-1")
    await placed(db, "A-2")
    await commit_evidence(db, "A-1", paid("A-1", transaction="t-1"))
    with pytest.raises(TransactionClaimed):
        await commit_evidence(db, "A-2", paid("A-2", transaction="t-1"))
    state = await get_state(db, "A-2")
    assert (state.order.status, state.order.version, len(state.pending)) == (OrderStatus.PAYING, 1, 2)


async def test_two_orders_that_claim_one_transaction_at_once_are_not_both_paid(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        for order_no in ("A-1", "A-2"):
            await placed(one, order_no)
        done = await asyncio.gather(
            commit_evidence(one, "A-1", paid("A-1", transaction="t-1")),
            commit_evidence(two, "A-2", paid("A-2", transaction="t-1")),
            return_exceptions=True,
        )
        assert sum(isinstance(error, TransactionClaimed) for error in done) == 1
        assert await count(one, "orders", "status = 'paid'") == 1


async def test_another_account_may_use_the_same_transaction_number(db: Database) -> None:
    key = number("A-2", "wechat")
    await placed(db, "A-1")
    await placed(db, "A-2", payment=terms_of(key))
    await commit_evidence(db, "A-1", paid("A-1", transaction="t-1"))
    assert (
        await commit_evidence(db, "A-2", paid(key=key, transaction="t-1"), key=key)
    ).decision.outcome is Outcome.PAID


@pytest.mark.parametrize("earlier", ["open", "closed", "paid"])
async def test_a_number_that_is_known_at_the_account_is_taken(db: Database, earlier: str) -> None:
    """Whatever became of the payment that has it. Nothing of the second order is written."""
    await placed(db, "A-1", payment=terms_of(number("A-1"), origin=Origin.WATCHED))
    if earlier != "open":
        await commit_evidence(db, "A-1", closed() if earlier == "closed" else paid())
    with pytest.raises(NumberTaken):
        await placed(db, "A-2", payment=terms_of(number("A-1"), origin=Origin.WATCHED))
    await placed(db, "A-3", without_payment=True)
    with pytest.raises(NumberTaken):
        await started(db, "A-3", number("A-1"))
    assert await find_state(db, "A-2") is None
    assert len((await get_state(db, "A-3")).payments) == 0


async def test_one_number_wanted_by_two_orders_at_once_goes_to_one(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        key = PaymentKey("alipay", "watched-1")
        done = await asyncio.gather(
            *(placed([one, two][n % 2], f"A-{n}", payment=terms_of(key)) for n in range(6)), return_exceptions=True
        )
        assert sum(isinstance(error, NumberTaken) for error in done) == 5
        assert (await count(one, "orders"), await count(one, "payments")) == (1, 1)


async def test_no_code_unpays_an_order(db: Database) -> None:
    await placed(db)
    await commit_evidence(db, "A-1", paid())
    for status in ("created", "paying", "closed"):
        with pytest.raises(asyncpg.CheckViolationError):
            await moved(db, "A-1", _forced(status))
    assert (await get_state(db)).order.status is OrderStatus.PAID


def _forced(status: str) -> DecideThere:
    def decide(state: OrderState) -> Decision:
        order = replace(
            state.order,
            status=OrderStatus(status),
            version=state.order.version + 1,
            paid_by=None,
            paid_at=None,
            closed_at=state.now,
        )
        return Decision(
            outcome=Outcome.CLOSED, change=Change(order=order, event=Event(kind=Outcome.CLOSED, by=Source.API))
        )

    return decide


# -- pending rows ------------------------------------------------------------------------------------------------------


async def test_a_scheduling_that_was_replaced_moves_nothing(db: Database) -> None:
    """`arm_no` guards it: the job of an older scheduling, and the second of two that answer at once."""
    await placed(db)
    known = await get_state(db)
    decide = if_there(decide_evidence("A-1", unpaid(), arm_no=1))
    armed = [(await transition(db, "A-1", decide, known=known)).armed for _ in range(3)]
    assert [len(scheduled) for scheduled in armed] == [1, 0, 0]
    assert (await commit_evidence(db, "A-1", unpaid(), arm_no=1)).armed == ()
    [row] = await rows(db, "pending", "attempt, arm_no", "kind = 'query'")
    assert row == {"attempt": 2, "arm_no": 2}


async def test_every_scheduling_has_a_number_of_its_own(db: Database) -> None:
    await placed(db)
    schedulings = [await commit_evidence(db, "A-1", unpaid(), arm_no=arm_no) for arm_no in range(1, 6)]
    armed = [scheduled for committed in schedulings for scheduled in committed.armed]
    assert [scheduled.arm_no for scheduled in armed] == [2, 3, 4, 5, 6]
    assert [round(scheduled.delay_s / 60) for scheduled in armed] == [4, 9, 16, 25, 36]


async def test_a_row_that_loses_its_order_to_another_writer_is_not_moved(db: Database) -> None:
    """A close request that lost the race has not moved the deadline either."""
    await placed(db)
    stale = await get_state(db)
    await commit_evidence(db, "A-1", paid())
    done = await transition(db, "A-1", if_there(on_close_requested), known=stale)
    assert done.decision.outcome is Outcome.ALREADY_PAID
    assert await count(db, "pending") == 0


async def test_a_close_request_makes_the_deadline_due_now(db: Database) -> None:
    await placed(db)
    committed = await moved(db, "A-1", on_close_requested)
    [armed] = committed.armed
    assert (armed.key, armed.arm_no, armed.delay_s) == (deadline_key("A-1"), 2, 0.0)
    assert (await get_state(db)).order.expires_at <= (await get_state(db)).now


async def test_an_order_is_closed_with_its_row_when_all_is_definite(db: Database) -> None:
    await placed(db, expires_in_s=0.0)
    await commit_evidence(db, "A-1", closed())
    committed = await moved(db, "A-1", lambda state: on_deadline(state, RULES, arm_no=1))
    assert committed.decision.outcome is Outcome.CLOSED
    state = await get_state(db)
    assert state.order.status is OrderStatus.CLOSED
    assert [row.key for row in state.pending] == [number("A-1")], "the closed payment is asked again"


async def test_a_row_is_put_back_once_without_a_version(db: Database) -> None:
    """Refreshes of a closed order meet: the second one finds the row of the first."""
    await close_order(db)
    await db.execute("DELETE FROM pending")
    state = await get_state(db)
    for arm_nos in ([1], []):
        committed = await transition(db, "A-1", lambda _: on_refresh(state, RULES))
        assert [row.arm_no for row in committed.armed] == arm_nos
    assert (await count(db, "pending"), (await get_state(db)).order.version) == (1, state.order.version)


async def test_a_row_is_dropped_without_a_version(db: Database) -> None:
    await placed(db)
    key = deadline_key("A-1")
    committed = await moved(db, "A-1", lambda _: Decision(outcome=Outcome.NOTHING_NEW, drop=(key,)))
    assert [gone.key for gone in committed.cancelled] == [key]
    assert (await get_state(db)).order.version == 1


async def test_the_other_payments_of_a_paid_order_are_due_at_once(db: Database) -> None:
    second = number("A-1", "wechat")
    await placed(db)
    await started(db, "A-1", second)
    committed = await commit_evidence(db, "A-1", paid())
    [armed] = committed.armed
    assert (armed.key, armed.delay_s, armed.arm_no) == (second, 0.0, 2)
    assert [row.key for row in (await get_state(db)).pending] == [second]


# -- cases and notifications -------------------------------------------------------------------------------------------


async def test_a_case_is_opened_once_while_it_is_open(db: Database) -> None:
    await placed(db)
    for amount in (1, 1, 2):
        await commit_evidence(db, "A-1", paid(amount=amount))
    [case] = await rows(db, "cases", "order_no, channel_account, out_trade_no, reason, detail")
    assert case == {
        "order_no": "A-1",
        "channel_account": "alipay",
        "out_trade_no": "alipay-A-1",
        "reason": "amount_mismatch",
        "detail": "0.01 instead of 88.88",
    }
    assert (await get_state(db)).open_cases == {(number("A-1"), CaseReason.AMOUNT_MISMATCH)}
    await db.execute("UPDATE cases SET resolved_at = now()")
    await commit_evidence(db, "A-1", paid(amount=3))
    assert await count(db, "cases") == 2


async def test_a_newer_version_supersedes_a_close_that_was_not_heard(db: Database) -> None:
    """A "closed" that the merchant's service does not take never holds back "paid"."""
    await close_order(db)
    await commit_evidence(db, "A-1", paid())
    found = {row["type"]: row["superseded_at"] is not None for row in await rows(db, "notifications")}
    assert found == {"order.closed": True, "order.paid": False}


async def test_a_close_that_was_not_heard_is_heard_beside_news_that_leave_the_order_closed(db: Database) -> None:
    """Late money that waits for a person, and a dispute about it: the goods are to be released all the same."""
    await close_order(db)
    flagged = partial(
        on_callback, key=number("A-1"), evidence=paid(), rules=Rules(late_policy=LatePolicy.FLAG), by=Source.CALLBACK
    )
    await transition_existing(db, "A-1", flagged)
    claim = Disputed(
        channel_account="alipay",
        out_trade_no="alipay-A-1",
        dispute_id="d-1",
        dispute_kind=DisputeKind.CLAIM,
        state=DisputeState.OPEN,
    )
    await transition_existing(db, "A-1", partial(on_dispute, key=number("A-1"), evidence=claim, by=Source.CALLBACK))
    found = await rows(db, "notifications", "type, superseded_at")
    assert [row["type"] for row in found] == ["order.closed", "order.paid_late", "order.disputed"]
    assert [row["superseded_at"] for row in found] == [None, None, None]


async def test_news_of_money_is_never_superseded(db: Database) -> None:
    """Each tells of a payment of its own: who hears only the newest never hears of the others."""
    second, third = number("A-1", "wechat"), number("A-1", "paypal")
    await placed(db)
    await started(db, "A-1", second)
    await started(db, "A-1", third)
    for key in (number("A-1"), second, third):
        await commit_evidence(db, "A-1", paid(key=key), key=key)
    found = await rows(db, "notifications", "type, superseded_at")
    assert [row["type"] for row in found] == ["order.paid", "order.double_payment", "order.double_payment"]
    assert [row["superseded_at"] for row in found] == [None, None, None]


async def test_what_was_heard_is_not_superseded(db: Database) -> None:
    await close_order(db)
    await db.execute("UPDATE notifications SET delivered_at = now()")
    await commit_evidence(db, "A-1", paid())
    assert await count(db, "notifications", "superseded_at IS NOT NULL") == 0


async def test_notifications_of_other_orders_are_left_alone(db: Database) -> None:
    await close_order(db, "A-1")
    await close_order(db, "A-2")
    await commit_evidence(db, "A-2", paid("A-2"))
    assert await count(db, "notifications", "superseded_at IS NULL AND order_no = 'A-1'") == 1


async def close_order(db: Database, order_no: str = "A-1") -> None:
    await placed(db, order_no, expires_in_s=0.0)
    await commit_evidence(db, order_no, closed(order_no))
    committed = await moved(db, order_no, lambda state: on_deadline(state, RULES))
    assert committed.decision.outcome is Outcome.CLOSED


# -- text from the far side --------------------------------------------------------------------------------------------

WEIRD = [
    "\0",
    "a\0b\0",
    "\ud800",
    "\udfff\ud800",
    "\\u0000",
    "\\\\u0000",
    "'; DROP TABLE orders; --",
    '"}]}',
    "$1",
    "%s",
    "支付宝 ✓ 👛",
    "\u202e\u200b\ufeff",
    "\r\n\t\x1b[31m",
    "x" * 100_000,
]


@pytest.mark.parametrize("text", WEIRD, ids=range(len(WEIRD)))
async def test_no_text_of_the_far_side_breaks_the_statement(db: Database, text: str) -> None:
    """In a note, a reason or a case it is kept as well as Postgres can; it never keeps an order from being paid."""
    await placed(db, subject=text[:127])
    await commit_evidence(db, "A-1", Unclear(**number("A-1")._asdict(), reason=text))
    await commit_evidence(db, "A-1", paid(channel_account=f"other:{text}"))
    await commit_evidence(db, "A-1", paid(transaction=f"t-{_whole(text)[:100]}"))
    entries = await timeline(db, "A-1")
    assert (await get_state(db)).order.status is OrderStatus.PAID
    kept = _whole(text).replace("\0", "\ufffd")
    assert entries[1].note == kept
    assert entries[2].note == f"evidence of other:{kept}"


def _whole(text: str) -> str:
    """Without half surrogate pairs, which no decoder of ours lets through; but errors may quote anything."""
    return text.encode(errors="replace").decode()


async def test_text_that_postgres_can_hold_is_kept_to_the_letter(db: Database) -> None:
    metadata = {f"k{n}": text for n, text in enumerate(WEIRD) if "\0" not in text and text.isprintable()}
    await placed(db, metadata=metadata, subject='"\\u0000" \\')
    state = await get_state(db)
    assert (state.order.metadata, state.order.subject) == (metadata, '"\\u0000" \\')


# -- behind a pooler ---------------------------------------------------------------------------------------------------


async def test_the_door_needs_no_prepared_statement(database_url: str) -> None:
    """As pgbouncer in transaction mode wants it: `STATEMENT_CACHE_SIZE=0`, no session state, no start-up parameters."""
    async with opened(database_url, statement_cache_size=0) as db:
        await placed(db)
        await commit_evidence(db, "A-1", unpaid(), arm_no=1)
        assert (await commit_evidence(db, "A-1", paid())).decision.outcome is Outcome.PAID
        assert await versions(db, "A-1") == [1, 2]


async def test_an_attempt_after_close_is_not_started(db: Database) -> None:
    """Closing and starting at once: whichever comes second sees the first."""
    await placed(db, without_payment=True, expires_in_s=0.0)
    key = number("A-1")
    done = await asyncio.gather(
        moved(db, "A-1", lambda state: on_deadline(state, RULES)),
        moved(db, "A-1", lambda state: start_payment(state, terms_of(key), RULES)),
    )
    assert {committed.decision.outcome for committed in done} == {Outcome.CLOSED, Outcome.ALREADY_CLOSED}
    assert await count(db, "payments") == 0


async def test_an_observation_of_no_order_is_kept_as_well(db: Database) -> None:
    """`observations` refers to nothing: what was seen of an order that is not there is seen all the same."""
    seen = Observation(order_no="A-9", kind="delivery_tried", by=Source.API)
    await transition(db, "A-9", lambda _: Decision(outcome=Outcome.STALE, observation=seen))
    assert await count(db, "observations", "order_no = 'A-9'") == 1
