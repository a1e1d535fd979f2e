"""Certificates and keys that end: of whom, when, and never with a secret."""

import dataclasses
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from core.ending import EndingKind, Mark
from flows.ending import find_ending
from runtime.resources import Resources
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key, revoke_api_key
from storage.postgres.notify_secrets import put_secrets
from storage.sealing import new_master_key
from tests.channels.reports import Key
from tests.channels.wechatpay.driver import WechatPayDriver
from tests.flows.conftest import NOTIFY_SECRETS


async def test_keys_are_found_before_they_end_and_after(resources: Resources) -> None:
    day_s = 86_400.0
    for name, expires_in_s in {"ending-soon": 3 * day_s, "ending-later": 60 * day_s, "ending-never": None}.items():
        await create_api_key(resources.db, name, expires_in_s=expires_in_s)
    revoked, _ = await create_api_key(resources.db, "ending-revoked", expires_in_s=day_s)
    await revoke_api_key(resources.db, revoked.id)
    ended, _ = await create_api_key(resources.db, "ending-ended", expires_in_s=day_s)
    await resources.db.execute("UPDATE api_keys SET expires_at = now() - interval '1 h' WHERE id = $1", ended.id)
    found = {each.name: each for each in await find_ending(resources) if each.name.startswith("ending-")}
    assert {name: each.mark for name, each in found.items()} == {"ending-ended": Mark.ENDED, "ending-soon": Mark.WEEK}
    assert "ending-later" in {each.name for each in await find_ending(resources, within_days=None)}


async def test_certificates_of_accounts_are_found_by_their_key(resources: Resources) -> None:
    account = replace(WechatPayDriver().account("http://127.0.0.1:9", Key.OLD), name="ending-wechat")
    await put_account(resources.db, resources.sealer, account)
    try:
        found = [each for each in await find_ending(resources, within_days=None) if each.name == "ending-wechat"]
    finally:
        await resources.db.execute("DELETE FROM accounts WHERE name = 'ending-wechat'")
    assert found
    assert {each.kind for each in found} == {EndingKind.CERTIFICATE}
    assert all(each.what.startswith("credentials.") and each.ends_at is not None for each in found)
    assert "BEGIN" not in msgspec.json.encode(found).decode()


async def test_what_is_in_rotation_is_named_until_the_old_one_is_gone(resources: Resources) -> None:
    await put_secrets(resources.db, resources.sealer, "shop.ending.test", NOTIFY_SECRETS, over=None)
    keys = f"{resources.settings.nodrop_master_keys},{new_master_key('older')}"
    settings = replace(resources.settings, nodrop_master_keys=keys, notify_secrets=",".join(NOTIFY_SECRETS))
    found = await find_ending(dataclasses.replace(resources, settings=settings))
    rotating = {(each.kind, each.name): each for each in found if each.mark is Mark.ROTATING}
    assert rotating[EndingKind.MASTER_KEY, "older"].what == "0 accounts"
    assert rotating[EndingKind.NOTIFY_SECRET, "NOTIFY_SECRETS"].what == "2 secrets"
    since = rotating[EndingKind.NOTIFY_SECRET, "shop.ending.test"].since
    assert since is not None
    assert datetime.now(UTC) - since < timedelta(hours=1)
    text = msgspec.json.encode(found).decode()
    assert not any(secret in text for secret in (*NOTIFY_SECRETS, keys.rpartition(":")[2]))


async def test_an_account_that_does_not_open_hides_no_other(resources: Resources) -> None:
    await resources.db.execute(
        "INSERT INTO accounts (name, channel, sealed) VALUES ('ending-broken', 'alipay', 'x') ON CONFLICT DO NOTHING"
    )
    try:
        assert all(each.name != "ending-broken" for each in await find_ending(resources, within_days=None))
    finally:
        await resources.db.execute("DELETE FROM accounts WHERE name = 'ending-broken'")
