import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from channels.adapters import ADAPTERS
from channels.credentials import key_problems
from cli.accounts.account_file import draft_account, is_plain_elsewhere, read_account
from core.account import AccountConfig
from core.errors import ConfigurationError
from core.lifecycle import LatePolicy
from runtime.resources import Resources
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from storage.postgres.accounts import enable_account, get_accounts, put_account
from storage.postgres.notify_secrets import read_secrets
from storage.sealing import Sealer, new_master_key
from tests.channels.alipay.driver import AlipayDriver
from tests.channels.conftest import DRIVERS
from tests.channels.driver import Driver
from tests.channels.reports import Key
from tests.channels.wechatpay.driver import WechatPayDriver
from tests.cli.conftest import Channel
from tests.cli.explain.case import account_toml, toml_of
from tests.cli.nodrop import Nodrop

SECRET = "0123456789abcdef0123456789abcdef"
CREDENTIALS = f'[credentials]\nmerchant_id = "m-1"\nkeys.k1 = "{SECRET}"\n'
ACCOUNT = 'channel = "sandbox"\nbase_url = "http://127.0.0.1:9"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An account file that no other user can read."""
    path = tmp_path / "main.toml"
    path.touch(mode=0o600)
    path.write_text(ACCOUNT + CREDENTIALS)
    return path


async def stored(resources: Resources, keys: str = "") -> dict[str, AccountConfig]:
    sealer = Sealer.from_setting(keys or resources.settings.nodrop_master_keys)
    return {account.name: account for account in await get_accounts(resources.db, sealer)}


# -- adding ------------------------------------------------------------------------------------------------------------


async def test_an_added_account_is_sealed_listed_and_ready(
    nodrop: Nodrop, resources: Resources, channel: Channel
) -> None:
    toml = channel.toml(rate_per_s=7, late_policy='"flag"', early_queries_s=[5, 20])
    added = await nodrop("accounts", "add", "main", "--from", "-", stdin=toml.encode())
    assert added.code == 0, added.err
    assert "http://127.0.0.1:8000/callbacks/main" in added.out
    assert added.err == ""
    account = (await stored(resources))["main"]
    assert (account.rate_per_s, account.late_policy, account.early_queries_s) == (7, LatePolicy.FLAG, (5.0, 20.0))
    assert channel.secret.encode() not in await resources.db.fetchval("SELECT sealed FROM accounts")
    assert (await resources.accounts.get("main")).config == account
    (row,) = (await nodrop("accounts", "list", "--json")).json
    assert (row["name"], row["channel"], row["enabled"]) == ("main", "sandbox", True)


async def test_an_account_is_replaced_only_when_that_is_meant(nodrop: Nodrop, resources: Resources, file: Path) -> None:
    """Credentials that are written over are gone."""
    assert (await nodrop("accounts", "add", "main", "--from", str(file))).code == 0
    again = await nodrop("accounts", "add", "main", "--from", str(file))
    assert (again.code, "--replace" in again.line) == (1, True)
    file.write_text("rate_per_s = 9\n" + file.read_text())
    replaced = await nodrop("accounts", "add", "main", "--from", str(file), "--replace", "--json")
    assert replaced.json == {
        "name": "main",
        "channel": "sandbox",
        "is_new": False,
        "callback_url": "http://127.0.0.1:8000/callbacks/main",
    }
    assert (await stored(resources))["main"].rate_per_s == 9


async def test_two_names_of_one_merchant_are_allowed_and_warned_of(nodrop: Nodrop, file: Path) -> None:
    first = await nodrop("accounts", "add", "main", "--from", str(file))
    second = await nodrop("accounts", "add", "twin", "--from", str(file))
    assert (first.code, first.err, second.code) == (0, "", 0)
    assert "the same merchant as main" in second.err
    assert (await nodrop("accounts", "add", "main", "--from", str(file), "--replace")).err.count("twin") == 1
    findings = (await nodrop("accounts", "check", "--json")).json
    assert [(row["account"], row["level"]) for row in findings if row["what"] == "merchant"] == [
        ("main", "warning"),
        ("twin", "warning"),
    ]


async def test_a_name_never_moves_to_another_channel(nodrop: Nodrop, resources: Resources, file: Path) -> None:
    await nodrop("accounts", "add", "main", "--from", str(file))
    await resources.db.execute("UPDATE accounts SET channel = 'elsewhere'")
    ran = await nodrop("accounts", "add", "main", "--from", str(file), "--replace")
    assert ran.line.startswith("main is an account at elsewhere")


async def test_a_file_that_others_can_read_is_warned_of(nodrop: Nodrop, file: Path) -> None:
    file.chmod(0o644)
    ran = await nodrop("accounts", "add", "main", "--from", str(file))
    assert ran.code == 0
    assert f"chmod 600 {file}" in ran.err
    assert SECRET not in ran.out + ran.err


async def test_a_file_that_is_not_there_is_one_line(nodrop: Nodrop, tmp_path: Path) -> None:
    ran = await nodrop("accounts", "add", "main", "--from", str(tmp_path / "none.toml"))
    assert (ran.code, ran.line) == (2, f"{tmp_path / 'none.toml'}: No such file or directory")


async def test_credentials_of_another_form_are_not_stored(nodrop: Nodrop, file: Path) -> None:
    file.write_text(ACCOUNT + CREDENTIALS.replace(SECRET, "short"))
    ran = await nodrop("accounts", "add", "main", "--from", str(file))
    assert (ran.code, ran.line) == (2, "account main: key k1 has fewer than 32 characters")
    assert (await nodrop("accounts", "list")).out.startswith("no accounts")


@pytest.mark.parametrize("name", ["Main", "x" * 41])
async def test_a_name_that_no_address_could_hold_is_refused(bare: Nodrop, file: Path, name: str) -> None:
    ran = await bare("accounts", "add", name, "--from", str(file))
    assert ran.code == 2
    assert "a-z, 0-9 and -" in ran.err


async def test_without_master_keys_nothing_is_stored(nodrop: Nodrop, file: Path) -> None:
    ran = await nodrop("accounts", "add", "main", "--from", str(file), env={"NODROP_MASTER_KEYS": ""})
    assert (ran.code, ran.line.startswith("NODROP_MASTER_KEYS is not set: ")) == (2, True)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("", "channel is missing; it is the channel in quotes: "),
        ('channel = "sandbox"\n' + CREDENTIALS, "base_url is missing; it is the address of the channel's API"),
        (ACCOUNT, "credentials is missing; it is a table, [credentials]"),
        (
            ACCOUNT + "rate_per_sec = 5\n" + CREDENTIALS,
            "rate_per_sec is no key of an account; did you mean rate_per_s?",
        ),
        (ACCOUNT + 'name = "main"\n' + CREDENTIALS, "name belongs on the command line"),
        (ACCOUNT + 'rate_per_s = "50"\n' + CREDENTIALS, "rate_per_s is not how often the channel may be called"),
        (ACCOUNT + "rate_per_s = 0\n" + CREDENTIALS, "rate_per_s is not how often the channel may be called"),
        (ACCOUNT + 'trust_callback = "yes"\n' + CREDENTIALS, "trust_callback is not true, false or "),
        (ACCOUNT + "exclusive = 1\n" + CREDENTIALS, "exclusive is not true or false"),
        (ACCOUNT + 'late_policy = "refuse"\n' + CREDENTIALS, 'late_policy is not "accept", "flag" or "refund"'),
        (ACCOUNT + 'double_policy = "accept"\n' + CREDENTIALS, 'double_policy is not "flag" or "refund"'),
        (ACCOUNT + "early_queries_s = [90]\n" + CREDENTIALS, "early_queries_s is not a list of seconds"),
        (ACCOUNT + "credentials = 1\n", "credentials is not a table"),
        (ACCOUNT + "live = true\n" + CREDENTIALS, "base_url must begin with https:// for a live account"),
        ('channel = "sandbox"\nbase_url = "127.0.0.1"\n' + CREDENTIALS, "base_url is not the address"),
        ('channel = "sandbox"\nbase_url = "http://[::1"\n' + CREDENTIALS, "base_url is not the address"),
        ("channel = sandbox\n", "not TOML: "),
        (
            'channel = "sandbox"\nbase_url = "https://sandbox.example"\nlive = true\n' + CREDENTIALS,
            "live is true, and sandbox moves no real money",
        ),
        (
            'channel = "paypal"\nbase_url = "https://api-m.paypal.com.evil.example"\n' + CREDENTIALS,
            "base_url is at none of paypal's own hosts (api-m.paypal.com, api-m.sandbox.paypal.com): set custom_host",
        ),
        (ACCOUNT + "custom_host = 1\n" + CREDENTIALS, "custom_host is not true or false"),
    ],
)
def test_a_fault_in_a_file_is_named_by_its_key(toml: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_account("main", "main.toml", toml.encode())
    assert caught.value.detail.startswith(f"main.toml: {says}")
    assert SECRET not in caught.value.detail


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = 1\n" * 50_000])
def test_what_is_no_account_file_at_all_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"^main\.toml: "):
        read_account("main", "main.toml", content)


@pytest.mark.parametrize(
    ("base_url", "is_plain"),
    [
        ("https://api.example", False),
        ("http://127.0.0.1:9100", False),
        ("http://localhost", False),
        ("http://[::1]:80", False),
        ("http://10.0.0.1", True),
        ("http://api.example", True),
    ],
)
def test_credentials_in_the_clear_are_noticed(base_url: str, is_plain: bool) -> None:
    toml = f'channel = "sandbox"\nbase_url = "{base_url}"\n' + CREDENTIALS
    assert is_plain_elsewhere(read_account("main", "main.toml", toml.encode())) is is_plain


# -- switching and resealing -------------------------------------------------------------------------------------------


async def test_an_account_is_switched_off_and_on(nodrop: Nodrop, resources: Resources, file: Path) -> None:
    await nodrop("accounts", "add", "main", "--from", str(file))
    assert (await nodrop("accounts", "disable", "main", "--reason", "x")).code == 0
    assert not (await stored(resources))["main"].enabled
    assert (await nodrop("accounts", "enable", "main", "--reason", "x")).code == 0
    assert (await stored(resources))["main"].enabled
    ran = await nodrop("accounts", "disable", "other", "--reason", "x")
    assert (ran.code, ran.line.startswith("there is no account other")) == (1, True)


async def test_after_resealing_the_old_key_is_not_needed_any_more(
    nodrop: Nodrop, resources: Resources, file: Path
) -> None:
    """Also not for an account that is switched off, and stays so."""
    for name in ("main", "other"):
        await nodrop("accounts", "add", name, "--from", str(file))
    await enable_account(resources.db, "other", enabled=False)
    await nodrop("secrets", "set", "shop.example.com")
    old, new = resources.settings.nodrop_master_keys, new_master_key("second")
    ran = await nodrop("accounts", "reseal", "--json", env={"NODROP_MASTER_KEYS": f"{new},{old}"})
    assert ran.json == {
        "resealed": ["main", "other"],
        "notify_secrets": ["shop.example.com"],
        "operators": [],
        "callbacks": 0,
        "unopened_callbacks": 0,
    }
    assert (await read_secrets(resources.db, Sealer.from_setting(new)))["shop.example.com"]
    assert await read_secrets(resources.db, Sealer.from_setting(old)) == {"shop.example.com": None}
    accounts = await stored(resources, new)
    assert (accounts["main"].enabled, accounts["other"].enabled) == (True, False)
    assert accounts["main"].credentials["keys"] == {"k1": SECRET}
    with pytest.raises(ConfigurationError):
        await stored(resources, old)


async def test_nothing_is_resealed_while_one_account_does_not_open(
    nodrop: Nodrop, resources: Resources, file: Path
) -> None:
    for name in ("main", "other"):
        await nodrop("accounts", "add", name, "--from", str(file))
    await resources.db.execute("UPDATE accounts SET sealed = (SELECT sealed FROM accounts WHERE name = 'main')")
    before = await resources.db.fetch("SELECT sealed FROM accounts ORDER BY name")
    old, new = resources.settings.nodrop_master_keys, new_master_key("second")
    ran = await nodrop("accounts", "reseal", env={"NODROP_MASTER_KEYS": f"{new},{old}"})
    assert (ran.code, ran.line) == (2, "what was sealed for account other does not open: changed or moved")
    assert await resources.db.fetch("SELECT sealed FROM accounts ORDER BY name") == before


# -- keys in files of their own ----------------------------------------------------------------------------------------


def wechatpay(folder: Path, driver: WechatPayDriver) -> Path:
    """An account whose keys all stand in files, beside the one that names them."""
    given = driver.account("http://127.0.0.1:9", Key.NEW).credentials
    lines = ['channel = "wechatpay"', 'base_url = "http://127.0.0.1:9"', "[credentials]"]
    lines += [f'{key} = "{given[key]}"' for key in ("appid", "mchid", "merchant_serial")]
    for key in ("private_key", "apiv3_key"):
        private_file(folder / f"{key}.pem", given[key] + "\n")
        lines.append(f'{key}_file = "{key}.pem"')
    names = {}
    for name, pem in given["public_keys"].items():
        private_file(folder / f"{name}.pem", pem)
        names[name] = f"{name}.pem"
    lines += [f"public_keys_files = {toml_of(names)}"]
    return private_file(folder / "account.toml", "\n".join([*lines, ""]))


def private_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


async def test_keys_are_read_from_their_files_when_the_account_is_added(
    nodrop: Nodrop, resources: Resources, tmp_path: Path
) -> None:
    """Relative to the account's file, wherever the command runs; what is stored needs the files no more."""
    driver = WechatPayDriver()
    path = wechatpay(tmp_path, driver)
    assert (await nodrop("accounts", "check", "--from", str(path))).code == 0
    added = await nodrop("accounts", "add", "main", "--from", str(path))
    assert (added.code, added.err) == (0, ""), added
    wanted = driver.account("http://127.0.0.1:9", Key.NEW).credentials
    kept = (await stored(resources))["main"].credentials
    assert {key: strip(kept[key]) for key in ("private_key", "apiv3_key", "public_keys")} == {
        key: strip(wanted[key]) for key in ("private_key", "apiv3_key", "public_keys")
    }


def strip(value: object) -> object:
    return {name: strip(item) for name, item in value.items()} if isinstance(value, dict) else str(value).strip()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('keys_file = "nowhere.pem"', "credentials.keys_file is nowhere.pem: No such file"),
        ("keys_file = 7", "credentials.keys_file is not the path of a file"),
        ('keys_file = "."', "credentials.keys_file is . is no file"),
        ('keys_files = "a.pem"', "credentials.keys_files is not a list or a table"),
        ('keys_file = "binary"', "credentials.keys_file is binary is not text"),
        ('keys_file = "large"', "credentials.keys_file is large is larger than 64 KiB"),
        ('merchant_id_file = "large"', "credentials.merchant_id_file is given twice"),
    ],
)
def test_a_file_that_cannot_stand_for_a_key_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 65 * 1024)
    source = tmp_path / "main.toml"
    draft = draft_account("main", str(source), f'{ACCOUNT}[credentials]\nmerchant_id = "m-1"\n{line}\n'.encode())
    assert [f"{key} {text}" for key, text in draft.problems if f"{key} {text}".startswith(says)], draft.problems


# -- checking ----------------------------------------------------------------------------------------------------------


async def test_everything_that_is_wrong_is_named_at_once(bare: Nodrop, tmp_path: Path) -> None:
    """Of the file, of keys that are missing, and of keys that cannot be read; never with a value."""
    path = private_file(
        tmp_path / "account.toml",
        'channel = "wechatpay"\nrate_per_s = "fast"\nlive = true\nbase_url = "http://127.0.0.1:9"\n[credentials]\n'
        'appid = "wx1"\nmchid = 5\nprivate_key_file = "none.pem"\napiv3_key = "canary-canary"\n'
        'public_keys = {PUB_KEY_ID_1 = "canary-pem"}\nmerchant_seral = "canary"\n',
    )
    ran = await bare("accounts", "check", "--from", str(path), "--json")
    assert ran.code == 2
    wrong = {row["what"]: row["says"] for row in ran.json if row["level"] == "error"}
    assert set(wrong) == {
        "rate_per_s",
        "credentials.private_key_file",
        "credentials.merchant_seral",
        "credentials.mchid",
        "credentials.merchant_serial",
        "credentials.apiv3_key",
        "credentials.public_keys.PUB_KEY_ID_1",
    }
    assert "did you mean merchant_serial?" in wrong["credentials.merchant_seral"]
    assert "40 hexadecimal digits" in wrong["credentials.merchant_serial"]
    assert "canary" not in ran.out + ran.err


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.channel)
def test_each_key_without_which_no_account_opens_is_named(driver: Driver) -> None:
    """And each that the channel's own tests call wrong, by the same name."""
    credentials = driver.account("http://127.0.0.1:9").credentials
    assert key_problems(driver.channel, credentials) == []
    missing = [problem.key for problem in key_problems(driver.channel, {}) if "missing" in problem.says]
    assert set(missing) >= set(driver.required)
    description = ADAPTERS[driver.channel].description
    assert set(description.credentials.__struct_fields__) == set(description.shapes)


async def test_test_and_live_do_not_mix(bare: Nodrop, tmp_path: Path) -> None:
    for driver in DRIVERS:
        for name, account in driver.mixed_accounts().items():
            path = private_file(tmp_path / "account.toml", account_toml(account))
            ran = await bare("accounts", "check", "--from", str(path), "--json")
            assert (ran.code, [row for row in ran.json if row["level"] == "error"] != []) == (2, True), (driver, name)
            break  # one of each channel here; the channels' own tests try them all


async def test_the_address_for_callbacks_is_printed(nodrop: Nodrop, file: Path) -> None:
    ran = await nodrop("accounts", "check", "main", "--from", str(file))
    assert ran.code == 0
    assert "http://127.0.0.1:8000/callbacks/main" in ran.out


@pytest.mark.parametrize(("days", "level"), [(-1, "error"), (20, "warning"), (40, "OK")])
async def test_certificates_are_warned_of_before_they_expire(
    days: int, level: str, bare: Nodrop, tmp_path: Path
) -> None:
    given = WechatPayDriver().account("http://127.0.0.1:9", Key.NEW)
    credentials = given.credentials | {"platform_certificates": [certificate(days)]}
    path = private_file(tmp_path / "account.toml", account_toml(replace(given, credentials=credentials)))
    ran = await bare("accounts", "check", "--from", str(path), "--json")
    (row,) = [row for row in ran.json if row["what"] == "credentials.platform_certificates[0]"]
    assert (row["level"], ran.code) == (level, 2 if level == "error" else 0)


def certificate(days: int) -> str:
    """One that ends in so many days."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=400))
    made = builder.not_valid_after(now + timedelta(days=days, hours=1)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


# -- checking with the channel -----------------------------------------------------------------------------------------


@pytest.fixture
async def far_side() -> AsyncIterator[Simulation]:
    async with serve_channels(seed=7) as (_, far_side):
        yield far_side


def opened_at(far_side: Simulation, channel: str, folder: Path, **more: object) -> Path:
    """An account at the far side with keys that were made there just now, as its operator writes it down."""
    opened = far_side.channels[channel].open_account("main", "http://127.0.0.1:9/callbacks/main")
    far_side.accounts[opened.account.merchant_id] = opened.account
    credentials = opened.credentials | more
    account = AccountConfig(name="main", channel=channel, base_url=far_side.urls[channel], credentials=credentials)
    return private_file(folder / "account.toml", account_toml(account))


@pytest.mark.parametrize("channel_name", sorted(ADAPTERS))
async def test_a_question_about_nothing_proves_the_keys(
    far_side: Simulation, channel_name: str, bare: Nodrop, tmp_path: Path
) -> None:
    path = opened_at(far_side, channel_name, tmp_path)
    ran = await bare("accounts", "check", "--from", str(path), "--online", "--json")
    assert ran.code == 0, ran
    (online,) = [row for row in ran.json if row["what"] == "online"]
    assert "knows no such payment" in online["says"]
    assert ADAPTERS[channel_name].description.request_keys[0] in online["says"]
    assert far_side.traffic.counters["calls_create"] == 0


async def test_a_wrong_key_of_ours_is_named(far_side: Simulation, bare: Nodrop, tmp_path: Path) -> None:
    stranger = WechatPayDriver().account("http://127.0.0.1:9", Key.NEW).credentials["private_key"]
    path = opened_at(far_side, "wechatpay", tmp_path, private_key=stranger)
    ran = await bare("accounts", "check", "--from", str(path), "--online", "--json")
    (online,) = [row for row in ran.json if row["what"] == "online"]
    assert (ran.code, online["level"]) == (2, "error")
    assert "private_key" in online["says"]
    assert "public_keys" not in online["says"]


async def test_a_wrong_key_of_theirs_is_named(far_side: Simulation, bare: Nodrop, tmp_path: Path) -> None:
    wrong = AlipayDriver().account("http://127.0.0.1:9", Key.NEW).credentials["alipay_public_keys"]
    path = opened_at(far_side, "alipay", tmp_path, alipay_public_keys=wrong)
    ran = await bare("accounts", "check", "--from", str(path), "--online", "--json")
    (online,) = [row for row in ran.json if row["what"] == "online"]
    assert (ran.code, online["level"]) == (2, "error")
    assert "does not verify with alipay_public_keys" in online["says"]


async def test_a_channel_that_is_not_there_is_a_finding(bare: Nodrop, file: Path) -> None:
    ran = await bare("accounts", "check", "--from", str(file), "--online", "--json")
    (online,) = [row for row in ran.json if row["what"] == "online"]
    assert (ran.code, "no answer" in online["says"]) == (2, True)


async def test_all_accounts_are_checked_and_one_that_does_not_open_is_a_finding(
    nodrop: Nodrop, resources: Resources, file: Path
) -> None:
    for name in ("main", "other"):
        await nodrop("accounts", "add", name, "--from", str(file))
    await resources.db.execute("UPDATE accounts SET sealed = 'x' WHERE name = 'other'")
    ran = await nodrop("accounts", "check", "--json")
    assert ran.code == 2
    assert {row["account"] for row in ran.json if row["level"] == "error"} == {"other"}
    assert {row["account"] for row in ran.json} == {"main", "other"}
    assert (await nodrop("accounts", "check", "main")).code == 0
    assert (await nodrop("accounts", "check", "none")).line.startswith("there is no account none")


# -- rotating ----------------------------------------------------------------------------------------------------------

NEW_SECRET = "fedcba9876543210fedcba9876543210"
BOTH = f'[credentials]\nmerchant_id = "m-1"\nkeys.k2 = "{NEW_SECRET}"\nkeys.k1 = "{SECRET}"\n'


async def test_rotated_credentials_are_in_force_and_nothing_else_changes(
    nodrop: Nodrop, resources: Resources, file: Path
) -> None:
    file.write_text("rate_per_s = 7\n" + file.read_text())
    await nodrop("accounts", "add", "main", "--from", str(file))
    await nodrop("accounts", "disable", "main", "--reason", "x")
    ran = await nodrop("accounts", "rotate", "main", "--from", "-", stdin=BOTH.encode())
    assert (ran.code, ran.err) == (0, "")
    account = (await stored(resources))["main"]
    assert account.credentials["keys"] == {"k2": NEW_SECRET, "k1": SECRET}
    assert (account.rate_per_s, account.enabled) == (7, False), "an account that was switched off stays so"


async def test_it_is_warned_of_when_no_old_key_is_kept(nodrop: Nodrop, file: Path) -> None:
    await nodrop("accounts", "add", "main", "--from", str(file))
    alone = BOTH.replace(f'keys.k1 = "{SECRET}"\n', "")
    ran = await nodrop("accounts", "rotate", "main", "--from", "-", "--json", stdin=alone.encode())
    assert (ran.code, ran.json) == (0, {"name": "main", "not_kept": ["keys"]})
    assert "none of the old ones is kept" in ran.err
    assert SECRET not in ran.err


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (BOTH.replace("m-1", "m-2"), "merchant_id is another's"),
        ('channel = "stripe"\n' + BOTH, "main is an account at sandbox"),
        ("rate_per_s = 9\n" + BOTH, "the file has other settings too"),
        (BOTH.replace(NEW_SECRET, "short"), "account main: key k2 has fewer than 32 characters"),
        ("", "-: credentials is missing"),
    ],
)
async def test_a_rotation_is_of_the_same_account_and_of_its_keys_alone(
    nodrop: Nodrop, resources: Resources, file: Path, toml: str, says: str
) -> None:
    await nodrop("accounts", "add", "main", "--from", str(file))
    ran = await nodrop("accounts", "rotate", "main", "--from", "-", stdin=toml.encode())
    assert ran.code in (1, 2)
    assert ran.line.startswith(says) or says in ran.line
    assert (await stored(resources))["main"].credentials["keys"] == {"k1": SECRET}


async def test_an_account_of_the_wrong_world_is_not_rotated_before_that_is_mended(
    nodrop: Nodrop, resources: Resources, file: Path
) -> None:
    """It was stored before worlds were checked, and goes on. New keys are a change, and say what is wrong with it."""
    await nodrop("accounts", "add", "main", "--from", str(file))
    account = (await stored(resources))["main"]
    await put_account(resources.db, resources.sealer, replace(account, live=True, base_url="https://127.0.0.1:9"))
    ran = await nodrop("accounts", "rotate", "main", "--from", "-", stdin=BOTH.encode())
    assert ran.code != 0
    assert "live is true, and sandbox moves no real money" in ran.err
    assert (await stored(resources))["main"].credentials["keys"] == {"k1": SECRET}


async def test_only_an_account_that_is_there_is_rotated(nodrop: Nodrop, file: Path) -> None:
    ran = await nodrop("accounts", "rotate", "main", "--from", str(file))
    assert (ran.code, ran.line.startswith("there is no account main")) == (1, True)


# -- events that are subscribed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["stripe", "paypal"])
@pytest.mark.parametrize(
    ("events", "level", "says"),
    [
        (("*",), "OK", "are sent to"),
        (("charge.dispute.created", "CUSTOMER.DISPUTE.CREATED"), "warning", "not subscribed: "),
    ],
)
async def test_events_that_are_not_sent_are_named(
    channel: str, events: tuple[str, ...], level: str, says: str, nodrop: Nodrop, tmp_path: Path
) -> None:
    """Without `charge.dispute.created` nobody hears of a dispute."""
    async with serve_channels() as (_, simulation):
        opened = simulation.channels[channel].open_account("main", "http://127.0.0.1:8000/callbacks/main")
        account = replace(opened.account, wire=opened.account.wire | {"events": list(events)})
        simulation.accounts[account.merchant_id] = account
        config = AccountConfig(
            name="main", channel=channel, base_url=simulation.urls[channel], credentials=opened.credentials
        )
        path = private_file(tmp_path / "account.toml", account_toml(config))
        ran = await nodrop("accounts", "check", "main", "--from", str(path), "--online", "--json")
    (row,) = [row for row in ran.json if row["what"] == "events"]
    assert (row["level"], ran.code) == (level, 0)
    assert says in row["says"]
    if level == "warning" and channel == "paypal":
        assert {"CHECKOUT.PAYMENT-APPROVAL.REVERSED", "PAYMENT.CAPTURE.REVERSED"} <= set(
            re.findall(r"[A-Z.-]+", row["says"])
        )


async def test_a_webhook_of_another_address_is_a_warning(nodrop: Nodrop, tmp_path: Path) -> None:
    async with serve_channels() as (_, simulation):
        opened = simulation.channels["stripe"].open_account("main", "http://127.0.0.1:9/elsewhere")
        simulation.accounts[opened.account.merchant_id] = opened.account
        config = AccountConfig(
            name="main", channel="stripe", base_url=simulation.urls["stripe"], credentials=opened.credentials
        )
        path = private_file(tmp_path / "account.toml", account_toml(config))
        ran = await nodrop("accounts", "check", "main", "--from", str(path), "--online", "--json")
    (row,) = [row for row in ran.json if row["what"] == "events"]
    assert (row["level"], "no webhook of the channel calls" in row["says"]) == ("warning", True)


async def test_the_world_of_an_account_is_said(nodrop: Nodrop, file: Path) -> None:
    ran = await nodrop("accounts", "check", "main", "--from", str(file), "--json")
    (row,) = [row for row in ran.json if row["what"] == "live"]
    assert row["says"].startswith("test: no real money, at http://127.0.0.1:")


async def test_an_account_with_payments_keeps_its_world(nodrop: Nodrop, resources: Resources, file: Path) -> None:
    """Its payments are asked about and refunded where they were made."""
    add = ("accounts", "add", "main", "--replace", "--from", str(file))
    assert (await nodrop(*add)).code == 0
    await resources.db.execute("UPDATE accounts SET world = 'sandbox live'")
    assert (await nodrop(*add)).code == 0
    await resources.db.execute(
        """WITH o AS (INSERT INTO orders (order_no, amount, currency, subject, status, version, page_token, created_at,
                                          expires_at)
                      VALUES ('A-1', 1, 'CNY', 'Tea', 'paying', 1, 'token', now(), now()) RETURNING order_no)
           INSERT INTO payments (channel_account, out_trade_no, order_no, attempt_no, method, origin, amount, currency,
                                 status, payable_until, created_at, live)
           SELECT 'main', 'number-1', order_no, 1, '', 'ours', 1, 'CNY', 'open', now(), now(), true FROM o"""
    )
    refused = await nodrop(*add)
    assert (refused.code, "add the test account under another name" in refused.line) == (1, True)
    await resources.db.execute("UPDATE accounts SET world = 'sandbox test 127.0.0.1:9'")
    assert (await nodrop(*add)).code == 0
