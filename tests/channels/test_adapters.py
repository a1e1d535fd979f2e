"""Opening an account: errors name the wrong credential and never contain its value."""

import httpx
import pytest
from msgspec.structs import replace

from channels.adapters import ADAPTERS, open_channel
from channels.base import Channel
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import ConfigurationError
from tests.channels.conftest import DRIVERS, assert_without_secrets
from tests.channels.driver import Driver
from tests.channels.reports import OFFLINE_URL

OFFLINE = Transport(timeout_s=1, transport=httpx.MockTransport(lambda _: httpx.Response(500)))


def test_every_adapter_passes_the_conformance_suite() -> None:
    """A channel without a driver is a channel without tests."""
    assert sorted(ADAPTERS) == sorted(driver.channel for driver in DRIVERS)


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
