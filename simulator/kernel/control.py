"""The control API of a channel process: accounts, faults, ledger, payments by the buyer. Loopback only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated
from urllib.parse import parse_qs

import msgspec
import structlog

from simulator.kernel.base import Account, Name, Opened
from simulator.kernel.disputes import DisputeBody
from simulator.kernel.faults import AtFault, FaultProfile
from simulator.kernel.ledger import Key, Payment, Refusal
from simulator.kernel.simulation import Simulation
from simulator.kernel.snapshot import take
from simulator.kernel.traffic import busiest_second
from simulator.kit.asgi import Request, Response, Route, json_response, problem
from simulator.kit.local_api import Refused, body_of, loopback_only, number_of

ACCOUNTS_MAX = 1_000

_log = structlog.get_logger("simulator")


class ResetBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seed: int | None = None


class OpenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    channel: Name
    callback_url: str = ""


class ElsewhereBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`number`: of the sale. `callback_url`: nodrop's address for the account."""

    account: Name
    number: str
    callback_url: str


class PayBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    at_fault: AtFault | None = None


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    out_trade_no: str
    status: str
    transaction_id: str | None


class RefundBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`amount` in minor units; null: all that is left."""

    amount: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Refunded(msgspec.Struct, frozen=True, kw_only=True):
    out_trade_no: str
    refund_no: str
    amount: int


class SentDispute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dispute: DisputeBody = DisputeBody()
    is_silent: bool = False


class CalledBack(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is nodrop's HTTP status, null without a readable response before the deadline."""

    acknowledged: bool
    status: int | None


def routes(simulation: Simulation) -> list[Route]:
    """Routes of the control API."""
    table: list[tuple[str, str, Callable[[Simulation, Request], Awaitable[Response]]]] = [
        ("GET", "/healthz", _health),
        ("PUT", "/control/accounts", _put_accounts),
        ("POST", "/control/accounts", _open_account),
        ("POST", "/control/accounts/{merchant_id}/rotate", _rotate),
        ("POST", "/control/elsewhere", _elsewhere),
        ("GET", "/control/faults", _get_faults),
        ("PUT", "/control/faults", _put_faults),
        ("GET", "/control/ledger", _ledger),
        ("POST", "/control/payments/{out_trade_no}/pay", _pay),
        ("POST", "/control/payments/{out_trade_no}/pay-late", _pay_late),
        ("POST", "/control/payments/{out_trade_no}/refund", _refund),
        ("POST", "/control/payments/{out_trade_no}/callback", _callback),
        ("POST", "/control/payments/{out_trade_no}/reverse-approval", _reverse_approval),
        ("POST", "/control/payments/{out_trade_no}/disputes", _dispute),
        ("POST", "/control/disputes/{callback_id}/callback", _dispute_callback),
        ("GET", "/control/arrivals", _arrivals),
        ("GET", "/control/counters", _counters),
        ("POST", "/control/reset", _reset),
    ]
    return [Route(method, pattern, loopback_only(partial(handler, simulation))) for method, pattern, handler in table]


async def _health(simulation: Simulation, _: Request) -> Response:
    return json_response({"status": "ok", "channels": sorted(simulation.channels)})


async def _put_accounts(simulation: Simulation, request: Request) -> Response:
    """Add accounts, or replace those with the same merchant id. None is removed: the ledger refers to them."""
    accounts = body_of(request, list[Account])
    if not all(account.keys or account.wire for account in accounts):
        raise Refused(problem(400, "INVALID_PARAMETER", "an account has keys"))
    unknown = [account.channel for account in accounts if account.channel not in simulation.channels]
    if unknown:
        raise Refused(problem(400, "INVALID_PARAMETER", f"there is no channel {unknown[0]!r}"))
    merged = simulation.accounts | {account.merchant_id: account for account in accounts}
    if len(merged) > ACCOUNTS_MAX:
        raise Refused(problem(400, "INVALID_PARAMETER", f"at most {ACCOUNTS_MAX} accounts"))
    simulation.accounts.update(merged)
    _log.info("accounts_changed", accounts=[account.name for account in accounts])
    return json_response([{"name": account.name, "merchant_id": account.merchant_id} for account in merged.values()])


async def _open_account(simulation: Simulation, request: Request) -> Response:
    """Open an account with new keys; respond with the merchant's configuration: base URL and credentials."""
    body = body_of(request, OpenBody)
    channel = simulation.channels.get(body.channel)
    if channel is None:
        raise Refused(problem(400, "INVALID_PARAMETER", f"there is no channel {body.channel!r}"))
    return _opened(simulation, channel.open_account(body.name, body.callback_url))


async def _rotate(simulation: Simulation, request: Request) -> Response:
    """Add new keys before the old ones, which stay valid."""
    account = simulation.accounts.get(request.params["merchant_id"])
    if account is None:
        raise Refused(problem(404, "NOT_FOUND", "there is no such account"))
    return _opened(simulation, simulation.channels[account.channel].rotated(account))


async def _elsewhere(simulation: Simulation, request: Request) -> Response:
    """Send callbacks of the merchant's other systems to this address, once each; respond with nodrop's statuses."""
    body = body_of(request, ElsewhereBody)
    account = next((each for each in simulation.accounts.values() if each.name == body.account), None)
    if account is None:
        raise Refused(problem(404, "NOT_FOUND", "there is no such account"))
    channel = simulation.channels[account.channel]
    messages = channel.elsewhere(body.number, account, simulation.now())
    return json_response(
        {
            name: await simulation.sender.send_message(body.callback_url, message, channel.acknowledge_within_s)
            for name, message in messages.items()
        }
    )


def _opened(simulation: Simulation, opened: Opened) -> Response:
    if len(simulation.accounts) >= ACCOUNTS_MAX:
        raise Refused(problem(400, "INVALID_PARAMETER", f"at most {ACCOUNTS_MAX} accounts"))
    account = opened.account
    simulation.accounts[account.merchant_id] = account
    _log.info("account_opened", account=account.name, channel=account.channel)
    return json_response(
        {
            "name": account.name,
            "channel": account.channel,
            "merchant_id": account.merchant_id,
            "base_url": simulation.urls[account.channel],
            "credentials": opened.credentials,
        }
    )


async def _get_faults(simulation: Simulation, _: Request) -> Response:
    return json_response(simulation.faults.profile)


async def _put_faults(simulation: Simulation, request: Request) -> Response:
    """Replace the whole profile: a fault that is not named is off."""
    profile = body_of(request, FaultProfile)
    simulation.faults.profile = profile
    named = {name: getattr(profile, name) for name in profile.__struct_fields__}
    plain = msgspec.structs.asdict(FaultProfile())
    _log.info("faults_changed", **{name: value for name, value in named.items() if value != plain[name]})
    return json_response(profile)


async def _ledger(simulation: Simulation, request: Request) -> Response:
    offset, limit = number_of(request, "offset", 0), number_of(request, "limit", -1)
    return json_response(take(simulation, max(0, int(offset)), None if limit < 0 else int(limit)))


async def _pay(simulation: Simulation, request: Request) -> Response:
    at_fault = body_of(request, PayBody, empty=PayBody()).at_fault
    return _paid(simulation.pay(_key(simulation, request), at_fault))


async def _pay_late(simulation: Simulation, request: Request) -> Response:
    """Let the money of a closed payment arrive now."""
    return _paid(simulation.settle_late(_key(simulation, request)))


async def _refund(simulation: Simulation, request: Request) -> Response:
    """Refund a payment at once, as the merchant does in the channel's console."""
    amount = body_of(request, RefundBody, empty=RefundBody()).amount
    refund = simulation.refund_in_console(_key(simulation, request), amount)
    if isinstance(refund, Refusal):
        raise Refused(problem(409, refund, "the payment has not so much money to refund"))
    return json_response(Refunded(out_trade_no=refund.out_trade_no, refund_no=refund.refund_no, amount=refund.amount))


async def _callback(simulation: Simulation, request: Request) -> Response:
    """Send the callback of a paid payment once more, at once and without faults."""
    key = _key(simulation, request)
    payment = simulation.ledger.find(key, simulation.now())
    if payment is None or not payment.status.was_paid:
        raise Refused(problem(409, Refusal.NOT_PAID, "the payment has no callback"))
    acknowledged = await simulation.sender.send_now(simulation.paid_event(payment))
    return json_response(CalledBack(acknowledged=acknowledged, status=simulation.sender.tally(key).last_status))


async def _reverse_approval(simulation: Simulation, request: Request) -> Response:
    """End an approval that nobody captured, before its time is over, and send the callback by the schedule."""
    event = simulation.reverse_approval(_key(simulation, request))
    if isinstance(event, Refusal):
        raise Refused(problem(409, event, "only an approval that is not captured is reversed"))
    simulation.sender.schedule(event)
    return json_response({"callback_id": event.callback_id})


async def _dispute(simulation: Simulation, request: Request) -> Response:
    """Open a dispute, or change a known one; its callback is sent by the schedule unless `is_silent`."""
    body = body_of(request, SentDispute)
    event = simulation.dispute(_key(simulation, request), body.dispute)
    if isinstance(event, Refusal):
        raise Refused(problem(409, event, "only a paid payment is disputed"))
    assert event.dispute is not None, "the event of a dispute has one"
    if not body.is_silent:
        simulation.sender.schedule(event)
    return json_response({"dispute_id": event.dispute.dispute_id, "callback_id": event.callback_id})


async def _dispute_callback(simulation: Simulation, request: Request) -> Response:
    """Send the callback of a change of a dispute now, whatever has changed since."""
    event = simulation.dispute_events.get(request.params["callback_id"])
    if event is None:
        raise Refused(problem(404, "NOT_FOUND", "there is no such callback of a dispute"))
    acknowledged = await simulation.sender.send_now(event)
    return json_response(CalledBack(acknowledged=acknowledged, status=simulation.sender.tally(event.key).last_status))


async def _arrivals(simulation: Simulation, request: Request) -> Response:
    arrivals = simulation.traffic.since(number_of(request, "since", 0.0))
    return json_response(
        {
            "arrivals": arrivals,
            "busiest_second": busiest_second(arrival.at for arrival in arrivals),
            "forgotten": simulation.traffic.forgotten,
        }
    )


async def _counters(simulation: Simulation, _: Request) -> Response:
    counters = simulation.traffic.counters | {"callbacks_under_way": simulation.sender.under_way}
    return json_response(dict(sorted(counters.items())))


async def _reset(simulation: Simulation, request: Request) -> Response:
    await simulation.reset(body_of(request, ResetBody, empty=ResetBody()).seed)
    _log.info("reset", seed=simulation.faults.seed)
    return json_response({"seed": simulation.faults.seed})


def _key(simulation: Simulation, request: Request) -> Key:
    """Return the key of the payment in the path; `?merchant_id=` chooses between merchants with the same number."""
    wanted = parse_qs(request.query).get("merchant_id")
    keys = [key for key in simulation.find_keys(request.params["out_trade_no"]) if not wanted or key[0] in wanted]
    if not keys:
        raise Refused(problem(404, Refusal.PAYMENT_NOT_EXIST, "there is no payment with this number"))
    if len(keys) > 1:
        raise Refused(problem(409, "AMBIGUOUS", "name the merchant_id: several merchants have this number"))
    return keys[0]


def _paid(payment: Payment | Refusal) -> Response:
    if isinstance(payment, Refusal):
        raise Refused(problem(409, payment, "the payment cannot be paid now"))
    return json_response(
        Paid(out_trade_no=payment.terms.out_trade_no, status=payment.status, transaction_id=payment.transaction_id)
    )
