"""`verify` takes what the service signs and nothing else, and reads all of it."""

import base64
import hmac
from typing import get_args

import msgspec
import pytest

from core.notice import Message, NotificationType
from core.order import OrderStatus
from nodrop_client import (
    Notification,
    NotificationForged,
    NotificationStale,
    NotificationUnreadable,
    verify,
)
from nodrop_client.codec import plain
from tests.channels.published import published
from tests.clients.messages import SECRET, SENT_AT, altered, made, signed

OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
NOTICE = made()
HEADERS = signed(NOTICE.id, NOTICE.body)
SIGNATURE = HEADERS["webhook-signature"]


def verified(headers: dict[str, str], body: bytes, *secrets: str, now: float = SENT_AT) -> Notification:
    return verify(headers, body, secrets or [SECRET], now=now)


@pytest.mark.parametrize("type_", get_args(NotificationType))
@pytest.mark.parametrize("is_whole", [False, True])
def test_all_of_a_notification_is_read(type_: NotificationType, *, is_whole: bool) -> None:
    notice = made(type_=type_, is_whole=is_whole)
    notification = verified(signed(notice.id, notice.body), notice.body)
    fields = plain(notification)
    message = msgspec.json.decode(notice.body, type=Message)
    assert msgspec.convert(_with_nulls(fields, msgspec.to_builtins(message)), Message) == message
    assert notification.type == type_
    assert notification.data.status == OrderStatus.PAID
    assert (notification.data.refund is not None, notification.data.dispute is not None) == (is_whole, is_whole)


def _with_nulls(fields: object, whole: object) -> object:
    """The fields, and null for those that are left out because they are."""
    if not isinstance(whole, dict):
        return fields
    assert isinstance(fields, dict)
    assert fields.keys() <= whole.keys()
    return {name: _with_nulls(fields[name], inner) if name in fields else None for name, inner in whole.items()}


def test_fields_types_and_statuses_of_a_later_service_do_no_harm() -> None:
    data = msgspec.json.decode(NOTICE.body)["data"] | {"status": "frozen", "new": 1}
    body = altered(NOTICE.body, type="order.frozen", data=data, new={})
    notification = verified(signed(NOTICE.id, body), body)
    assert (notification.type, notification.data.status) == ("order.frozen", "frozen")


@pytest.mark.parametrize(
    ("headers", "secrets"),
    [
        (HEADERS, [SECRET]),
        (HEADERS, [OTHER, SECRET]),
        (HEADERS, [SECRET.rstrip("=")]),
        (HEADERS, [SECRET.removeprefix("whsec_")]),
        (HEADERS, [SECRET + "="]),
        (signed(NOTICE.id, NOTICE.body, OTHER, SECRET), [SECRET]),
        (HEADERS | {"webhook-signature": f"v2,x {SIGNATURE}"}, [SECRET]),
        ({name.title(): text for name, text in HEADERS.items()}, [SECRET]),
    ],
)
def test_what_is_genuine_is_taken(headers: dict[str, str], secrets: list[str]) -> None:
    assert verified(headers, NOTICE.body, *secrets).id == NOTICE.id


def test_one_secret_may_be_a_text() -> None:
    assert verify(HEADERS, NOTICE.body, SECRET, now=SENT_AT).id == NOTICE.id


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (HEADERS, NOTICE.body.replace(b"8888", b"8889")),
        (HEADERS, NOTICE.body + b" "),
        (HEADERS, b""),
        (HEADERS | {"webhook-id": "msg_other"}, NOTICE.body),
        (HEADERS | {"webhook-timestamp": str(SENT_AT + 1)}, NOTICE.body),
        (HEADERS | {"webhook-timestamp": ""}, NOTICE.body),
        (HEADERS | {"webhook-signature": ""}, NOTICE.body),
        (HEADERS | {"webhook-signature": "v1,"}, NOTICE.body),
        (HEADERS | {"webhook-signature": SIGNATURE[:-1]}, NOTICE.body),
        (HEADERS | {"webhook-signature": SIGNATURE.replace("v1,", "v2,")}, NOTICE.body),
        (HEADERS | {"webhook-signature": "v1,é\udc80"}, NOTICE.body),
        (HEADERS | {"webhook-id": "\udc80"}, NOTICE.body),
        (signed(NOTICE.id, NOTICE.body, OTHER), NOTICE.body),
        ({}, NOTICE.body),
    ],
)
def test_what_is_not_signed_is_forged(headers: dict[str, str], body: bytes) -> None:
    assert (headers, body) != (HEADERS, NOTICE.body)
    with pytest.raises(NotificationForged):
        verified(headers, body)


def test_without_a_secret_nothing_is_genuine() -> None:
    with pytest.raises(NotificationForged):
        verify(HEADERS, NOTICE.body, [], now=SENT_AT)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_" + base64.b64encode(bytes(23)).decode(), "whsec_" + "*" * 44])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="a secret is"):
        verify(HEADERS, NOTICE.body, [SECRET, secret], now=SENT_AT)


@pytest.mark.parametrize(("late_s", "is_stale"), [(-301, True), (-300, False), (300, False), (301, True)])
def test_a_delivery_of_another_time_is_stale(late_s: int, *, is_stale: bool) -> None:
    if not is_stale:
        verified(HEADERS, NOTICE.body, now=SENT_AT + late_s)
        return
    with pytest.raises(NotificationStale):
        verified(HEADERS, NOTICE.body, now=SENT_AT + late_s)


def test_the_clock_of_the_machine_judges() -> None:
    with pytest.raises(NotificationStale):
        verify(signed(NOTICE.id, NOTICE.body, at=1_000_000_000), NOTICE.body, SECRET)


@pytest.mark.parametrize(
    ("id_", "body"),
    [
        (NOTICE.id, b"{}"),
        (NOTICE.id, b"\xef\xbb\xbf"),
        (NOTICE.id, altered(NOTICE.body, data=None)),
        (NOTICE.id, altered(NOTICE.body, id=1)),
        ("msg_other", NOTICE.body),
    ],
)
def test_what_is_genuine_and_no_notification_is_unreadable(id_: str, body: bytes) -> None:
    with pytest.raises(NotificationUnreadable):
        verified(signed(id_, body), body)


def test_a_signed_time_that_is_none_is_unreadable() -> None:
    text = f"{NOTICE.id}.soon.".encode() + NOTICE.body
    signature = base64.b64encode(hmac.digest(bytes(range(32)), text, "sha256")).decode()
    headers = {"webhook-id": NOTICE.id, "webhook-timestamp": "soon", "webhook-signature": f"v1,{signature}"}
    with pytest.raises(NotificationUnreadable):
        verified(headers, NOTICE.body)


VERIFIED = "multi_signature one_char_off right_hash_wrong_version partial no_comma empty id_missing timestamp_missing"


@pytest.mark.parametrize("name", [*VERIFIED.split(), "timestamp_hello", "old_301s", "future_301s"])
def test_it_agrees_with_the_published_cases(name: str) -> None:
    """Their payloads are no notifications: a genuine one is unreadable."""
    vectors = published("standard_webhooks")
    case = next(case for case in vectors["verify_cases"] if case["id"] == name)
    case_of = vectors["sign_cases"][0]
    headers = {
        "webhook-id": case_of["webhook-id"],
        "webhook-timestamp": str(case.get("webhook-timestamp", case_of["webhook-timestamp"])),
        "webhook-signature": case.get("header", case_of["expected_webhook_signature"]),
    }
    headers.pop(case.get("drop"), None)
    now = case.get("now", case_of["webhook-timestamp"])
    expected = NotificationUnreadable if case["expect"] == "valid" else (NotificationForged, NotificationStale)
    with pytest.raises(expected):
        verify(headers, case_of["payload"].encode(), case_of["secret"], now=now)
