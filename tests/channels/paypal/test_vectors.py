"""The webhook of PayPal's SDK tests: genuine, and with every kind of change."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from channels.base import Callback
from channels.kit.signed_message import recorded_checks
from channels.paypal.adapter import Paypal
from channels.transport import Transport
from core.errors import CallbackForged
from core.evidence import Unclear
from tests.channels.httpx_carrier import responding
from tests.channels.paypal.driver import PaypalDriver, keys, pem
from tests.channels.published import published

RECEIVED_AT = datetime(2015, 5, 18, 15, 45, 14, tzinfo=UTC)


class Webhook:
    """The published webhook. Its sandbox certificate ended in 2017; here it is trusted itself."""

    def __init__(self) -> None:
        self.vector = published("paypal_webhook")
        self.fetched: list[str] = []
        self.transport = Transport(timeout_s=1, carrier=responding(self._serve))

    def adapter(self, webhook_id: str = "", ca_certificates: list[str] | None = None) -> Paypal:
        account = PaypalDriver().account("")
        credentials = account.credentials | {
            "webhook_id": webhook_id or self.vector["webhook_id"],
            "ca_certificates": ca_certificates or [self.vector["certificate_pem"]],
        }
        return Paypal(replace(account, credentials=credentials), self.transport)

    async def verify(
        self,
        adapter: Paypal | None = None,
        *,
        body: str = "",
        received_at: datetime = RECEIVED_AT,
        **headers: str,
    ) -> Callback:
        published_headers: dict[str, str] = {name.lower(): text for name, text in self.vector["headers"].items()}
        raw = (body or self.vector["raw_body"]).encode()
        return await (adapter or self.adapter()).verify_callback(
            published_headers | headers, raw, received_at=received_at
        )

    def negative(self, id_: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.vector["negatives"] if one["id"] == id_)
        return found

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.fetched.append(str(request.url))
        return httpx.Response(200, stream=httpx.ByteStream(self.vector["certificate_pem"].encode()))


@pytest.fixture
def webhook() -> Webhook:
    return Webhook()


async def test_the_published_webhook_verifies(webhook: Webhook) -> None:
    """Its checksum is above 2 to the 31. It is about a sale of the older API: a question by each of its ids."""
    with recorded_checks() as checks:
        callback = await webhook.verify()
    assert isinstance(callback.evidence, Unclear)
    assert callback.evidence.every_id == ("PAY-86C81811X5228590KKVNARQQ", "4EU7004268015634R")
    assert callback.notification_id in webhook.vector["raw_body"]
    assert [one.string.decode() for one in checks] == [webhook.vector["string_to_verify"]]
    assert webhook.fetched == [webhook.vector["headers"]["PAYPAL-CERT-URL"]]


async def test_the_webhook_of_another_merchant_is_forged(webhook: Webhook) -> None:
    other = webhook.adapter(webhook.negative("webhook_id_of_other_merchant")["webhook_id"])
    with pytest.raises(CallbackForged, match="signature"):
        await webhook.verify(other)


async def test_a_changed_body_is_forged(webhook: Webhook) -> None:
    with pytest.raises(CallbackForged, match="signature"):
        await webhook.verify(body=webhook.negative("body_changed")["raw_body"])


async def test_another_algorithm_is_forged_before_anything_is_fetched(webhook: Webhook) -> None:
    header = {"paypal-auth-algo": webhook.negative("algo_sha1")["PAYPAL-AUTH-ALGO"]}
    with pytest.raises(CallbackForged, match="auth_algo"):
        await webhook.verify(**header)
    assert webhook.fetched == []


async def test_every_published_address_that_is_not_paypals_is_forged_before_anything_is_fetched(
    webhook: Webhook,
) -> None:
    tricks = [one for one in webhook.vector["negatives"] if one["id"].startswith("cert_url_")]
    assert len(tricks) == 8
    for trick in tricks:
        with pytest.raises(CallbackForged, match="certificate_url"):
            await webhook.verify(**{"paypal-cert-url": trick["PAYPAL-CERT-URL"]})
    assert webhook.fetched == []


async def test_a_webhook_after_its_certificates_end_is_forged(webhook: Webhook) -> None:
    at = datetime.fromisoformat(webhook.negative("expired_certificate")["now"])
    with pytest.raises(CallbackForged, match="certificate_not_trusted"):
        await webhook.verify(received_at=at)
    assert (await webhook.verify(received_at=at - timedelta(days=10))).is_hint


async def test_a_certificate_outside_the_trusted_chain_is_forged(webhook: Webhook) -> None:
    adapter = webhook.adapter(ca_certificates=[pem(keys().authority)])
    with pytest.raises(CallbackForged, match="certificate_not_trusted"):
        await webhook.verify(adapter)
