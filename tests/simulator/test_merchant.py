"""The merchant: verifies what a Standard Webhooks library signed, counts effects, complains of what must not be."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from standardwebhooks import Webhook

from simulator.merchant.control import Effects
from simulator.merchant.notifications import Delivery, Merchant

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "whsec_bWFkZSB1cCBmb3IgdGhlc2UgdGVzdHMgb25seSE="
OLDER_SECRET = "whsec_b25lIGJlZm9yZSB0aGF0LCBmb3Igcm90YXRpb24="


class Stub:
    """The session's merchant as a test uses it."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self.http = client

    async def notify(self, body: bytes, signed_id: str = "msg_1", **changed: str) -> httpx.Response:
        headers = signed(body, signed_id) | {name.replace("_", "-"): text for name, text in changed.items()}
        return await self.http.post(f"{self.url}/notifications", content=body, headers=headers)

    async def effects(self) -> Effects:
        response = await self.http.get(f"{self.url}/control/effects")
        return msgspec.json.decode(response.content, type=Effects)

    async def deliveries(self) -> list[Delivery]:
        response = await self.http.get(f"{self.url}/control/deliveries")
        return msgspec.json.decode(response.content, type=list[Delivery])

    async def faults(self, **profile: object) -> None:
        assert (await self.http.put(f"{self.url}/control/faults", json=profile)).status_code == 200


@pytest_asyncio.fixture(loop_scope="session")
async def stub(session_merchant: tuple[str, Merchant], http: httpx.AsyncClient) -> AsyncIterator[Stub]:
    url, _ = session_merchant
    await http.post(f"{url}/control/reset")
    await http.put(f"{url}/control/secrets", json={"secrets": [SECRET, OLDER_SECRET]})
    yield Stub(url, http)


def signed(body: bytes, webhook_id: str, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    signature = Webhook(secret).sign(webhook_id, at, body.decode())
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        "content-type": "application/json",
    }


def notification(order_no: str = "order-1", type_: str = "order.paid", status: str = "paid", **data: Any) -> bytes:
    return msgspec.json.encode(
        {
            "id": "msg_1",
            "type": type_,
            "created_at": "2026-11-23T00:00:00Z",
            "data": {
                "order_no": order_no,
                "version": 3,
                "status": status,
                "amount": 8888,
                "currency": "CNY",
                "paid_at": "2026-11-23T00:00:00Z",
                "late": False,
                "payment": {"out_trade_no": "number-1"},
                "metadata": {},
                **data,
            },
        }
    )


async def test_signed_notification_has_one_effect(stub: Stub) -> None:
    assert (await stub.notify(notification())).status_code == 200
    (effect,) = (await stub.effects()).effects
    assert (effect.order_no, effect.webhook_id, effect.amount, effect.again) == ("order-1", "msg_1", 8888, ())


async def test_same_notification_again_is_the_same_effect(stub: Stub) -> None:
    for _ in range(3):
        assert (await stub.notify(notification())).status_code == 200
    state = await stub.effects()
    assert (len(state.effects), state.effects[0].again, state.violations) == (1, (), ())
    assert len(await stub.deliveries()) == 3


async def test_another_id_for_a_paid_order_is_a_double_effect(stub: Stub) -> None:
    for webhook_id in ("msg_1", "msg_2", "msg_2"):
        await stub.notify(notification(), webhook_id)
    state = await stub.effects()
    assert state.effects[0].again == ("msg_2",)
    assert [violation.what for violation in state.violations] == ["double_effect"]


async def test_same_id_with_another_body_is_a_violation(stub: Stub) -> None:
    await stub.notify(notification())
    await stub.notify(notification(version=4))
    state = await stub.effects()
    assert [(violation.what, violation.order_no) for violation in state.violations] == [
        ("same_id_other_body", "order-1")
    ]


async def test_paid_that_does_not_say_paid_is_a_violation(stub: Stub) -> None:
    await stub.notify(notification(status="closed"))
    state = await stub.effects()
    assert (state.effects, [violation.what for violation in state.violations]) == ((), ["paid_but_not_paid"])


@pytest.mark.parametrize("type_", ["order.closed", "order.paid_late", "order.double_payment"])
async def test_other_types_are_heard_and_have_no_effect(stub: Stub, type_: str) -> None:
    assert (await stub.notify(notification(type_=type_))).status_code == 200
    assert (await stub.effects()).effects == ()
    assert [delivery.type for delivery in await stub.deliveries()] == [type_]


# -- signatures --------------------------------------------------------------------------------------------------------


async def test_any_of_several_signatures_and_secrets_verifies(stub: Stub) -> None:
    body = notification()
    older = signed(body, "msg_1", OLDER_SECRET)["webhook-signature"]
    assert (await stub.notify(body, webhook_signature=older)).status_code == 200
    assert (await stub.notify(body, webhook_signature=f"v1,AAAA v1a,BBBB {older}")).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_signature": ""},
        {"webhook_signature": "v1,AAAA"},
        {"webhook_signature": "v1"},
        {"webhook_id": "msg_2"},
        {"webhook_id": ""},
        {"webhook_timestamp": "1"},
        {"webhook_timestamp": "now"},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": "9" * 400},
    ],
)
async def test_unverified_notification_has_no_effect(stub: Stub, changed: dict[str, str]) -> None:
    assert (await stub.notify(notification(), **changed)).status_code == 401
    assert (await stub.effects()).effects == ()


@pytest.mark.parametrize("skew_s", [-310, 310])
async def test_notification_of_another_time_is_refused(stub: Stub, skew_s: int) -> None:
    headers = signed(notification(), "msg_1", at=datetime.now(UTC) + timedelta(seconds=skew_s))
    response = await stub.http.post(f"{stub.url}/notifications", content=notification(), headers=headers)
    assert response.status_code == 401


async def test_altered_body_is_refused(stub: Stub) -> None:
    headers = signed(notification(), "msg_1")
    response = await stub.http.post(f"{stub.url}/notifications", content=notification(amount=1), headers=headers)
    assert response.status_code == 401


async def test_signed_nonsense_is_refused(stub: Stub) -> None:
    assert (await stub.notify(b'{"id":"msg_1"}')).status_code == 400


async def test_secret_without_its_padding_verifies(stub: Stub) -> None:
    assert SECRET.endswith("=")
    await stub.http.put(f"{stub.url}/control/secrets", json={"secrets": [SECRET.rstrip("=")]})
    assert (await stub.notify(b"{}")).status_code == 400, "verified, and then refused for what it says"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***"])
async def test_secret_that_is_none_is_refused_and_not_repeated(stub: Stub, secret: str) -> None:
    response = await stub.http.put(f"{stub.url}/control/secrets", json={"secrets": [secret]})
    assert response.status_code == 400
    assert "***" not in response.text


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        ({"answered_500": 1}, 500, {}),
        ({"gone": 1}, 410, {}),
        ({"too_many": 1, "retry_after_s": 7}, 429, {"retry-after": "7"}),
        ({"redirected": 1}, 302, {"location": "/elsewhere"}),
    ],
)
async def test_refused_notification_has_no_effect(
    stub: Stub, fault: dict[str, object], status: int, header: dict[str, str]
) -> None:
    await stub.faults(**fault)
    response = await stub.notify(notification())
    assert response.status_code == status
    assert header.items() <= dict(response.headers).items()
    assert (await stub.effects()).effects == ()
    assert [delivery.answered for delivery in await stub.deliveries()] == [str(status)]
    await stub.faults()
    await stub.notify(notification())
    assert len((await stub.effects()).effects) == 1


@pytest.mark.parametrize("fault", [{"cut": 1}, {"hang": 1, "hang_s": 0.02}])
async def test_effect_stays_when_its_answer_is_lost(stub: Stub, fault: dict[str, object]) -> None:
    """The sender must send it again under the same id, and it is still one effect."""
    await stub.faults(**fault)
    with pytest.raises(httpx.RemoteProtocolError):
        await stub.notify(notification())
    await stub.faults()
    await stub.notify(notification())
    state = await stub.effects()
    assert (len(state.effects), state.effects[0].again, state.violations) == (1, (), ())


async def test_who_follows_a_redirect_is_counted(stub: Stub) -> None:
    await stub.faults(redirected=1)
    body = notification()
    await stub.http.post(
        f"{stub.url}/notifications", content=body, headers=signed(body, "msg_1"), follow_redirects=True
    )
    assert (await stub.effects()).counters["redirect_followed"] == 1


async def test_same_seed_fails_the_same_deliveries(stub: Stub) -> None:
    ids = [f"msg_{n}" for n in range(20)]

    async def statuses(order: list[str]) -> dict[str, list[int]]:
        await stub.http.post(f"{stub.url}/control/reset")
        await stub.faults(answered_500=0.4, gone=0.3)
        statuses = await asyncio.gather(*(stub.notify(notification(f"order-{one}"), one) for one in order))
        again = await asyncio.gather(*(stub.notify(notification(f"order-{one}"), one) for one in order))
        pairs = zip(order, statuses, again, strict=True)
        return {one: [first.status_code, second.status_code] for one, first, second in pairs}

    first = await statuses(ids)
    assert first == await statuses(ids[::-1])
    assert {status for pair in first.values() for status in pair} == {200, 410, 500}


async def test_control_is_for_this_machine_only(stub: Stub) -> None:
    response = await stub.http.get(f"{stub.url}/control/effects", headers={"host": "merchant.example"})
    assert response.status_code == 403
