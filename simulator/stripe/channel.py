"""Accounts, keys and callbacks of Stripe. https://docs.stripe.com/webhooks

Test mode only. A secret key contains its account, for the record of arrivals: `sk_test_` + the 16 characters of
`acct_…` + a secret.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from secrets import token_hex

import msgspec
from msgspec.structs import replace

from simulator.kernel.base import Account, Accounts, Event, Message, Opened
from simulator.kernel.dispatch import Call, Operation
from simulator.kit.asgi import Request, Response
from simulator.stripe import elsewhere
from simulator.stripe.lists import event_object
from simulator.stripe.operations import OPERATIONS
from simulator.stripe.wire import error_response, signature_header

RESEND_GAPS_S: tuple[int, ...] = (300, 1500, 5400, 7200, 14_400, 28_800, 57_600, 86_400)
"""5 and 30 minutes, 2, 4, 8, 16, 32 and 56 hours after the first one.

https://docs.stripe.com/webhooks: up to three days with exponential back-off, without figures. These double from the
first gaps that users have reported.
"""

SECRETS_KEPT = 2
"""A rolled secret stays valid beside the new one for at most a day."""

UNKNOWN_SECRET = "whsec_that_the_account_does_not_have"  # noqa: S105 - made to fail verification

_KEY_PREFIX = "sk_test_"
_ACCOUNT_CHARACTERS = 16


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of `Account.wire`: the newest first, all valid. `events` are those of the webhook endpoint."""

    secret_keys: tuple[str, ...]
    webhook_secrets: tuple[str, ...]
    events: tuple[str, ...] = ("*",)


class Stripe:
    """The simulated Stripe."""

    name = "stripe"
    callbacks_expire = True
    needs_capture = False
    resend_gaps_s = RESEND_GAPS_S
    acknowledge_within_s = 10.0
    operations: tuple[Operation, ...] = OPERATIONS

    def claimed_merchant(self, request: Request) -> str:
        key = _bearer(request).removeprefix(_KEY_PREFIX)
        return f"acct_{key[:_ACCOUNT_CHARACTERS]}" if key else ""

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        del now
        account, key = accounts.get(self.claimed_merchant(request)), _bearer(request).encode()
        keys = () if account is None or account.channel != self.name else _wire(account).secret_keys
        if account is None or not any(hmac.compare_digest(known.encode(), key) for known in keys):
            return error_response(401, "Invalid API Key provided")
        return account

    def too_many(self, call: Call) -> Response:
        del call
        limited = error_response(429, "too many requests in this second", code="rate_limit")
        return replace(limited, headers=(*limited.headers, ("retry-after", "1")))

    def open_account(self, name: str, callback_url: str) -> Opened:
        merchant_id = f"acct_{token_hex(_ACCOUNT_CHARACTERS // 2)}"
        wire = Wire(secret_keys=(_secret_key(merchant_id),), webhook_secrets=(_webhook_secret(),))
        account = Account(name=name, merchant_id=merchant_id, channel=self.name, callback_url=callback_url)
        return _opened(account, wire)

    def rotated(self, account: Account) -> Opened:
        wire = _wire(account)
        keys = (_secret_key(account.merchant_id), *wire.secret_keys)
        secrets = (_webhook_secret(), *wire.webhook_secrets)
        return _opened(account, Wire(secret_keys=keys[:SECRETS_KEPT], webhook_secrets=secrets[:SECRETS_KEPT]))

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        body = msgspec.json.format(msgspec.json.encode(event_object(event, pay_url)), indent=2)
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "stripe-signature": signature_header(body, _wire(account).webhook_secrets, now),
        }
        return Message(headers=headers, body=body)

    def elsewhere(self, number: str, account: Account, now: datetime) -> dict[str, Message]:
        return elsewhere.messages(number, _wire(account).webhook_secrets, now)

    def stranger(self, account: Account) -> Account:
        wire = replace(_wire(account), webhook_secrets=(UNKNOWN_SECRET,))
        return replace(account, wire=msgspec.to_builtins(wire))

    def altered(self, message: Message) -> Message:
        return replace(message, body=message.body + b" ")

    def acknowledges(self, status: int, body: bytes) -> bool:
        del body
        return 200 <= status < 300  # noqa: PLR2004 - any 2xx


def _opened(account: Account, wire: Wire) -> Opened:
    account = replace(account, wire=msgspec.to_builtins(wire))
    credentials = {"secret_key": wire.secret_keys[0], "webhook_secrets": list(wire.webhook_secrets)}
    return Opened(account=account, credentials=credentials)


def _wire(account: Account) -> Wire:
    return msgspec.convert(account.wire, Wire)


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def _secret_key(merchant_id: str) -> str:
    return f"{_KEY_PREFIX}{merchant_id.removeprefix('acct_')}{token_hex(24)}"


def _webhook_secret() -> str:
    return f"whsec_{token_hex(24)}"
