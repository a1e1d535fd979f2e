"""Connections to Redis: their limits, TLS with a context of ours, sentinels."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from storage.redis.address import RedisAddress

CONNECTIONS_MAX = 4
"""Per process: small plans of hosted Redis allow twenty connections in all. A fifth user waits for one."""

CONNECT_TIMEOUT_S = 2.0
SOCKET_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 5.0


class _TlsConnection(Connection):
    """Connection with a TLS context of ours: redis-py's settings can express neither a pin nor one CA alone."""

    def __init__(self, *, tls: Any, **kwargs: Any) -> None:
        self._tls = tls
        super().__init__(**kwargs)

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


class _SentinelTlsConnection(SentinelManagedConnection, _TlsConnection):
    """Connection to the master that the sentinels name."""


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Pool that lets a burst wait and disconnects from the sentinels; redis-py's own does neither."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 -- redis-py's signature
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.connection_pool.disconnect()


def connection_pool(address: RedisAddress, connections_max: int) -> BlockingConnectionPool:
    """A pool whose user waits up to `ACQUIRE_TIMEOUT_S` for one of `connections_max` connections."""
    limits = {**_connection(address), "max_connections": connections_max, "timeout": ACQUIRE_TIMEOUT_S}
    login: dict[str, Any] = {"username": address.username, "password": address.password, "db": address.database}
    if not address.sentinels:
        return BlockingConnectionPool(host=address.host, port=address.port, **login, **limits)
    manager = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py annotates it in part
    manager.sentinels = [
        Redis.from_pool(BlockingConnectionPool(host=host, port=port, password=address.sentinel_password, **limits))
        for host, port in address.sentinels
    ]
    managed = _SentinelTlsConnection if address.tls.context else SentinelManagedConnection
    arguments = login | limits | {"connection_class": managed}
    return _SentinelPool(address.sentinel_master, manager, **arguments)  # type: ignore[no-untyped-call]  # as above


# Routers forget an idle connection after some minutes: probe after 30 s, then every 10 s, give up after three.
_KEEPALIVE = (
    {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3} if sys.platform == "linux" else {}
)


def _connection(address: RedisAddress) -> dict[str, Any]:
    tls = {"connection_class": _TlsConnection, "tls": address.tls.context} if address.tls.context else {}
    return {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # Not redis-py's `health_check_interval`: with a missing password it reconnects recursively.
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
        # Once: that a pooled connection was closed by the server is noticed only when it is used.
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [RedisConnectionError],
        **tls,
    }
