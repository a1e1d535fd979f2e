"""Messages of alerts to `ALERT_URL`: signed as notifications are, to an address that is judged as theirs is.

At least once and with the same id and bytes: after 1, 4, 9 … minutes, each hour at last, until it answers 2xx. Nothing
else ends it: an alert that nobody has heard is no alert.
"""

from __future__ import annotations

from secrets import token_hex
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import structlog

from core.acts import Line, Preview
from core.alerts import Condition, Rule, message_delay_s, message_of
from core.errors import ConfigurationError, InvalidRequest
from core.settings import Settings, require
from flows.alert import encode_message
from flows.duties import Duty, do_if_due
from flows.egress import check_new_notify_url
from flows.notify import Delivery, Notifier
from flows.signers import Signers
from runtime.clock import Clock
from runtime.loop import NOT_DUE
from runtime.resources import Resources
from storage.postgres import alerts, processes
from storage.postgres.alerts import Leased
from storage.postgres.notifications import Outgoing
from storage.postgres.orders import find_now

INTERVAL_S = 5.0
"""Time between two turns of sending, unless `ALERT_INTERVAL_S` is shorter."""

BATCH = 50

FAILURES_MAX = 3
"""Failures in a row that end a turn: the others would fail, too."""

log = structlog.get_logger()


class AlertSender:
    """Sends to `ALERT_URL`. Without one, `is_on` is False, and there is nothing to send."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises ConfigurationError: the URL or the secret cannot be used."""
        self.is_on = bool(settings.alert_url)
        self._url = settings.alert_url
        self._notifier: Notifier | None = None
        if self.is_on:
            require(settings, "alert_secret")
            check_alert_url(settings)
            self._notifier = Notifier(settings, clock, Signers.of_alerts(settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._notifier is not None:
            await self._notifier.aclose()

    async def deliver(self, leased: Leased) -> Delivery:
        """One delivery. Never raises for a fault of the other side."""
        assert self._notifier is not None, "without ALERT_URL nothing is sent"
        return await self._notifier.deliver(
            Outgoing(
                id=leased.id, order_no="", version=0, type="alert", url=self._url, body=leased.body,
                attempt=leased.attempt, arm_no=0,
            )
        )  # fmt: skip


def check_alert_url(settings: Settings) -> None:
    """Check that alerts may be sent there, by the rules of a `notify_url`.

    Raises:
        ConfigurationError: says what is wrong with it.
    """
    try:
        check_new_notify_url(settings.alert_url, allow_nets=settings.allowed_nets())
    except InvalidRequest as error:
        raise ConfigurationError(f"ALERT_URL: {error.detail.removeprefix('notify_url: ')}") from None


def message_duty(resources: Resources, sender: AlertSender) -> Duty:
    """The sending, as a duty of the workers."""

    async def run() -> bool:
        return await send_due(resources, sender)

    return Duty("alert_messages", min(INTERVAL_S, resources.settings.alert_interval_s), run)


async def send_without_workers(resources: Resources, sender: AlertSender) -> object:
    """The same in a web process, as long as no worker is there to send."""
    if not sender.is_on or await processes.count_workers(resources.db):
        return NOT_DUE
    return await do_if_due(resources, message_duty(resources, sender))


async def send_due(resources: Resources, sender: AlertSender) -> bool:
    """Send what is due, oldest first. True: there is more."""
    settings, failures = resources.settings, 0
    for _ in range(BATCH):
        leased = await alerts.claim_message(resources.db, lease_s=2 * settings.notify_timeout_s + settings.lease_s)
        if leased is None:
            return False
        delivery = await sender.deliver(leased)
        if delivery.ok:
            failures = 0
            await alerts.finish_message(resources.db, leased.id, delivery.status)
            continue
        failures += 1
        delay_s = max(message_delay_s(leased.attempt, settings.backoff_unit_s), delivery.retry_after_s)
        log.warning("alert_not_sent", attempt=leased.attempt, status=delivery.status, delay_s=delay_s)
        await alerts.reschedule_message(resources.db, leased, delivery.status, delay_s=delay_s)
        if failures == FAILURES_MAX:
            return False
    return True


def preview_test(settings: Settings) -> Preview:
    """Effects of a test. Raises ConfigurationError: the URL cannot be used."""
    if not settings.alert_url:
        return Preview(lines=(), refusal=Line("alert.no_url"))
    check_alert_url(settings)
    return Preview(lines=(Line("alert.is_sent", {"host": urlsplit(settings.alert_url).hostname or ""}),))


async def queue_test(resources: Resources, *, by: str) -> str:
    """Store a message that tells of nothing, for a worker to send; return its id.

    Raises:
        InvalidRequest: there is no `ALERT_URL`.
    """
    if not resources.settings.alert_url:
        raise InvalidRequest("ALERT_URL is not set: alerts go to the log alone")
    now = await find_now(resources.db)
    condition = Condition(rule=Rule.TEST, subject=by, text=f"a test by {by}: nothing is wrong")
    message = message_of("alert.test", f"alr_{token_hex(12)}", condition, raised_at=now, now=now)
    await alerts.insert_test(resources.db, message.id, encode_message(message))
    return message.id
