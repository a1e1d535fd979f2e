"""An operator sends notifications again: one, the dead ones, or all of an endpoint since a time.

One is due at once. Many are held first, and let go so many a second (`flows.endpoints`), whoever dies meanwhile. What
was delivered stays delivered, so nothing that waits for deliveries waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import structlog
from msgspec.structs import replace

from core import jobs
from core.acts import Preview
from core.deliveries import Chosen, NotificationState
from core.errors import NotFound, NotPossible, PreviewOutdated
from core.resending import check_choice, preview_many, preview_one, refusal_of
from core.sentences import Sentence
from flows.commit import arm_jobs
from runtime.resources import Resources
from storage.postgres import deliveries
from storage.postgres.deliveries import Choice, Listed, NotificationRow
from storage.postgres.orders import find_now

ALL = (Listed.DEAD, Listed.UNDELIVERED, Listed.DELIVERED)
"""The lists that together have all notifications of an endpoint."""

log = structlog.get_logger()


async def get_notification(resources: Resources, notification_id: str) -> NotificationRow:
    """Raises NotFound."""
    row = await deliveries.find_notification(resources.db, notification_id)
    if row is None:
        raise NotFound(Sentence("there is no notification {id}", id=notification_id))
    return row


async def preview_resend(resources: Resources, notification_id: str) -> Preview:
    """The effect of sending this one again. Raises NotFound."""
    return _preview(await get_notification(resources, notification_id))


async def resend_notification(
    resources: Resources, notification_id: str, *, expected_version: int | None = None
) -> NotificationRow:
    """Send one again, at once. `expected_version` is that of the preview that somebody has decided on.

    Raises:
        NotFound: there is no such notification.
        PreviewOutdated: it was scheduled anew since then.
        NotPossible: it is being sent now, or its text is erased.
    """
    row = await get_notification(resources, notification_id)
    if expected_version not in (None, row.arm_no):
        raise PreviewOutdated(_preview(row))
    resent = await deliveries.resend(resources.db, [notification_id], is_paced=False)
    after = await get_notification(resources, notification_id)
    if not resent:
        refusal = refusal_of(replace(after.standing, is_under_way=True))
        assert refusal is not None, "nothing else keeps one from being sent"
        raise NotPossible(refusal)
    log.info("notifications_resent", count=1, order_no=after.order_no, notification_id=after.id)
    await arm_jobs(resources, [jobs.push_notification(row.id, row.arm_no) for row in resent])
    return after


async def preview_resend_many(resources: Resources, choice: Choice, *, is_dead_only: bool) -> Preview:
    """The effect of sending these again. Raises InvalidRequest."""
    check_choice(is_dead_only=is_dead_only, endpoint=choice.endpoint, since=choice.since)
    chosen = [
        each
        for listed in _lists(is_dead_only=is_dead_only)
        for each in await deliveries.count_chosen(resources.db, replace(choice, listed=listed))
    ]
    is_more = sum(each.count for each in chosen) >= deliveries.COUNT_MAX
    return preview_many(_merged(chosen), per_s=resources.settings.notify_resend_per_s, is_more=is_more)


async def resend_many(resources: Resources, choice: Choice, *, is_dead_only: bool) -> int:
    """Send these again, each when its turn has come. Returns their number.

    To do it once more after it was cut off carries on with those that are left.

    Raises:
        InvalidRequest: the choice names no endpoint and no time, and is not of dead ones alone.
    """
    check_choice(is_dead_only=is_dead_only, endpoint=choice.endpoint, since=choice.since)
    count = 0
    async for ids in _batches(resources, choice, _lists(is_dead_only=is_dead_only)):
        count += len(await deliveries.resend(resources.db, ids, is_paced=True))
    log.info("notifications_resent", count=count)
    return count


async def _batches(resources: Resources, choice: Choice, lists: Sequence[Listed]) -> AsyncIterator[list[str]]:
    """The ids of all that are chosen. What is sent again meanwhile comes once more in its list, and is left out."""
    began_at = await find_now(resources.db)
    for listed in lists:
        cursor = None
        while True:
            rows, cursor = await deliveries.list_notifications(
                resources.db, replace(choice, listed=listed), cursor=cursor, limit=deliveries.RESEND_MAX
            )
            ids = [row.id for row in rows if _is_left(row, began_at)]
            if ids:
                yield ids
            if cursor is None:
                break


def _is_left(row: NotificationRow, began_at: datetime) -> bool:
    """Whether it is to be sent again in bulk: a superseded one only if somebody asks for it alone."""
    since = row.standing.resending_since
    is_done = since is not None and since >= began_at
    return not is_done and row.state is not NotificationState.SUPERSEDED and refusal_of(row.standing) is None


def _lists(*, is_dead_only: bool) -> Sequence[Listed]:
    return (Listed.DEAD,) if is_dead_only else ALL


def _merged(chosen: Sequence[Chosen]) -> list[Chosen]:
    """One for each endpoint, of those that several lists have."""
    merged: dict[str, Chosen] = {}
    for each in chosen:
        other = merged.get(each.endpoint, each)
        merged[each.endpoint] = replace(
            each,
            count=each.count + (0 if other is each else other.count),
            oldest_at=min(each.oldest_at, other.oldest_at),
            newest_at=max(each.newest_at, other.newest_at),
        )
    return list(merged.values())


def _preview(row: NotificationRow) -> Preview:
    return preview_one(row.order_no, row.type, row.endpoint, row.standing, version=row.arm_no)
