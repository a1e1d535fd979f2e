"""wechatpayv3 pays, queries, closes and refunds at the simulated WeChat Pay, and reads its callbacks.

Where it and the protocol differ, the channel's documentation decides: it accepts timestamps a year old, which is
documented nowhere, so nothing here relies on the freshness of a genuine message.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
import pytest_asyncio
from msgspec.structs import replace

from simulator.kernel.base import Event, Message
from simulator.kernel.ledger import Key, Payment
from simulator.kernel.simulation import Simulation
from simulator.wechatpay.channel import WechatPay
from tests.oracles.library import Library, open_library

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"
BEIJING = timezone(timedelta(hours=8))


@pytest_asyncio.fixture(params=["public key", "certificates"])
async def library(far_side: Simulation, request: pytest.FixtureRequest) -> AsyncIterator[Library]:
    opened = WechatPay().open_account("main", "")
    far_side.accounts[opened.account.merchant_id] = opened.account
    theirs = opened.credentials
    (public_key_id, public_key), *_ = theirs["public_keys"].items()
    about = {
        "mchid": theirs["mchid"],
        "private_key": theirs["private_key"],
        "cert_serial_no": theirs["merchant_serial"],
        "appid": theirs["appid"],
        "apiv3_key": theirs["apiv3_key"],
        "certificates": theirs["platform_certificates"],
        "notify_url": "http://127.0.0.1:9/callbacks/main",
    }
    if request.param == "public key":
        about |= {"public_key": public_key, "public_key_id": public_key_id}
    async with open_library("wechatpay_sdk", base_url=far_side.urls["wechatpay"], **about) as one:
        yield one


def key_of(far_side: Simulation) -> Key:
    (merchant_id,) = far_side.accounts
    return Key(merchant_id, NUMBER)


async def test_library_pays_queries_refunds_and_fetches_the_bill(library: Library, far_side: Simulation) -> None:
    status, created = await library.do(
        "pay", description="Tea", out_trade_no=NUMBER, amount={"total": 8888, "currency": "CNY"}
    )
    assert status == 200
    assert created["code_url"]
    status, unpaid = await library.do("query", out_trade_no=NUMBER)
    assert (status, unpaid["trade_state"]) == (200, "NOTPAY")

    paid = far_side.pay(key_of(far_side))
    assert isinstance(paid, Payment)
    status, body = await library.do("query", out_trade_no=NUMBER)
    assert (body["trade_state"], body["amount"]["total"]) == ("SUCCESS", 8888)
    _, by_id = await library.do("query", transaction_id=body["transaction_id"])
    assert by_id == body

    terms = {"out_trade_no": NUMBER, "out_refund_no": "R-000001"}
    status, refund = await library.do("refund", **terms, amount={"refund": 1000, "total": 8888, "currency": "CNY"})
    assert (status, refund.get("status")) == (200, "SUCCESS"), refund
    _, queried = await library.do("query_refund", out_refund_no="R-000001")
    assert queried["refund_id"] == refund["refund_id"]

    day = datetime.now(UTC).astimezone(BEIJING).date().isoformat()
    status, bill = await library.do("trade_bill", bill_date=day, tar_type="GZIP")
    assert (status, bill["hash_type"]) == (200, "SHA1")


async def test_library_closes_and_gets_not_found(library: Library) -> None:
    await library.do("pay", description="Tea", out_trade_no=NUMBER, amount={"total": 1, "currency": "CNY"})
    assert (await library.do("close", out_trade_no=NUMBER))[0] == 204
    assert (await library.do("query", out_trade_no=NUMBER))[1]["trade_state"] == "CLOSED"
    status, missing = await library.do("query", out_trade_no="0000000000000000")
    assert (status, missing["code"]) == (404, "ORDER_NOT_EXIST")


async def test_library_reads_the_simulators_callbacks_and_no_others(library: Library, far_side: Simulation) -> None:
    await library.do("pay", description="Tea", out_trade_no=NUMBER, amount={"total": 8888, "currency": "CNY"})
    paid = far_side.pay(key_of(far_side))
    assert isinstance(paid, Payment)
    channel, (account,) = WechatPay(), far_side.accounts.values()
    event = far_side.paid_event(paid)
    genuine = composed(channel, event, far_side)
    read = await library.do("callback", headers=named(genuine), body=genuine.body.decode())
    assert read["resource"]["out_trade_no"] == NUMBER
    assert read["resource"]["amount"]["total"] == 8888

    altered = channel.altered(genuine)
    assert not await library.do("callback", headers=named(altered), body=altered.body.decode())
    forged = channel.callback(event, channel.stranger(account), far_side.now(), "")
    assert forged is not None
    assert not await library.do("callback", headers=named(forged), body=forged.body.decode())
    probe = channel.probe(genuine)
    assert not await library.do("callback", headers=named(probe), body=probe.body.decode())


def composed(channel: WechatPay, event: Event, far_side: Simulation) -> Message:
    """The callback as it is sent while the public key is in use."""
    (account,) = far_side.accounts.values()
    message = channel.callback(replace(event), account, far_side.now(), "")
    assert message is not None
    return message


def named(message: Message) -> dict[str, str]:
    """Headers in the spelling that the library expects."""
    return {"-".join(part.capitalize() for part in name.split("-")): text for name, text in message.headers.items()}
