"""Stripe: `account` (credentials), `adapter` (the channel), `api` (calls), `creation`, `objects` and `events`
(evidence), `signature`, `money`, `statement`.
"""

from channels.stripe.account import DESCRIPTION
from channels.stripe.adapter import Stripe

__all__ = ["DESCRIPTION", "Stripe"]
