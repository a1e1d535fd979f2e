"""Opening an account: errors name the wrong credential and never contain its value."""

import httpx
import pytest
from msgspec.structs import replace

from channels.adapters import ADAPTERS, CALLBACK_HEADERS, is_same_merchant, open_channel, world_of
from channels.base import Channel
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import ConfigurationError
from tests.channels.conftest import DRIVERS, assert_without_secrets
from tests.channels.driver import Driver
from tests.channels.httpx_carrier import responding
from tests.channels.reports import OFFLINE_URL

OFFLINE = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))


def test_every_adapter_passes_the_conformance_suite() -> None:
    """A channel without a driver is a channel without tests."""
    assert sorted(ADAPTERS) == sorted(driver.channel for driver in DRIVERS)


def test_the_headers_of_every_channel_are_kept_when_callbacks_are_resealed(offline: Channel) -> None:
    assert set(offline.callback_headers) <= CALLBACK_HEADERS


def test_an_unknown_channel_is_named_in_the_error(driver: Driver) -> None:
    account = replace(driver.account(OFFLINE_URL), channel="barter")
    with pytest.raises(ConfigurationError, match="barter"):
        open_channel(account, OFFLINE)


def test_an_adapter_declares_its_methods_and_queries(driver: Driver, offline: Channel) -> None:
    """Its methods, and whether a query needs the channel's reference."""
    assert offline.methods == driver.methods
    assert driver.method in ("", *offline.methods)
    assert offline.queries_by_reference == (driver.reference is not None)


@pytest.mark.parametrize(
    "credentials", [{}, {"api_key": "canary"}, {"merchant_id": 7, "keys": "canary"}], ids=["none", "other", "shape"]
)
def test_credentials_of_another_type_are_a_configuration_error(driver: Driver, credentials: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="account main") as caught:
        open_channel(with_credentials(driver, credentials), OFFLINE)
    assert "canary" not in str(caught.value)


def test_a_missing_credential_is_named(driver: Driver) -> None:
    credentials = driver.account(OFFLINE_URL).credentials
    assert driver.required
    for name in driver.required:
        rest = {key: value for key, value in credentials.items() if key != name}
        assert len(rest) < len(credentials)
        with pytest.raises(ConfigurationError, match=name) as caught:
            open_channel(with_credentials(driver, rest), OFFLINE)
        assert_without_secrets(caught.value, rest)


def test_an_unknown_credential_is_named(driver: Driver) -> None:
    """It is a mistyped name."""
    credentials = driver.account(OFFLINE_URL).credentials | {"secret_kye": "canary"}
    with pytest.raises(ConfigurationError, match="secret_kye") as caught:
        open_channel(with_credentials(driver, credentials), OFFLINE)
    assert "canary" not in str(caught.value)


def test_a_malformed_credential_is_named_and_its_value_is_hidden(driver: Driver) -> None:
    """Otherwise every later call would fail with an unhelpful error."""
    assert driver.bad_credentials
    for key, value, named in driver.bad_credentials:
        credentials = driver.account(OFFLINE_URL).credentials | {key: value}
        with pytest.raises(ConfigurationError, match="account main") as caught:
            pytest.fail(f"{key}={value!r} opened {open_channel(with_credentials(driver, credentials), OFFLINE)}")
        assert named in str(caught.value)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_an_account_that_mixes_test_and_live_does_not_open(driver: Driver) -> None:
    """Part of it would move no real money."""
    for name, account in driver.mixed_accounts().items():
        with pytest.raises(ConfigurationError, match="account main") as caught:
            pytest.fail(f"{name}: {open_channel(account, OFFLINE)}")
        assert_without_secrets(caught.value, account.credentials)


def test_an_account_in_a_log_line_shows_no_credentials(driver: Driver) -> None:
    account = driver.account(OFFLINE_URL)
    shown = repr(account)
    assert all(str(value) not in shown for value in account.credentials.values() if len(str(value)) > 8)
    assert account.name in shown


def test_an_adapter_in_a_log_line_shows_no_credentials(driver: Driver, offline: Channel) -> None:
    assert_without_secrets(repr(offline), driver.account(OFFLINE_URL).credentials)


def with_credentials(driver: Driver, credentials: dict[str, object]) -> AccountConfig:
    return replace(driver.account(OFFLINE_URL), credentials=credentials)


@pytest.mark.parametrize(
    ("channel", "live", "base_url", "world"),
    [
        ("stripe", True, "", "stripe live"),
        ("stripe", True, "https://api.stripe.com", "stripe live"),
        ("stripe", True, "https://API.stripe.com:443/", "stripe live"),
        ("stripe", False, "", "stripe test"),
        ("stripe", True, "https://proxy.example/stripe", "stripe live proxy.example"),
        ("paypal", False, "https://api-m.sandbox.paypal.com", "paypal test"),
        ("paypal", True, "https://api-m.paypal.com.evil.example", "paypal live api-m.paypal.com.evil.example"),
        ("wechatpay", True, "https://api2.mch.weixin.qq.com", "wechatpay live"),
        ("alipay", True, "https://openapi.alipay.com/gateway.do", "alipay live"),
        ("sandbox", False, "http://127.0.0.1:9100", "sandbox test 127.0.0.1:9100"),
    ],
)
def test_a_world_is_a_channel_live_or_test_and_a_host_that_is_not_the_channels(
    channel: str, base_url: str, world: str, *, live: bool
) -> None:
    account = AccountConfig(name="main", channel=channel, live=live, base_url=base_url, credentials={})
    assert world_of(account) == world


def test_two_accounts_with_the_same_credentials_are_one_merchants(driver: Driver) -> None:
    account = driver.account(OFFLINE_URL)
    twin = replace(account, name="twin", rate_per_s=1)
    assert is_same_merchant(account, twin)
    assert not is_same_merchant(account, replace(twin, base_url="https://elsewhere.example"))
    others = dict.fromkeys(ADAPTERS[account.channel].description.merchant, "other")
    assert not is_same_merchant(account, replace(twin, credentials=account.credentials | others))
    assert not is_same_merchant(account, replace(twin, credentials={}))


@pytest.mark.parametrize(
    ("number", "channels"),
    [
        ("019aaf3c1a2b6f0d8e1c2b3a4958", {"sandbox", "alipay", "wechatpay", "stripe", "paypal"}),
        ("1001", {"alipay", "stripe", "paypal"}),
        ("ORD #1001", {"stripe", "paypal"}),
        ('{"order_id":1001}', {"stripe", "paypal"}),
        ("a" * 40, {"sandbox", "alipay", "stripe", "paypal"}),
        ("a\nb", set()),
        ("", set()),
    ],
)
def test_a_watched_number_has_the_form_that_its_channel_takes(number: str, channels: set[str]) -> None:
    accounts = [each.account(OFFLINE_URL) for each in DRIVERS]
    taking = {a.channel for a in accounts if open_channel(a, OFFLINE).watched_number.fullmatch(number)}
    assert taking == channels
