"""Callbacks, from arrival to acknowledgement: after they are stored and, mostly, after the order is paid."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
from pyreqwest.client import Client

from bench.buyer import TIMEOUT_S, Buyer, Unexpected
from bench.clones import CREATORS, LATER_S, copy_orders, create_at_channel, place_first
from bench.cpu import CpuMeter
from bench.loops import closed_loop, open_loop, wait_until
from bench.report import Figure, Result, figure, latencies
from bench.rig import ACCOUNT, Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from simulator.kernel.base import Account, Event, EventType
from simulator.kernel.ledger import Payment, Terms
from simulator.kernel.snapshot import LedgerPayment, LedgerSnapshot
from simulator.kit.http_client import exchange, http_client
from simulator.sandbox.channel import Sandbox
from storage.postgres.accounts import get_accounts
from storage.sealing import Sealer

OPEN_SHARE = 0.7
PROMISED_PER_S = 450
"""Callbacks that two cores take at least; the latency at a load that does not follow the speed of this release."""

HOW = (
    "first third: closed loop, each client sends a callback of a paid payment and waits for the acknowledgement; "
    f"others: open loop at 70 % of that rate, and of {PROMISED_PER_S} a second, latency from the moment it was due; "
    "each is confirmed with the channel inside its request; CPU until every notification is delivered"
)
CLIENTS = 32
"""As many as may confirm at once by default: more are left to their compensation."""

SETTLE_S = 30.0

_PAID = "SELECT count(*) FROM orders WHERE status = 'paid'"
_UNDELIVERED = "SELECT count(*) FROM notifications WHERE delivered_at IS NULL"


class Sender:
    """Sends callbacks of paid payments, signed as the channel does."""

    def __init__(self, rig: Rig, account: Account, payments: list[LedgerPayment], client: Client) -> None:
        self._url = f"{rig.stack.api_url}/callbacks/{ACCOUNT}"
        self._account = account
        self._payments = payments
        self._client = client
        self._channel = Sandbox()

    async def send(self, number: int) -> float:
        """Send the callback of one payment; return the seconds until its acknowledgement.

        Raises:
            Unexpected: it was not acknowledged.
        """
        event = _event(self._payments[number], self._account)
        message = self._channel.callback(event, self._account, datetime.now(UTC), self._payments[number].pay_url)
        assert message is not None, "a paid payment has a callback"
        began = time.perf_counter()
        response = await exchange(
            self._client,
            "POST",
            self._url,
            headers=message.headers,
            body=message.body,
            within_s=TIMEOUT_S,
            body_bytes_max=64,
        )
        seconds = time.perf_counter() - began
        if not self._channel.acknowledges(response.status, response.body):
            raise Unexpected(f"a callback got the status {response.status}")
        return seconds


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure callbacks per second and their latency, in a closed and in an open loop."""
    began = time.monotonic()
    async with open_rig() as rig:
        show_progress(f"{sizes.callbacks} paid payments whose callbacks were lost")
        payments = await _pay_many(rig, sizes.callbacks)
        client = http_client()
        try:
            sender = Sender(rig, await _account(rig), payments, client)
            figures = await _send_all(rig, sender, sizes, show_progress)
        finally:
            await client.close()
        return Result(
            benchmark="callbacks",
            how=HOW,
            settings=rig.in_force() | {"clients": _clients(sizes)},
            seconds=round(time.monotonic() - began, 1),
            figures=figures,
        )


async def _send_all(rig: Rig, sender: Sender, sizes: Sizes, show_progress: ShowProgress) -> tuple[Figure, ...]:
    third = sizes.callbacks // 3
    show_progress(f"{third} callbacks from {_clients(sizes)} clients")
    meter, started = CpuMeter(rig.stack), time.perf_counter()
    closed = await closed_loop(sender.send, third, _clients(sizes), sizes.limit_s)
    n, per_s = len(closed), len(closed) / (time.perf_counter() - started)
    paid = await rig.db.fetchval(_PAID)
    await wait_until(lambda: _are_delivered(rig), SETTLE_S)
    cpu = meter.figures(n, "callback")

    async def arriving(first: int, rate: float) -> list[float]:
        arrivals = min(third, max(1, int(sizes.limit_s * rate)))
        show_progress(f"{arrivals} callbacks, {rate:.0f} a second")
        return await open_loop(lambda i: sender.send(first + i), arrivals, rate)

    opened = await arriving(third, per_s * OPEN_SHARE)
    steady = await arriving(2 * third, PROMISED_PER_S * OPEN_SHARE)
    return (
        figure("callbacks_per_s", per_s, "callbacks/s", n),
        figure("paid_when_acknowledged", paid / n, "share", n),
        *latencies("closed", closed),
        figure("open_rate", per_s * OPEN_SHARE, "callbacks/s", len(opened)),
        *latencies("open", opened),
        figure("steady_rate", PROMISED_PER_S * OPEN_SHARE, "callbacks/s", len(steady)),
        *latencies("steady", steady),
        *cpu,
    )


def _clients(sizes: Sizes) -> int:
    return (sizes.clients or (CLIENTS,))[0]


async def _are_delivered(rig: Rig) -> bool:
    return bool(await rig.db.fetchval(_UNDELIVERED) == 0)


async def _pay_many(rig: Rig, count: int) -> list[LedgerPayment]:
    """Return payments that are paid at the channel, pending here, and without a callback."""
    first = await place_first(rig)
    await copy_orders(rig, count, from_s=LATER_S, until_s=LATER_S)
    numbers = await create_at_channel(rig, first)
    async with Buyer(rig) as buyer:
        await closed_loop(lambda i: buyer.pay(numbers[i]), count, CREATORS, TIMEOUT_S)
    document = await rig.stack.control("GET", "channel", "/control/ledger")
    ledger = msgspec.convert(document, LedgerSnapshot, strict=False)
    return [payment for payment in ledger.payments if payment.status.was_paid]


async def _account(rig: Rig) -> Account:
    """Return the account as the channel has it; nodrop's sealed credentials have the same keys."""
    configs = await get_accounts(rig.db, Sealer.from_setting(rig.stack.master_key))
    credentials = next(config.credentials for config in configs if config.name == ACCOUNT)
    return Account(name=ACCOUNT, merchant_id=credentials["merchant_id"], keys=credentials["keys"])


def _event(paid: LedgerPayment, account: Account) -> Event:
    assert paid.created_at is not None, "the ledger has it"
    assert paid.expires_at is not None, "the ledger has it"
    payment = Payment(
        merchant_id=account.merchant_id,
        terms=Terms(
            out_trade_no=paid.out_trade_no,
            amount=paid.amount,
            currency=paid.currency,
            subject=paid.subject,
            expires_at=paid.expires_at,
            callback_url=paid.callback_url,
        ),
        token="",
        created_at=paid.created_at,
        status=paid.status,
        transaction_id=paid.transaction_id,
        paid_at=paid.paid_at,
    )
    created_at = paid.paid_at or paid.created_at
    return Event(
        callback_id=f"cb_{paid.out_trade_no}", type=EventType.PAYMENT_PAID, created_at=created_at, payment=payment
    )
