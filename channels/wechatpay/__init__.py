"""WeChat Pay: `account` (credentials), `adapter` (the channel), `wire` (signed calls), `keys` and `certificates`,
`bodies` (shapes and evidence), `bill` (the statement).
"""

from channels.wechatpay.account import DESCRIPTION
from channels.wechatpay.adapter import WechatPay

__all__ = ["DESCRIPTION", "WechatPay"]
