"""Authentication for /v1 and /metrics: a bearer API key, known here by its SHA-256 alone.

The key has 256 random bits, so a plain hash keeps it, and the time of a lookup by equality shows nothing about any key.
A known key is kept for ten seconds: for so long a revoked key is still accepted. Its limit is counted by each process
for itself, and its last use is written beside the requests.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NamedTuple

from api.http.errors import Forbidden, Unauthorized
from core.act_names import ActName
from core.errors import TooManyRequests
from storage.postgres.api_keys import ApiKey, Scope, digest_of, find_api_key, set_last_used
from storage.postgres.audit import Act, Via, write_act
from storage.postgres.database import Database

KEPT_S = 10.0
KEPT_MAX = 1000
MINUTE_S = 60.0

LAST_USED_S = 60.0
"""Interval at which the last uses are written."""

# RFC 6750; the length bounds what is hashed for a stranger.
_BEARER = re.compile(r"bearer +([0-9A-Za-z\-._~+/]{1,256}=*)", re.ASCII | re.IGNORECASE)


class _Kept(NamedTuple):
    key: ApiKey
    until: float


class ApiKeys:
    """The keys that were used lately. Unknown ones are not kept: many of them would push out the known."""

    def __init__(self, db: Database, clock: Callable[[], float] = monotonic) -> None:
        self._db = db
        self._clock = clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._counted_until: dict[str, float] = {}
        self._used_at: dict[str, float] = {}

    async def admit(self, headers: Mapping[str, str], scope: Scope) -> ApiKey:
        """The key that came with the request, which is counted against its limit.

        Raises:
            Unauthorized: there is none, or it is not known.
            TooManyRequests: its limit is used up.
            Forbidden: it lacks the scope.
            DatabaseUnavailable: the keys cannot be read now.
        """
        key = await self._find(headers)
        self._count(key)
        if scope not in key.scopes:
            raise Forbidden(f"this needs a key with the scope `{scope}`; {key.id} has {_listed(key)}")
        return key

    async def record(self, key: ApiKey, action: ActName, subject: str) -> None:
        """Write the act of a person before it is done. Raises DatabaseUnavailable."""
        detail = {"name": key.name} if key.operator is None else {"name": key.name, "key_id": key.id}
        by = key.operator or key.id
        await write_act(self._db, Act(by=by, via=Via.API, action=action, subject=subject, detail=detail))

    async def write_last_uses(self) -> int:
        """Store the uses since the last time; how many keys there were. Raises DatabaseUnavailable."""
        used_at, now = self._used_at, self._clock()
        if used_at:
            self._used_at = {}
            await set_last_used(self._db, {key_id: now - at for key_id, at in used_at.items()})
        return len(used_at)

    async def _find(self, headers: Mapping[str, str]) -> ApiKey:
        match = _BEARER.fullmatch(headers.get("authorization", ""))
        if match is None:
            raise Unauthorized("send `Authorization: Bearer <API key>`")
        digest = digest_of(match[1])
        kept = self._kept.get(digest)
        if kept is not None and kept.until > self._clock():
            return kept.key
        key = await find_api_key(self._db, digest)
        if key is None:
            self._kept.pop(digest, None)
            raise Unauthorized("this API key is not known, was revoked or has expired")
        self._keep(digest, key)
        return key

    def _count(self, key: ApiKey) -> None:
        """Check and take in one step: nothing is awaited between them. A request that is refused is not counted."""
        now = self._clock()
        if key.requests_per_minute is not None:
            until = max(now, self._counted_until.get(key.id, now)) + MINUTE_S / key.requests_per_minute
            if until > now + MINUTE_S + 1e-6:  # the sum of many parts of a minute
                raise TooManyRequests(
                    f"{key.id} has {key.requests_per_minute} requests a minute",
                    retry_after_s=until - now - MINUTE_S,
                )
            self._counted_until[key.id] = until
        self._used_at[key.id] = now

    def _keep(self, digest: bytes, key: ApiKey) -> None:
        kept_s = KEPT_S if key.expires_in_s is None else min(KEPT_S, key.expires_in_s)
        self._kept[digest] = _Kept(key, self._clock() + kept_s)
        self._kept.move_to_end(digest)
        if len(self._kept) > KEPT_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._counted_until.pop(oldest.key.id, None)


def _listed(key: ApiKey) -> str:
    return ", ".join(f"`{scope}`" for scope in Scope if scope in key.scopes) or "none"
