"""Authentication for /v1: a bearer API key, known here by its SHA-256 alone.

The key has 256 random bits, so a plain hash keeps it, and the time of a lookup by equality shows nothing about any key.
A known key is kept for ten seconds: for so long a revoked key is still accepted.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NamedTuple

from api.http.errors import Unauthorized
from storage.postgres.api_keys import ApiKey, digest_of, find_api_key
from storage.postgres.database import Database

KEPT_S = 10.0
KEPT_MAX = 1000

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

    async def check(self, headers: Mapping[str, str]) -> ApiKey:
        """The key that came with the request.

        Raises:
            Unauthorized: there is none, or it is not known.
            DatabaseUnavailable: the keys cannot be read now.
        """
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
            raise Unauthorized("this API key is not known")
        self._keep(digest, key)
        return key

    def _keep(self, digest: bytes, key: ApiKey) -> None:
        self._kept[digest] = _Kept(key, self._clock() + KEPT_S)
        self._kept.move_to_end(digest)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
