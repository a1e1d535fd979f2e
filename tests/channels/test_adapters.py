"""Opening an account: what is wrong with its credentials is said at once, and never with the credentials in it."""

import httpx
import pytest
from msgspec.structs import replace

from channels.adapters import ADAPTERS, open_channel
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import ConfigurationError
from tests.channels.conftest import DRIVERS
from tests.channels.driver import Driver

NOBODY = Transport(timeout_s=1, transport=httpx.MockTransport(lambda _: httpx.Response(500)))


def test_every_adapter_passes_the_conformance_suite() -> None:
    """A channel without a driver is a channel without tests."""
    assert sorted(ADAPTERS) == sorted(driver.channel for driver in DRIVERS)


def test_a_channel_that_is_none_is_named(driver: Driver) -> None:
    account = replace(driver.account("http://127.0.0.1:9"), channel="barter")
    with pytest.raises(ConfigurationError, match="barter"):
        open_channel(account, NOBODY)


@pytest.mark.parametrize(
    "credentials", [{}, {"api_key": "canary"}, {"merchant_id": 7, "keys": "canary"}], ids=["none", "other", "shape"]
)
def test_credentials_of_another_form_are_a_configuration_error(driver: Driver, credentials: dict[str, object]) -> None:
    account = replace(driver.account("http://127.0.0.1:9"), credentials=credentials)
    with pytest.raises(ConfigurationError, match="account main") as caught:
        open_channel(account, NOBODY)
    assert "canary" not in str(caught.value)


def sandbox(**credentials: object) -> AccountConfig:
    return AccountConfig(name="main", channel="sandbox", base_url="http://127.0.0.1:9", credentials=dict(credentials))


def test_a_sandbox_secret_that_is_too_short_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="k1") as caught:
        open_channel(sandbox(merchant_id="m-1001", keys={"k1": "canary"}), NOBODY)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("merchant_id", "key_id"), [("m é", "k1"), ("m\r\nX: y", "k1"), ("", "k1"), ("m-1001", "k 1"), ("m-1001", "")]
)
def test_sandbox_names_that_do_not_fit_a_header_are_refused(merchant_id: str, key_id: str) -> None:
    """They would make every call fail later, in words that help nobody."""
    with pytest.raises(ConfigurationError):
        open_channel(sandbox(merchant_id=merchant_id, keys={key_id: "s" * 32}), NOBODY)


def test_an_account_in_a_log_line_shows_no_credentials(driver: Driver) -> None:
    account = driver.account("http://127.0.0.1:9")
    shown = repr(account)
    assert all(str(value) not in shown for value in account.credentials.values())
    assert account.name in shown
