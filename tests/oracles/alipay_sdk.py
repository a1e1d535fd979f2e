"""python-alipay-sdk: signs for our verifier, verifies our signatures, and calls the simulated gateway."""

from typing import Any

from alipay import AliPay

from tests.oracles.library_server import serve

its: dict[str, AliPay] = {}


def begin(base_url: str, **account: Any) -> None:
    its["own"] = AliPay(sign_type="RSA2", debug=False, **account)
    its["own"]._gateway = base_url


def sign(data: dict[str, str]) -> str:
    """Sign the parameters of a request or of a callback."""
    client = its["own"]
    string = "&".join(f"{name}={value}" for name, value in client._ordered_data(data))
    signature: str = client._sign(string)
    return signature


def verify(data: dict[str, str], signature: str) -> bool:
    """Verify a callback as the library's users do."""
    return bool(its["own"].verify(data, signature))


def call(method: str, **arguments: Any) -> Any:
    """Call `api_alipay_trade_query` or a similar method: it signs, calls and verifies the response."""
    return getattr(its["own"], method)(**arguments)


serve({act.__name__: act for act in (begin, sign, verify, call)})
