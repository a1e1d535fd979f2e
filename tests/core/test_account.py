from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.account import AccountConfig
from core.errors import ConfigurationError

FIELDS = {"name": "alipay", "channel": "alipay", "base_url": "https://openapi.test", "credentials": {"key": "s3cret"}}


def account_with(**changes: Any) -> AccountConfig:
    return msgspec.convert(FIELDS | changes, AccountConfig)


@pytest.mark.parametrize("show", [repr, str, "{}".format])
def test_an_account_is_safe_to_print(show: Callable[[object], str]) -> None:
    assert "s3cret" not in show(account_with())
    assert "s3cret" not in show([account_with()])


def test_an_account_is_a_test_account_that_queries_the_channel_by_default() -> None:
    account = account_with()
    assert (account.live, account.trust_callback, account.late_policy) == (False, False, "accept")
    assert not account.exclusive, "others may sell there too"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_s": 0},
        {"rate_per_s": 10_001},
        {"early_queries_s": [0]},
        {"early_queries_s": [60]},
        {"late_policy": "keep"},
        {"trust_callbacks": True},
    ],
)
def test_an_invalid_or_unknown_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        account_with(**wrong)


class KeyOnly(msgspec.Struct, forbid_unknown_fields=True):
    key: str


def test_invalid_credentials_are_named_without_their_value() -> None:
    assert account_with().credentials_as(KeyOnly) == KeyOnly("s3cret")
    with pytest.raises(ConfigurationError, match=r"^account alipay: credentials: .*`keys`") as caught:
        account_with(credentials={"keys": "s3cret"}).credentials_as(KeyOnly)
    assert "s3cret" not in str(caught.value)
