"""Statements as merchants have them: rows that name a payment by other ids, files that lack a row, unknown money."""

from __future__ import annotations

import gzip
import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode
from zipfile import ZipFile

import pytest

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.reconciling import (
    NO_CALLBACKS,
    NO_QUERIES,
    everybody_was_told,
    lost,
    reconcile,
    statement_of,
)
from tests.scenarios.scenario import AMOUNT, Scenario, add_account
from tests.servers import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process had in memory comes from the kernel")


async def test_a_watched_checkout_session_is_found_by_the_row_of_its_charge(alone: Scenario) -> None:
    """The row names the PaymentIntent and the charge, and nodrop knows the session alone: the money was *unknown*."""
    session_id = await session_of_another_system(alone)
    await alone.faults(**NO_CALLBACKS, **NO_QUERIES)
    watch = {"out_trade_no": session_id, "channel_reference": session_id}
    terms = alone.terms(account="stripe", currency="USD", watch=watch)
    order_no = str(terms["order_no"])
    placed = await alone.post("/v1/orders", terms)
    assert placed.status_code == 201, placed.text
    await alone.stack.control("POST", "channel", f"/control/payments/{session_id}/pay")
    assert await alone.status(order_no) == "paying"

    await alone.faults(**NO_CALLBACKS)
    day = next(row for row in (await alone.ledger()).payments if row.out_trade_no == session_id).paid_at
    assert day is not None
    ran = await reconcile(alone, "stripe", "--date", day.date().isoformat())

    assert (ran.code, ran.counts.get("repaired"), ran.counts.get("unknown", 0)) == (0, 1, 0), ran
    assert await alone.status(order_no) == "paid"
    assert await alone.paid_by(order_no) == "reconciliation"


async def session_of_another_system(scenario: Scenario) -> str:
    """Create a Checkout Session as the shop's own plug-in does, without a number in it."""
    account = await scenario.stack.open_account("stripe")
    form = {
        "mode": "payment",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": str(AMOUNT),
        "line_items[0][price_data][product_data][name]": "Tea, 250 g",
        "success_url": scenario.stack.merchant_url,
        "cancel_url": scenario.stack.merchant_url,
    }
    headers = {
        "authorization": f"Bearer {account.credentials['secret_key']}",
        "content-type": "application/x-www-form-urlencoded",
    }
    response = await scenario.http.post(
        f"{account.base_url}/v1/checkout/sessions", content=urlencode(form).encode(), headers=headers
    )
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


async def test_a_bill_that_counts_a_row_it_lacks_repairs_what_it_has_and_fails(alone: Scenario, tmp_path: Path) -> None:
    """A goods name goes on in a line that begins like the sums. The bill ended there, silently, with exit code 0: the
    order of that row and every later one stayed unpaid.
    """
    orders = await lost(alone, "wechatpay", 2)
    await alone.faults(**NO_CALLBACKS)
    packed = await statement_of(alone, "wechatpay", orders[0])
    bill, broken = tmp_path / "bill.csv.gz", tmp_path / "broken.csv"
    bill.write_bytes(packed)
    broken.write_bytes(gzip.decompress(packed).replace(b"Tea, green", "Tea\r\n总交易单数 of the day".encode(), 1))

    ran = await reconcile(alone, "wechatpay", str(broken))

    assert (ran.code, ran.counts["repaired"], ran.counts["malformed"], ran.counts["total"]) == (1, 2, 2, 2), ran
    assert "总交易单数: 2 stated, 1 read" in ran.out
    assert {await alone.status(order) for order in orders} == {"paid"}, (
        "the beginning of a broken row names its payment"
    )
    assert await open_cases(alone, "wechatpay") == ["statement_malformed", "statement_total"]

    ran = await reconcile(alone, "wechatpay", str(bill))

    assert (ran.code, ran.counts["agrees"]) == (0, 2), ran
    await eventually(lambda: everybody_was_told(alone, orders))


async def test_the_csv_out_of_alipays_zip_repairs_an_order(alone: Scenario, tmp_path: Path) -> None:
    """It was refused, and so was every file that an operator had unpacked to look into it."""
    [order] = await lost(alone, "alipay", 1)
    await alone.faults(**NO_CALLBACKS)
    with ZipFile(BytesIO(await statement_of(alone, "alipay", order)), metadata_encoding="gbk") as archive:
        [details] = [name for name in archive.namelist() if "汇总" not in name]
        (tmp_path / "details.csv").write_bytes(archive.read(details))

    ran = await reconcile(alone, "alipay", str(tmp_path / "details.csv"))

    assert (ran.code, ran.counts["repaired"]) == (0, 1), ran
    assert await alone.status(order) == "paid"


async def test_unknown_money_at_an_exclusive_account_does_not_end_with_0(alone: Scenario, tmp_path: Path) -> None:
    """The buyer paid under a number that nodrop does not know. The row names the unpaid order that it may belong to."""
    await add_account(alone.stack, alone.db, "shared", channel="sandbox")
    await add_account(alone.stack, alone.db, "exclusive", channel="sandbox", exclusive=True)
    orders = {name: await place_when_known(alone, name) for name in ("shared", "exclusive")}
    day = (await alone.db.fetchval("SELECT now()")).date().isoformat()
    file = tmp_path / "statement.csv"
    file.write_text(
        "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"
        f"payment,typed-by-hand-1,t-1,,{AMOUNT},CNY,{day}T00:00:01Z\n"
    )

    shared, exclusive = await reconcile(alone, "shared", str(file)), await reconcile(alone, "exclusive", str(file))

    assert (shared.code, shared.counts["candidates"]) == (0, 1), shared
    assert orders["shared"].order_no in shared.out
    assert (exclusive.code, exclusive.counts["unclaimed"]) == (3, 1), exclusive
    assert orders["exclusive"].order_no in exclusive.out
    assert await open_cases(alone, "exclusive") == ["statement_unclaimed"]


async def place_when_known(scenario: Scenario, account: str) -> ShopOrder:
    """Place an order at an account that was just added: processes read it within seconds."""

    async def is_known() -> bool:
        response = await scenario.post("/v1/orders", scenario.terms(account=account))
        return response.status_code == 201

    await eventually(is_known, interval_s=0.5)
    return await scenario.place(account)


async def open_cases(scenario: Scenario, account: str) -> list[str]:
    sql = "SELECT reason FROM cases WHERE channel_account = $1 AND resolved_at IS NULL ORDER BY reason"
    return [row["reason"] for row in await scenario.db.fetch(sql, account)]
