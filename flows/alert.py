"""One look at what a person must hear of: read the facts, judge them, and tell each alert once, with its all-clear.

A duty: one process looks for all. Should two look at once, the statement that moves an alert succeeds for one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex

import msgspec
import structlog

from core.alerts import (
    AlertMessage,
    Condition,
    Facts,
    Judgement,
    OpenAlert,
    OpenBreaker,
    Rule,
    Thresholds,
    find_conditions,
    judge,
    log_fields,
    message_of,
)
from core.settings import Settings
from flows.duties import Duty, do_if_due
from flows.silence import find_silent_accounts
from runtime.loop import NOT_DUE
from runtime.resources import Resources
from storage.postgres import alerts, processes
from storage.postgres.alert_facts import find_broken, read_stored_facts
from storage.postgres.alerts import MovedAlert
from storage.postgres.orders import find_now
from storage.redis.checks import find_redis_fault

log = structlog.get_logger()


def alert_duty(resources: Resources) -> Duty:
    """The look, as a duty of the workers."""

    async def run() -> int:
        return len(await look(resources))

    return Duty("alerts", resources.settings.alert_interval_s, run)


async def look_without_workers(resources: Resources) -> object:
    """The same in a web process, as long as no worker is there to look. Who else would say so?"""
    if await processes.count_workers(resources.db):
        return NOT_DUE
    return await do_if_due(resources, alert_duty(resources))


async def look(resources: Resources) -> list[MovedAlert]:
    """One look. Returns what was told.

    Raises:
        DatabaseUnavailable: nothing was moved, or it is not known whether.
    """
    settings = resources.settings
    opened = await alerts.find_open(resources.db)
    facts = await read_facts(resources, opened)
    conditions = find_conditions(facts, thresholds_of(settings))
    judgement = judge(opened, conditions, looks=settings.alert_looks, unknown=facts.unknown)
    if not judgement.begun and not judgement.moves:
        return []
    now = await find_now(resources.db)
    begun = {f"alr_{token_hex(12)}": condition for condition in judgement.begun}
    moves = await alerts.apply(resources.db, judgement, begun, _messages(settings, judgement, begun, now), now=now)
    for one in moves:
        write = log.warning if one.is_raised else log.info
        event = "alert_raised" if one.is_raised else "alert_cleared"
        write(event, alert_id=one.id, rule=one.rule, **log_fields(one.rule, one.subject))
    return moves


def thresholds_of(settings: Settings) -> Thresholds:
    """The thresholds of this deployment. A reconciliation that is switched off is not missed."""
    return Thresholds(
        overdue_s=settings.alert_overdue_s,
        endpoint_s=settings.alert_endpoint_s,
        paused_s=settings.alert_paused_s,
        reconciled_s=0.0 if settings.reconcile_time() is None else settings.alert_reconciled_s,
        workers_min=settings.alert_workers_min,
    )


async def read_facts(resources: Resources, opened: Sequence[OpenAlert]) -> Facts:
    """All that is known now. While Redis is down, nothing is known of the breakers of other processes."""
    suspects = sorted({one.subject.partition("/")[2] for one in opened if one.rule is Rule.INVARIANT})
    stored = await read_stored_facts(resources.db)
    broken = await find_broken(resources.db, suspects)
    breakers, unknown = await _breakers(resources)
    return Facts(
        **{name: getattr(stored, name) for name in stored.__struct_fields__},
        broken=broken,
        silent=tuple(await find_silent_accounts(resources.db)),
        breakers=breakers,
        unknown=unknown,
    )


async def _breakers(resources: Resources) -> tuple[tuple[OpenBreaker, ...], frozenset[Rule]]:
    if await find_redis_fault(resources.redis) is not None:
        return (), frozenset({Rule.BREAKER_OPEN})
    names = [account.config.name for account in await resources.accounts.all_enabled()]
    found = await resources.admission.open_breakers(names)
    return tuple(OpenBreaker(account=account, kind=kind.value) for account, kind in found), frozenset()


def _messages(
    settings: Settings, judgement: Judgement, begun: dict[str, Condition], now: datetime
) -> list[tuple[str, str, bytes]]:
    """The messages of all that may be told by this judgement: id, id of the alert, body. Without `ALERT_URL` none."""
    if not settings.alert_url:
        return []
    found = [
        (id_, message_of("alert.raised", id_, condition, raised_at=now, now=now))
        for id_, condition in begun.items()
        if judgement.raises
    ]
    for move in judgement.moves:
        alert = move.alert
        condition = Condition(rule=alert.rule, subject=alert.subject, text=alert.text)
        if move.what == "raise":
            found.append((alert.id, message_of("alert.raised", alert.id, condition, raised_at=now, now=now)))
        elif move.what == "clear":
            raised_at = alert.raised_at or now
            found.append((alert.id, message_of("alert.cleared", alert.id, condition, raised_at=raised_at, now=now)))
    return [(message.id, id_, encode_message(message)) for id_, message in found]


def encode_message(message: AlertMessage) -> bytes:
    """The bytes that are signed and sent, the same in each delivery."""
    return msgspec.json.encode(message)
