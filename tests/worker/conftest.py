"""The fixtures of Redis that `tests.storage.redis` has, and of a process that `tests.api` has."""

from tests.api.conftest import account, channel, resources, settings  # noqa: F401 -- found here by pytest
from tests.storage.redis.conftest import connect, real_redis, redis  # noqa: F401 -- found here by pytest
