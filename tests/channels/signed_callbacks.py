"""A callback as the channel sends it at one instant, and what an adapter makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

from channels.base import Callback, Channel
from tests.channels.driver import Driver, Key, Said, Sent

NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
AT = NOW.timestamp()


def sent(driver: Driver, said: Said | None = None, *, key: Key = Key.NEW, age_s: float = 0.0) -> Sent:
    content = driver.render_callback(said or Said(), driver.notification_id)
    return driver.sign_callback(content, driver.notification_id, at=AT - age_s, key=key)


def signed(driver: Driver, content: bytes) -> Sent:
    return driver.sign_callback(content, driver.notification_id, at=AT)


async def verify(channel: Channel, callback: Sent, *, received_at: datetime = NOW) -> Callback:
    return await channel.verify_callback(callback.headers, callback.body, received_at=received_at)
