"""Rights in Redis that the processes need, each tried on keys of its own that expire at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from core.jobs import Lane
from storage.redis.admission.names import calls_key, state_key
from storage.redis.changes import CHANNEL
from storage.redis.checks import IDENTITY_KEY
from storage.redis.client import redis_errors
from storage.redis.delay_queue import NUDGES, queue_name

Command = tuple[str | int, ...]

_CHECKED = "{rights}check"
_LIMIT_MS = 1000
_NOTHING = "return 1"
_NOTHING_SHA = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


class MissingRights(NamedTuple):
    """Commands that a user may not run, each with its key, by the kind of process that needs them."""

    web: list[str]
    worker: list[str]


async def missing_rights(redis: Redis) -> MissingRights:
    """Try everything that web processes and workers do. Raises RedisUnavailable."""
    everywhere = await _refused(redis, [*_of_queues(), *_of_admission(), *_of_parked(), *_of_connections()])
    web, worker = await _refused(redis, _of_web()), await _refused(redis, _of_workers())
    return MissingRights(web=[*everywhere, *web], worker=[*everywhere, *worker])


def _of_queues() -> list[Command]:
    """Arming, cancelling and counting jobs, in each lane."""
    tried: list[Command] = []
    for lane in Lane:
        queue, tag = f"{queue_name(lane)}:check", queue_name(lane).removeprefix("arq:queue:")
        payload, lease = f"{job_key_prefix}{tag}check", f"{in_progress_key_prefix}{tag}check"
        tried += [
            ("EXISTS", payload),
            ("MSETNX", payload, ""),
            ("SET", payload, "", "PX", _LIMIT_MS),
            ("ZADD", queue, 0, "check"),
            ("ZRANGE", queue, 0, 0),
            ("ZCARD", queue),
            ("ZREM", queue, "check"),
            ("EXISTS", lease),
            ("DEL", payload, queue),
        ]
    return tried


def _of_admission() -> list[Command]:
    """Calls of this release, then what is only used beside processes of the release before."""
    state, calls, unanswered = state_key("check"), calls_key("check"), state_key("check-unanswered")
    return [
        ("HSET", state, "generation", 0),
        ("HMGET", state, "generation"),
        ("ZRANGEBYSCORE", calls, 0, 1),
        ("ZREMRANGEBYSCORE", calls, 0, 1),
        ("ZCOUNT", calls, 0, 1),
        ("GET", unanswered),
        ("PTTL", unanswered),
        ("PEXPIRE", unanswered, _LIMIT_MS),
        ("HDEL", state, "generation"),
        ("RPUSH", unanswered, 0),
        ("LTRIM", unanswered, 0, 0),
        ("LLEN", unanswered),
        ("LINDEX", unanswered, 0),
        ("DEL", state, calls, unanswered),
    ]


def _of_parked() -> list[Command]:
    parked = f"nodrop:{_CHECKED}:parked"
    return [("HLEN", parked), ("HSET", parked, "", ""), ("DEL", parked)]


def _of_connections() -> list[Command]:
    """Scripts, the clock, and the messages about changes; an empty message says nothing."""
    return [
        ("EVAL", _NOTHING, 0),
        ("EVALSHA", _NOTHING_SHA, 0),
        ("TIME",),
        ("PING",),
        ("GET", IDENTITY_KEY),
        ("INFO",),
        ("PUBLISH", CHANNEL, "[]"),
        ("PUBLISH", NUDGES, ""),
    ]


def _of_web() -> list[Command]:
    """Parking callbacks, metrics of the lanes, listening to changes: the last, for it ends all other commands."""
    depth: list[Command] = [("ZCOUNT", f"{queue_name(lane)}:check", 0, 1) for lane in Lane]
    return [*depth, ("HEXISTS", f"nodrop:{_CHECKED}:parked", ""), ("SUBSCRIBE", CHANNEL)]


def _of_workers() -> list[Command]:
    """Running jobs, moving parked callbacks, and the epoch; listening to nudges last, as above."""
    epoch, parked = f"nodrop:{_CHECKED}:epoch", f"nodrop:{_CHECKED}:parked"
    tried: list[Command] = []
    for lane in Lane:
        tag = queue_name(lane).removeprefix("arq:queue:")
        retry = f"{retry_key_prefix}{tag}check"
        tried += [("INCRBY", retry, 1), ("EXPIRE", retry, 1), ("GET", f"{job_key_prefix}{tag}check"), ("DEL", retry)]
    tried += [
        ("ZRANGE", "arq:abort", 0, 0),
        ("ZREM", "arq:abort", "check"),
        ("MGET", epoch),
        ("HRANDFIELD", parked, 1),
        ("HGET", parked, ""),
    ]
    return [*tried, ("DECRBY", epoch, 0), ("DEL", epoch), ("MULTI",), ("EXEC",), ("SUBSCRIBE", NUDGES)]


async def _refused(redis: Redis, tried: Sequence[Command]) -> list[str]:
    """The tried commands that the server's access list refuses. Any other error is none of rights."""
    refused: dict[str, None] = {}
    with redis_errors():
        connection = cast("Any", redis.connection_pool).make_connection()
        try:
            await connection.connect()
            for command in tried:
                await connection.send_command(*command)
                try:
                    await connection.read_response()
                except NoPermissionError:
                    refused[_name(command)] = None
                except ResponseError:
                    continue
        finally:
            await connection.disconnect()
    return list(refused)


def _name(command: Command) -> str:
    """The command with the key or the channel that it was tried on."""
    of = [part for part in command[1:2] if str(part).startswith(("arq:", "nodrop:"))]
    return " ".join(str(part) for part in (command[0], *of))
