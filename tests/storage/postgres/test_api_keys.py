"""API keys: 256 random bits, of which only the hash is kept."""

import re

from storage.postgres.api_keys import create_api_key, digest_of, find_api_key, list_api_keys, revoke_api_key
from storage.postgres.database import Database
from tests.storage.postgres.tools import rows


async def test_a_key_is_found_by_its_digest(db: Database) -> None:
    key, text = await create_api_key(db, "shop")
    assert re.fullmatch(r"ndk_[0-9A-Za-z_\-]{43}", text)
    assert await find_api_key(db, digest_of(text)) == key
    assert (key.name, key.id[:4]) == ("shop", "key_")


async def test_the_text_of_a_key_is_nowhere(db: Database) -> None:
    _, text = await create_api_key(db, "shop")
    [row] = await rows(db, "api_keys")
    assert not [value for value in row.values() if text in str(value)]
    assert row["digest"] == digest_of(text)


async def test_no_other_text_opens_anything(db: Database) -> None:
    _, text = await create_api_key(db, "shop")
    for other in ("", "ndk_", text[:-1], text + " ", text.lower(), text.swapcase(), "ndk_\0", "é"):
        assert await find_api_key(db, digest_of(other)) is None


async def test_two_keys_of_one_name_are_two(db: Database) -> None:
    """Old and new are valid together while they are changed."""
    (one, first), (two, second) = [await create_api_key(db, "shop") for _ in range(2)]
    assert await find_api_key(db, digest_of(first)) == one
    assert await find_api_key(db, digest_of(second)) == two
    assert [shown.id for shown in await list_api_keys(db)] == [one.id, two.id]


async def test_a_revoked_key_opens_nothing(db: Database) -> None:
    key, text = await create_api_key(db, "shop")
    _, other = await create_api_key(db, "shop")
    assert await revoke_api_key(db, key.id)
    assert not await revoke_api_key(db, key.id)
    assert not await revoke_api_key(db, "key_unknown")
    assert await find_api_key(db, digest_of(text)) is None
    assert await find_api_key(db, digest_of(other)) is not None
    assert [shown.revoked_at is not None for shown in await list_api_keys(db)] == [True, False]
