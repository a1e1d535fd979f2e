"""python-alipay-sdk as a witness: signs for our verifier, verifies what we sign, and calls the simulated gateway."""

from typing import Any

from alipay import AliPay

from tests.oracles.library_server import serve

its: dict[str, AliPay] = {}


def begin(base_url: str, **account: Any) -> None:
    its["own"] = AliPay(sign_type="RSA2", debug=False, **account)
    its["own"]._gateway = base_url


def sign(data: dict[str, str]) -> str:
    """A signature over a request's parameters, or over a callback's."""
    client = its["own"]
    string = "&".join(f"{name}={value}" for name, value in client._ordered_data(data))
    signature: str = client._sign(string)
    return signature


def verify(data: dict[str, str], signature: str) -> bool:
    """As its users verify a callback."""
    return bool(its["own"].verify(data, signature))


def call(method: str, **arguments: Any) -> Any:
    """`api_alipay_trade_query` and its like: signs, calls, verifies the answer."""
    return getattr(its["own"], method)(**arguments)


serve({act.__name__: act for act in (begin, sign, verify, call)})
