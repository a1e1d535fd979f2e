"""PayPal: `account` (credentials), `adapter` (the channel), `api` (calls and tokens), `wire` (objects and evidence),
`webhook` and `certificates` (proof of callbacks), `statement`.
"""

from channels.paypal.account import DESCRIPTION
from channels.paypal.adapter import Paypal

__all__ = ["DESCRIPTION", "Paypal"]
