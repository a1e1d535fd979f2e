"""The sender of callbacks: seeded faults, the channel's schedule of resends, strict check of acknowledgements.

Every resend has the same id and body and a new signature. `speed` divides the gaps of the schedule, and not the
deadline of the acknowledgement: nodrop has to meet the real one.
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

from simulator.kernel.base import Accounts, Channel, Event, Message
from simulator.kernel.clock import Clock, Timers
from simulator.kernel.deliveries import AcknowledgedCallback, SentAs, Tally
from simulator.kernel.faults import Fault, FaultProfile, Faults, draw
from simulator.kernel.ledger import Key, Payment, PaymentStatus
from simulator.kit.http_client import AnyClient, ClientResponse, NoResponse, exchange, http_client

AT_ONCE_MAX = 256
"""Limit of concurrent deliveries. The deadline of a waiting delivery begins when it is sent."""

ACKNOWLEDGEMENTS_MAX = 1_000_000
RESPONSE_BYTES_MAX = 64
STALE_BY = timedelta(hours=1)


@runtime_checkable
class Probing(Protocol):
    """A channel that first sends the callback of some payments with a wrong signature on purpose.

    An acknowledgement of it counts as an acknowledged forgery.
    """

    probed_share: float

    def probe(self, message: Message) -> Message:
        """Return the message with a wrong signature."""
        ...


@runtime_checkable
class SigningChecksums(Protocol):
    """A channel that signs a checksum of the body: with a genuine callback, anybody can write others that verify."""

    def with_checksum_of(self, genuine: Message, claimed: Message) -> Message:
        """Return the claimed body under the signature of the genuine message, with its checksum."""
        ...


class CallbackSender:
    """Sends the callbacks of all channels. Enter it before use; `accounts` may change while it runs."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        accounts: Accounts,
        faults: Faults,
        *,
        pay_url: Callable[[Payment], str],
        speed: float,
        now: Clock,
        client: AnyClient | None = None,
    ) -> None:
        self.acknowledged: deque[AcknowledgedCallback] = deque(maxlen=ACKNOWLEDGEMENTS_MAX)
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
        self._scheduled: dict[str, dict[str, Event]] = {}
        self._settled: set[str] = set()
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._client = client

    async def __aenter__(self) -> Self:
        self._client = self._client or http_client()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._client is not None:
            await self._client.close()

    async def stop(self) -> None:
        """Cancel all current and planned deliveries."""
        self._timers.cancel_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def clear(self) -> None:
        """Stop, and delete all records."""
        await self.stop()
        self.acknowledged.clear()
        self.tallies.clear()
        self._held.clear()
        self._scheduled.clear()
        self._settled.clear()

    @property
    def under_way(self) -> int:
        """Number of current and planned deliveries: 0 when no further callback follows."""
        return len(self._tasks) + len(self._timers)

    def tally(self, key: Key) -> Tally:
        return self.tallies.setdefault(key, Tally())

    # -- schedule ------------------------------------------------------------------------------------------------------

    def schedule(self, event: Event) -> None:
        """Send the event by the channel's schedule, with the faults of the profile."""
        tally, profile = self.tally(event.key), self._faults.profile
        if self._applies(Fault.EVENT_NEVER_GENERATED, event):
            tally.never_generated += 1
            return
        self._scheduled.setdefault(event.key.merchant_id, {})[event.callback_id] = event
        self._send_with_faults(event, tally, profile)

    def scheduled(self, merchant_id: str) -> list[Event]:
        """Return all events of the merchant, oldest first."""
        return list(self._scheduled.get(merchant_id, {}).values())

    def undelivered(self, merchant_id: str) -> list[Event]:
        """Return the merchant's events without an acknowledgement, oldest first."""
        scheduled = self._scheduled.get(merchant_id, {})
        return [event for event in scheduled.values() if event.callback_id not in self._settled]

    def _send_with_faults(self, event: Event, tally: Tally, profile: FaultProfile) -> None:
        if self._applies(Fault.LOST, event):
            tally.lost += 1
        elif self._applies(Fault.LATE, event):
            tally.late += 1
            self._timers.after(profile.late_s, partial(self._start, event, 1))
        elif self._applies(Fault.REORDERED, event):
            tally.reordered += 1
            self._held.setdefault(event.key.merchant_id, []).append(event)
            self._timers.after(profile.reordered_max_s, partial(self._release, event.key.merchant_id))
        else:
            self._start(event, 1)

    def forge(self, event: Event) -> None:
        """Send forged callbacks of the event as the faults have it, without resends: one by other keys and one with an
        altered body; one with a genuine signature, where that covers a checksum.
        """
        if self._applies(Fault.FORGED, event):
            self._spawn(self._forge(event))
        if self._applies(Fault.FORGED_CHECKSUM, event):
            self._spawn(self._forge_checksum(event))

    async def send_now(self, event: Event) -> bool:
        """Deliver the event once without faults; return whether it was acknowledged."""
        return await self._deliver(event, SentAs.GENUINE)

    async def send_message(self, url: str, message: Message, within_s: float) -> int | None:
        """Send a callback that is about no payment of the ledger; return the status, None without a response."""
        assert self._client is not None, "the sender has been entered"
        try:
            response = await exchange(
                self._client,
                "POST",
                url,
                headers=message.headers,
                body=message.body,
                within_s=within_s,
                body_bytes_max=RESPONSE_BYTES_MAX,
            )
        except NoResponse:
            return None
        return response.status

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
        copies = 2 if self._applies(Fault.DOUBLED, event, attempt) else 1
        self.tally(event.key).doubled += copies - 1
        sent_as = self._sent_as(event, attempt)
        acknowledgements = await asyncio.gather(*(self._deliver(event, sent_as) for _ in range(copies)))
        self._release(event.key.merchant_id)
        if not any(acknowledgements):
            self._plan(event, attempt)

    def _plan(self, event: Event, attempt: int) -> None:
        """Plan the next attempt: after 15 s, 15 s, 30 s, 3 min … divided by `speed`, to the end of the schedule."""
        gaps = self._channel(event).resend_gaps_s
        if attempt > len(gaps):
            self.tally(event.key).exhausted += 1
            return
        self._timers.after(gaps[attempt - 1] / self._speed, partial(self._start, event, attempt + 1))

    def _release(self, merchant_id: str) -> None:
        """Send the held callbacks: a later callback of this merchant was sent, or their time is over."""
        for event in self._held.pop(merchant_id, ()):
            self._start(event, 1)

    def _applies(self, fault: Fault, event: Event, counter: int = 0) -> bool:
        return self._faults.applies(fault, event.number, counter)

    def _sent_as(self, event: Event, attempt: int) -> SentAs:
        if self._applies(Fault.WRONG_AMOUNT, event, attempt):
            return SentAs.WRONG_AMOUNT
        is_stale = self._channel(event).callbacks_expire and self._applies(Fault.STALE, event, attempt)
        return SentAs.STALE if is_stale else SentAs.GENUINE

    # -- one delivery --------------------------------------------------------------------------------------------------

    async def _deliver(self, event: Event, sent_as: SentAs) -> bool:
        account, tally, now = self._accounts[event.key.merchant_id], self.tally(event.key), self._now()
        sent_event = event
        if sent_as is SentAs.WRONG_AMOUNT:
            tally.wrong_amount += 1
            sent_event = _with_wrong_amount(event)
        elif sent_as is SentAs.STALE:
            tally.stale += 1
            now -= STALE_BY
        message = self._channel(event).callback(sent_event, account, now, self._pay_url(event.payment))
        assert message is not None, "only events with a callback are scheduled"
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

    async def _forge_checksum(self, event: Event) -> None:
        """Send a body with a wrong amount under the signature of a genuine one. It verifies, and may do no more."""
        account, channel, now = self._accounts[event.key.merchant_id], self._channel(event), self._now()
        if self._faults.profile.callbacks_blocked or not isinstance(channel, SigningChecksums):
            return
        seen = channel.callback(event, account, now, self._pay_url(event.payment))
        claimed = _with_wrong_amount(_claim_paid(event, now))
        wanted = channel.callback(claimed, account, now, self._pay_url(claimed.payment))
        assert seen is not None, "every channel calls back about money"
        assert wanted is not None, "every channel calls back about money"
        self.tally(event.key).forged_checksum += 1
        await self._post(claimed, channel.with_checksum_of(seen, wanted), SentAs.FORGED_CHECKSUM)

    async def _probe(self, event: Event) -> None:
        channel = self._channel(event)
        if not isinstance(channel, Probing) or draw(self._faults.seed, "probe", event.number) >= channel.probed_share:
            return
        account = self._accounts[event.key.merchant_id]
        message = channel.callback(event, account, self._now(), self._pay_url(event.payment))
        assert message is not None, "only events with a callback are scheduled"
        self.tally(event.key).forged += 1
        await self._post(event, channel.probe(message), SentAs.FORGED)

    async def _post(self, event: Event, message: Message, sent_as: SentAs) -> bool:
        """Send it and return whether it was acknowledged. No response, a late or a broken one is none."""
        tally, channel = self.tally(event.key), self._channel(event)
        async with self._slots:
            tally.sent += 1
            response = await self._exchange(event, message, channel.acknowledge_within_s)
        tally.last_status = None if response is None else response.status
        acknowledged = response is not None and channel.acknowledges(response.status, response.body)
        if acknowledged:
            self._record_acknowledgement(event, message.body, sent_as)
        if sent_as is SentAs.FORGED:
            tally.forged_acknowledged += acknowledged
        else:
            tally.acknowledged += acknowledged
            tally.refused += not acknowledged
        return acknowledged

    async def _exchange(self, event: Event, message: Message, within_s: float) -> ClientResponse | None:
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
                body_bytes_max=RESPONSE_BYTES_MAX,
            )
        except NoResponse:
            return None

    def _record_acknowledgement(self, event: Event, body: bytes, sent_as: SentAs) -> None:
        self.acknowledged.append(
            AcknowledgedCallback(
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
    """Return the event with one minor unit more: the smallest difference is the easiest to miss."""
    terms = event.payment.terms
    return replace(event, payment=replace(event.payment, terms=replace(terms, amount=terms.amount + 1)))


def _claim_paid(event: Event, now: datetime) -> Event:
    payment = replace(event.payment, status=PaymentStatus.PAID, transaction_id="f" * 24, paid_at=now)
    return replace(event, callback_id=f"{event.callback_id}-forged", payment=payment)
