"""State of a channel process: changes of the ledger, and the callbacks and late money that follow from them.

The ledger is the truth. A fault of the profile can make a response differ from it. Wire formats are in the packages of
the channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from hashlib import blake2b
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from msgspec.structs import replace

from simulator.kernel.base import Account, Channel, Event, EventType
from simulator.kernel.callbacks import CallbackSender
from simulator.kernel.clock import Clock, Timers, utc_now
from simulator.kernel.disputes import Dispute, DisputeBody, changed
from simulator.kernel.faults import AtFault, Fault, Faults
from simulator.kernel.ledger import (
    PAYMENTS_MAX,
    Key,
    Ledger,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    Refusal,
    Row,
    Terms,
)
from simulator.kernel.traffic import Traffic
from simulator.kit.http_client import AnyClient


class Simulation:
    """All state of one channel process. Enter it before use; set `base_url` to the URL of its pay pages.

    `urls` has the address of each channel by its name.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        *,
        seed: int = 0,
        speed: float = 1.0,
        payments_max: int = PAYMENTS_MAX,
        callbacks_anywhere: bool = False,
        now: Clock = utc_now,
        client: AnyClient | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.channels = channels
        self.base_url = ""
        self.urls: dict[str, str] = {}
        self._clock = now
        self.accounts: dict[str, Account] = {}
        self.faults = faults or Faults(seed)
        self.ledger = Ledger(payments_max)
        self.traffic = Traffic()
        self.sender = CallbackSender(
            channels, self.accounts, self.faults, pay_url=self.pay_url, speed=speed, now=self.now, client=client
        )
        self._payments_max = payments_max
        self._callbacks_anywhere = callbacks_anywhere
        self._timers = Timers()
        self._events: dict[Key, Event] = {}
        self._disputes: dict[str, tuple[Dispute, Payment]] = {}
        self.dispute_events: dict[str, Event] = {}
        self._settling: set[Key] = set()
        self._reversed: set[Key] = set()

    def now(self) -> datetime:
        """Return the channel's own time, which a fault can shift."""
        return self._clock() + timedelta(seconds=self.faults.profile.clock_skew_s)

    async def __aenter__(self) -> Self:
        await self.sender.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timers.cancel_all()
        await self.sender.__aexit__()

    async def reset(self, seed: int | None) -> None:
        """Delete payments, records and faults; accounts stay, and the seed unless another one is given."""
        self._timers.cancel_all()
        await self.sender.clear()
        self._events.clear()
        self._disputes.clear()
        self.dispute_events.clear()
        self._settling.clear()
        self._reversed.clear()
        self.faults.reset(self.faults.seed if seed is None else seed)
        self.ledger = Ledger(self._payments_max)
        self.traffic = Traffic()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def create(self, account: Account, terms: Terms, now: datetime) -> Payment | Refusal:
        """Create a payment; by a fault, forged callbacks for it follow at once."""
        is_new = self.ledger.find(Key(account.merchant_id, terms.out_trade_no), now) is None
        payment = self.ledger.create(account.merchant_id, terms, now)
        if is_new and isinstance(payment, Payment):
            self.sender.forge(_paid_event(payment, now))
        return payment

    def hand_out_link(self, payment: Payment, lives: timedelta, now: datetime) -> Payment:
        """Return the payment with a link that works for `lives`, or for as long as the profile says."""
        return self.ledger.hand_out_link(payment.key, now + self.life_of_a_link(lives), now)

    def life_of_a_link(self, lives: timedelta) -> timedelta:
        """Return the channel's own time, unless the profile has another one."""
        seconds = self.faults.profile.links_end_after_s
        return timedelta(seconds=seconds) if seconds else lives

    def query_payment(self, account: Account, number: str, nth: int, now: datetime) -> Payment | Refusal:
        """Return the payment for the `nth` query with this number: the true one, or a wrong one by a fault."""
        payment = self._visible(Key(account.merchant_id, number), now)
        if isinstance(payment, Refusal):
            return payment
        if self.faults.applies(Fault.WRONG_AMOUNT_IN_QUERY, number, nth):
            return replace(payment, terms=replace(payment.terms, amount=payment.terms.amount + 1))
        if self.faults.applies(Fault.OTHER_ORDER, number, nth):
            return _paid_under_another_number(payment, now)
        return payment

    def close(self, account: Account, number: str, now: datetime) -> Payment | Refusal:
        """Close an unpaid payment; by a fault, its money still arrives later."""
        key = Key(account.merchant_id, number)
        if isinstance(self._visible(key, now), Refusal):
            return Refusal.PAYMENT_NOT_EXIST
        closed = self.ledger.close(key, now)
        settles = isinstance(closed, Payment) and self.faults.applies(Fault.SETTLES_AFTER_CLOSE, number)
        if settles and key not in self._settling:
            self._settling.add(key)
            self._timers.after(self.faults.profile.settle_after_s, partial(self.settle_late, key))
        return closed

    def settle_late(self, key: Key) -> Payment | Refusal:
        """Let the money of a closed payment arrive now."""
        paid = self.ledger.settle_late(key, self.now())
        if isinstance(paid, Payment):
            self._money_came(paid)
        return paid

    def refund(self, account: Account, number: str, refund_no: str, amount: int, now: datetime) -> Refund | Refusal:
        """Refund a payment, at once or after `refund_settles_s`."""
        known = self.ledger.find_refund(Key(account.merchant_id, refund_no))
        refund = self.ledger.refund(Key(account.merchant_id, number), refund_no, amount, now)
        if known is not None or isinstance(refund, Refusal):
            return refund
        if self.faults.profile.refund_settles_s > 0:
            self._timers.after(self.faults.profile.refund_settles_s, partial(self._settle_refund, refund.key))
            return refund
        return self._settle_refund(refund.key)

    def refund_in_console(
        self, key: Key, amount: int | None = None, *, now: datetime | None = None
    ) -> Refund | Refusal:
        """Refund a payment at once, as the merchant does in the channel's console. `amount` None: all that is left."""
        now = now or self.now()
        payment = self.ledger.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        left = payment.terms.amount - payment.refunded_amount
        number = _console_refund_no(payment)
        refund = self.ledger.refund(key, number, left if amount is None else amount, now, in_console=True)
        if isinstance(refund, Refusal):
            return refund
        return self._end_refund(refund.key, now, succeeds=True)

    def dispute(self, key: Key, body: DisputeBody) -> Event | Refusal:
        """Open or change a dispute as the buyer, the bank or the channel; the caller sends the event."""
        now = self.now()
        payment = self.ledger.find(key, now)
        if payment is None or not payment.status.was_paid:
            return Refusal.NOT_PAID
        known = self._disputes.get(body.dispute_id)
        dispute = changed(None if known is None else known[0], body, payment, now)
        self._disputes[dispute.dispute_id] = dispute, payment
        event = _dispute_event(dispute, payment)
        self.dispute_events[event.callback_id] = event
        return event

    def find_dispute(self, account: Account, dispute_id: str) -> tuple[Dispute, Payment] | None:
        """Return a dispute of the merchant with its payment."""
        found = self._disputes.get(dispute_id)
        return None if found is None or found[0].merchant_id != account.merchant_id else found

    def disputes_of(self, key: Key) -> list[Dispute]:
        """Return the disputes of a payment, oldest first."""
        return [dispute for dispute, payment in self._disputes.values() if payment.key == key]

    def disputed_by(self, account: Account) -> list[tuple[Dispute, Payment]]:
        """Return all disputes of a merchant with their payments, oldest first."""
        return [found for found in self._disputes.values() if found[0].merchant_id == account.merchant_id]

    def statement(self, account: Account, day: date, zone: tzinfo = UTC) -> list[Row | tuple[str, ...]]:
        """Return the rows of a day; by faults, rows are left out, have a wrong amount or are cut off."""
        lacks = partial(self.faults.applies, Fault.STATEMENT_LACKS)
        return [row for row in self.counted_rows(account, day, zone) if not lacks(_number_of(row))]

    def counted_rows(self, account: Account, day: date, zone: tzinfo = UTC) -> list[Row | tuple[str, ...]]:
        """Return the rows that the totals of a statement count: also those that it lacks by a fault."""
        return list(self._statement_rows(account, day, zone))

    def pay_url(self, payment: Payment) -> str:
        return f"{self.base_url}/pay/{payment.token}"

    def may_call(self, url: str) -> bool:
        """Return whether callbacks may go to `url`: only to this machine, unless `callbacks_anywhere` is set."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            is_web = parts.scheme in ("http", "https") and bool(host) and url.isascii() and url.isprintable()
            return is_web and (self._callbacks_anywhere or host == "localhost" or ip_address(host).is_loopback)
        except ValueError:
            return False

    # -- the buyer -----------------------------------------------------------------------------------------------------

    def pay(self, key: Key, at_fault: AtFault | None = None) -> Payment | Refusal:
        """Pay as the buyer, and schedule the callback. `at_fault` replaces the profile's faults for this payment."""
        now = self.now()
        before = self.ledger.find(key, now)
        if at_fault is not None:
            self.faults.force(key.number, at_fault)
        if before is not None and self._needs_agreement(before):
            return self._agree(before, now)
        paid = self.ledger.pay(key, now)
        if isinstance(paid, Payment) and paid is not before:
            self._money_came(paid)
        return paid

    def capture(self, account: Account, number: str, now: datetime) -> Payment | Refusal:
        """Take the money of an approved payment, as the merchant requests."""
        key = Key(account.merchant_id, number)
        before = self.ledger.find(key, now)
        if before is None:
            return Refusal.PAYMENT_NOT_EXIST
        if before.agreed_at is None:
            return Refusal.NOT_AGREED
        paid = self.ledger.pay(key, now)
        if isinstance(paid, Payment) and paid is not before:
            self._money_came(paid)
        return paid

    def reverse_approval(self, key: Key) -> Event | Refusal:
        """End an approval that nobody captured, as the channel does after its time; the caller sends the event."""
        now = self.now()
        payment = self.ledger.find(key, now)
        if payment is None or payment.agreed_at is None or payment.status.was_paid:
            return Refusal.NOT_AGREED
        closed = self.ledger.close(key, now)
        assert isinstance(closed, Payment), "an approval that is not captured can be ended"
        self._reversed.add(key)
        return _reversed_event(closed, now)

    def open(self, key: Key) -> Payment | None:
        """Record that the buyer looks at the pay page."""
        return self.ledger.open(key, self.now())

    def find_keys(self, number: str) -> list[Key]:
        """Return the keys of payments with this number, at most one for each merchant."""
        keys = [Key(merchant_id, number) for merchant_id in self.accounts]
        return [key for key in keys if self.ledger.find(key, self.now()) is not None]

    def paid_event(self, payment: Payment) -> Event:
        """Return the event of a paid payment: made once, so that each of its callbacks has the same id and body."""
        event = self._events.get(payment.key)
        if event is None:
            event = self._events[payment.key] = _paid_event(payment, payment.paid_at or self.now())
        return event

    def _needs_agreement(self, payment: Payment) -> bool:
        """Return whether Pay only approves: the money is captured later, or arrives by a slow method."""
        if payment.status is not PaymentStatus.UNPAID:
            return False
        channel = self.channels[self.accounts[payment.merchant_id].channel]
        if payment.agreed_at is not None:
            return channel.needs_capture
        return channel.needs_capture or self.faults.applies(Fault.SETTLES_LATER, payment.key.number)

    def _agree(self, before: Payment, now: datetime) -> Payment | Refusal:
        channel = self.channels[self.accounts[before.merchant_id].channel]
        agreed = self.ledger.agree(before.key, now, again=channel.needs_capture)
        if not isinstance(agreed, Payment):
            return agreed
        self._schedule_if_sent(_agreed_event(agreed, now))
        if channel.needs_capture:
            left_s = (agreed.terms.expires_at - now).total_seconds()
            self._timers.after(left_s, partial(self._end_approval, agreed.key))
        else:
            self._timers.after(self.faults.profile.settle_after_s, partial(self._settle_agreed, agreed.key))
        return agreed

    def _end_approval(self, key: Key) -> None:
        event = None if key in self._reversed else self.reverse_approval(key)
        if isinstance(event, Event):
            self._schedule_if_sent(event)

    def _schedule_if_sent(self, event: Event) -> None:
        """Schedule the event if its channel sends callbacks for such events."""
        account = self.accounts[event.key.merchant_id]
        channel = self.channels[account.channel]
        if channel.callback(event, account, event.created_at, self.pay_url(event.payment)) is not None:
            self.sender.schedule(event)

    def _money_came(self, paid: Payment) -> None:
        """Schedule the callback; by a fault, the merchant refunds the payment in the console before anybody asks."""
        number = paid.key.number
        self.sender.schedule(self.paid_event(paid))
        if self.faults.applies(Fault.REFUNDED_IN_CONSOLE, number):
            in_part = paid.terms.amount > 1 and self.faults.applies(Fault.REFUNDED_IN_PART, number)
            self.refund_in_console(paid.key, paid.terms.amount // 2 if in_part else None, now=paid.paid_at)

    def _settle_agreed(self, key: Key) -> None:
        paid = self.ledger.pay(key, self.now())
        if isinstance(paid, Payment):
            self._money_came(paid)

    # -- later ---------------------------------------------------------------------------------------------------------

    def _visible(self, key: Key, now: datetime) -> Payment | Refusal:
        payment, profile = self.ledger.find(key, now), self.faults.profile
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        is_young = (now - payment.created_at).total_seconds() < profile.not_found_first_s
        if is_young and not payment.status.was_paid and self.faults.applies(Fault.NOT_FOUND_FIRST, key.number):
            return Refusal.PAYMENT_NOT_EXIST
        return payment

    def _settle_refund(self, key: Key) -> Refund | Refusal:
        return self._end_refund(key, self.now(), succeeds=not self.faults.applies(Fault.REFUND_FAILS, key.number))

    def _end_refund(self, key: Key, now: datetime, *, succeeds: bool) -> Refund | Refusal:
        refund = self.ledger.settle_refund(key, now, succeeds=succeeds)
        if isinstance(refund, Refund) and refund.status is RefundStatus.SUCCEEDED:
            payment = self.ledger.find(Key(key.merchant_id, refund.out_trade_no), now)
            assert payment is not None, "a refund has a payment"
            self._schedule_if_sent(_refund_event(payment, refund, now))
        return refund

    def _statement_rows(self, account: Account, day: date, zone: tzinfo) -> Iterator[Row | tuple[str, ...]]:
        applies = self.faults.applies
        for row in self.ledger.statement(account.merchant_id, day, zone):
            number = row.refund_no or row.out_trade_no
            if applies(Fault.STATEMENT_OMITS, number):
                continue
            if applies(Fault.STATEMENT_MALFORMED, number):
                yield (row.type, row.out_trade_no)
            elif applies(Fault.STATEMENT_WRONG_AMOUNT, number):
                yield row._replace(amount=row.amount + 1)
            else:
                yield row


def _number_of(row: Row | tuple[str, ...]) -> str:
    """Return the number by which faults of a row are drawn."""
    return (row.refund_no or row.out_trade_no) if isinstance(row, Row) else row[1]


def _paid_event(payment: Payment, at: datetime) -> Event:
    callback_id = id_of_callback(EventType.PAYMENT_PAID, payment.key)
    return Event(callback_id=callback_id, type=EventType.PAYMENT_PAID, created_at=at, payment=payment)


def _agreed_event(payment: Payment, at: datetime) -> Event:
    again = () if payment.agreements < 2 else (str(payment.agreements),)  # noqa: PLR2004 - the second approval
    callback_id = id_of_callback(EventType.PAYMENT_AGREED, payment.key, *again)
    return Event(callback_id=callback_id, type=EventType.PAYMENT_AGREED, created_at=at, payment=payment)


def _reversed_event(payment: Payment, at: datetime) -> Event:
    callback_id = id_of_callback(EventType.APPROVAL_REVERSED, payment.key)
    return Event(callback_id=callback_id, type=EventType.APPROVAL_REVERSED, created_at=at, payment=payment)


def _refund_event(payment: Payment, refund: Refund, at: datetime) -> Event:
    callback_id = id_of_callback(EventType.REFUND_SUCCEEDED, refund.key)
    return Event(
        callback_id=callback_id, type=EventType.REFUND_SUCCEEDED, created_at=at, payment=payment, refund=refund
    )


def _dispute_event(dispute: Dispute, payment: Payment) -> Event:
    callback_id = id_of_callback(EventType.DISPUTE_CHANGED, payment.key, dispute.dispute_id, str(dispute.sequence))
    return Event(
        callback_id=callback_id,
        type=EventType.DISPUTE_CHANGED,
        created_at=dispute.changed_at,
        payment=payment,
        dispute=dispute,
    )


def _console_refund_no(payment: Payment) -> str:
    """Return the number that the channel gives a refund in its console: another one for each sum refunded so far."""
    text = "\x1f".join((*payment.key, str(payment.refunded_amount)))
    return "re_" + blake2b(text.encode(), digest_size=12).hexdigest()


def id_of_callback(type_: EventType, key: Key, *more: str) -> str:
    return "cb_" + blake2b("\x1f".join((type_, *key, *more)).encode(), digest_size=12).hexdigest()


def _paid_under_another_number(payment: Payment, now: datetime) -> Payment:
    """Return the payment as paid with another number: only a comparison of the number shows the fault."""
    number = payment.terms.out_trade_no
    other = number[:-1] + ("1" if number[-1] == "0" else "0")
    terms = replace(payment.terms, out_trade_no=other)
    return replace(payment, terms=terms, status=PaymentStatus.PAID, transaction_id="0" * 24, paid_at=now)
