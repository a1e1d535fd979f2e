"""WeChat Pay, API v3, as https://pay.weixin.qq.com/doc/v3/merchant/4012791877 and its related pages describe it.

Not simulated: callbacks about refunds (sent only to a `notify_url` of the refund), payment codes,
`trade_type` of anything but native.
"""

from __future__ import annotations

import gzip
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache, partial
from hashlib import blake2b, sha1
from http import HTTPStatus
from secrets import token_hex, token_urlsafe
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from simulator.kernel.base import Account, Accounts, Event, EventType, Message, Opened
from simulator.kernel.clock import utc_now
from simulator.kernel.dispatch import Call, Operation
from simulator.kernel.faults import CallKind
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Request, Response, json_response, problem
from simulator.kit.rsa_keys import new_key, private_pem
from simulator.wechatpay import elsewhere, operations
from simulator.wechatpay.bills import TYPES, bill
from simulator.wechatpay.bodies import BEIJING, refund_notice, rfc3339, transaction
from simulator.wechatpay.complaints import dispute_notice, show_complaint
from simulator.wechatpay.operations import query_value, wrong_parameter
from simulator.wechatpay.wire import (
    Keys,
    authorization,
    callback_headers,
    is_signed,
    keys_of,
    new_platform_key,
    new_public_key,
    public_of,
    sealed,
    signed,
)

# https://pay.weixin.qq.com/doc/v3/merchant/4012075249: 15 resends, 24 h 4 min in all.
RESEND_GAPS_S: tuple[int, ...] = (
    *(15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600),
    *(10_800, 10_800, 10_800, 21_600, 21_600),
)
PROBE = "WECHATPAY/SIGNTEST/"
BILLS_MAX = 32
"""Limit of stored bills. A real download URL is valid for five minutes."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class WechatPay:
    """The simulated WeChat Pay. It stores the bills for their download URLs."""

    name = "wechatpay"
    callbacks_expire = True
    needs_capture = False
    resend_gaps_s = RESEND_GAPS_S
    acknowledge_within_s = 5.0
    probed_share = 0.05

    def __init__(self) -> None:
        self._bills: OrderedDict[str, bytes] = OrderedDict()
        self.operations = self._operations()

    def _operations(self) -> tuple[Operation, ...]:
        one, refunds = "/v3/pay/transactions/out-trade-no/{number}", "/v3/refund/domestic/refunds"
        by_id = "/v3/pay/transactions/id/{number}"
        in_path, nothing = operations.number_in_path, operations.no_number
        in_body, refund_in_body = operations.number_in_body("out_trade_no"), operations.number_in_body("out_refund_no")
        of_day = partial(query_value, name="bill_date")
        create = [
            _operation(
                CallKind.CREATE, "POST", f"/v3/pay/transactions/{method}", in_body, partial(operations.create, method)
            )
            for method in operations.METHODS
        ]
        return (
            *create,
            _operation(CallKind.QUERY, "GET", one, in_path, operations.query),
            _operation(CallKind.QUERY, "GET", by_id, in_path, operations.query_by_id),
            _operation(CallKind.CLOSE, "POST", f"{one}/close", in_path, operations.close),
            _operation(CallKind.REFUND, "POST", refunds, refund_in_body, operations.refund),
            _operation(CallKind.QUERY_REFUND, "GET", f"{refunds}/{{number}}", in_path, operations.query_refund),
            _operation(CallKind.DISPUTE, "GET", "/v3/merchant-service/complaints-v2/{number}", in_path, show_complaint),
            _operation(CallKind.CERTIFICATES, "GET", "/v3/certificates", nothing, operations.list_certificates),
            _operation(CallKind.STATEMENT, "GET", "/v3/bill/tradebill", of_day, self._bill),
            _operation(CallKind.STATEMENT, "GET", "/v3/billdownload/file", nothing, self._bill_file),
        )

    # -- callers -------------------------------------------------------------------------------------------------------

    def claimed_merchant(self, request: Request) -> str:
        return authorization(request).get("mchid", "")

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        if not request.headers.get("user-agent"):
            return wrong_parameter("Http头缺少User-Agent")
        if not {"application/json", "*/*"} & {part.strip() for part in request.headers.get("accept", "").split(",")}:
            return wrong_parameter("Http头Accept: application/json")
        account = accounts.get(self.claimed_merchant(request))
        if account is None or account.channel != self.name or not is_signed(request, account, now):
            return problem(401, "SIGN_ERROR", "错误的签名，验签失败")
        return account

    def too_many(self, call: Call) -> Response:
        del call
        return problem(429, "FREQUENCY_LIMITED", "频率超限")

    # -- accounts ------------------------------------------------------------------------------------------------------

    def open_account(self, name: str, callback_url: str) -> Opened:
        del callback_url  # each payment brings its own
        digits = int.from_bytes(blake2b(name.encode(), digest_size=4).digest()) % 10**8
        keys = Keys(appid=f"wx{token_hex(8)}", apiv3_key=token_hex(16), merchants={}, platform=[], public_keys=[])
        return _with_fresh_keys(Account(name=name, merchant_id=f"16{digits:08d}", channel=self.name), keys)

    def rotated(self, account: Account) -> Opened:
        return _with_fresh_keys(account, keys_of(account))

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        """Return the callback of a paid payment, of a refund made in the console, or of a dispute, with its content
        encrypted; None for other events. The address of all notices is taken to be the payment's.
        """
        del pay_url
        if event.type is EventType.PAYMENT_PAID:
            type_, summary, kind, content = (
                "TRANSACTION.SUCCESS",
                "支付成功",
                "transaction",
                transaction(event.payment, account),
            )
        elif event.dispute is not None:
            type_, kind, content = dispute_notice(event.dispute, event.payment)
            summary = "投诉" if kind == "complaint" else "退款异常"
        elif event.refund is not None and event.refund.in_console:
            content = refund_notice(event.refund, event.payment)
            type_, summary, kind = "REFUND.SUCCESS", "退款成功", "refund"
        else:
            return None
        resource = sealed(keys_of(account).apiv3_key, msgspec.json.encode(content), kind, event.callback_id)
        body = msgspec.json.encode(
            {
                "id": event.callback_id,
                "create_time": rfc3339(event.created_at),
                "resource_type": "encrypt-resource",
                "event_type": type_,
                "summary": summary,
                "resource": {"original_type": kind, **resource},
            }
        )
        return Message(headers=callback_headers(account, event.callback_id, body, now), body=body)

    def probe(self, message: Message) -> Message:
        """Return the message with a wrong signature, as WeChat Pay's signature tests have."""
        wrong = PROBE + message.headers["wechatpay-signature"][len(PROBE) :]
        return replace(message, headers=message.headers | {"wechatpay-signature": wrong})

    def elsewhere(self, number: str, account: Account, now: datetime) -> dict[str, Message]:
        return elsewhere.messages(number, account, now)

    def stranger(self, account: Account) -> Account:
        """Return the account with the same serials, other keys and another APIv3 key."""
        keys, pem = keys_of(account), _other_key()
        replaced = replace(
            keys,
            apiv3_key="s" * 32,
            platform=[replace(key, private_key=pem) for key in keys.platform],
            public_keys=[replace(key, private_key=pem) for key in keys.public_keys],
        )
        return replace(account, wire=msgspec.to_builtins(replaced))

    def altered(self, message: Message) -> Message:
        return replace(message, body=message.body + b" ")

    def acknowledges(self, status: int, body: bytes) -> bool:
        del body
        return status in (HTTPStatus.OK, HTTPStatus.NO_CONTENT)

    # -- the bill ------------------------------------------------------------------------------------------------------

    def _bill(self, simulation: Simulation, call: Call) -> Response:
        """Return the URL of a day's bill, also of today; a real one exists from 10:00 on the next day."""
        text, packing = query_value(call.request, "bill_date"), query_value(call.request, "tar_type")
        try:
            day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
        except ValueError:
            day = None
        bill_type = query_value(call.request, "bill_type")
        if day is None or packing not in ("", "GZIP") or bill_type not in TYPES:
            return wrong_parameter("bill_date: YYYY-MM-DD; bill_type: ALL, SUCCESS or REFUND; tar_type: GZIP")
        rows = simulation.statement(call.account, day, BEIJING)
        counted = simulation.counted_rows(call.account, day, BEIJING)
        if not counted:
            return wrong_parameter("账单文件不存在", "NO_STATEMENT_EXIST")
        plain = bill(rows, counted, call.account, bill_type)
        token = token_urlsafe(24)
        self._bills[token] = gzip.compress(plain) if packing else plain
        if len(self._bills) > BILLS_MAX:
            self._bills.popitem(last=False)
        scheme, host = urlsplit(simulation.urls[self.name]).scheme, call.request.headers.get("host", "")
        link = {
            "hash_type": "SHA1",
            "hash_value": sha1(plain, usedforsecurity=False).hexdigest(),
            "download_url": f"{scheme}://{host}/v3/billdownload/file?token={token}",
        }
        return signed(call, json_response(link))

    def _bill_file(self, simulation: Simulation, call: Call) -> Response:
        """Return the stored bill, unsigned as WeChat Pay's."""
        del simulation
        content = self._bills.get(query_value(call.request, "token"))
        if content is None:
            return wrong_parameter("账单下载链接已失效")
        return Response(body=content, content_type="application/octet-stream")


def _operation(
    kind: CallKind,
    method: str,
    pattern: str,
    number: Callable[[Request], str],
    handle: Callable[[Simulation, Call], Response],
) -> Operation:
    return Operation(kind=kind, method=method, pattern=pattern, number=number, handle=handle)


def _with_fresh_keys(account: Account, keys: Keys) -> Opened:
    """Add a key pair for the merchant, and before the old ones a platform certificate and a channel key."""
    ours, serial = private_pem(new_key()), token_hex(20).upper()
    platform = [new_platform_key(utc_now()), *keys.platform]
    public_keys = [new_public_key(), *keys.public_keys]
    fresh = replace(
        keys, merchants={**keys.merchants, serial: public_of(ours)}, platform=platform, public_keys=public_keys
    )
    credentials = {
        "appid": keys.appid,
        "mchid": account.merchant_id,
        "merchant_serial": serial,
        "private_key": ours,
        "apiv3_key": keys.apiv3_key,
        "public_keys": {key.id: public_of(key.private_key) for key in public_keys},
        "platform_certificates": [key.certificate for key in platform],
        "download_certificates": True,
    }
    return Opened(account=replace(account, wire=msgspec.to_builtins(fresh)), credentials=credentials)


@lru_cache(maxsize=1)
def _other_key() -> str:
    return private_pem(new_key())
