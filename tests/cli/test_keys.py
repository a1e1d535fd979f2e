import base64
from datetime import datetime, timedelta

import pytest

from storage.postgres.api_keys import digest_of, find_api_key
from storage.postgres.database import Database
from storage.sealing import Sealer
from tests.cli.nodrop import Nodrop


async def is_valid(url: str, key: str) -> bool:
    from core.settings import Settings

    db = Database.from_settings(Settings(database_url=url))
    await db.open()
    try:
        return await find_api_key(db, digest_of(key)) is not None
    finally:
        await db.close()


async def test_a_key_is_printed_alone_and_opens_until_it_is_revoked(nodrop: Nodrop, database_url: str) -> None:
    """A shell takes the key from standard output; the advice to a person goes to standard error."""
    made = await nodrop("keys", "create", "shop backend")
    key = made.out.strip()
    assert made.code == 0
    assert await is_valid(database_url, key)
    assert key not in made.err
    (row,) = (await nodrop("keys", "list", "--json")).json
    assert (row["name"], row["revoked_at"]) == ("shop backend", None)
    assert row["id"] in made.err
    assert (await nodrop("keys", "revoke", row["id"])).code == 0
    assert not await is_valid(database_url, key)
    listed = await nodrop("keys", "list")
    assert row["id"] in listed.out
    assert key not in listed.out


async def test_a_key_as_json_has_its_id(nodrop: Nodrop, database_url: str) -> None:
    made = (await nodrop("keys", "create", "shop", "--json")).json
    assert made["name"] == "shop"
    assert await is_valid(database_url, made["key"])
    assert (await nodrop("keys", "revoke", made["id"])).code == 0


async def test_a_key_has_what_its_options_say(nodrop: Nodrop) -> None:
    options = ("--scope", "read", "--scope", "orders", "--expires", "90d", "--per-minute", "600")
    made = await nodrop("keys", "create", "shop", *options)
    assert made.code == 0
    assert made.err.strip().endswith("it may do: orders, read")
    (row,) = (await nodrop("keys", "list", "--json")).json
    assert (row["scopes"], row["requests_per_minute"], row["valid"]) == (["orders", "read"], 600, True)
    lasts = datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["created_at"])
    assert lasts == timedelta(days=90)
    listed = (await nodrop("keys", "list")).out
    assert "orders read" in listed
    assert "600" in listed


async def test_a_key_without_options_may_do_everything_and_says_so(nodrop: Nodrop) -> None:
    made = await nodrop("keys", "create", "shop")
    assert "it may do: everything (--scope limits it)" in made.err
    (row,) = (await nodrop("keys", "list", "--json")).json
    assert row["scopes"] == ["orders", "read", "metrics", "operate"]
    assert (row["requests_per_minute"], row["expires_at"], row["last_used_at"]) == (None, None, None)


@pytest.mark.parametrize(
    "options", [("--scope", "admin"), ("--expires", "soon"), ("--expires", "0d"), ("--per-minute", "0")]
)
async def test_an_option_that_says_nothing_makes_no_key(nodrop: Nodrop, options: tuple[str, str]) -> None:
    ran = await nodrop("keys", "create", "shop", *options)
    assert (ran.code, ran.out) == (2, "")
    assert options[0] in ran.err
    assert (await nodrop("keys", "list", "--json")).json == []


async def test_a_key_that_is_not_there_cannot_be_revoked(nodrop: Nodrop) -> None:
    ran = await nodrop("keys", "revoke", "key_000000000000")
    assert ran.code == 1
    assert ran.line.startswith("there is no valid API key with the id key_000000000000")


@pytest.mark.parametrize("name", ["  ", "a\x1b[31m"])
async def test_a_name_that_nobody_could_read_is_refused(nodrop: Nodrop, name: str) -> None:
    ran = await nodrop("keys", "create", name)
    assert ran.code == 2
    assert "NAME" in ran.err
    assert ran.out == ""


async def test_a_new_master_key_seals_and_no_two_have_the_same_id(bare: Nodrop) -> None:
    """It needs no database: it is made before there is one."""
    first, second = [(await bare("keys", "master")).out.strip() for _ in range(2)]
    sealed = Sealer.from_setting(first).seal(b"secret", belongs_to="x")
    assert Sealer.from_setting(f"{second},{first}").open(sealed, belongs_to="x") == b"secret"
    assert first.partition(":")[0] != second.partition(":")[0]


async def test_a_new_notification_secret_is_one_of_standard_webhooks(bare: Nodrop) -> None:
    secret = (await bare("keys", "notify", "--json")).json["notify_secret"]
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
