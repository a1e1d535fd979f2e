"""The outbox: the same bytes until they are delivered, dead letters that can be sent again."""

import asyncio

from core.lifecycle import on_deadline
from storage.postgres.backlog import read_backlog
from storage.postgres.database import Database
from storage.postgres.deliveries import resend
from storage.postgres.leases import DueRow
from storage.postgres.notifications import (
    Outgoing,
    claim,
    claim_overdue,
    finish,
    give_up,
    list_dead_letters,
    reschedule,
    walk_due,
)
from tests.servers import eventually
from tests.storage.postgres.tools import (
    RULES,
    closed,
    commit_evidence,
    count,
    moved,
    opened,
    paid,
    pass_time,
    placed,
    rows,
)


async def to_deliver(db: Database, order_no: str = "A-1") -> str:
    """The id of what a merchant has to hear of a paid order."""
    await placed(db, order_no)
    committed = await commit_evidence(db, order_no, paid(order_no))
    assert committed.notification_id is not None
    return committed.notification_id


async def claimed(db: Database, notification_id: str, arm_no: int = 1, lease_s: float = 30.0) -> Outgoing:
    outgoing = await claim(db, notification_id, lease_s, arm_no=arm_no)
    assert outgoing is not None
    return outgoing


async def due_within(db: Database, seconds: float) -> list[DueRow]:
    return [row async for batch in walk_due(db, until_s=seconds) for row in batch]


async def dead(db: Database, order_no: str = "A-1") -> str:
    notification_id = await to_deliver(db, order_no)
    await give_up(db, await claimed(db, notification_id), "500")
    return notification_id


# -- delivering --------------------------------------------------------------------------------------------------------


async def test_one_of_many_claims_succeeds(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        notification_id = await to_deliver(one)
        claims = await asyncio.gather(*(claim([one, two][n % 2], notification_id, 30.0, arm_no=1) for n in range(20)))
        [outgoing] = [found for found in claims if found is not None]
        assert (outgoing.id, outgoing.order_no, outgoing.version) == (notification_id, "A-1", 2)
        assert (outgoing.type, outgoing.url, outgoing.attempt) == ("order.paid", "https://shop.test/hook", 1)


async def test_every_delivery_is_the_same_bytes(db: Database) -> None:
    """The merchant may have received the first although it was not marked."""
    notification_id = await to_deliver(db)
    first = await claimed(db, notification_id, lease_s=0.0)
    second = await claimed(db, notification_id, lease_s=0.0)
    assert await reschedule(db, second, attempt=2, delay_s=0.0, status="timeout") == 2
    third = await claimed(db, notification_id, arm_no=2)
    assert (first.id, first.body) == (second.id, second.body) == (third.id, third.body)


async def test_what_was_heard_is_not_sent_again(db: Database) -> None:
    outgoing = await claimed(db, await to_deliver(db))
    await finish(db, outgoing.id, "200")
    assert await claim(db, outgoing.id, 30.0, arm_no=1) is None
    assert await reschedule(db, outgoing, attempt=2, delay_s=0.0, status="500") is None
    await give_up(db, outgoing, "500")
    [row] = await rows(db, "notifications", "dead_at, last_status, attempt")
    assert row == {"dead_at": None, "last_status": "200", "attempt": 1}
    assert await due_within(db, 3600.0) == []


async def test_what_was_not_heard_is_scheduled_anew_under_another_number(db: Database) -> None:
    outgoing = await claimed(db, await to_deliver(db))
    assert await reschedule(db, outgoing, attempt=2, delay_s=240.0, status="503") == 2
    assert await reschedule(db, outgoing, attempt=2, delay_s=240.0, status="503") is None
    assert await claim(db, outgoing.id, 30.0, arm_no=1) is None
    [(notification_id, arm_no, delay_s)] = await due_within(db, 300.0)
    assert (notification_id, arm_no) == (outgoing.id, 2)
    assert 230.0 < delay_s <= 240.0
    await pass_time(db, "notifications", 240.0)
    assert (await claimed(db, outgoing.id, arm_no=2)).attempt == 2


async def test_a_claim_ends_by_itself(db: Database) -> None:
    notification_id = await to_deliver(db)
    await claimed(db, notification_id, lease_s=0.05)
    assert await eventually(lambda: claim(db, notification_id, 30.0, arm_no=1)) is not None


async def test_a_notification_is_due_at_once(db: Database) -> None:
    notification_id = await to_deliver(db)
    assert await due_within(db, 0.0) == [(notification_id, 1, 0.0)]


# -- overdue notifications ---------------------------------------------------------------------------------------------


async def test_the_oldest_come_first_also_those_that_were_never_tried(db: Database) -> None:
    ids = [await to_deliver(db, f"A-{n}") for n in range(20)]
    for n, notification_id in enumerate(ids):
        await pass_time(db, "notifications", 86_400.0 * (20 - n), f"id = '{notification_id}'")
    batches = [await claim_overdue(db, grace_s=15.0, limit=8, lease_s=30.0) for _ in range(4)]
    assert [outgoing.id for batch in batches for outgoing in batch] == ids


async def test_two_sweeps_take_different_notifications(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        for n in range(20):
            await to_deliver(one, f"A-{n}")
        await pass_time(one, "notifications", 60.0)
        batches = await asyncio.gather(
            *(claim_overdue([one, two][n % 2], grace_s=15.0, limit=6, lease_s=30.0) for n in range(6))
        )
        ids = [outgoing.id for batch in batches for outgoing in batch]
        assert len(ids) == len(set(ids)) == 20


async def test_what_is_being_delivered_or_has_ended_is_left_alone(db: Database) -> None:
    await claimed(db, await to_deliver(db, "A-1"))
    await finish(db, await to_deliver(db, "A-2"), "200")
    await dead(db, "A-3")
    assert await claim_overdue(db, grace_s=-60.0, limit=10, lease_s=30.0) == []


# -- dead letters ------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_listed_until_it_is_heard(db: Database) -> None:
    notification_id = await dead(db)
    [letter] = await list_dead_letters(db)
    assert (letter.id, letter.order_no, letter.type) == (notification_id, "A-1", "order.paid")
    assert (letter.url, letter.last_status, letter.attempt) == ("https://shop.test/hook", "500", 1)
    await finish(db, notification_id, "200")
    assert await list_dead_letters(db) == []


async def test_a_dead_letter_is_counted_as_long_as_it_is_listed(db: Database) -> None:
    """A newer one that replaced it takes it off the list, so no alert may count it for ever."""
    notification_id = await dead(db)
    assert (await read_backlog(db)).dead_letters == len(await list_dead_letters(db)) == 1
    await db.execute("UPDATE notifications SET superseded_at = now() WHERE id = $1", notification_id)
    assert (await read_backlog(db)).dead_letters == len(await list_dead_letters(db)) == 0


async def test_a_dead_letter_is_sent_again_from_its_first_attempt(db: Database) -> None:
    notification_id = await to_deliver(db)
    outgoing = await claimed(db, notification_id)
    assert await reschedule(db, outgoing, attempt=16, delay_s=0.0, status="500") == 2
    outgoing = await claimed(db, notification_id, arm_no=2)
    await give_up(db, outgoing, "500")
    (resent,) = await resend(db, [notification_id], is_paced=False)
    assert (resent.id, resent.arm_no) == (notification_id, 3)
    again = await claimed(db, notification_id, arm_no=3)
    assert (again.attempt, again.body) == (1, outgoing.body)
    assert await list_dead_letters(db) == []


async def test_a_resent_notification_is_not_given_up_by_an_older_attempt(db: Database) -> None:
    """The older attempt outlasts its lease and ends after the operator's resend."""
    notification_id = await to_deliver(db)
    late = await claimed(db, notification_id, lease_s=0.0)
    await give_up(db, await claimed(db, notification_id), "500")
    assert len(await resend(db, [notification_id], is_paced=False)) == 1
    await give_up(db, late, "timeout")
    assert await list_dead_letters(db) == []
    assert await claim(db, notification_id, 30.0, arm_no=2) is not None


async def test_a_dead_letter_that_a_newer_version_made_pointless_is_not_sent(db: Database) -> None:
    """A "closed" of an order that is paid by now."""
    await placed(db, expires_in_s=0.0)
    await commit_evidence(db, "A-1", closed())
    committed = await moved(db, "A-1", lambda state: on_deadline(state, RULES))
    assert committed.notification_id is not None
    await give_up(db, await claimed(db, committed.notification_id), "500")
    await commit_evidence(db, "A-1", paid())
    assert await list_dead_letters(db) == []
    assert await count(db, "notifications", "dead_at IS NOT NULL AND superseded_at IS NOT NULL") == 1
