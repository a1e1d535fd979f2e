"""Genuine callbacks that are not ours, or cannot be read: stored for a day, then a case or counted and dropped."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from channels.base import Callback, Ignored
from core.decision import Outcome
from core.errors import ChannelUnavailable
from core.evidence import COMBINED, Paid, Unclear
from core.order import OWN_NUMBER, CaseReason, OrderState, OrderStatus
from flows.compensation import compensate_callback
from flows.parked import drain_parked
from flows.place import PaymentRequest, Watch, new_number, place_order
from simulator.kernel.ledger import Payment as LedgerPayment
from storage.postgres.callbacks import CallbackCount, find_counts
from storage.postgres.cases import list_cases
from storage.redis.parked_callbacks import ParkedCallback
from tests.channels.reports import CallbackRequest
from tests.flows.conftest import FlowHarness, order_terms
from tests.sealed import raw_callbacks

OTHER_NUMBER = "ORD #1001"


class Inbox:
    """The rows of the table `callbacks`."""

    def __init__(self, harness: FlowHarness) -> None:
        self._harness = harness

    async def bodies(self) -> list[bytes]:
        return [stored.body for stored in await raw_callbacks(self._harness.resources.db, self._harness.sealer)]

    async def rows(self) -> list[dict[str, object]]:
        sql = """SELECT id::text, arm_no, attempt, outcome, out_trade_no, handled_at IS NOT NULL AS is_handled,
                        dead_at IS NOT NULL AS is_dead, extract(epoch FROM due_at - now())::float8 AS due_in_s
                   FROM callbacks ORDER BY received_at"""
        return [dict(row) for row in await self._harness.resources.db.fetch(sql)]

    async def compensate(self) -> Outcome:
        (row,) = await self.rows()
        await self._harness.make_due()
        return await compensate_callback(self._harness.resources, str(row["id"]), int(str(row["arm_no"])))

    async def let_a_day_pass(self) -> None:
        sql = "UPDATE callbacks SET kept_until = kept_until - interval '1 day'"
        await self._harness.resources.db.execute(sql)


@pytest.fixture
def inbox(harness: FlowHarness) -> Inbox:
    return Inbox(harness)


async def foreign_callback(harness: FlowHarness, number: str, account: str = "main") -> CallbackRequest:
    """A genuine callback about a payment that nodrop did not create."""
    state = await harness.placed_order(account)
    return harness.callback(state.payments[0], number=number)


async def counts(harness: FlowHarness) -> list[CallbackCount]:
    return await find_counts(harness.resources.db)


@pytest.mark.parametrize("number", [OTHER_NUMBER, "1001", "WC-1001", "0123456789abcdef"])
async def test_another_systems_callback_is_stored_for_a_day_then_counted_and_dropped(
    harness: FlowHarness, inbox: Inbox, number: str
) -> None:
    callback = await foreign_callback(harness, number)
    assert (await harness.receive("main", callback)).body == b"ok"
    assert await inbox.compensate() is Outcome.UNKNOWN_PAYMENT
    (row,) = await inbox.rows()
    assert (await inbox.bodies(), row["is_handled"], row["is_dead"]) == ([callback.body], False, False)
    await inbox.let_a_day_pass()
    assert await inbox.compensate() is Outcome.UNKNOWN_PAYMENT
    assert (await inbox.rows(), await harness.cases()) == ([], [])
    assert await counts(harness) == [CallbackCount(account="main", reason="unknown", count=1)]


def test_a_new_number_has_our_form() -> None:
    assert OWN_NUMBER.fullmatch(new_number(datetime.now(UTC)))


async def test_an_unknown_number_of_our_form_is_a_case_after_a_day(harness: FlowHarness, inbox: Inbox) -> None:
    await harness.receive("main", await foreign_callback(harness, new_number(datetime.now(UTC))))
    await inbox.compensate()
    assert await harness.cases() == []
    await inbox.let_a_day_pass()
    await inbox.compensate()
    assert await harness.cases() == ["unknown_order"]
    (row,) = await inbox.rows()
    assert row["is_dead"]
    assert await inbox.compensate() is Outcome.STALE


async def test_any_unknown_number_at_an_exclusive_account_is_a_case(harness: FlowHarness, inbox: Inbox) -> None:
    await harness.add_account("alone", exclusive=True)
    await harness.receive("alone", await foreign_callback(harness, OTHER_NUMBER, "alone"))
    await inbox.let_a_day_pass()
    await inbox.compensate()
    assert await harness.cases() == ["unknown_order"]


async def test_the_end_waits_another_day_for_an_account_that_cannot_be_opened(
    harness: FlowHarness, inbox: Inbox
) -> None:
    """Whether its money is a case is a setting of the account. It may be put back; then a person has to look."""
    await harness.receive("main", await foreign_callback(harness, OTHER_NUMBER))
    await harness.resources.db.execute("UPDATE callbacks SET channel_account = 'gone'")
    await inbox.let_a_day_pass()
    await inbox.compensate()
    assert (len(await inbox.rows()), await harness.cases()) == (1, [])
    await inbox.let_a_day_pass()
    await inbox.compensate()
    assert await harness.cases() == ["unknown_order"]


async def test_the_last_look_is_when_the_day_ends(harness: FlowHarness, inbox: Inbox) -> None:
    """The gaps grow, and the one before the end is cut."""
    await harness.receive("main", await foreign_callback(harness, OTHER_NUMBER))
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 15, kept_until = now() + interval '1 hour'")
    await inbox.compensate()
    (row,) = await inbox.rows()
    assert 3500 < float(str(row["due_in_s"])) <= 3600


async def test_the_attempts_of_a_deployment_do_not_end_the_day(harness: FlowHarness, inbox: Inbox) -> None:
    """An unknown payment is looked for until its time is over, however few attempts queries have."""
    await harness.receive("main", await foreign_callback(harness, new_number(datetime.now(UTC))))
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await inbox.compensate()
    (row,) = await inbox.rows()
    assert (row["is_dead"], row["attempt"], await harness.cases()) == (False, 17, [])


async def test_a_foreign_number_that_becomes_watched_is_paid_by_its_callback(
    harness: FlowHarness, inbox: Inbox
) -> None:
    """Any number may become the number of a watched payment within the day."""
    number, other = "WC-1001", (await harness.placed_order()).payments[0]
    elsewhere = replace(other, out_trade_no=number)
    original = harness.simulation.ledger.find(harness.key_of(other), harness.simulation.now())
    assert original is not None
    terms = original.terms
    created = harness.simulation.ledger.create("m-main", replace(terms, out_trade_no=number), harness.simulation.now())
    assert isinstance(created, LedgerPayment)
    harness.pay(elsewhere)
    await harness.receive("main", harness.callback(elsewhere, transaction=harness.transaction_of(elsewhere)))
    assert await inbox.compensate() is Outcome.UNKNOWN_PAYMENT
    watched = await watch(harness, number)
    assert await inbox.compensate() is Outcome.PAID
    assert (await harness.state(watched)).order.status is OrderStatus.PAID


async def watch(harness: FlowHarness, number: str) -> OrderState:
    request = PaymentRequest(account="main", watch=Watch(out_trade_no=number))
    return (await place_order(harness.resources, order_terms(), request, expires_in_s=600.0)).state


async def test_a_message_about_several_payments_asks_about_each(
    harness: FlowHarness, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A combined order of WeChat Pay: asked about one only, the other's money would wait for its own query."""
    states = [await harness.placed_order() for _ in range(2)]
    payments = [state.payments[0] for state in states]
    for payment in payments:
        harness.pay(payment)
    ids = tuple(payment.out_trade_no for payment in payments)
    evidence = Unclear(channel_account="main", out_trade_no="combined-1", ids=ids, reason=COMBINED)
    await verified_as(harness, monkeypatch, Callback(notification_id="n-1", evidence=evidence))
    await harness.receive("main", harness.callback(payments[0]))
    assert [(await harness.state(state)).order.status for state in states] == [OrderStatus.PAID, OrderStatus.PAID]
    (row,) = await inbox.rows()
    assert row["is_handled"]


async def test_a_contradicted_callback_that_names_its_payment_by_another_id_is_a_case_of_its_order(
    harness: FlowHarness, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await harness.placed_order()
    number = state.payments[0].out_trade_no
    evidence = Paid(
        channel_account="main",
        out_trade_no="WC-1001",
        ids=(number,),
        amount=state.payments[0].amount,
        currency="CNY",
        channel_transaction_id="t-1",
    )
    await verified_as(harness, monkeypatch, Callback(notification_id="n-1", evidence=evidence))
    await harness.receive("main", harness.callback(state.payments[0]))
    await harness.resources.db.execute("UPDATE callbacks SET attempt = 16")
    await inbox.compensate()
    assert [row["out_trade_no"] for row in await inbox.rows()] == [number]
    assert await harness.cases(state.order.order_no) == ["callback_contradicted"]


async def verified_as(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, callback: Callback) -> None:
    """Let the adapter verify every callback as this one."""

    async def verify(*_: object, **__: object) -> Callback:
        return callback

    account = await harness.resources.accounts.get("main")
    monkeypatch.setattr(account.channel, "verify_callback", verify)


# -- unreadable ------------------------------------------------------------------------------------------------------


def signed(harness: FlowHarness, body: bytes) -> CallbackRequest:
    harness.driver.merchant_id = "m-main"
    return harness.driver.sign_callback(body, "cb_1")


async def test_an_unreadable_callback_is_stored_before_it_is_acknowledged_and_is_a_case_at_once(
    harness: FlowHarness, inbox: Inbox
) -> None:
    callback = signed(harness, b'{"id": "cb_1", "payment": {"amount": NaN}}')
    assert (await harness.receive("main", callback)).body == b"ok"
    assert (await inbox.bodies(), await harness.cases()) == ([callback.body], ["callback_unreadable"])


async def test_a_copy_of_an_unreadable_callback_opens_no_second_case(harness: FlowHarness, inbox: Inbox) -> None:
    callback = signed(harness, b"{}")
    await harness.receive("main", callback)
    await harness.resources.db.execute("UPDATE cases SET resolved_at = now()")
    await harness.receive("main", callback)
    assert (len(await inbox.rows()), await harness.cases()) == (1, [])


async def test_an_unreadable_callback_with_our_number_leads_to_the_query_that_pays(
    harness: FlowHarness, inbox: Inbox
) -> None:
    """It proves nothing, and it is a reason to ask."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], currency="cny"))
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert await harness.cases(state.order.order_no) == ["callback_unreadable"]
    (row,) = await inbox.rows()
    assert row["is_handled"]


async def test_an_unreadable_callback_is_never_dropped(harness: FlowHarness, inbox: Inbox) -> None:
    await harness.receive("main", signed(harness, b'{"id": "cb_1", "payment": {"out_trade_no": "1001"}}'))
    await inbox.let_a_day_pass()
    await inbox.compensate()
    (row,) = await inbox.rows()
    assert (row["is_handled"], await counts(harness)) == (True, [])
    assert await harness.cases() == ["callback_unreadable"]


# -- not about money, or of the other world --------------------------------------------------------------------------


async def test_a_callback_about_no_money_is_counted_and_acknowledged_unstored(
    harness: FlowHarness, inbox: Inbox
) -> None:
    callback = signed(harness, b'{"id": "cb_1", "type": "account.updated"}')
    for _ in range(2):
        assert (await harness.receive("main", callback)).body == b"ok"
    assert (await inbox.rows(), await harness.cases()) == ([], [])
    assert await counts(harness) == [CallbackCount(account="main", reason="no_money", count=2)]


async def test_money_of_the_other_world_is_counted_and_acknowledged_unstored(
    harness: FlowHarness, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = await foreign_callback(harness, OTHER_NUMBER)
    ignored = Callback(notification_id="evt_1", evidence=None, ignored=Ignored.OTHER_WORLD)
    await verified_as(harness, monkeypatch, ignored)
    assert (await harness.receive("main", callback)).body == b"ok"
    assert await inbox.rows() == []
    assert await counts(harness) == [CallbackCount(account="main", reason="other_world", count=1)]


# -- parked ------------------------------------------------------------------------------------------------------------


async def park(harness: FlowHarness, *, account: str, ago_s: float) -> None:
    callback = await foreign_callback(harness, OTHER_NUMBER)
    received_at = datetime.now(UTC) - timedelta(seconds=ago_s)
    parked = ParkedCallback(account=account, headers=callback.headers, body=callback.body, received_at=received_at)
    await harness.resources.parked.park(parked)


async def test_a_parked_callback_of_an_unknown_account_is_kept_and_does_not_block_others(
    harness: FlowHarness, inbox: Inbox
) -> None:
    await park(harness, account="nobody", ago_s=0)
    await park(harness, account="main", ago_s=0)
    assert await drain_parked(harness.resources) == 1
    assert (await harness.resources.parked.count(), len(await inbox.rows())) == (1, 1)
    assert await drain_parked(harness.resources) == 0


async def test_a_parked_callback_of_an_unknown_account_is_reported_once_and_ends_after_a_day(
    harness: FlowHarness,
) -> None:
    await park(harness, account="nobody", ago_s=86_000)
    with capture_logs() as logs:
        for _ in range(3):
            assert await drain_parked(harness.resources) == 0
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["parked_callback_not_verified"]
    await park(harness, account="gone", ago_s=86_401)
    assert await drain_parked(harness.resources) == 1
    assert await harness.resources.parked.count() == 1
    assert await counts(harness) == [CallbackCount(account="gone", reason="unknown_account", count=1)]


async def test_a_parked_callback_whose_key_never_comes_ends_after_a_day_with_a_case(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was looked at every second for ever. The channel has sent it again meanwhile."""
    account = await harness.resources.accounts.get("main")

    async def no_key(*_: object, **__: object) -> object:
        raise ChannelUnavailable("unknown_key")

    monkeypatch.setattr(account.channel, "verify_callback", no_key)
    await park(harness, account="main", ago_s=86_000)
    assert await drain_parked(harness.resources) == 0
    await harness.resources.parked.unpark([field for field, _ in await harness.resources.parked.parked(10)])
    await park(harness, account="main", ago_s=86_401)
    assert await drain_parked(harness.resources) == 1
    assert await harness.resources.parked.count() == 0
    rows, _ = await list_cases(harness.resources.db, reason=CaseReason.CALLBACK_UNREADABLE)
    assert [(row.account, row.detail) for row in rows] == [
        ("main", "a parked callback could not be verified for a day: unknown_key")
    ]
