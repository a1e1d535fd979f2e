from pathlib import Path

import pytest

from cli.account_file import is_plain_elsewhere, read_account
from core.account import AccountConfig
from core.errors import ConfigurationError
from core.lifecycle import LatePolicy
from flows.parts import Parts
from storage.accounts import enable_account, get_accounts
from storage.sealing import Sealer, new_master_key
from tests.cli.conftest import Channel
from tests.cli.nodrop import Nodrop

SECRET = "0123456789abcdef0123456789abcdef"
CREDENTIALS = f'[credentials]\nmerchant_id = "m-1"\nkeys.k1 = "{SECRET}"\n'
ACCOUNT = 'channel = "sandbox"\nbase_url = "http://127.0.0.1:9"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An account, readable by nobody else."""
    path = tmp_path / "main.toml"
    path.touch(mode=0o600)
    path.write_text(ACCOUNT + CREDENTIALS)
    return path


async def stored(parts: Parts, keys: str = "") -> dict[str, AccountConfig]:
    sealer = Sealer.from_setting(keys or parts.settings.nodrop_master_keys)
    return {account.name: account for account in await get_accounts(parts.db, sealer)}


# -- adding ------------------------------------------------------------------------------------------------------------


async def test_an_added_account_is_sealed_listed_and_ready(nodrop: Nodrop, parts: Parts, channel: Channel) -> None:
    toml = channel.toml(rate_per_s=7, late_policy='"flag"', early_queries_s=[5, 20])
    added = await nodrop("accounts", "add", "main", "--from", "-", stdin=toml.encode())
    assert added.code == 0, added.err
    assert "http://127.0.0.1:8000/callbacks/main" in added.out
    assert added.err == ""
    account = (await stored(parts))["main"]
    assert (account.rate_per_s, account.late_policy, account.early_queries_s) == (7, LatePolicy.FLAG, (5.0, 20.0))
    assert channel.secret.encode() not in await parts.db.fetchval("SELECT sealed FROM accounts")
    assert (await parts.accounts.get("main")).config == account
    (row,) = (await nodrop("accounts", "list", "--json")).json
    assert (row["name"], row["channel"], row["enabled"]) == ("main", "sandbox", True)


async def test_an_account_is_replaced_only_when_that_is_meant(nodrop: Nodrop, parts: Parts, file: Path) -> None:
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
    assert (await stored(parts))["main"].rate_per_s == 9


async def test_a_name_never_moves_to_another_channel(nodrop: Nodrop, parts: Parts, file: Path) -> None:
    await nodrop("accounts", "add", "main", "--from", str(file))
    await parts.db.execute("UPDATE accounts SET channel = 'elsewhere'")
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
        (ACCOUNT + 'trust_callback = "yes"\n' + CREDENTIALS, "trust_callback is not true or false"),
        (ACCOUNT + 'late_policy = "refuse"\n' + CREDENTIALS, 'late_policy is not "accept" or "flag"'),
        (ACCOUNT + "early_queries_s = [90]\n" + CREDENTIALS, "early_queries_s is not a list of seconds"),
        (ACCOUNT + "credentials = 1\n", "credentials is not a table"),
        (ACCOUNT + "live = true\n" + CREDENTIALS, "base_url must begin with https:// for a live account"),
        ('channel = "sandbox"\nbase_url = "127.0.0.1"\n' + CREDENTIALS, "base_url is not the address"),
        ('channel = "sandbox"\nbase_url = "http://[::1"\n' + CREDENTIALS, "base_url is not the address"),
        ("channel = sandbox\n", "not TOML: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_of_its_key(toml: str, says: str) -> None:
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


async def test_an_account_is_switched_off_and_on(nodrop: Nodrop, parts: Parts, file: Path) -> None:
    await nodrop("accounts", "add", "main", "--from", str(file))
    assert (await nodrop("accounts", "disable", "main")).code == 0
    assert not (await stored(parts))["main"].enabled
    assert (await nodrop("accounts", "enable", "main")).code == 0
    assert (await stored(parts))["main"].enabled
    ran = await nodrop("accounts", "disable", "other")
    assert (ran.code, ran.line.startswith("there is no account other")) == (1, True)


async def test_after_resealing_the_old_key_is_not_needed_any_more(nodrop: Nodrop, parts: Parts, file: Path) -> None:
    """Also not for an account that is switched off, and stays so."""
    for name in ("main", "other"):
        await nodrop("accounts", "add", name, "--from", str(file))
    await enable_account(parts.db, "other", enabled=False)
    old, new = parts.settings.nodrop_master_keys, new_master_key("second")
    ran = await nodrop("accounts", "reseal", "--json", env={"NODROP_MASTER_KEYS": f"{new},{old}"})
    assert ran.json == {"resealed": ["main", "other"]}
    accounts = await stored(parts, new)
    assert (accounts["main"].enabled, accounts["other"].enabled) == (True, False)
    assert accounts["main"].credentials["keys"] == {"k1": SECRET}
    with pytest.raises(ConfigurationError):
        await stored(parts, old)


async def test_nothing_is_resealed_while_one_account_does_not_open(nodrop: Nodrop, parts: Parts, file: Path) -> None:
    for name in ("main", "other"):
        await nodrop("accounts", "add", name, "--from", str(file))
    await parts.db.execute("UPDATE accounts SET sealed = (SELECT sealed FROM accounts WHERE name = 'main')")
    before = await parts.db.fetch("SELECT sealed FROM accounts ORDER BY name")
    old, new = parts.settings.nodrop_master_keys, new_master_key("second")
    ran = await nodrop("accounts", "reseal", env={"NODROP_MASTER_KEYS": f"{new},{old}"})
    assert (ran.code, ran.line) == (2, "what was sealed for account other does not open: changed or moved")
    assert await parts.db.fetch("SELECT sealed FROM accounts ORDER BY name") == before
