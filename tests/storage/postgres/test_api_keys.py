"""API keys: 256 random bits, of which only the hash is kept."""

import re

from core.operators import Role
from storage.postgres.api_keys import (
    ALL_SCOPES,
    Scope,
    create_api_key,
    digest_of,
    find_api_key,
    list_api_keys,
    revoke_api_key,
    set_last_used,
)
from storage.postgres.database import Database
from storage.postgres.operators import disable_operator, enable_operator, insert_operator, list_operators, set_role
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


async def test_a_key_of_an_earlier_version_may_do_everything(db: Database) -> None:
    """Old processes insert keys beside new ones during a release."""
    await db.execute("INSERT INTO api_keys (id, name, digest) VALUES ('key_old', 'shop', $1)", digest_of("ndk_old"))
    key = await find_api_key(db, digest_of("ndk_old"))
    assert key is not None
    assert (key.scopes, key.requests_per_minute, key.expires_in_s) == (ALL_SCOPES, None, None)


async def test_a_key_ends_by_the_clock_of_postgres(db: Database) -> None:
    key, text = await create_api_key(db, "shop", expires_in_s=3600.0)
    found = await find_api_key(db, digest_of(text))
    assert found is not None
    assert found.expires_in_s is not None
    assert 0 < found.expires_in_s <= 3600.0
    await db.execute("UPDATE api_keys SET expires_at = now()")
    assert await find_api_key(db, digest_of(text)) is None
    [shown] = await list_api_keys(db)
    assert (shown.id, shown.valid, shown.revoked_at) == (key.id, False, None)


async def test_a_scope_that_this_version_does_not_know_opens_nothing(db: Database) -> None:
    _, text = await create_api_key(db, "shop", scopes=[Scope.READ])
    await db.execute("UPDATE api_keys SET scopes = scopes || '{future}'")
    found = await find_api_key(db, digest_of(text))
    assert found is not None
    assert found.scopes == {Scope.READ}


async def test_the_latest_use_stays_whichever_process_writes_last(db: Database) -> None:
    (one, _), (two, _) = [await create_api_key(db, name) for name in ("one", "two")]
    await set_last_used(db, {one.id: 30.0})
    await set_last_used(db, {one.id: 900.0})
    shown = await rows(db, "api_keys", "id, extract(epoch FROM now() - last_used_at) AS age_s")
    ages_s = {row["id"]: row["age_s"] for row in shown}
    assert 30 <= ages_s[one.id] < 900
    assert ages_s[two.id] is None


async def test_a_key_is_an_operators_and_has_no_more_rights_than_that(db: Database) -> None:
    await insert_operator(db, "ann", Role.OPERATOR, "a hash")
    key, text = await create_api_key(db, "a program", operator="ann")
    assert await find_api_key(db, digest_of(text)) == key
    assert key.operator == "ann"
    assert (await list_api_keys(db))[0].operator == "ann"
    await set_role(db, "ann", Role.VIEWER)
    found = await find_api_key(db, digest_of(text))
    assert found is not None
    assert found.scopes == ALL_SCOPES - {Scope.OPERATE}
    assert [row.keys for row in await list_operators(db)] == [1]
    await disable_operator(db, "ann")
    assert await find_api_key(db, digest_of(text)) is None
    assert [row.valid for row in await list_api_keys(db)] == [False]
    await enable_operator(db, "ann")
    assert await find_api_key(db, digest_of(text)) is not None
