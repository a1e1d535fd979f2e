"""Settings of both processes, from the environment."""

from __future__ import annotations

import os

DATABASE = os.environ["USUAL_DATABASE"]
"""`user:password@host:port/database`."""

REDIS_URL = os.environ["USUAL_REDIS_URL"]
PUBLIC_URL = os.environ["USUAL_PUBLIC_URL"]
API_KEY = os.environ["USUAL_API_KEY"]
NOTIFY_SECRET = os.environ["USUAL_NOTIFY_SECRET"]
CHANNEL_URL = os.environ["USUAL_CHANNEL_URL"]
MERCHANT_ID = os.environ["USUAL_MERCHANT_ID"]
KEY_ID = os.environ["USUAL_KEY_ID"]
KEY_SECRET = os.environ["USUAL_KEY_SECRET"].encode()

TIMEOUT_S = 10.0
UNIT_S = 60.0
"""Queries come after 1, 4, 9 … of these, and so do repeated notifications."""

ATTEMPTS_MAX = 16
EXPIRES_S = 1800.0
