"""The simulated Alipay over real HTTP, with a client that knows its documentation and nothing of the simulator."""

import base64
import csv
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from msgspec.structs import replace

from simulator.alipay.keys import in_certificate_mode
from simulator.kernel.base import Account, Opened
from simulator.kernel.ledger import Key
from simulator.kit.asgi import Response
from tests.simulator.conftest import Channel, Receiver, StoppedClock, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHINA = timezone(timedelta(hours=8))
OK = Response(body=b"success", content_type="text/plain")
NUMBER = "alipay-0001"


def private_key(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def public_key(pem: str) -> rsa.RSAPublicKey:
    is_certificate = "CERTIFICATE" in pem
    key = (
        load_pem_x509_certificate(pem.encode()).public_key()
        if is_certificate
        else serialization.load_pem_public_key(pem.encode())
    )
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def is_signed(key: rsa.RSAPublicKey, signature: str, message: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature), message, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


class Client:
    """A merchant with the credentials that opening the account gave."""

    def __init__(self, channel: Channel, opened: Opened) -> None:
        self.http = channel.http
        self.simulation = channel.simulation
        self.account: Account = opened.account
        self.url = f"{channel.simulation.urls['alipay']}/gateway.do"
        self.credentials: dict[str, Any] = opened.credentials
        self.key = private_key(self.credentials["private_key"])
        keys = self.credentials.get("alipay_public_keys", {}).values() or self.credentials["alipay_certificates"]
        self.theirs = [public_key(pem) for pem in keys]

    def signed(self, method: str, body: object, charset: str = "utf-8", **changed: str) -> dict[str, str]:
        """`changed` replaces parameters before they are signed; an empty one is left out."""
        parameters = {
            "app_id": self.credentials["app_id"],
            "method": method,
            "format": "JSON",
            "charset": charset,
            "sign_type": "RSA2",
            "timestamp": datetime.now(CHINA).strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
            "biz_content": json.dumps(body, ensure_ascii=False),
            **changed,
        }
        kept = {name: parameters[name] for name in sorted(parameters) if parameters[name]}
        string = "&".join(f"{name}={value}" for name, value in kept.items()).encode(charset)
        return kept | {"sign": base64.b64encode(self.key.sign(string, padding.PKCS1v15(), SHA256())).decode()}

    async def send(self, method: str, body: object, charset: str = "utf-8", **changed: str) -> httpx.Response:
        """As the Java SDK does: the content in the body, all else in the address."""
        query = self.signed(method, body, charset, **changed)
        form = {"biz_content": query.pop("biz_content")}
        address = f"{self.url}?{urlencode(query, encoding=charset)}"
        headers = {"content-type": f"application/x-www-form-urlencoded;charset={charset}"}
        return await self.http.post(address, content=urlencode(form, encoding=charset), headers=headers)

    async def ask(self, method: str, body: object, **changed: str) -> dict[str, Any]:
        """The node of a signed answer."""
        return self.node(method, await self.send(method, body, **changed))

    def node(self, method: str, response: httpx.Response) -> dict[str, Any]:
        """The signed text begins after the node's name and ends before the name of the signature or its certificate."""
        name = f'{{"{method.replace(".", "_")}_response":'.encode()
        assert response.status_code == 200
        assert response.content.startswith(name), response.text
        rest, _, sign = response.content.rpartition(b',"sign":')
        text = rest.removeprefix(name).partition(b',"alipay_cert_sn":')[0]
        assert any(is_signed(key, json.loads(sign[:-1]), text) for key in self.theirs), "signed by the channel"
        node: dict[str, Any] = json.loads(text.decode(response.headers["content-type"].partition("charset=")[2]))
        return node

    async def create(self, number: str = NUMBER, **changed: object) -> dict[str, Any]:
        body = {"out_trade_no": number, "total_amount": "88.88", "subject": "茶, 250 g", **changed}
        return await self.ask("alipay.trade.precreate", body, notify_url=self.account.callback_url)

    async def query(self, number: str = NUMBER) -> dict[str, Any]:
        return await self.ask("alipay.trade.query", {"out_trade_no": number})

    async def refund(self, amount: str, refund_no: str = "r-1") -> dict[str, Any]:
        body = {"out_trade_no": NUMBER, "refund_amount": amount, "out_request_no": refund_no}
        return await self.ask("alipay.trade.refund", body)

    async def query_refund(self, refund_no: str = "r-1") -> dict[str, Any]:
        body = {"out_trade_no": NUMBER, "out_request_no": refund_no}
        return await self.ask("alipay.trade.fastpay.refund.query", body)

    def open(self, number: str = NUMBER) -> None:
        """The buyer scans the code."""
        self.simulation.open(Key(self.account.merchant_id, number))

    def pay(self, number: str = NUMBER) -> None:
        self.simulation.pay(Key(self.account.merchant_id, number))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_client(session_channel: Channel, session_receiver: Receiver) -> AsyncIterator[Client]:
    body = {"name": "alipay", "channel": "alipay", "callback_url": session_receiver.url}
    response = await session_channel.http.post(f"{session_channel.url}/control/accounts", json=body)
    assert response.status_code == 200, response.text
    fields = response.json()
    assert fields["base_url"] == session_channel.simulation.urls["alipay"]
    account = session_channel.simulation.accounts[fields["merchant_id"]]
    yield Client(session_channel, Opened(account=account, credentials=fields["credentials"]))


@pytest.fixture
def client(session_client: Client, channel: Channel, receiver: Receiver) -> Client:
    receiver.response = lambda _: OK
    return session_client


def refused(node: dict[str, Any]) -> tuple[str, str]:
    return node["code"], node["sub_code"]


# -- the gateway -------------------------------------------------------------------------------------------------------


async def test_a_call_may_come_in_the_address_in_the_body_or_in_both(client: Client) -> None:
    await client.create()
    client.open()
    method = "alipay.trade.query"
    parameters = client.signed(method, {"out_trade_no": NUMBER})
    for response in (
        await client.http.get(f"{client.url}?{urlencode(parameters)}"),
        await client.http.post(f"{client.url}?{urlencode(parameters)}"),
        await client.http.post(client.url, data=parameters),
        await client.send(method, {"out_trade_no": NUMBER}),
    ):
        assert client.node(method, response)["trade_status"] == "WAIT_BUYER_PAY"


@pytest.mark.parametrize(
    ("changed", "code", "sub_code"),
    [
        ({"app_id": ""}, "40001", "isv.missing-app-id"),
        ({"timestamp": ""}, "40001", "isv.missing-timestamp"),
        ({"version": ""}, "40001", "isv.missing-version"),
        ({"sign_type": ""}, "40001", "isv.missing-signature-type"),
        ({"app_id": "2021000000000000"}, "40002", "isv.invalid-app-id"),
        ({"timestamp": "2026-11-23T12:00:00"}, "40002", "isv.invalid-timestamp"),
        ({"timestamp": "2026-02-30 12:00:00"}, "40002", "isv.invalid-timestamp"),
        ({"sign_type": "RSA"}, "40002", "isv.invalid-signature-type"),
        ({"version": "2.0"}, "40002", "isv.invalid-version"),
        ({"charset": "latin-1"}, "40002", "isv.invalid-charset"),
        ({"app_cert_sn": "0" * 32}, "40002", "isv.invalid-app-cert-sn"),
    ],
    ids=str,
)
async def test_a_call_that_is_not_of_the_form_is_rejected_without_a_signature(
    client: Client, changed: dict[str, str], code: str, sub_code: str
) -> None:
    parameters = client.signed("alipay.trade.query", {"out_trade_no": NUMBER}) | changed
    response = await client.http.get(f"{client.url}?{urlencode(parameters)}")
    fields = response.json()
    assert response.status_code == 200
    assert set(fields) == {"alipay_trade_query_response"}
    assert refused(fields["alipay_trade_query_response"]) == (code, sub_code)


async def test_a_request_is_verified_with_its_sign_type_and_before_it_is_encoded(client: Client) -> None:
    good = client.signed("alipay.trade.query", {"out_trade_no": NUMBER})
    string = "&".join(f"{name}={good[name]}" for name in sorted(good) if name not in ("sign", "sign_type"))
    without = base64.b64encode(client.key.sign(string.encode(), padding.PKCS1v15(), SHA256())).decode()
    for parameters in (good | {"sign": without}, good | {"notify_url": "http://127.0.0.1/x"}, good | {"sign": "QQ=="}):
        fields = (await client.http.get(f"{client.url}?{urlencode(parameters)}")).json()
        assert refused(fields["alipay_trade_query_response"]) == ("40002", "isv.invalid-signature")


async def test_an_unknown_method_is_refused(client: Client) -> None:
    assert refused(await client.ask("alipay.trade.everything", {})) == ("40002", "isv.invalid-method")
    response = await client.http.get(client.url)
    assert response.json() == {
        "error_response": {
            "code": "40001",
            "msg": "Invalid Arguments",
            "sub_code": "isv.missing-method",
            "sub_msg": "见开放平台错误码",
        }
    }


async def test_slashes_are_escaped_in_what_is_signed(client: Client) -> None:
    body = {"out_trade_no": NUMBER, "total_amount": "0.01", "subject": "茶"}
    response = await client.send("alipay.trade.precreate", body)
    assert rb'"qr_code":"http:\/\/127.0.0.1' in response.content


async def test_a_call_in_gbk_is_answered_in_gbk(client: Client) -> None:
    body = {"out_trade_no": NUMBER, "total_amount": "0.01", "subject": "茶"}
    response = await client.send("alipay.trade.precreate", body, "gbk")
    assert client.node("alipay.trade.precreate", response)["code"] == "10000"
    assert response.headers["content-type"] == "text/html;charset=gbk"
    (payment,) = client.simulation.ledger.payments(client.simulation.now())
    assert payment.terms.subject == "茶"


# -- payments ----------------------------------------------------------------------------------------------------------


async def test_a_trade_is_there_from_the_scan_on_and_its_code_can_be_paid_before(client: Client) -> None:
    created = await client.create()
    assert refused(await client.query()) == ("40004", "ACQ.TRADE_NOT_EXIST")
    assert refused(await client.ask("alipay.trade.close", {"out_trade_no": NUMBER})) == (
        "40004",
        "ACQ.TRADE_NOT_EXIST",
    )
    shown = await client.http.get(created["qr_code"])
    assert "88.88 CNY" in shown.text
    assert (await client.query())["trade_status"] == "WAIT_BUYER_PAY"
    await client.http.post(created["qr_code"], data={"action": "pay"})
    fields = await client.query()
    assert (fields["trade_status"], fields["total_amount"], len(fields["trade_no"])) == ("TRADE_SUCCESS", "88.88", 24)
    assert "refund_fee" not in fields


@pytest.mark.parametrize(
    "wrong",
    [
        {"total_amount": "0"},
        {"total_amount": "1.001"},
        {"total_amount": "-1"},
        {"total_amount": "１"},
        {"subject": ""},
        {"subject": "x" * 257},
        {"out_trade_no": ""},
        {"out_trade_no": "x" * 65},
        {"time_expire": "2020-01-01 00:00:00"},
        {"time_expire": "tomorrow"},
    ],
    ids=str,
)
async def test_a_payment_that_is_not_of_the_form_is_refused(client: Client, wrong: dict[str, str]) -> None:
    assert refused(await client.create(**wrong)) == ("40004", "ACQ.INVALID_PARAMETER")


async def test_a_number_is_one_payment(client: Client) -> None:
    first = await client.create()
    assert await client.create() == first
    assert refused(await client.create(total_amount="88.89")) == ("40004", "ACQ.CONTEXT_INCONSISTENT")
    client.pay()
    assert refused(await client.create()) == ("40004", "ACQ.TRADE_HAS_SUCCESS")


async def test_time_expire_is_in_chinas_time_and_ends_the_trade(client: Client) -> None:
    until_ = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    await client.create(time_expire=until_.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S"))
    (payment,) = client.simulation.ledger.payments(client.simulation.now())
    assert payment.terms.expires_at == until_


async def test_closed_has_two_kinds(client: Client) -> None:
    """Never paid, and paid and given back in full: only the second has a time of payment."""
    await client.create()
    client.open()
    assert (await client.ask("alipay.trade.close", {"out_trade_no": NUMBER}))["code"] == "10000"
    never = await client.query()
    assert (never["trade_status"], "send_pay_date" in never) == ("TRADE_CLOSED", False)
    again = await client.ask("alipay.trade.close", {"out_trade_no": NUMBER})
    assert refused(again) == ("40004", "ACQ.TRADE_STATUS_ERROR")


async def test_a_full_refund_closes_a_partial_one_does_not(client: Client) -> None:
    await client.create()
    client.pay()
    assert (await client.refund("80.00"))["fund_change"] == "Y"
    assert (await client.query())["trade_status"] == "TRADE_SUCCESS"
    assert (await client.refund("8.88", "r-2"))["refund_fee"] == "88.88"
    fields = await client.query()
    assert (fields["trade_status"], "send_pay_date" in fields) == ("TRADE_CLOSED", True)


async def test_a_page_is_opened_by_a_browser_and_shows_the_way_back(client: Client) -> None:
    body = {"out_trade_no": NUMBER, "total_amount": "88.88", "subject": "茶", "product_code": "FAST_INSTANT_TRADE_PAY"}
    parameters = client.signed("alipay.trade.page.pay", body, return_url="http://127.0.0.1:9/back?a=1")
    opened = await client.http.get(f"{client.url}?{urlencode(parameters)}")
    assert opened.status_code == 302
    await client.http.post(opened.headers["location"], data={"action": "pay"})
    assert (await client.query())["trade_status"] == "TRADE_SUCCESS"
    again = await client.http.get(f"{client.url}?{urlencode(parameters)}")
    assert again.headers["location"] == opened.headers["location"], "a reload shows what became of it"
    page = await client.http.get(again.headers["location"])
    assert "http://127.0.0.1:9/back?a=1" in page.text
    other = client.signed("alipay.trade.wap.pay", body | {"total_amount": "1.00"})
    refused_page = await client.http.get(f"{client.url}?{urlencode(other)}")
    assert "ACQ.CONTEXT_INCONSISTENT" in refused_page.text


# -- refunds -----------------------------------------------------------------------------------------------------------


async def test_a_refund_number_is_one_refund_and_says_whether_money_moved_now(client: Client) -> None:
    await client.create()
    assert refused(await client.refund("1.00")) == ("40004", "ACQ.TRADE_STATUS_ERROR")
    client.pay()
    assert (await client.refund("10.00"))["fund_change"] == "Y"
    repeated = await client.refund("10.00")
    assert (repeated["fund_change"], repeated["refund_fee"]) == ("N", "10.00")
    assert refused(await client.refund("11.00")) == ("40004", "ACQ.DISCORDANT_REPEAT_REQUEST")
    assert refused(await client.refund("78.89", "r-2")) == ("40004", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
    fields = await client.query_refund()
    assert (fields["refund_status"], fields["refund_amount"], fields["total_amount"]) == (
        "REFUND_SUCCESS",
        "10.00",
        "88.88",
    )


async def test_a_refund_that_is_not_there_has_failed_or_is_not_done_has_no_status(
    client: Client, channel: Channel
) -> None:
    await client.create()
    client.pay()
    assert await client.query_refund("r-404") == {"code": "10000", "msg": "Success"}
    await channel.faults(refund_fails=1.0)
    assert refused(await client.refund("1.00")) == ("40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH")
    assert "refund_status" not in await client.query_refund()
    await channel.faults(refund_settles_s=600.0)
    assert (await client.refund("1.00", "r-2"))["fund_change"] == "N"
    assert "refund_status" not in await client.query_refund("r-2")


# -- callbacks ---------------------------------------------------------------------------------------------------------


def read(client: Client, body: bytes, charset: str = "utf-8") -> dict[str, str]:
    """The fields of a callback that verifies over all of them but `sign` and `sign_type`."""
    fields = dict(parse_qsl(body.decode("ascii"), encoding=charset))
    names = sorted(name for name in fields if name not in ("sign", "sign_type"))
    string = "&".join(f"{name}={fields[name]}" for name in names).encode(charset)
    assert fields["sign_type"] == "RSA2"
    assert any(is_signed(key, fields["sign"], string) for key in client.theirs)
    return fields


async def test_a_payment_is_called_back_as_a_signed_form(client: Client, receiver: Receiver) -> None:
    await client.create()
    client.pay()
    await until(lambda: receiver.requests)
    request = receiver.requests[0][1]
    assert request.headers["content-type"].startswith("application/x-www-form-urlencoded")
    fields = read(client, request.body)
    assert (fields["trade_status"], fields["total_amount"], fields["subject"]) == (
        "TRADE_SUCCESS",
        "88.88",
        "茶, 250 g",
    )
    assert (fields["app_id"], fields["seller_id"]) == (client.credentials["app_id"], client.credentials["seller_id"])
    assert (fields["notify_type"], fields["out_trade_no"]) == ("trade_status_sync", NUMBER)
    assert "refund_fee" not in fields


async def test_a_callback_in_gbk_is_signed_in_gbk(client: Client, receiver: Receiver) -> None:
    plain = client.account
    gbk = replace(plain, wire={**plain.wire, "charset": "gbk"})
    client.simulation.accounts[plain.merchant_id] = gbk
    try:
        await client.create()
        client.pay()
        await until(lambda: receiver.requests)
    finally:
        client.simulation.accounts[plain.merchant_id] = plain
    fields = read(client, receiver.requests[0][1].body, "gbk")
    assert (fields["charset"], fields["subject"]) == ("GBK", "茶, 250 g")


@pytest.mark.parametrize("body", [b'"success"', b"SUCCESS", b"success\n", b"ok", b'{"code":"success"}', b""])
async def test_what_is_almost_an_acknowledgement_is_none(client: Client, receiver: Receiver, body: bytes) -> None:
    """The same bytes come again, in 4, 10 and 10 minutes, then in 1, 2, 6 and 15 hours."""
    receiver.response = lambda _: Response(body=body) if len(receiver.requests) < 2 else OK
    await client.create()
    client.pay()
    await until(lambda: len(receiver.requests) >= 2)
    first, second = (request.body for _, request in receiver.requests[:2])
    assert first == second
    assert client.simulation.channels["alipay"].resend_gaps_s == (240, 600, 600, 3600, 7200, 21_600, 54_000)


@pytest.mark.parametrize("status", [201, 302, 404])
async def test_success_under_another_status_is_no_acknowledgement(client: Client, status: int) -> None:
    assert not client.simulation.channels["alipay"].acknowledges(status, b"success")
    assert client.simulation.channels["alipay"].acknowledges(200, b"success")


async def test_refunds_are_called_back_with_all_that_was_given_back(client: Client, receiver: Receiver) -> None:
    await client.create()
    client.pay()
    await until(lambda: len(receiver.requests) == 1)
    await client.refund("10.00")
    await until(lambda: len(receiver.requests) == 2)
    await client.refund("78.88", "r-2")
    await until(lambda: len(receiver.requests) == 3)
    partial, full = (read(client, request.body) for _, request in receiver.requests[1:])
    assert (partial["trade_status"], partial["refund_fee"], partial["out_biz_no"]) == ("TRADE_SUCCESS", "10.00", "r-1")
    assert (full["trade_status"], full["refund_fee"]) == ("TRADE_CLOSED", "88.88")
    assert full["gmt_payment"] == partial["gmt_payment"]


async def test_an_agreement_is_not_called_back(client: Client, channel: Channel, receiver: Receiver) -> None:
    """Only money is: the buyer of a slow method is not heard of before it has come."""
    await channel.faults(settles_later=1.0, settle_after_s=0.2)
    await client.create()
    client.pay()
    assert (await client.query())["trade_status"] == "WAIT_BUYER_PAY"
    await until(lambda: receiver.requests)
    assert read(client, receiver.requests[0][1].body)["trade_status"] == "TRADE_SUCCESS"


async def test_forged_callbacks_do_not_verify(client: Client, channel: Channel, receiver: Receiver) -> None:
    await channel.faults(forged=1.0)
    await client.create()
    await until(lambda: len(receiver.requests) == 2)
    for _, request in receiver.requests:
        with pytest.raises(AssertionError):
            read(client, request.body)


# -- statements --------------------------------------------------------------------------------------------------------


async def find_statement(client: Client, day: str = "") -> dict[str, Any]:
    """Of today by the simulation's clock, unless a day is named."""
    today = day or client.simulation.now().astimezone(CHINA).date().isoformat()
    body = {"bill_type": "trade", "bill_date": today}
    return await client.ask("alipay.data.dataservice.bill.downloadurl.query", body)


async def test_a_statement_is_a_zip_of_csv_in_gbk(client: Client, stopped_clock: StoppedClock) -> None:
    await client.create()
    client.pay()
    await client.refund("10.00")
    response = await client.http.get((await find_statement(client))["bill_download_url"])
    with zipfile.ZipFile(io.BytesIO(response.content), metadata_encoding="gbk") as archive:
        details, summary = archive.infolist()
        text = archive.read(details).decode("gbk")
    assert details.filename.endswith("业务明细.csv")
    assert summary.filename.endswith("业务明细(汇总).csv")
    assert not details.flag_bits & 0x800, "the name does not say that it is UTF-8, for it is not"
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    header, *rows = csv.reader(lines)
    assert len(header) == 25
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["业务类型"].strip() for row in found] == ["交易", "退款"]
    assert [row["订单金额（元）"] for row in found] == ["88.88", "-10.00"]
    assert [row["商户订单号"] for row in found] == [f"{NUMBER}\t"] * 2
    assert found[1]["退款批次号/请求号"] == "r-1\t"


async def test_a_day_without_trades_has_no_statement(client: Client) -> None:
    assert refused(await find_statement(client)) == ("40004", "isp.bill_not_exist")
    assert refused(await find_statement(client, "2026-13-01")) == ("40002", "isv.invalid_arguments")


async def test_a_statement_is_for_who_has_its_address(client: Client, stopped_clock: StoppedClock) -> None:
    await client.create()
    client.pay()
    address = (await find_statement(client))["bill_download_url"]
    for wrong in (address[:-1] + "x", address.replace("bizDates=2", "bizDates=1"), address.partition("?")[0]):
        assert (await client.http.get(wrong)).status_code == 403


async def test_rows_of_a_statement_go_wrong_as_the_profile_says(
    client: Client, channel: Channel, stopped_clock: StoppedClock
) -> None:
    await client.create()
    client.pay()
    address = (await find_statement(client))["bill_download_url"]
    for fault, fields in (("statement_wrong_amount", "88.89"), ("statement_malformed", f"payment,{NUMBER}\r\n")):
        await channel.faults(**{fault: 1.0})
        response = await client.http.get(address)
        with zipfile.ZipFile(io.BytesIO(response.content), metadata_encoding="gbk") as archive:
            assert fields in archive.read(archive.infolist()[0]).decode("gbk")
    await channel.faults(statement_omits=1.0)
    assert refused(await find_statement(client)) == ("40004", "isp.bill_not_exist")


# -- accounts ----------------------------------------------------------------------------------------------------------


async def test_a_rotation_adds_keys_of_both_sides_and_the_old_ones_stay(client: Client, channel: Channel) -> None:
    alipay = channel.simulation.channels["alipay"]
    before = alipay.open_account("rotating", "")
    after = alipay.rotated(before.account)
    channel.simulation.accounts[after.account.merchant_id] = after.account
    assert list(after.credentials["alipay_public_keys"]) == ["k2", "k1"]
    assert after.credentials["private_key"] != before.credentials["private_key"]
    old, new = Client(channel, before), Client(channel, after)
    assert (await new.create())["code"] == "10000"
    old.theirs = new.theirs
    assert (await old.create())["code"] == "10000", "signed with the old key, answered with the new one"


async def test_an_account_with_certificates_names_them_on_both_sides(client: Client, channel: Channel) -> None:
    opened = in_certificate_mode(channel.simulation.channels["alipay"].open_account("certified", ""))
    channel.simulation.accounts[opened.account.merchant_id] = opened.account
    certified = Client(channel, opened)
    response = await certified.send("alipay.trade.query", {"out_trade_no": NUMBER})
    fields = response.json()["alipay_trade_query_response"]
    assert refused(fields) == ("40002", "isv.invalid-app-cert-sn"), "the serial numbers are missing"


async def test_too_many_calls_are_refused_in_the_channels_words(client: Client, channel: Channel) -> None:
    await channel.faults(rate_limit_per_s=1)
    await client.query()
    assert refused(await client.query()) == ("40005", "isv.app-call-limited")


async def test_a_code_ends_after_two_hours_unless_it_was_scanned(client: Client, stopped_clock: StoppedClock) -> None:
    """The trade of a scanned code lives on until `time_expire`; an unscanned one gets another code."""
    until_ = (stopped_clock.at + timedelta(days=1)).astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")
    first = (await client.create(time_expire=until_))["qr_code"]
    stopped_clock.forward(2 * 3600)
    assert (await client.http.get(first)).status_code == 410
    fresh = (await client.create(time_expire=until_))["qr_code"]
    assert fresh != first
    assert (await client.http.get(fresh)).status_code == 200
    stopped_clock.forward(2 * 3600)
    assert (await client.http.get(fresh)).status_code == 200
