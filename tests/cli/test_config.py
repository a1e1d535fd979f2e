import re
from pathlib import Path
from typing import Any

import pytest
import redis
from msgspec import structs

from cli.config.commands import MASKED, masked
from core.settings import Settings, read_settings
from demo.embedded import EmbeddedRedis
from runtime.resources import Resources
from storage.redis.checks import IDENTITY_KEY
from storage.sealing import new_master_key
from tests.cli.conftest import Place
from tests.cli.nodrop import Nodrop, Ran


def findings(ran: Ran) -> dict[str, tuple[str, str]]:
    return {row["what"]: (row["level"], row["says"]) for row in ran.json}


async def checked(nodrop: Nodrop, *options: str, **env: str) -> tuple[int, dict[str, tuple[str, str]]]:
    ran = await nodrop("config", "check", "--json", *options, env=env)
    assert ran.err == "", ran
    return ran.code, findings(ran)


# -- check -------------------------------------------------------------------------------------------------------------


async def test_a_deployment_that_works_has_no_other_finding(nodrop: Nodrop, place: Place) -> None:
    await nodrop("keys", "create", "shop")
    code, found = await checked(nodrop, PROCESSES="2")
    assert code == 0
    assert {what: level for what, (level, _) in found.items() if level != "OK"} == {}
    assert found["Postgres"][1].endswith("connections, 9 needed")
    assert found["account main"][1].startswith("sandbox at http://127.0.0.1:")
    assert found["migrations"][1] == "none is missing"
    assert found["Redis"][1].endswith("appendonly yes would keep jobs over a restart")


async def test_the_table_is_for_people(nodrop: Nodrop) -> None:
    ran = await nodrop("config", "check")
    assert ran.code == 0
    assert ran.out.splitlines()[0].split() == ["WHAT", "STATE", "SAYS"]
    assert re.search(r"^accounts +warning +none: `nodrop accounts add NAME", ran.out, re.MULTILINE)
    assert re.search(r"^API keys +warning +none: `nodrop keys create NAME`", ran.out, re.MULTILINE)


async def test_everything_that_is_wrong_is_named_at_once(bare: Nodrop) -> None:
    code, found = await checked(
        bare,
        "--offline",
        PORT="http",
        DATABASE_URL="mysql://x",
        REDIS_URL="redis://elsewhere.test:6379",
        PUBLIC_URL="pay.example.com",
        NODROP_MASTER_KEYS="first:c2hvcnQ=",
        NOTIFY_ALLOW_NETS="10.0.0.0/8,local",
    )
    assert code == 2
    wrong = {what: says for what, (level, says) in found.items() if level == "error"}
    assert wrong.keys() == {
        "PORT",
        "DATABASE_URL",
        "REDIS_URL",
        "PUBLIC_URL",
        "NODROP_MASTER_KEYS",
        "NOTIFY_SECRETS",
        "NOTIFY_ALLOW_NETS",
    }
    assert wrong["PORT"] == "expected `int`, got `str`"
    assert wrong["DATABASE_URL"].startswith("set it to postgres://user:password@host")
    assert "REDIS_TLS" in wrong["REDIS_URL"]
    assert wrong["PUBLIC_URL"].startswith("set it to the address under which channels and buyers reach this service")
    assert wrong["NODROP_MASTER_KEYS"] == "key first has 5 bytes instead of 32"
    assert wrong["NOTIFY_SECRETS"].startswith("is not set: ")
    assert "127.0.0.0/8" in wrong["NOTIFY_ALLOW_NETS"]


@pytest.mark.parametrize(
    ("env", "what"),
    [
        ({"LEASE_S": "5"}, "LEASE_S"),
        ({"CALLBACK_CONFIRM_S": "5"}, "CALLBACK_CONFIRM_S"),
        ({"BACKOFF_UNIT_S": "1"}, "BACKOFF_UNIT_S"),
        ({"NOTIFY_ALLOW_NETS": "10.0.0.0/8"}, "NOTIFY_ALLOW_NETS"),
        ({"LOG_LEVEL": "verbose"}, "LOG_LEVEL"),
        ({"PUBLIC_URL": "http://pay.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://pay.example.com"}, "TRUSTED_PROXY_HOPS"),
        ({"DATABASE_URL": "postgres://u:p@db.internal/x", "DATABASE_TLS": "private"}, "DATABASE_TLS"),
        ({"REDIS_URL": "redis://:p@redis.internal:6379/0", "REDIS_TLS": "encrypt-only"}, "REDIS_TLS"),
    ],
)
def test_what_is_mostly_not_meant_is_warned_of(environ: dict[str, str], env: dict[str, str], what: str) -> None:
    from cli.config.variables import check_settings
    from cli.findings import Level

    usual = {"CHANNEL_TIMEOUT_S": "10"}
    assert [finding for finding in check_settings({**environ, **usual})[1] if finding.level is not Level.OK] == []
    warned = [
        finding.what for finding in check_settings({**environ, **usual, **env})[1] if finding.level is Level.WARNING
    ]
    assert warned == [what]


async def test_stores_that_cannot_be_reached_are_errors_and_the_rest_is_looked_at(nodrop: Nodrop) -> None:
    code, found = await checked(nodrop, REDIS_URL="redis://127.0.0.1:1/0")
    assert code == 1
    assert found["Redis"][0] == "error"
    assert found["Postgres"][0] == "OK"
    code, found = await checked(nodrop, DATABASE_URL="postgres://x:secret@127.0.0.1:1/x")
    assert code == 1
    assert found["Postgres"] == ("error", "Postgres at 127.0.0.1:1: nothing listens there")
    assert found["Redis"][0] == "OK"


async def test_missing_migrations_are_an_error(nodrop: Nodrop, unmigrated_database_url: str) -> None:
    code, found = await checked(nodrop, DATABASE_URL=unmigrated_database_url)
    assert code == 1
    assert found["migrations"][0] == "error"
    assert "run `nodrop migrate`" in found["migrations"][1]


async def test_too_few_connections_are_warned_of(nodrop: Nodrop) -> None:
    code, found = await checked(nodrop, PROCESSES="5000")
    assert code == 0
    assert found["Postgres"][0] == "warning"
    assert "20001 needed by 5000 processes and a command" in found["Postgres"][1]
    assert found["Redis"][0] == "warning"


async def test_a_right_that_is_missing_in_redis_is_named(nodrop: Nodrop, server_directory: Path) -> None:
    with EmbeddedRedis(server_directory) as server, redis.Redis.from_url(server.url, socket_timeout=60) as admin:
        acl: Any = admin.execute_command
        acl("ACL", "SETUSER", "shop", "on", ">secret", "~*", "&*", "+@all")
        url = f"redis://shop:secret@127.0.0.1:{server.port}/0"
        code, found = await checked(nodrop, REDIS_URL=url)
        assert found["Redis rights"] == ("OK", "enough for web processes and workers")
        acl("ACL", "SETUSER", "shop", "-hrandfield")
        code, found = await checked(nodrop, REDIS_URL=url)
        assert found["Redis rights"][1].startswith("enough for web processes; workers also need HRANDFIELD nodrop:")
        acl("ACL", "SETUSER", "shop", "-evalsha", "-publish")
        code, found = await checked(nodrop, REDIS_URL=url)
        assert (code, found["Redis rights"][0]) == (1, "error")
        assert "EVALSHA, PUBLISH nodrop:changes, PUBLISH nodrop:nudges, HRANDFIELD" in found["Redis rights"][1]


async def test_a_redis_of_another_deployment_is_an_error(nodrop: Nodrop, resources: Resources) -> None:
    await resources.redis.set(IDENTITY_KEY, "another")
    code, found = await checked(nodrop)
    assert (code, found["deployment"][0]) == (1, "error")
    assert "another deployment" in found["deployment"][1]


async def test_an_account_that_does_not_open_is_an_error_and_the_others_are_looked_at(
    nodrop: Nodrop, place: Place, resources: Resources
) -> None:
    await resources.db.execute(
        "INSERT INTO accounts (name, channel, sealed) SELECT 'copy', channel, sealed FROM accounts"
    )
    code, found = await checked(nodrop)
    assert code == 1
    assert found["account main"][0] == "OK"
    assert found["account copy"][0] == "error"


async def test_an_account_under_an_older_key_is_to_be_resealed(
    nodrop: Nodrop, place: Place, resources: Resources
) -> None:
    keys = f"{new_master_key('second')},{resources.settings.nodrop_master_keys}"
    code, found = await checked(nodrop, NODROP_MASTER_KEYS=keys)
    assert code == 0
    assert found["NODROP_MASTER_KEYS"] == ("OK", "second seals, 1 older still open")
    assert found["account main"][0] == "warning"
    assert "nodrop accounts reseal" in found["account main"][1]


async def test_authorities_that_are_missing_are_an_error(nodrop: Nodrop, place: Place, tmp_path: Path) -> None:
    code, found = await checked(nodrop, SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert (code, found["SSL_CERT_FILE"][0]) == (1, "error")
    assert found["SSL_CERT_FILE"][1].startswith("no certificate of an authority can be read there")


async def test_a_proxy_is_named_without_its_password_and_a_wrong_one_is_an_error(bare: Nodrop) -> None:
    _, found = await checked(bare, "--offline", EGRESS_PROXY="http://u:canary@proxy.test:3128")
    assert found["EGRESS_PROXY"] == ("OK", "proxy.test:3128")
    _, found = await checked(bare, "--offline", EGRESS_PROXY="proxy.test")
    assert found["EGRESS_PROXY"] == ("error", "set it to http://user:password@host:3128")
    assert masked("EGRESS_PROXY", Settings(egress_proxy="http://u:canary@p.test:1")) == "http://u:***@p.test:1"


# -- show --------------------------------------------------------------------------------------------------------------


async def test_every_setting_is_shown_with_where_it_comes_from_and_no_secret(nodrop: Nodrop) -> None:
    ran = await nodrop("config", "show", "--json", env={"PORT": "9000"})
    shown = {row["name"]: (row["value"], row["from"]) for row in ran.json}
    assert list(shown) == list(Settings.__struct_encode_fields__)
    assert shown["PORT"] == (9000, "environment")
    assert shown["LOG_LEVEL"] == ("info", "default")
    assert shown["NODROP_MASTER_KEYS"] == ("first:***", "environment")
    assert shown["NOTIFY_SECRETS"][0] == "***"
    table = (await nodrop("config", "show")).out
    for name in ("DATABASE_URL", "REDIS_URL", "NODROP_MASTER_KEYS", "NOTIFY_SECRETS"):
        secret = re.split(r"[:@]", nodrop.env[name].removeprefix("whsec_"))
        for part in (part for part in secret if len(part) >= 24 and "/" not in part):
            assert part not in ran.out + table


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://u:p@h.test:5432/d?sslmode=require", "postgres://u:***@h.test:5432/d?sslmode=require"),
        ("postgres://h.test/d?password=p&user=u", "postgres://h.test/d?password=***&user=***"),
        ("rediss://:p%40@h.test:6379/0", "rediss://:***@h.test:6379/0"),
        ("postgres://u@h.test/d", "postgres://u@h.test/d"),
        ("postgres://u:pa#ss@h.test/d", "***"),
        ("postgres://u:12/34@h.test/d", "***"),
        ("postgres://u:12?34@h.test/d", "***"),
        ("nonsense", "***"),
        ("postgres://[::1/d", "***"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked("DATABASE_URL", Settings(database_url=url)) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("NODROP_MASTER_KEYS", "a:c2VjcmV0, b:c2VjcmV0", "a:***,b:***"),
        ("NODROP_MASTER_KEYS", "c2VjcmV0", "***"),
        ("REDIS_SENTINEL_PASSWORD", "secret", "***"),
        ("DATABASE_TLS", "ca:-----BEGIN CERTIFICATE-----", "ca:<PEM>"),
        ("DATABASE_TLS", "private", "private"),
        ("PUBLIC_URL", "https://pay.example.com", "https://pay.example.com"),
        ("RECONCILE_AT", "10:30", "10:30"),
    ],
)
def test_what_may_be_a_secret_is_masked(name: str, value: str, shown: str) -> None:
    assert masked(name, read_settings({name: value})) == shown


def test_only_secrets_are_masked_whole() -> None:
    texts = [name for name, kind in Settings.__annotations__.items() if kind == "str"]
    settings = structs.replace(Settings(), **dict.fromkeys(texts, "k"))
    shown = {name.upper() for name in texts if masked(name.upper(), settings) == MASKED}
    urls = {"DATABASE_URL", "DIRECT_DATABASE_URL", "REDIS_URL", "EGRESS_PROXY", "ALERT_URL"}  # "k" is none
    assert shown - urls == {"REDIS_SENTINEL_PASSWORD", "NODROP_MASTER_KEYS", "NOTIFY_SECRETS", "ALERT_SECRET"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example/T0/s3cret?token=s3cret", "https://hooks.example/***"),
        ("https://s3cret@hooks.example:8443/x", "https://hooks.example/***"),
        ("https://[s3cret", "***"),
        ("s3cret", "***"),
    ],
)
def test_of_the_address_of_alerts_the_host_is_shown(url: str, shown: str) -> None:
    assert masked("ALERT_URL", structs.replace(Settings(), alert_url=url)) == shown


def test_an_unknown_text_is_masked() -> None:
    """So a secret that is added later is not shown by mistake."""
    import msgspec

    wider: Any = msgspec.defstruct("Wider", [("new_secret", str, "s3cret")], bases=(Settings,), kw_only=True)
    assert masked("NEW_SECRET", wider()) == "***"


async def test_a_console_that_nobody_can_use_is_named(nodrop: Nodrop, bare: Nodrop) -> None:
    _, found = await checked(nodrop, OPS="1")
    assert found["operators"] == ("warning", "none: `nodrop operators add NAME --role admin` adds one")
    assert (await nodrop("operators", "add", "alice", "--role", "admin")).code == 0
    _, found = await checked(nodrop, OPS="1")
    assert found["operators"] == ("OK", "1 may sign in")
    _, found = await checked(bare, "--offline", OPS="1", PUBLIC_URL="http://pay.example.com")
    assert "needs https" in found["OPS"][1]
    _, found = await checked(bare, "--offline", OPS_PORT="8001")
    assert found["OPS_PORT"][1] == "OPS is not on, so nothing listens there"


async def test_an_address_of_alerts_that_cannot_be_used_is_named(nodrop: Nodrop) -> None:
    secret = nodrop.env["NOTIFY_SECRETS"]
    for env, says in (
        ({"ALERT_URL": "https://alerts.example/x"}, "is not set"),
        ({"ALERT_URL": "http://alerts.example/x", "ALERT_SECRET": secret}, "https:// is needed"),
        ({"ALERT_URL": "https://alerts.example/x", "ALERT_SECRET": "whsec_short"}, "whsec_"),
    ):
        ran = await nodrop("config", "check", "--offline", "--json", env=env)
        found = {row["what"]: row for row in ran.json}
        assert (ran.code, says in str(found)) == (2, True), found
    right = {"ALERT_URL": "https://alerts.example/x", "ALERT_SECRET": secret}
    ran = await nodrop("config", "check", "--offline", "--json", env=right)
    assert [row["level"] for row in ran.json if row["what"].startswith("ALERT")] == ["OK", "OK"]
