"""Alipay's open platform as its documentation describes it: gateway v2, RSA2 both ways, forms as callbacks."""

from __future__ import annotations

import hmac
from datetime import datetime
from http import HTTPStatus

from msgspec.structs import replace

from simulator.alipay import elsewhere
from simulator.alipay import keys as alipay_keys
from simulator.alipay.keys import wire_of
from simulator.alipay.messages import message_body
from simulator.alipay.operations import FILE, OPERATIONS, token_of
from simulator.alipay.wire import (
    CHARSETS,
    callback_body,
    gateway_error,
    names_its_certificates,
    parameters,
    read_time,
    refusal,
    signed_string,
)
from simulator.kernel.base import Account, Accounts, Event, EventType, Message, Opened
from simulator.kernel.dispatch import Call, Operation
from simulator.kit.asgi import Request, Response

RESEND_GAPS_S: tuple[int, ...] = (240, 600, 600, 3600, 7200, 21_600, 54_000)
"""4, 10 and 10 minutes, then 1, 2, 6 and 15 hours. https://opendocs.alipay.com/open/270/105902"""

_REQUIRED = {
    "method": "isv.missing-method",
    "app_id": "isv.missing-app-id",
    "sign_type": "isv.missing-signature-type",
    "sign": "isv.missing-signature",
    "timestamp": "isv.missing-timestamp",
    "version": "isv.missing-version",
}


class Alipay:
    """The simulated Alipay. An account's `merchant_id` is its app_id."""

    name = "alipay"
    callbacks_expire = False
    needs_capture = False
    resend_gaps_s = RESEND_GAPS_S
    acknowledge_within_s = 5.0
    operations: tuple[Operation, ...] = OPERATIONS

    def open_account(self, name: str, callback_url: str) -> Opened:
        """Open it in public-key mode; `alipay_keys.in_certificate_mode` adds certificates."""
        return alipay_keys.opened_account(name, callback_url)

    def rotated(self, account: Account) -> Opened:
        return alipay_keys.rotated_account(account)

    def claimed_merchant(self, request: Request) -> str:
        given = parameters(request)
        return given.get("userId", "") if _is_of_file(request) else given.get("app_id", "")

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        del now  # the gateway looks at the form of `timestamp` only
        account = accounts.get(self.claimed_merchant(request))
        if account is not None and account.channel != self.name:
            account = None
        given = parameters(request)
        if _is_of_file(request):
            is_known = account is not None and hmac.compare_digest(
                token_of(account, given.get("bizDates", "")).encode(), given.get("token", "").encode()
            )
            return account if account is not None and is_known else Response(status=HTTPStatus.FORBIDDEN)
        wrong = _wrong_with(given, account)
        if account is None or wrong is not None:
            return gateway_error(given, *(wrong or ("40002", "isv.invalid-app-id")))
        return account

    def too_many(self, call: Call) -> Response:
        return refusal(call, "isv.app-call-limited", code="40005")

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        """Return the same bytes for every resend: no field depends on the time of sending."""
        del now, pay_url
        if event.type is EventType.PAYMENT_AGREED:
            return None
        charset = wire_of(account).charset
        headers = {"content-type": f"application/x-www-form-urlencoded; charset={charset}"}
        body = callback_body(event, account) if event.dispute is None else message_body(event, account)
        return Message(headers=headers, body=body)

    def elsewhere(self, number: str, account: Account, now: datetime) -> dict[str, Message]:
        return elsewhere.messages(number, account, now)

    def stranger(self, account: Account) -> Account:
        return alipay_keys.strangers(account)

    def altered(self, message: Message) -> Message:
        return replace(message, body=message.body + b"&passback_params=altered")

    def acknowledges(self, status: int, body: bytes) -> bool:
        return status == HTTPStatus.OK and body == b"success"


def _is_of_file(request: Request) -> bool:
    return request.target.startswith(FILE)


def _wrong_with(given: dict[str, str], account: Account | None) -> tuple[str, str] | None:
    """Return code and `sub_code` of the first error, in the gateway's order of checks."""
    missing = [sub_code for name, sub_code in _REQUIRED.items() if not given.get(name)]
    if missing:
        return "40001", missing[0]
    if account is None:
        return "40002", "isv.invalid-app-id"
    forms = {
        "isv.invalid-signature-type": given["sign_type"] == "RSA2",
        "isv.invalid-timestamp": read_time(given["timestamp"]) is not None,
        "isv.invalid-version": given["version"] == "1.0",
        "isv.invalid-format": given.get("format", "JSON").upper() == "JSON",
        "isv.invalid-charset": given.get("charset", "utf-8").lower() in CHARSETS,
        "isv.invalid-app-cert-sn": names_its_certificates(given, wire_of(account)),
    }
    wrong = [sub_code for sub_code, is_good in forms.items() if not is_good]
    if wrong:
        return "40002", wrong[0]
    keys, string = wire_of(account).merchant_public_keys, signed_string(given)
    if not any(alipay_keys.is_signed(key, given["sign"], string) for key in keys):
        return "40002", "isv.invalid-signature"
    return None
