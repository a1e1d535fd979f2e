"""The sender of callbacks: seeded faults, the channel's schedule of resends, and a strict look at the acknowledgement.

Every resend has the same id and body and a fresh signature. `speed` divides the gaps of the schedule; the deadline for
the acknowledgement is never compressed, for it is what nodrop has to meet in earnest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Protocol, Self, runtime_checkable

from msgspec.structs import replace
from pyreqwest.client import Client

from simulator.kernel.base import Accounts, Channel, Event, Message
from simulator.kernel.clock import Clock, Timers
from simulator.kernel.deliveries import Acknowledged, SentAs, Tally
from simulator.kernel.faults import Fault, FaultProfile, Faults, draw
from simulator.kernel.ledger import Key, Payment, PaymentStatus
from simulator.kit.http_client import Answer, NoAnswer, exchange, http_client

AT_ONCE_MAX = 256
"""Deliveries under way together; more wait for a place, and their deadline begins when they have it."""

ACKNOWLEDGEMENTS_MAX = 1_000_000
ANSWER_BYTES_MAX = 64
STALE_BY = timedelta(hours=1)


@runtime_checkable
class Probing(Protocol):
    """A channel that sends some payments' callback with a signature that is wrong on purpose first.

    Whoever acknowledges that one verifies nothing: it counts as an acknowledged forgery.
    """

    probed_share: float

    def probe(self, message: Message) -> Message:
        """The message with such a signature."""
        ...


class CallbackSender:
    """Sends what the far side has to say. To be entered before use; `accounts` may change while it runs."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        accounts: Accounts,
        faults: Faults,
        *,
        pay_url: Callable[[Payment], str],
        speed: float,
        now: Clock,
    ) -> None:
        self.acknowledged: deque[Acknowledged] = deque(maxlen=ACKNOWLEDGEMENTS_MAX)
        self.tallies: dict[Key, Tally] = {}
        self._channels = channels
        self._accounts = accounts
        self._faults = faults
        self._pay_url = pay_url
        self._speed = speed
        self._now = now
        self._timers = Timers()
        self._tasks: set[asyncio.Task[object]] = set()
        self._held: dict[str, list[Event]] = {}
        self._offered: dict[str, dict[str, Event]] = {}
        self._settled: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = http_client()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._client is not None:
            await self._client.close()

    async def stop(self) -> None:
        """Calls off everything that is under way or planned."""
        self._timers.cancel_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def forget(self) -> None:
        """Stop, and begin with empty books."""
        await self.stop()
        self.acknowledged.clear()
        self.tallies.clear()
        self._held.clear()
        self._offered.clear()
        self._settled.clear()

    @property
    def under_way(self) -> int:
        """Deliveries that are being made or planned: 0 when nothing will come any more."""
        return len(self._tasks) + len(self._timers)

    def tally(self, key: Key) -> Tally:
        return self.tallies.setdefault(key, Tally())

    # -- from the event to its attempts --------------------------------------------------------------------------------

    def offer(self, event: Event) -> None:
        """Send the event by the channel's schedule, or do to it what its faults say."""
        tally, profile = self.tally(event.key), self._faults.profile
        if self._strikes(Fault.EVENT_NEVER_GENERATED, event):
            tally.never_generated += 1
            return
        self._offered.setdefault(event.key.merchant_id, {})[event.callback_id] = event
        self._send_or_spoil(event, tally, profile)

    def offered(self, merchant_id: str) -> list[Event]:
        """What was to be called back about, oldest first."""
        return list(self._offered.get(merchant_id, {}).values())

    def undelivered(self, merchant_id: str) -> list[Event]:
        """What was to be called back about and has not been acknowledged, oldest first."""
        offered = self._offered.get(merchant_id, {})
        return [event for event in offered.values() if event.callback_id not in self._settled]

    def _send_or_spoil(self, event: Event, tally: Tally, profile: FaultProfile) -> None:
        if self._strikes(Fault.LOST, event):
            tally.lost += 1
        elif self._strikes(Fault.LATE, event):
            tally.late += 1
            self._timers.after(profile.late_s, partial(self._start, event, 1))
        elif self._strikes(Fault.REORDERED, event):
            tally.reordered += 1
            self._held.setdefault(event.key.merchant_id, []).append(event)
            self._timers.after(profile.reordered_max_s, partial(self._release, event.key.merchant_id))
        else:
            self._start(event, 1)

    def forge(self, event: Event) -> None:
        """Two callbacks that claim the event and were never signed like this by the channel. Not resent."""
        self._spawn(self._forge(event))

    async def send_now(self, event: Event) -> bool:
        """One genuine delivery whatever the faults say; whether it was acknowledged."""
        return await self._deliver(event, SentAs.GENUINE)

    def _start(self, event: Event, attempt: int) -> None:
        self._spawn(self._attempt(event, attempt))

    async def _attempt(self, event: Event, attempt: int) -> None:
        if event.callback_id in self._settled:
            return
        if self._faults.profile.callbacks_blocked:
            self.tally(event.key).blocked += 1
            self._plan(event, attempt)
            return
        if attempt == 1:
            await self._probe(event)
        copies = 2 if self._strikes(Fault.DOUBLED, event, attempt) else 1
        self.tally(event.key).doubled += copies - 1
        sent_as = self._spoilt(event, attempt)
        answers = await asyncio.gather(*(self._deliver(event, sent_as) for _ in range(copies)))
        self._release(event.key.merchant_id)
        if not any(answers):
            self._plan(event, attempt)

    def _plan(self, event: Event, attempt: int) -> None:
        """The next attempt: after 15 s, 15 s, 30 s, 3 min … divided by `speed`, until the schedule is used up."""
        gaps = self._channel(event).resend_gaps_s
        if attempt > len(gaps):
            self.tally(event.key).exhausted += 1
            return
        self._timers.after(gaps[attempt - 1] / self._speed, partial(self._start, event, attempt + 1))

    def _release(self, merchant_id: str) -> None:
        """A later callback of this merchant has been sent, or the time is over: the held ones follow."""
        for event in self._held.pop(merchant_id, ()):
            self._start(event, 1)

    def _strikes(self, fault: Fault, event: Event, counter: int = 0) -> bool:
        return self._faults.strikes(fault, event.number, counter)

    def _spoilt(self, event: Event, attempt: int) -> SentAs:
        if self._strikes(Fault.WRONG_AMOUNT, event, attempt):
            return SentAs.WRONG_AMOUNT
        is_stale = self._channel(event).callbacks_expire and self._strikes(Fault.STALE, event, attempt)
        return SentAs.STALE if is_stale else SentAs.GENUINE

    # -- one delivery --------------------------------------------------------------------------------------------------

    async def _deliver(self, event: Event, sent_as: SentAs) -> bool:
        account, tally, now = self._accounts[event.key.merchant_id], self.tally(event.key), self._now()
        told = event
        if sent_as is SentAs.WRONG_AMOUNT:
            tally.wrong_amount += 1
            told = _with_wrong_amount(event)
        elif sent_as is SentAs.STALE:
            tally.stale += 1
            now -= STALE_BY
        message = self._channel(event).callback(told, account, now, self._pay_url(event.payment))
        assert message is not None, "what is not called back about is not offered"
        acknowledged = await self._post(event, message, sent_as)
        if acknowledged:
            self._settled.add(event.callback_id)
        return acknowledged

    async def _forge(self, event: Event) -> None:
        if self._faults.profile.callbacks_blocked:
            return
        account, channel, now = self._accounts[event.key.merchant_id], self._channel(event), self._now()
        claimed = _claim_paid(event, now)
        pay_url = self._pay_url(claimed.payment)
        by_stranger = channel.callback(claimed, channel.stranger(account), now, pay_url)
        genuine = channel.callback(claimed, account, now, pay_url)
        assert by_stranger is not None, "every channel calls back about money"
        assert genuine is not None, "every channel calls back about money"
        for message in (by_stranger, channel.altered(genuine)):
            self.tally(event.key).forged += 1
            await self._post(claimed, message, SentAs.FORGED)

    async def _probe(self, event: Event) -> None:
        channel = self._channel(event)
        if not isinstance(channel, Probing) or draw(self._faults.seed, "probe", event.number) >= channel.probed_share:
            return
        account = self._accounts[event.key.merchant_id]
        message = channel.callback(event, account, self._now(), self._pay_url(event.payment))
        assert message is not None, "what is not called back about is not offered"
        self.tally(event.key).forged += 1
        await self._post(event, channel.probe(message), SentAs.FORGED)

    async def _post(self, event: Event, message: Message, sent_as: SentAs) -> bool:
        """Send and judge the answer. Silence, a late answer and a broken one are no acknowledgement."""
        tally, channel = self.tally(event.key), self._channel(event)
        async with self._slots:
            tally.sent += 1
            answer = await self._exchange(event, message, channel.acknowledge_within_s)
        tally.last_status = None if answer is None else answer.status
        acknowledged = answer is not None and channel.acknowledges(answer.status, answer.body)
        if acknowledged:
            self._note(event, message.body, sent_as)
        if sent_as is SentAs.FORGED:
            tally.forged_acknowledged += acknowledged
        else:
            tally.acknowledged += acknowledged
            tally.refused += not acknowledged
        return acknowledged

    async def _exchange(self, event: Event, message: Message, within_s: float) -> Answer | None:
        if self._client is None:
            raise RuntimeError("the sender has not been entered")
        try:
            return await exchange(
                self._client,
                "POST",
                event.payment.terms.callback_url,
                headers=message.headers,
                body=message.body,
                within_s=within_s,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        except NoAnswer:
            return None

    def _note(self, event: Event, body: bytes, sent_as: SentAs) -> None:
        self.acknowledged.append(
            Acknowledged(
                merchant_id=event.key.merchant_id,
                out_trade_no=event.key.number,
                callback_id=event.callback_id,
                body_sha256=sha256(body).hexdigest(),
                sent_as=sent_as,
                at=self._now(),
            )
        )

    def _channel(self, event: Event) -> Channel:
        return self._channels[self._accounts[event.key.merchant_id].channel]

    def _spawn(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _with_wrong_amount(event: Event) -> Event:
    """One minor unit more than was paid: the smallest difference is the easiest to miss."""
    terms = event.payment.terms
    return replace(event, payment=replace(event.payment, terms=replace(terms, amount=terms.amount + 1)))


def _claim_paid(event: Event, now: datetime) -> Event:
    payment = replace(event.payment, status=PaymentStatus.PAID, transaction_id="f" * 24, paid_at=now)
    return replace(event, callback_id=f"{event.callback_id}-forged", payment=payment)
