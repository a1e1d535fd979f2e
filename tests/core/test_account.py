from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core.account import AccountConfig
from core.errors import ConfigurationError

GIVEN = {"name": "alipay", "channel": "alipay", "base_url": "https://openapi.test", "credentials": {"key": "s3cret"}}


def read(**changes: Any) -> AccountConfig:
    return msgspec.convert(GIVEN | changes, AccountConfig)


@pytest.mark.parametrize("show", [repr, str, "{}".format])
def test_an_account_is_safe_to_print(show: Callable[[object], str]) -> None:
    assert "s3cret" not in show(read())
    assert "s3cret" not in show([read()])


def test_an_account_moves_no_real_money_and_asks_the_channel_unless_told_otherwise() -> None:
    account = read()
    assert (account.live, account.trust_callback, account.late_policy) == (False, False, "accept")


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
def test_a_setting_out_of_bounds_or_misspelt_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(**wrong)


class KeyOnly(msgspec.Struct, forbid_unknown_fields=True):
    key: str


def test_credentials_are_read_as_their_channels_form_and_a_wrong_one_is_named_without_its_value() -> None:
    assert read().credentials_as(KeyOnly) == KeyOnly("s3cret")
    with pytest.raises(ConfigurationError, match=r"^account alipay: credentials: .*`keys`") as caught:
        read(credentials={"keys": "s3cret"}).credentials_as(KeyOnly)
    assert "s3cret" not in str(caught.value)
