"""Disputes of the simulated channels: opened and changed over the control API, sent with the channel's signature."""

from datetime import UTC, datetime

import httpx
import pytest

from demo.service import NO_TLS
from simulator.kernel.disputes import DisputeBody, changed
from simulator.kernel.ledger import Payment, PaymentStatus, Terms
from simulator.servers import serve_channels

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAYMENT = Payment(
    merchant_id="m-1",
    terms=Terms(
        out_trade_no="number-1",
        amount=8888,
        currency="CNY",
        subject="Tea",
        expires_at=NOW,
        callback_url="http://127.0.0.1:9",
    ),
    token="t",
    created_at=NOW,
    status=PaymentStatus.PAID,
)


def test_a_dispute_keeps_its_id_and_counts_its_changes() -> None:
    opened = changed(None, DisputeBody(), PAYMENT, NOW)
    won = changed(opened, DisputeBody(dispute_id=opened.dispute_id, state="won"), PAYMENT, NOW)
    assert (won.dispute_id, won.sequence, won.opened_at) == (opened.dispute_id, 2, NOW)
    assert (opened.amount, changed(None, DisputeBody(amount=1), PAYMENT, NOW).amount) == (8888, 1)


@pytest.mark.parametrize("path", ["/control/disputes/cb_404/callback", "/control/payments/none/disputes"])
async def test_what_is_not_there_is_not_disputed(path: str) -> None:
    async with serve_channels() as (url, _), httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
        assert (await http.post(url + path, json={})).status_code == 404
