"""The verifiers in docs/notifications.md, run unchanged against notifications that a worker sends."""

import asyncio
import base64
import re
import shutil
import subprocess
import sys
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
from tests.connections import serving
from tests.core.states import NOW, paid_order, paid_payment
from tests.servers import ROOT

TEXT = (ROOT / "docs" / "notifications.md").read_text()

PYTHON_MAIN = """
import json, sys
deliveries = json.load(sys.stdin)
print(json.dumps([verify(one["headers"], base64.b64decode(one["body"]), one["secret"]) for one in deliveries]))
"""
NODE_MAIN = """
const deliveries = JSON.parse(require("node:fs").readFileSync(0));
const verdicts = deliveries.map((one) => verify(one.headers, Buffer.from(one.body, "base64"), one.secret));
console.log(JSON.stringify(verdicts));
"""


class Delivery(NamedTuple):
    """A delivery on the wire: header names in lower case, and the raw body."""

    headers: dict[str, str]
    body: bytes


def block(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert isinstance(code, str)
    return code


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


async def verdicts(argv: tuple[str, ...], deliveries: list[tuple[Delivery, str]]) -> list[bool]:
    """Whether the verifier accepts each delivery with its secret."""
    document = [
        {"headers": one.headers, "body": base64.b64encode(one.body).decode(), "secret": secret}
        for one, secret in deliveries
    ]
    ran = await asyncio.to_thread(
        subprocess.run, argv, input=msgspec.json.encode(document), capture_output=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return msgspec.json.decode(ran.stdout, type=list[bool])


def verifier(language: str) -> tuple[str, ...]:
    if language == "python":
        return (sys.executable, "-I", "-c", block("python") + PYTHON_MAIN)
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here")
    return (node, "-e", block("javascript") + NODE_MAIN)


def with_headers(delivery: Delivery, **changes: str) -> Delivery:
    return Delivery(delivery.headers | {f"webhook-{name}": text for name, text in changes.items()}, delivery.body)


@pytest.mark.servers
@pytest.mark.parametrize("language", ["python", "node"])
async def test_a_verifier_takes_what_the_worker_sends_and_nothing_else(language: str) -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    sent = await delivered(old, new)
    sent_at = int(sent.headers["webhook-timestamp"])
    signatures = sent.headers["webhook-signature"]
    genuine = [
        (sent, old),
        (sent, new),
        (sent, new.rstrip("=")),
        (with_headers(sent, signature=f"v2,x {signatures}"), new),
    ]
    forged = [
        (sent, other),
        (Delivery(sent.headers, sent.body.replace(b"8888", b"8889")), old),
        (Delivery(sent.headers, sent.body + b" "), old),
        (with_headers(sent, id="msg_other"), old),
        (with_headers(sent, timestamp=str(sent_at + 1)), old),
        (with_headers(await resigned(sent, old, sent_at - 400)), old),
        (with_headers(await resigned(sent, old, sent_at + 400)), old),
        (with_headers(sent, signature=""), old),
        (with_headers(sent, signature="v1,"), old),
        (with_headers(sent, signature="v1,é"), old),
        (with_headers(sent, timestamp="now"), old),
        (with_headers(sent, timestamp=""), old),
        (Delivery({}, sent.body), old),
    ]
    assert forged[1][0].body != sent.body
    assert await verdicts(verifier(language), genuine + forged) == [True] * len(genuine) + [False] * len(forged)


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
    exec(block("python"), names)  # noqa: S102 - the code of the documentation
    names["time"] = SimpleNamespace(time=lambda: case.get("now", signed["webhook-timestamp"]))
    assert names["verify"](headers, signed["payload"].encode(), signed["secret"]) is (case["expect"] == "valid")


async def resigned(delivery: Delivery, secret: str, at: int) -> Delivery:
    """A genuine delivery of another time, signed with the library."""
    from datetime import UTC, datetime

    from standardwebhooks import Webhook

    signature = Webhook(secret).sign(
        delivery.headers["webhook-id"], datetime.fromtimestamp(at, UTC), delivery.body.decode()
    )
    return with_headers(delivery, timestamp=str(at), signature=signature)


async def test_the_example_has_the_fields_that_are_sent() -> None:
    example = msgspec.json.decode(block("http").partition("\n\n")[2])
    sent = await delivered(new_secret())
    assert shape(example) == shape(msgspec.json.decode(sent.body) | {"data": plain(sent)})
    shown = {line.partition(":")[0] for line in block("http").partition("\n\n")[0].splitlines()[1:]}
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
