"""WeChat's own browser, for one call: `WeixinJSBridge.invoke("getBrandWCPayRequest", …)`.

https://pay.weixin.qq.com/doc/v3/merchant/4012791857 : the page hands over parameters that the merchant has signed.
"""

from __future__ import annotations

import base64
from functools import partial

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

from simulator.kernel.base import Account
from simulator.kernel.ledger import Payment
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Request, Response, Route, json_response, problem
from simulator.kit.local_api import body_of, loopback_only
from simulator.kit.rsa_keys import read_public_key
from simulator.wechatpay.wire import keys_of

_PACKAGE = "prepay_id=wx"


class BridgeCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters, in WeChat's words."""

    appid: str = msgspec.field(name="appId")
    timestamp: str = msgspec.field(name="timeStamp")
    nonce: str = msgspec.field(name="nonceStr")
    package: str
    sign_type: str = msgspec.field(name="signType")
    signature: str = msgspec.field(name="paySign")


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    pay_url: str


def routes(simulation: Simulation) -> list[Route]:
    """The route of the call, for a test's browser; it answers with the address of the pay page."""

    async def invoke(request: Request) -> Response:
        call = body_of(request, BridgeCall)
        payment = _payment(simulation, call)
        if payment is None:
            return problem(400, "FAIL", "get_brand_wcpay_request:fail")
        return json_response(Opened(pay_url=simulation.pay_url(payment)))

    return [Route("POST", "/control/wechatpay/invoke", loopback_only(invoke))]


def _payment(simulation: Simulation, call: BridgeCall) -> Payment | None:
    """The payment of the call; None unless its merchant has signed it for this application and this buyer."""
    if call.sign_type != "RSA" or not call.package.startswith(_PACKAGE):
        return None
    payment = simulation.ledger.find_by_token(call.package.removeprefix(_PACKAGE), simulation.now())
    account = None if payment is None else simulation.accounts[payment.merchant_id]
    if payment is None or account is None or payment.terms.wire.get("method") != "jsapi":
        return None
    is_ours = account.channel == "wechatpay" and keys_of(account).appid == call.appid
    return payment if is_ours and any(map(partial(_is_signed, call), _merchant_keys(account))) else None


def _merchant_keys(account: Account) -> list[str]:
    return list(keys_of(account).merchants.values())


def _is_signed(call: BridgeCall, pem: str) -> bool:
    string = f"{call.appid}\n{call.timestamp}\n{call.nonce}\n{call.package}\n".encode()
    try:
        read_public_key(pem).verify(base64.b64decode(call.signature), string, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True
