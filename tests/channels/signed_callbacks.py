"""Signed callbacks of one instant, and their verification."""

from __future__ import annotations

from datetime import UTC, datetime

from channels.base import Callback, Channel
from tests.channels.driver import Driver
from tests.channels.reports import CallbackRequest, Key, PaymentReport

NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
AT = NOW.timestamp()


def signed_callback(
    driver: Driver, report: PaymentReport | None = None, *, key: Key = Key.NEW, age_s: float = 0.0
) -> CallbackRequest:
    content = driver.render_callback(report or PaymentReport(), driver.notification_id)
    return driver.sign_callback(content, driver.notification_id, at=AT - age_s, key=key)


def signed_content(driver: Driver, content: bytes) -> CallbackRequest:
    return driver.sign_callback(content, driver.notification_id, at=AT)


async def verify(channel: Channel, callback: CallbackRequest, *, received_at: datetime = NOW) -> Callback:
    return await channel.verify_callback(callback.headers, callback.body, received_at=received_at)
