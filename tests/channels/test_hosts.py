"""Test money must not look like real money, nor another host like the channel."""

import pytest

from channels.hosts import host_problem, is_loopback, is_own_host
from core.account import AccountConfig


def an_account(channel: str, base_url: str = "", *, live: bool = False, custom_host: bool = False) -> AccountConfig:
    return AccountConfig(
        name="main", channel=channel, base_url=base_url, credentials={}, live=live, custom_host=custom_host
    )


@pytest.mark.parametrize(
    ("channel", "base_url"),
    [
        ("stripe", ""),
        ("stripe", "https://api.stripe.com"),
        ("stripe", "https://API.stripe.com/"),
        ("stripe", "https://api.stripe.com.:443"),
        ("paypal", "https://api-m.paypal.com"),
        ("paypal", "https://api-m.sandbox.paypal.com"),
        ("alipay", "https://openapi.alipay.com/gateway.do"),
        ("alipay", "https://openapi-sandbox.dl.alipaydev.com/gateway.do"),
        ("wechatpay", "https://api.mch.weixin.qq.com"),
        ("wechatpay", "https://api2.mch.weixin.qq.com"),
        ("stripe", "http://127.0.0.1:9100"),
        ("paypal", "http://localhost:9100"),
        ("alipay", "http://[::1]:9100/gateway.do"),
        ("sandbox", "https://sandbox.example"),
    ],
)
def test_a_channel_s_own_host_and_this_machine_are_taken(channel: str, base_url: str) -> None:
    assert host_problem(an_account(channel, base_url)) is None


@pytest.mark.parametrize(
    ("channel", "base_url"),
    [
        ("paypal", "https://api-m.paypal.com.evil.example"),
        ("paypal", "https://evil-api-m.paypal.com"),
        ("paypal", "https://api-m.paypal.com@evil.example"),
        ("paypal", "https://evil.example@api-m.paypal.com"),
        ("paypal", "https://evil.example\\@api-m.paypal.com"),
        ("stripe", "https://api.stripe.com.evil.example"),
        ("stripe", "https://evil.example/api.stripe.com"),
        ("stripe", "https://evil.example#api.stripe.com"),
        ("stripe", "https://127.0.0.1.evil.example"),
        ("stripe", "https://[::1"),
        ("alipay", "https://openapi.alipay.com.cn"),
        ("wechatpay", "https://api.mch.weixin.qq.com.evil.example"),
        ("wechatpay", "https://api-m.paypal.com"),
        ("stripe", "https://10.0.0.1"),
    ],
)
def test_another_host_is_taken_only_if_it_is_meant(channel: str, base_url: str) -> None:
    for live in (False, True):
        problem = host_problem(an_account(channel, base_url, live=live))
        assert problem is not None
        assert problem.key == "base_url"
        assert host_problem(an_account(channel, base_url, live=live, custom_host=True)) is None
    assert not is_own_host(an_account(channel, base_url))


def test_the_sandbox_moves_no_real_money() -> None:
    for custom_host in (False, True):
        problem = host_problem(an_account("sandbox", "https://sandbox.example", live=True, custom_host=custom_host))
        assert problem is not None
        assert problem.key == "live"


def test_this_machine_is_no_host_of_a_channel() -> None:
    assert is_loopback("http://127.8.9.1:80")
    assert not is_own_host(an_account("stripe", "http://127.0.0.1:9100"))
    assert is_own_host(an_account("stripe"))
