"""The payment-success queue: raw callbacks in Redis while Postgres is down, until the worker puts them into the inbox.

The channel gets a 503 nevertheless and sends again; parking only shortens the wait. So the space is bounded, and a
callback that does not fit is refused.

    nodrop:{parked}:callbacks   hash: fingerprint → the callback as JSON, its body sealed and in base64
    nodrop:{parked}:bytes       size of the JSON in the hash, in bytes
    nodrop:{parked}:quarantine  hash: entries that could not be read
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated

import msgspec
import structlog
from redis.asyncio import Redis

from core.errors import ConfigurationError, RedisUnavailable
from storage.redis.client import Call, Script, redis_errors
from storage.sealing import Sealer

PARKED_MAX = 100_000
PARKED_BYTES_MAX = 64 * 1024 * 1024
QUARANTINE_MAX = 1000

log = structlog.get_logger()


class ParkedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A callback as received, with the headers of its signature; names are in lower case. Its freshness is judged by
    `received_at`.
    """

    account: str
    headers: dict[str, str]
    body: bytes
    received_at: Annotated[datetime, msgspec.Meta(tz=True)]

    def __repr__(self) -> str:
        """Without headers and body: signatures and payer data stay out of logs."""
        return f"ParkedCallback(account={self.account!r}, body_bytes={len(self.body)})"


class _Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A callback as it lies in Redis. `body` is of an earlier version, which did not seal."""

    account: str
    headers: dict[str, str]
    received_at: Annotated[datetime, msgspec.Meta(tz=True)]
    sealed: bytes | None = None
    body: bytes = b""


class ParkedCallbacks:
    """Callbacks that wait for Postgres. Every method takes one round trip and may raise RedisUnavailable."""

    def __init__(
        self, redis: Redis, sealer: Sealer, *, parked_max: int = PARKED_MAX, bytes_max: int = PARKED_BYTES_MAX
    ) -> None:
        self._redis = redis
        self._sealer = sealer
        self._parked_max = parked_max
        self._bytes_max = bytes_max
        self._reported: set[bytes] = set()

    async def park(self, parked: ParkedCallback) -> None:
        """Keep it. Copies of one callback are kept once, with the time of the first.

        Raises:
            RedisUnavailable: it was not kept, for example because there is no room.
        """
        call: Call = (
            [_CALLBACKS, _BYTES],
            [_fingerprint(parked), self._seal(parked), self._parked_max, self._bytes_max],
        )
        with redis_errors():
            is_kept = await _PARK.run(self._redis, call)
        if not is_kept:
            raise RedisUnavailable("there is no room for another parked callback")

    async def parked(self, count: int) -> list[tuple[bytes, ParkedCallback]]:
        """Return up to `count` callbacks, each with the field to unpark it by.

        Their order is random, so one that cannot be handled does not block the others. Entries that cannot be read move
        to the quarantine. One whose master key is missing here stays.
        """
        with redis_errors():
            pairs = await self._redis.hrandfield(_CALLBACKS, count, True)
        readable, unreadable = [], []
        for field, value in zip(pairs[::2], pairs[1::2], strict=True):
            try:
                readable.append((bytes(field), self._open(_decoder.decode(value))))
            except ValueError:
                unreadable.append(bytes(field))
            except ConfigurationError as error:
                if self.is_first_report(bytes(field)):
                    log.error("parked_callback_not_opened", reason=error.detail)
        if unreadable:
            await self._remove(unreadable, quarantine_max=QUARANTINE_MAX)
            log.error("parked_callbacks_unreadable", count=len(unreadable))
        return readable

    async def unpark(self, fields: Sequence[bytes]) -> None:
        """Remove callbacks that Postgres has committed."""
        if fields:
            await self._remove(fields, quarantine_max=0)

    def is_first_report(self, field: bytes) -> bool:
        """Whether this process has not said yet that this callback waits: it is looked at every second."""
        if field in self._reported:
            return False
        if len(self._reported) >= self._parked_max:
            self._reported.clear()
        self._reported.add(field)
        return True

    async def count(self) -> int:
        """Return the number of parked callbacks."""
        with redis_errors():
            return int(await self._redis.hlen(_CALLBACKS))  # type: ignore[misc]  # annotated for both

    def _seal(self, parked: ParkedCallback) -> bytes:
        sealed = self._sealer.seal(parked.body, belongs_to=_belongs_to(parked.account))
        return msgspec.json.encode(
            _Entry(account=parked.account, headers=parked.headers, received_at=parked.received_at, sealed=sealed)
        )

    def _open(self, entry: _Entry) -> ParkedCallback:
        """Raises ConfigurationError: the master key that sealed it is missing."""
        sealed, body = entry.sealed, entry.body
        if sealed is not None:
            body = self._sealer.open(sealed, belongs_to=_belongs_to(entry.account))
        return ParkedCallback(account=entry.account, headers=entry.headers, body=body, received_at=entry.received_at)

    async def _remove(self, fields: Sequence[bytes], *, quarantine_max: int) -> None:
        with redis_errors():
            await _REMOVE.run(self._redis, ([_CALLBACKS, _BYTES, _QUARANTINE], [quarantine_max, *fields]))


_CALLBACKS = "nodrop:{parked}:callbacks"
_BYTES = "nodrop:{parked}:bytes"
_QUARANTINE = "nodrop:{parked}:quarantine"


def _fingerprint(parked: ParkedCallback) -> str:
    """Equal for copies. Without the signature's headers a forged copy could replace the genuine one."""
    return sha256(msgspec.json.encode((parked.account, sorted(parked.headers.items()), parked.body))).hexdigest()


def _belongs_to(account: str) -> str:
    """The name that a parked callback's sealed body is bound to."""
    return f"parked callback {account}"


_decoder = msgspec.json.Decoder(_Entry)

# KEYS: callbacks, bytes. ARGV: fingerprint, JSON, maximum of callbacks, of bytes. Returns whether it is parked
_PARK = Script("""
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return 1
end
local count = redis.call('HLEN', KEYS[1])
local bytes = #ARGV[2] + (count > 0 and tonumber(redis.call('GET', KEYS[2]) or 0) or 0)
if count >= tonumber(ARGV[3]) or bytes > tonumber(ARGV[4]) then
  return 0
end
redis.call('SET', KEYS[2], bytes)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
""")

# KEYS: callbacks, bytes, quarantine. ARGV: maximum of the quarantine, then the field of each
_REMOVE = Script("""
for i = 2, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  if value then
    if redis.call('HLEN', KEYS[3]) < tonumber(ARGV[1]) then
      redis.call('HSET', KEYS[3], ARGV[i], value)
    end
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('DECRBY', KEYS[2], #value)
  end
end
""")
