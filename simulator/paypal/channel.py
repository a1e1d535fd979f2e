"""PayPal, Orders v2: the buyer approves, and the merchant's capture takes the money. Written from the protocol."""

from __future__ import annotations

import base64
import binascii
import hmac
import zlib
from datetime import datetime
from functools import partial
from http import HTTPStatus
from secrets import token_hex

import msgspec
from msgspec.structs import replace

from simulator.kernel.base import Account, Accounts, Event, Message, Opened
from simulator.kernel.dispatch import Call, Operation
from simulator.kit.asgi import Request, Response, json_response
from simulator.paypal import elsewhere
from simulator.paypal.checksum import with_checksum
from simulator.paypal.events import message_of
from simulator.paypal.keys import (
    CERTIFICATES,
    Wire,
    is_token,
    merchant_in,
    new_ca,
    new_certificate,
    other_key,
    signed_headers,
    wire_of,
    with_wire,
)
from simulator.paypal.operations import OPERATIONS
from simulator.paypal.wire import error

RESEND_GAPS_S: tuple[int, ...] = (*(60, 120, 300, 600, 900, 1800), *(13_440,) * 18, 13_500)
"""At most 25 resends over three days; PayPal does not publish their gaps."""


class Paypal:
    """The simulated PayPal."""

    name = "paypal"
    callbacks_expire = False
    needs_capture = True
    resend_gaps_s = RESEND_GAPS_S
    acknowledge_within_s = 5.0
    operations: tuple[Operation, ...] = OPERATIONS

    def claimed_merchant(self, request: Request) -> str:
        return merchant_in(request.headers.get("authorization", "").removeprefix("Bearer "))

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        path = request.target.partition("?")[0]
        if path.startswith(CERTIFICATES):
            return _by_certificate(request.params["id"], accounts) or error(404, "RESOURCE_NOT_FOUND")
        if path == "/v1/oauth2/token":
            found = _by_client(request.headers.get("authorization", ""), accounts)
            return found or json_response({"error": "invalid_client"}, 401)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        account = accounts.get(merchant_in(token))
        if account is None or account.channel != self.name or not is_token(token, account, now):
            return json_response({"error": "invalid_token"}, 401)
        return account

    def too_many(self, call: Call) -> Response:
        del call
        return replace(error(429, "RATE_LIMIT_REACHED"), headers=(("retry-after", "1"),))

    def open_account(self, name: str, callback_url: str) -> Opened:
        ca = new_ca()
        wire = Wire(
            client_id=f"A{token_hex(20)}",
            client_secret=f"E{token_hex(20)}",
            webhook_id=token_hex(8).upper(),
            token_key=token_hex(16),
            ca=ca,
            certificates=(new_certificate(ca),),
        )
        account = Account(name=name, merchant_id=_merchant_id(name), channel=self.name, callback_url=callback_url)
        return _opened(account, wire)

    def rotated(self, account: Account) -> Opened:
        """Return the account with a new signing certificate; the credentials stay the same."""
        wire = wire_of(account)
        return _opened(account, replace(wire, certificates=(new_certificate(wire.ca), *wire.certificates)))

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        body = msgspec.json.encode(message_of(event, pay_url))
        return Message(headers=signed_headers(wire_of(account), body, now), body=body)

    def elsewhere(self, number: str, account: Account, now: datetime) -> dict[str, Message]:
        return elsewhere.messages(number, account, now)

    def stranger(self, account: Account) -> Account:
        """Return the account with the same certificate and another key."""
        wire = wire_of(account)
        claimed = replace(wire.certificates[0], key=other_key())
        return with_wire(account, replace(wire, certificates=(claimed,)))

    def altered(self, message: Message) -> Message:
        return replace(message, body=message.body + b" ")

    def with_checksum_of(self, genuine: Message, claimed: Message) -> Message:
        return replace(genuine, body=with_checksum(claimed.body, zlib.crc32(genuine.body)))

    def acknowledges(self, status: int, body: bytes) -> bool:
        del body
        return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _opened(account: Account, wire: Wire) -> Opened:
    """Return the credentials. Certificates are fetched from the host of the API, so no URL is configured."""
    credentials = {
        "client_id": wire.client_id,
        "client_secret": wire.client_secret,
        "webhook_id": wire.webhook_id,
        "merchant_id": account.merchant_id,
        "ca_certificates": [wire.ca.pem],
    }
    return Opened(account=with_wire(account, wire), credentials=credentials)


def _merchant_id(name: str) -> str:
    """Return an id of 13 capital letters and digits, the same for the same name."""
    return "P" + base64.b32encode(hmac.digest(b"merchant", name.encode(), "sha256")).decode()[:12]


def _by_client(authorization: str, accounts: Accounts) -> Account | None:
    try:
        text = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    client_id, _, secret = text.partition(":")
    found = next((one for one in accounts.values() if one.wire.get("client_id") == client_id), None)
    same = found is not None and hmac.compare_digest(str(found.wire["client_secret"]).encode(), secret.encode())
    return found if same else None


def _by_certificate(id_: str, accounts: Accounts) -> Account | None:
    has = partial(_has_certificate, id_)
    return next(filter(has, accounts.values()), None)


def _has_certificate(id_: str, account: Account) -> bool:
    return account.channel == Paypal.name and any(one["id"] == id_ for one in account.wire["certificates"])
