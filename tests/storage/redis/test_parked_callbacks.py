from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.errors import RedisUnavailable
from storage.redis.parked_callbacks import ParkedCallback, ParkedCallbacks
from storage.sealing import Sealer, new_master_key
from tests.sealed import SEALER
from tests.storage.redis.tools import client_of

CALLBACKS = "nodrop:{parked}:callbacks"
BYTES = "nodrop:{parked}:bytes"
QUARANTINE = "nodrop:{parked}:quarantine"
RECEIVED_AT = datetime(2026, 11, 23, 4, 0, 0, 123456, UTC)


@pytest.fixture
def parked(redis: Redis) -> ParkedCallbacks:
    return ParkedCallbacks(redis, SEALER)


def callback(
    body: bytes = b'{"id":"evt_1"}',
    *,
    signature: str = "t=1,v1=aa",
    received_at: datetime = RECEIVED_AT,
    **headers: str,
) -> ParkedCallback:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ParkedCallback(
        account="shop", headers={"stripe-signature": signature, **named}, body=body, received_at=received_at
    )


async def test_a_callback_comes_back_as_it_was_parked(parked: ParkedCallbacks) -> None:
    original = callback(b"\x00\xff not even text \xc3")
    await parked.park(original)
    ((_, found),) = await parked.parked(10)
    assert found == original


async def test_ten_copies_are_one_with_the_time_of_the_first(parked: ParkedCallbacks) -> None:
    for second in range(10):
        await parked.park(callback(received_at=RECEIVED_AT + timedelta(seconds=second)))
    ((_, found),) = await parked.parked(10)
    assert found.received_at == RECEIVED_AT


async def test_an_entry_of_an_earlier_version_is_read(redis: Redis, parked: ParkedCallbacks) -> None:
    await redis.hset(CALLBACKS, b"field", msgspec.json.encode(callback()))  # type: ignore[arg-type,misc]
    assert [found for _, found in await parked.parked(10)] == [callback()]


async def test_one_whose_master_key_is_missing_stays_and_is_told_once(redis: Redis, parked: ParkedCallbacks) -> None:
    other = ParkedCallbacks(redis, Sealer.from_setting(new_master_key("other")))
    await parked.park(callback())
    with capture_logs() as lines:
        assert await other.parked(10) == []
        assert await other.parked(10) == []
    assert [(line["event"], "callback" in line["reason"]) for line in lines] == [("parked_callback_not_opened", True)]
    assert [found for _, found in await parked.parked(10)] == [callback()]


async def test_a_forged_copy_does_not_take_the_place_of_the_genuine_one(parked: ParkedCallbacks) -> None:
    await parked.park(callback(signature="forged"))
    await parked.park(callback())
    assert {found.headers["stripe-signature"] for _, found in await parked.parked(10)} == {"forged", "t=1,v1=aa"}


async def test_it_stays_until_it_is_unparked(parked: ParkedCallbacks, redis: Redis) -> None:
    await parked.park(callback(b"1"))
    await parked.park(callback(b"2"))
    (first, _), _ = await parked.parked(10)
    assert len(await parked.parked(10)) == 2
    await parked.unpark([first])
    await parked.unpark([first])  # another worker has been quicker
    await parked.unpark([])
    ((second, _),) = await parked.parked(10)
    await parked.unpark([second])
    assert await parked.count() == 0
    assert int(await redis.get(BYTES)) == 0


async def test_it_is_read_in_bounded_pieces(parked: ParkedCallbacks) -> None:
    for number in range(20):
        await parked.park(callback(str(number).encode()))
    assert len(await parked.parked(7)) == 7
    assert await parked.parked(0) == []


async def test_a_callback_without_room_is_refused_and_a_copy_of_a_parked_one_is_not(redis: Redis) -> None:
    parked = ParkedCallbacks(redis, SEALER, parked_max=2)
    await parked.park(callback(b"1"))
    await parked.park(callback(b"2"))
    await parked.park(callback(b"2"))
    with pytest.raises(RedisUnavailable, match="room"):
        await parked.park(callback(b"3"))


async def test_the_room_is_counted_in_bytes_too(redis: Redis) -> None:
    parked = ParkedCallbacks(redis, SEALER, bytes_max=3000)
    await parked.park(callback(b"1" * 1500))
    with pytest.raises(RedisUnavailable, match="room"):
        await parked.park(callback(b"2" * 1500))
    ((field, _),) = await parked.parked(10)
    await parked.unpark([field])
    await parked.park(callback(b"2" * 1500))


async def test_a_flush_frees_the_room(redis: Redis) -> None:
    parked = ParkedCallbacks(redis, SEALER, bytes_max=3000)
    await parked.park(callback(b"1" * 1500))
    await redis.delete(CALLBACKS)
    await parked.park(callback(b"2" * 1500))


@pytest.mark.parametrize("junk", [b"junk", b"{}", b"\xff", b'{"account":1}', b"[" * 10_000])
async def test_an_unreadable_entry_moves_to_the_quarantine_once(
    redis: Redis, parked: ParkedCallbacks, junk: bytes
) -> None:
    await parked.park(callback())
    await redis.hset(CALLBACKS, b"\xfe field", junk)  # type: ignore[arg-type,misc]
    with capture_logs() as lines:
        assert [found for _, found in await parked.parked(10)] == [callback()]
        assert [found for _, found in await parked.parked(10)] == [callback()]
    assert [line["event"] for line in lines] == ["parked_callbacks_unreadable"]
    assert await redis.hgetall(QUARANTINE) == {b"\xfe field": junk}  # type: ignore[misc]
    assert await parked.count() == 1


def test_a_parked_callback_is_safe_to_print() -> None:
    shown = repr(callback(b"card 4242", signature="secret"))
    assert "4242" not in shown
    assert "secret" not in shown


async def test_without_redis_parking_raises() -> None:
    async with client_of("redis://127.0.0.1:1") as unreachable:
        with pytest.raises(RedisUnavailable):
            await ParkedCallbacks(unreachable, SEALER).park(callback())
