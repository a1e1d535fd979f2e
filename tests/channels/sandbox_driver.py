"""The sandbox channel, played from docs/sandbox-protocol.md alone."""

from __future__ import annotations

import hashlib
import hmac
import time

import msgspec

from channels.base import Acknowledgement
from core.account import AccountConfig
from simulator.base import Account
from tests.channels.driver import Key, Said, Sent
from tests.channels.wire import Answered, Asked

_SECRETS = {
    Key.NEW: "a secret for tests, long enough to be one",
    Key.OLD: "the secret before that one, as long again",
    Key.STRANGER: "what somebody who knows no secret would try",
}
_IDS = {Key.NEW: "k2", Key.OLD: "k1", Key.STRANGER: "k2"}


class SandboxDriver:
    channel = "sandbox"
    merchant_id = "m-1001"
    tolerance_s = 300
    acknowledgement = Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"ok")
    signature_headers: tuple[str, ...] = ("sandbox-signature", "sandbox-callback-id")
    answers_are_bound = True
    statement = (
        b"type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"
        b"payment,0190a7c3d1f2a1b2c3d4e5f60718,4200000000202611230000000001,,8888,CNY,2026-11-23T04:00:00Z\n"
        b"refund,0190a7c3d1f2a1b2c3d4e5f60718,4200000000202611230000000001,R-000001,1000,CNY,2026-11-23T04:00:01Z\n"
    )

    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        secrets = {_IDS[key]: _SECRETS[key] for key in keys or (Key.NEW, Key.OLD)}
        credentials = {"merchant_id": self.merchant_id, "keys": secrets}
        return AccountConfig(name="main", channel=self.channel, base_url=base_url, credentials=credentials)

    def far_account(self) -> Account:
        keys = {_IDS[key]: _SECRETS[key] for key in (Key.NEW, Key.OLD)}
        return Account(name="main", merchant_id=self.merchant_id, keys=keys)

    def render(self, said: Said) -> bytes:
        return msgspec.json.encode(self._payment(said))

    def render_callback(self, said: Said, notification_id: str) -> bytes:
        body = {"id": notification_id, "type": "payment.paid", "created_at": "2026-11-23T04:00:00Z"}
        return msgspec.json.encode({**body, "payment": self._payment(said)})

    def render_refusal(self, code: str) -> bytes:
        return msgspec.json.encode({"code": code, "message": "no"})

    def sign_answer(
        self, asked: Asked, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> Answered:
        question = asked.headers["sandbox-signature"].rpartition("v1=")[2]
        made = _signature(key, at, b"ANSWER", question.encode(), str(status).encode(), body)
        return Answered(status, {"sandbox-signature": made, "content-type": "application/json"}, body)

    def sign_callback(
        self, body: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW, merchant: str = ""
    ) -> Sent:
        merchant_id = merchant or self.merchant_id
        made = _signature(key, at, b"CALLBACK", notification_id.encode(), merchant_id.encode(), body)
        headers = {
            "content-type": "application/json",
            "sandbox-merchant": merchant_id,
            "sandbox-callback-id": notification_id,
            "sandbox-signature": made,
        }
        return Sent(headers, body)

    def missing(self, asked: Asked) -> Answered:
        return self.sign_answer(asked, 404, self.render_refusal("PAYMENT_NOT_EXIST"))

    def _payment(self, said: Said) -> dict[str, object]:
        was_paid = said.status in ("paid", "refunded")
        return {
            "merchant_id": said.merchant or self.merchant_id,
            "out_trade_no": said.number,
            "transaction_id": said.transaction if was_paid else None,
            "amount": said.amount,
            "currency": said.currency,
            "subject": "Tea, 250 g",
            "status": said.status,
            "refunded_amount": said.refunded,
            "paid_at": "2026-11-23T04:00:00Z" if was_paid else None,
            "expires_at": "2038-01-19T03:14:07Z",
            "pay_url": "https://channel.example/pay/1",
        }


def _signature(key: Key, at: float | None, kind: bytes, *lines: bytes) -> str:
    signed_at = str(int(time.time() if at is None else at))
    string = b"\n".join((kind, signed_at.encode(), *lines))
    made = hmac.new(_SECRETS[key].encode(), string, hashlib.sha256).hexdigest()
    return f"t={signed_at},k={_IDS[key]},v1={made}"
