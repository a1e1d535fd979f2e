"""python-alipay-sdk signs for our verifier, verifies what our side signs, and works at the simulated gateway.

Where it and the channel's documentation differ, the documentation decides: it ends an answer's node at the first brace
that closes it even inside a text, so no text here has braces; tests/channels has those.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from channels.alipay.adapter import Alipay as Adapter
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import CallbackForged
from core.evidence import Paid
from simulator.alipay.channel import Alipay
from simulator.kernel.base import Opened
from simulator.kernel.ledger import Key, Payment
from simulator.kernel.simulation import Simulation
from tests.channels.httpx_carrier import responding
from tests.oracles.library import Library, open_library

NUMBER = "0190a7c3d1f2a1b2c3d4e5f60718"


@pytest_asyncio.fixture
async def opened(far_side: Simulation) -> Opened:
    opened = Alipay().open_account("main", "")
    far_side.accounts[opened.account.merchant_id] = opened.account
    return opened


@pytest_asyncio.fixture
async def library(far_side: Simulation, opened: Opened) -> AsyncIterator[Library]:
    theirs = opened.credentials
    public_keys = theirs["alipay_public_keys"]
    async with open_library(
        "alipay_sdk",
        base_url=f"{far_side.urls['alipay']}/gateway.do",
        appid=theirs["app_id"],
        app_notify_url="http://127.0.0.1:9/callbacks/main",
        app_private_key_string=theirs["private_key"],
        alipay_public_key_string=next(iter(public_keys.values() if isinstance(public_keys, dict) else public_keys)),
    ) as one:
        yield one


async def test_library_creates_queries_refunds_and_closes(
    library: Library, far_side: Simulation, opened: Opened
) -> None:
    key = Key(opened.account.merchant_id, NUMBER)
    terms = {"subject": "Tea, 250 g", "out_trade_no": NUMBER, "total_amount": "88.88"}
    created = await library.do("call", method="api_alipay_trade_precreate", **terms)
    assert (created["code"], created["out_trade_no"]) == ("10000", NUMBER)
    unseen = await library.do("call", method="api_alipay_trade_query", out_trade_no=NUMBER)
    assert unseen["sub_code"] == "ACQ.TRADE_NOT_EXIST", "nobody has scanned the code"

    far_side.open(key)
    waiting = await library.do("call", method="api_alipay_trade_query", out_trade_no=NUMBER)
    assert waiting["trade_status"] == "WAIT_BUYER_PAY"
    assert isinstance(far_side.pay(key), Payment)
    paid = await library.do("call", method="api_alipay_trade_query", out_trade_no=NUMBER)
    assert (paid["trade_status"], paid["total_amount"]) == ("TRADE_SUCCESS", "88.88")
    refund = {"out_trade_no": NUMBER, "refund_amount": "10.00", "out_request_no": "R-000001"}
    given_back = await library.do("call", method="api_alipay_trade_refund", **refund)
    assert (given_back["code"], given_back["fund_change"]) == ("10000", "Y")
    closed = await library.do("call", method="api_alipay_trade_close", out_trade_no=NUMBER)
    assert closed["code"] == "40004", "what has been paid is not closed"


async def test_library_verifies_the_simulators_callbacks_and_no_others(
    library: Library, far_side: Simulation, opened: Opened
) -> None:
    terms = {"subject": "Tea + 茶", "out_trade_no": NUMBER, "total_amount": "88.88"}
    await library.do("call", method="api_alipay_trade_precreate", **terms)
    key = Key(opened.account.merchant_id, NUMBER)
    far_side.open(key)
    paid = far_side.pay(key)
    assert isinstance(paid, Payment)
    channel, event = Alipay(), far_side.paid_event(paid)
    forged = channel.callback(event, channel.stranger(opened.account), far_side.now(), "")
    genuine = channel.callback(event, opened.account, far_side.now(), "")
    assert genuine is not None
    assert forged is not None
    for message, is_genuine in ((genuine, True), (channel.altered(genuine), False), (forged, False)):
        fields = dict(parse_qsl(message.body.decode(), keep_blank_values=True))
        signature = fields.pop("sign")
        assert await library.do("verify", data=fields, signature=signature) is is_genuine


async def test_our_adapter_verifies_the_librarys_signatures(library: Library, opened: Opened) -> None:
    """The library signs with its private key, so its public half stands for the channel's key."""
    theirs = opened.credentials
    signing = load_pem_private_key(theirs["private_key"].encode(), None)
    public = signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    ours = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = ours.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    credentials = theirs | {"private_key": pem, "alipay_public_keys": {"theirs": public}}
    account = AccountConfig(name="main", channel="alipay", base_url="http://127.0.0.1:9", credentials=credentials)
    nobody = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))
    adapter, now = Adapter(account, nobody), datetime.now(UTC)
    fields = {
        "notify_type": "trade_status_sync",
        "notify_id": "2026112300222041234567890",
        "app_id": theirs["app_id"],
        "seller_id": theirs["seller_id"],
        "charset": "utf-8",
        "out_trade_no": NUMBER,
        "trade_no": "2026112322001400001",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "88.88",
        "subject": "茶 100% + more",
        "gmt_payment": "2026-11-23 12:00:00",
    }
    signature = await library.do("sign", data=fields)
    body = urlencode(fields | {"sign": signature, "sign_type": "RSA2"}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    callback = await adapter.verify_callback(headers, body, received_at=now)
    assert isinstance(callback.evidence, Paid)
    assert callback.evidence.amount == 8888

    other = urlencode(fields | {"total_amount": "0.01", "sign": signature, "sign_type": "RSA2"}).encode()
    with pytest.raises(CallbackForged):
        await adapter.verify_callback(headers, other, received_at=now)
