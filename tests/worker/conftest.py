"""The fixtures of Redis that `tests.storage.redis` has."""

from tests.storage.redis.conftest import connect, real_redis, redis  # noqa: F401 -- found here by pytest
