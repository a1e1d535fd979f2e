"""The example in docs/notifications.md is what a worker sends. tests/clients runs the snippets."""

import asyncio
import base64
import re
from collections.abc import Mapping
from secrets import token_bytes
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from core.notice import NotificationType, order_notification
from core.settings import Settings
from flows.notify import Notifier
from storage.postgres.notifications import Outgoing
from tests.channels.published import published
from tests.clients.programs import TEXT, block
from tests.connections import serving
from tests.core.states import NOW, paid_order, paid_payment


class Delivery(NamedTuple):
    """A delivery on the wire: header names in lower case, and the raw body."""

    headers: dict[str, str]
    body: bytes


def example() -> tuple[str, str]:
    """Head and body."""
    (text,) = re.findall(r"^```http\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    head, _, body = text.partition("\n\n")
    return head, body


def new_secret() -> str:
    return "whsec_" + base64.b64encode(token_bytes(32)).decode()


async def delivered(*secrets: str) -> Delivery:
    """One notification, sent by the worker's own code to a server on this machine."""
    request: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: ([0-9]+)", head.lower())[0])
        request.set_result(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()

    settings = Settings(notify_secrets=",".join(secrets), notify_allow_nets="127.0.0.0/8")
    async with serving(take) as port, Notifier(settings) as notifier:
        delivery = await notifier.deliver(outgoing(f"http://127.0.0.1:{port}/notifications"))
        assert delivery.ok, delivery
        head, _, body = (await request).partition(b"\r\n\r\n")
    lines = [line.decode().partition(": ") for line in head.split(b"\r\n")[1:]]
    return Delivery({name.lower(): value for name, _, value in lines}, body)


def outgoing(url: str) -> Outgoing:
    order = paid_order(notify_url=url, metadata={"cart": "茶 7"})
    notice = order_notification("order.paid", order, paid_payment(), now=NOW, late=False)
    assert notice is not None
    return Outgoing(
        id=notice.id,
        order_no=order.order_no,
        version=order.version,
        type=notice.type,
        url=url,
        body=notice.body,
        attempt=1,
        arm_no=1,
    )


VERIFIED = "multi_signature one_char_off right_hash_wrong_version partial no_comma empty id_missing timestamp_missing"


@pytest.mark.parametrize("name", [*VERIFIED.split(), "timestamp_hello", "old_301s", "future_301s"])
def test_the_verifier_in_python_agrees_with_the_published_cases(name: str) -> None:
    vectors = published("standard_webhooks")
    signed = vectors["sign_cases"][0]
    case = next(case for case in vectors["verify_cases"] if case["id"] == name)
    headers = {
        "webhook-id": signed["webhook-id"],
        "webhook-timestamp": str(case.get("webhook-timestamp", signed["webhook-timestamp"])),
        "webhook-signature": case.get("header", signed["expected_webhook_signature"]),
    }
    headers.pop(case.get("drop"), None)
    names: dict[str, Any] = {}
    exec(block("notifications.py"), names)  # noqa: S102 - the code of the documentation
    names["time"] = SimpleNamespace(time=lambda: case.get("now", signed["webhook-timestamp"]))
    assert names["verify"](headers, signed["payload"].encode(), [signed["secret"]]) is (case["expect"] == "valid")


async def test_the_example_has_the_fields_that_are_sent() -> None:
    head, body = example()
    sent = await delivered(new_secret())
    assert shape(msgspec.json.decode(body)) == shape(msgspec.json.decode(sent.body) | {"data": plain(sent)})
    shown = {line.partition(":")[0] for line in head.splitlines()[1:]}
    assert {"webhook-id", "webhook-timestamp", "webhook-signature", "Content-Type"} == shown
    assert {name.lower() for name in shown} <= sent.headers.keys()


def plain(delivery: Delivery) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(delivery.body)["data"]
    return data | {"metadata": {}}


def shape(value: object) -> object:
    """The names of the fields, level by level."""
    return {name: shape(inner) for name, inner in value.items()} if isinstance(value, Mapping) else None


def test_every_type_is_explained() -> None:
    assert set(re.findall(r"^\| `(order\.[a-z_]+)` \|", TEXT, re.MULTILINE)) == set(get_args(NotificationType))
