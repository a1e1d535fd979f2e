"""PayPal's transaction search, page by page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from msgspec.structs import replace

from simulator.kernel.dispatch import Call
from simulator.kernel.ledger import Key, Row
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response, json_response
from simulator.paypal.wire import Money, error, ids_of, money, refund_id

PAGE_SIZE_MAX = 500

Rows = list[Row | tuple[str, ...]]


def report(simulation: Simulation, call: Call) -> Response:
    """Return a page of a day's transactions, oldest first. A period of several days is refused."""
    parameters = {name: values[-1] for name, values in parse_qs(call.request.query).items()}
    try:
        first, last = (datetime.fromisoformat(parameters[name]) for name in ("start_date", "end_date"))
        page, size = int(parameters.get("page", "1")), int(parameters.get("page_size", "100"))
    except (KeyError, ValueError):
        return error(400, "INVALID_REQUEST")
    if not 1 <= size <= PAGE_SIZE_MAX or page < 1 or first.date() != last.date():
        return error(400, "INVALID_REQUEST")
    day = first.astimezone(UTC).date()
    within = _within(simulation.statement(call.account, day), first, last)
    counted = _within(simulation.counted_rows(call.account, day), first, last)
    infos = [_transaction(simulation, call, row) for row in within] + _reversals(simulation, call, first, last)
    shown = infos[(page - 1) * size : page * size]
    return json_response(
        {
            "transaction_details": [{"transaction_info": info} for info in shown],
            "account_number": call.account.merchant_id,
            "page": page,
            "total_items": len(counted) + len(infos) - len(within),
            "total_pages": -(-len(infos) // size),
        }
    )


def _within(rows: Rows, first: datetime, last: datetime) -> Rows:
    return [row for row in rows if not isinstance(row, Row) or first <= row.at.replace(microsecond=0) <= last]


def _reversals(simulation: Simulation, call: Call, first: datetime, last: datetime) -> list[dict[str, Any]]:
    """Return the reversals, which PayPal has started.

    https://developer.paypal.com/docs/transaction-search/transaction-event-codes/
    """
    found = [
        (dispute, payment)
        for dispute, payment in simulation.disputed_by(call.account)
        if dispute.kind == "reversal" and first <= dispute.changed_at.replace(microsecond=0) <= last
    ]
    return [
        {
            "transaction_id": f"REV{dispute.dispute_id}",
            "paypal_reference_id": payment.transaction_id,
            "paypal_reference_id_type": "TXN",
            "transaction_event_code": "T1106",
            "transaction_initiation_date": dispute.changed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000"),
            "transaction_amount": _minus(money(dispute.amount, dispute.currency)),
            "transaction_status": "S",
            "custom_field": ids_of(payment.terms).get("custom_id", ""),
        }
        for dispute, payment in found
    ]


def _transaction(simulation: Simulation, call: Call, row: Row | tuple[str, ...]) -> dict[str, Any]:
    """Return a transaction; a refund has a minus and names its payment."""
    if not isinstance(row, Row):  # cut off
        return {"transaction_event_code": "T0006", "custom_field": row[1]}
    amount, is_refund = money(row.amount, row.currency), row.type == "refund"
    payment = simulation.ledger.find(Key(call.account.merchant_id, row.out_trade_no), call.now)
    ids = {"custom_id": row.out_trade_no, "invoice_id": row.out_trade_no} if payment is None else ids_of(payment.terms)
    info = {
        "transaction_id": row.transaction_id,
        "transaction_event_code": "T0006",
        "transaction_initiation_date": row.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000"),
        "transaction_amount": amount,
        "transaction_status": "S",
        "invoice_id": ids.get("invoice_id", ""),
        "custom_field": ids.get("custom_id", ""),
    }
    if is_refund:
        info |= {
            "transaction_id": refund_id(row.refund_no),
            "paypal_reference_id": row.transaction_id,
            "paypal_reference_id_type": "TXN",
            "transaction_event_code": "T1107",
            "transaction_amount": _minus(amount),
            "invoice_id": row.refund_no,
        }
    return info


def _minus(amount: Money) -> Money:
    return replace(amount, value=f"-{amount.value}")
