"""The sandbox: `account` (credentials), `adapter` (the channel), `statement`. The shortest complete channel, to read
first.
"""

from channels.sandbox.account import DESCRIPTION
from channels.sandbox.adapter import Sandbox

__all__ = ["DESCRIPTION", "Sandbox"]
