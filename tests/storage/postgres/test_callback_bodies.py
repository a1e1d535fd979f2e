"""Raw bodies under a changed master key, and those that an earlier version stored in the clear."""

import pytest

from core.errors import ConfigurationError
from storage.postgres.callback_bodies import PAGE, Resealed, reseal_callbacks
from storage.postgres.database import Database
from storage.postgres.inbox import insert_callback
from storage.sealing import Sealer, new_master_key
from tests.sealed import raw_callbacks
from tests.storage.postgres.tools import paid

OLD, NEW = new_master_key("old"), new_master_key("new")
UNDER_OLD, UNDER_NEW, BOTH = (Sealer.from_setting(text) for text in (OLD, NEW, f"{NEW},{OLD}"))
SIGNED = {"stripe-signature": "t=1,v1=aa"}
PRIVATE = SIGNED | {"authorization": "Bearer canary", "cookie": "canary"}

_IN_THE_CLEAR = """
INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence, out_trade_no,
                       due_at)
SELECT channel_account, 'old-' || n, body_hash, received_at, $2::text::jsonb, convert_to('canary ' || n, 'UTF8'),
       evidence, out_trade_no, due_at
  FROM callbacks, generate_series(1, $1::int) AS n"""


async def store(db: Database, sealer: Sealer, notification_id: str, body: bytes) -> None:
    await insert_callback(
        db,
        sealer,
        account="main",
        notification_id=notification_id,
        headers=SIGNED,
        body=body,
        evidence=paid(),
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
    )


async def test_after_resealing_the_old_key_is_not_needed_any_more(db: Database) -> None:
    await store(db, UNDER_OLD, "evt-1", b"raw 1")
    assert await reseal_callbacks(db, BOTH, SIGNED) == Resealed(sealed=1, unopened=0)
    assert [callback.body for callback in await raw_callbacks(db, UNDER_NEW)] == [b"raw 1"]
    assert await reseal_callbacks(db, BOTH, SIGNED) == Resealed(sealed=0, unopened=0)


async def test_a_body_in_the_clear_is_readable_and_then_sealed_without_foreign_headers(db: Database) -> None:
    """More than a page of them."""
    await store(db, UNDER_NEW, "evt-1", b"canary 0")
    await db.execute(_IN_THE_CLEAR, PAGE + 1, '{"stripe-signature": "t=1,v1=aa", "authorization": "Bearer canary"}')
    before = {callback.body for callback in await raw_callbacks(db, UNDER_NEW)}
    assert await reseal_callbacks(db, UNDER_NEW, SIGNED) == Resealed(sealed=PAGE + 1, unopened=0)
    after = await raw_callbacks(db, UNDER_NEW)
    assert {callback.body for callback in after} == before == {b"canary %d" % n for n in range(PAGE + 2)}
    assert all(callback.headers == SIGNED for callback in after)
    in_clear = "SELECT count(*) FROM callbacks WHERE headers::text || encode(body, 'escape') LIKE '%canary%'"
    assert await db.fetchval(in_clear) == 0


async def test_a_body_whose_key_is_gone_is_counted_and_left(db: Database) -> None:
    await store(db, UNDER_OLD, "evt-1", b"raw 1")
    await store(db, Sealer.from_setting(new_master_key("third")), "evt-2", b"raw 2")
    assert await reseal_callbacks(db, BOTH, SIGNED) == Resealed(sealed=1, unopened=1)
    with pytest.raises(ConfigurationError, match="lacks the key that sealed callback main evt-2"):
        await raw_callbacks(db, BOTH)


async def test_a_body_that_was_moved_to_another_row_does_not_open(db: Database) -> None:
    await store(db, UNDER_NEW, "evt-1", b"raw 1")
    await store(db, UNDER_NEW, "evt-2", b"raw 2")
    await db.execute("UPDATE callbacks SET body = (SELECT body FROM callbacks WHERE notification_id = 'evt-1')")
    with pytest.raises(ConfigurationError, match="does not open"):
        await raw_callbacks(db, UNDER_NEW)
