"""Alipay: `account` (credentials), `adapter` (the channel), `gateway` (signed calls), `keys`, `wire` (strings to
sign, forms), `trade` (evidence), `statement`.
"""

from channels.alipay.account import DESCRIPTION
from channels.alipay.adapter import Alipay

__all__ = ["DESCRIPTION", "Alipay"]
