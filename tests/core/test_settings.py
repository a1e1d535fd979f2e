from collections.abc import Callable
from datetime import time
from ipaddress import ip_network

import pytest

from core.backoff import Backoff
from core.errors import ConfigurationError
from core.settings import Settings, find_misspelt, read_settings, require

DEFAULTS = Settings()
NUMBERS = [name for name in Settings.__struct_fields__ if not isinstance(getattr(DEFAULTS, name), (str, bool))]
ALL_SET = {
    "DATABASE_URL": "postgres://nodrop:s3cret@db.test/nodrop",
    "REDIS_URL": "rediss://:s3cret@redis.test/0",
    "PUBLIC_URL": "https://pay.test",
    "NODROP_MASTER_KEYS": "k1:s3cret",
    "NOTIFY_SECRETS": "whsec_s3cret",
}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(environ)
    return caught.value.detail


def test_all_that_cannot_be_read_is_named_at_once() -> None:
    fault = refusal({"PORT": "many", "LEASE_S": "-1", "NOTIFY_ALLOW_NETS": "here", "RECONCILE_AT": "noon", "HOST": "h"})
    names = [sentence.split(":")[0] for sentence in fault.split("; ")]
    assert [name for name in names if name.isupper()] == ["PORT", "LEASE_S", "RECONCILE_AT", "NOTIFY_ALLOW_NETS"]


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"DATABSE_URL": "x", "PATH": "/bin", "HOME": "/", "HOSTNAME": "a"}, [("DATABSE_URL", "DATABASE_URL")]),
        ({"NOTIFY_SECRET": "x", "LOGLEVEL": "x"}, [("LOGLEVEL", "LOG_LEVEL"), ("NOTIFY_SECRET", "NOTIFY_SECRETS")]),
        ({"DATABASE_URI": "x", "DATABASE_URL": "y"}, []),
        ({"REDIS_TLS_URL": "x", "REDIS_URL": "y", "HEROKU_POSTGRESQL_RED_URL": "z"}, []),
        (ALL_SET, []),
    ],
)
def test_a_slip_in_a_name_is_found(environ: dict[str, str], found: list[tuple[str, str]]) -> None:
    assert find_misspelt(environ) == found


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_variables_are_upper_case_names_and_others_are_ignored() -> None:
    settings = read_settings(ALL_SET | {"PORT": "80", "BACKOFF_UNIT_S": "0.5", "PATH": "/bin", "port": "81"})
    assert (settings.port, settings.backoff_unit_s, settings.public_url) == (80, 0.5, "https://pay.test")


@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_an_empty_variable_is_not_set(empty: str) -> None:
    assert read_settings({"PORT": empty, "LOG_LEVEL": empty}) == Settings()


def test_space_around_a_value_is_ignored() -> None:
    assert read_settings({"PORT": " 80\n"}).port == 80


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["many", "１２", "1_0", "-1", "nan", "inf", "-inf", "1e999", "true", "0x10"])
def test_an_error_names_the_variable(name: str, text: str) -> None:
    assert refusal({name.upper(): text}).startswith(f"{name.upper()}: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("STARTUP_PARAMETERS", "no"),
        ("PORT", "65536"),
        ("TRUSTED_PROXY_HOPS", "11"),
        ("BACKOFF_ATTEMPTS_MAX", "0"),
        ("BACKOFF_JITTER", "0.11"),
        ("BACKOFF_UNIT_S", "0"),
        ("CHANNEL_TIMEOUT_S", "15.1"),
        ("CALLBACK_BODY_BYTES_MAX", "0"),
        ("SWEEP_BATCH", "0.5"),
        ("PROCESSES", "0"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(name: str, text: str) -> None:
    assert refusal({name: text}).startswith(f"{name}: expected ")


@pytest.mark.parametrize("text", ["10.1.2.3/8", "localhost", "127.0.0.0/8;10.0.0.0/8", "300.0.0.0/8"])
def test_invalid_networks_are_refused_at_the_start(text: str) -> None:
    assert refusal({"NOTIFY_ALLOW_NETS": text}).startswith("NOTIFY_ALLOW_NETS: ")


def test_networks_may_be_ipv4_and_ipv6() -> None:
    settings = read_settings({"NOTIFY_ALLOW_NETS": "127.0.0.0/8, ::1/128,"})
    assert settings.allowed_nets() == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert Settings().allowed_nets() == ()


@pytest.mark.parametrize(
    "text",
    ["*", "shop.example.com", "https://shop.example.com/", "https://Shop.example", "https://a.example:443", "null"],
)
def test_what_is_no_origin_is_refused_at_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PAGE_ORIGINS"):
        read_settings({"PAGE_ORIGINS": text})


@pytest.mark.parametrize(
    "text", ["pay.example.com", "ftp://pay.example", "https://", "https:///o", "https://a.example?b"]
)
def test_an_address_that_no_channel_could_call_is_refused_at_start(text: str) -> None:
    assert refusal({"PUBLIC_URL": text}).startswith(
        "PUBLIC_URL: set it to the address under which channels and buyers "
    )


@pytest.mark.parametrize("text", ["https://pay.example", "http://127.0.0.1:8000/", "HTTPS://pay.example/shop"])
def test_an_address_of_the_web_processes_is_taken(text: str) -> None:
    assert read_settings({"PUBLIC_URL": text}).public_url == text


def test_origins_are_those_that_browsers_send() -> None:
    settings = read_settings({"PAGE_ORIGINS": "https://shop.example, http://127.0.0.1:9300,"})
    assert settings.shop_origins() == {"https://shop.example", "http://127.0.0.1:9300"}
    assert Settings().shop_origins() == frozenset()


def test_every_notification_secret_is_a_key() -> None:
    assert Settings(notify_secrets="whsec_new, whsec_old,").notify_keys() == ("whsec_new", "whsec_old")
    assert Settings().notify_keys() == ()


@pytest.mark.parametrize("name", sorted(ALL_SET))
def test_no_secret_and_no_address_has_a_default(name: str) -> None:
    assert getattr(Settings(), name.lower()) == ""
    with pytest.raises(ConfigurationError, match=f"^{name} is not set: set it to "):
        require(read_settings({key: value for key, value in ALL_SET.items() if key != name}), *map(str.lower, ALL_SET))


def test_one_error_names_all_missing_variables() -> None:
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL is not set: .*; REDIS_URL is not set: "):
        require(Settings(), "database_url", "redis_url", "port")


def test_required_variables_that_are_set_raise_nothing() -> None:
    require(read_settings(ALL_SET), *map(str.lower, ALL_SET))


def test_the_backoff_has_the_settings_and_the_accounts_early_queries() -> None:
    settings = Settings(backoff_unit_s=1.0, backoff_attempts_max=4, backoff_jitter=0.1)
    expected = Backoff(unit_s=1.0, attempts_max=4, jitter=0.1, early_s=(5.0,))
    assert settings.backoff((5.0,)) == expected
    assert Settings().backoff() == Backoff()


@pytest.mark.parametrize("show", [repr, str, "{}".format])
def test_settings_are_safe_to_print(show: Callable[[object], str]) -> None:
    assert "s3cret" not in show(read_settings(ALL_SET))


@pytest.mark.parametrize(
    ("text", "at"), [("10:30", time(10, 30)), ("00:00", time(0)), ("off", None), ("", time(10, 30))]
)
def test_the_reconciliation_time_is_read(text: str, at: time | None) -> None:
    assert read_settings({"RECONCILE_AT": text}).reconcile_time() == at


@pytest.mark.parametrize("text", ["24:00", "10:60", "9:30", "1030", "10:30:00", "never", "１0:30"])
def test_an_invalid_time_of_day_is_refused(text: str) -> None:
    assert refusal({"RECONCILE_AT": text}) == "RECONCILE_AT: set it to a time of day like 10:30, or to off"


def test_a_limit_for_one_operator_is_an_amount_for_each_currency() -> None:
    settings = read_settings({"OPS_REFUND_ALONE_MAX": "500 CNY, 80.50 USD,"})
    limits = {currency: settings.refund_alone_max(currency) for currency in ("CNY", "USD", "JPY")}
    assert limits == {"CNY": 50000, "USD": 8050, "JPY": 0}, "a currency that is not named needs two"
    assert read_settings({}).refund_alone_max("CNY") is None


@pytest.mark.parametrize(
    "text", ["500", "500CNY", "x CNY", "500 XAU", "1 CNY, 2 CNY", "1.001 CNY", "-1 CNY", "CNY 500"]
)
def test_a_limit_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="OPS_REFUND_ALONE_MAX: set it to amounts like 500 CNY, 80 USD"):
        read_settings({"OPS_REFUND_ALONE_MAX": text})
