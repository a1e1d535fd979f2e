"""The sandbox protocol written once more, from its page alone: what a merchant's server sends, and how it verifies."""

import hashlib
import hmac
import time
from typing import Any

import httpx

SECRET = "a secret for tests, long enough to be one"
OLDER_SECRET = "the secret before that one, as long again"
MERCHANT_ID = "m-1001"
ACCOUNT = {"name": "main", "merchant_id": MERCHANT_ID, "keys": {"k2": SECRET, "k1": OLDER_SECRET}}


def mac(secret: str, *lines: bytes) -> str:
    return hmac.new(secret.encode(), b"\n".join(lines), hashlib.sha256).hexdigest()


def parts(signature: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in signature.split(","))


class SandboxClient:
    """Signs each request and verifies each answer that has a signature."""

    def __init__(self, client: httpx.AsyncClient, url: str, secret: str = SECRET, key_id: str = "k2") -> None:
        self.client = client
        self.url = url
        self.secret = secret
        self.key_id = key_id

    def headers(self, method: str, target: str, body: bytes, *, at: int | None = None) -> dict[str, str]:
        t = str(int(time.time()) if at is None else at)
        v1 = mac(self.secret, b"REQUEST", t.encode(), method.encode(), target.encode(), MERCHANT_ID.encode(), body)
        return {"Sandbox-Merchant": MERCHANT_ID, "Sandbox-Signature": f"t={t},k={self.key_id},v1={v1}"}

    async def send(
        self, method: str, target: str, body: bytes = b"", *, at: int | None = None, **more: str
    ) -> httpx.Response:
        headers = self.headers(method, target, body, at=at) | {
            name.replace("_", "-"): text for name, text in more.items()
        }
        return await self.client.request(method, self.url + target, content=body, headers=headers)

    async def create(self, number: str, **terms: Any) -> httpx.Response:
        body = httpx.Request("POST", self.url, json=order(number, **terms)).content
        return await self.send("POST", "/v1/payments", body, Idempotency_Key=number)

    async def query(self, number: str) -> httpx.Response:
        return await self.send("GET", f"/v1/payments/{number}")

    async def close(self, number: str) -> httpx.Response:
        return await self.send("POST", f"/v1/payments/{number}/close", b"{}")

    async def refund(self, number: str, refund_no: str, amount: int) -> httpx.Response:
        body = httpx.Request("POST", self.url, json={"refund_no": refund_no, "amount": amount}).content
        return await self.send("POST", f"/v1/payments/{number}/refunds", body)


def order(number: str, **terms: Any) -> dict[str, Any]:
    """Terms of a payment; `callback_url` has to be given, or nobody listens."""
    return {
        "out_trade_no": number,
        "amount": 8888,
        "currency": "CNY",
        "subject": "Tea, 250 g",
        "expires_at": "2038-01-19T03:14:07Z",
        "callback_url": "http://127.0.0.1:9/nobody",
        "return_url": "https://shop.example/done?a=1&b=2",
        **terms,
    }


def is_answer_signed(response: httpx.Response, secret: str = SECRET) -> bool:
    """Return whether the response is signed for exactly this request."""
    given = parts(response.headers.get("sandbox-signature", ""))
    question = parts(response.request.headers["sandbox-signature"])["v1"]
    wanted = mac(
        secret, b"ANSWER", given["t"].encode(), question.encode(), str(response.status_code).encode(), response.content
    )
    return given["v1"] == wanted and abs(int(given["t"]) - time.time()) < 300


def is_callback_signed(headers: dict[str, str], body: bytes, secret: str = SECRET) -> bool:
    given = parts(headers["sandbox-signature"])
    callback_id, merchant_id = headers["sandbox-callback-id"], headers["sandbox-merchant"]
    wanted = mac(secret, b"CALLBACK", given["t"].encode(), callback_id.encode(), merchant_id.encode(), body)
    return given["v1"] == wanted and abs(int(given["t"]) - time.time()) < 300
