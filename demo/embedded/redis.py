"""Redis (Valkey, which speaks the same protocol) as a child process."""

import json
import secrets
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Self

import redis

from demo.embedded.binaries import find_redis_binary
from demo.embedded.child import STOP_S, Child
from demo.embedded.errors import EmbeddedError
from demo.embedded.ports import free_port


class EmbeddedRedis:
    """A Redis server in `directory`. With `appendonly` it keeps its data over a restart, else none."""

    def __init__(self, directory: Path, *, port: int | None = None, appendonly: bool = False) -> None:
        self.directory = directory.absolute()
        self.port = free_port() if port is None else port
        self._appendonly = appendonly
        self._password = secrets.token_hex(16)
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise EmbeddedError("Redis has not been started")
        return self._child.pid

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and return when it answers; does nothing if it runs.

        Raises:
            BinariesMissingError: there is no Redis on this machine.
            ServerFailedError: it did not start; the message has the end of its log.
        """
        if self._is_running():
            return
        binary = find_redis_binary()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SIGKILL on the parent's death: acknowledged writes are in the kernel already, and a frozen server must end.
        argv = (binary, self._write_config())
        self._child = Child(argv, log=self.directory / "redis.log", cwd=self.directory, death_signal=SIGKILL)
        self._child.await_ready(self._is_ready, "Redis")

    def stop(self) -> None:
        if self._child and self._is_running():
            self._child.end(SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL and return when it has ended."""
        if self._child and self._is_running():
            self._child.send(SIGKILL)
            self._child.wait(STOP_S)

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def _write_config(self) -> Path:
        """Write the configuration to a file: any user can read a command line, and with it the password."""
        config = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password,
            "dir": json.dumps(str(self.directory), ensure_ascii=False),
            "save": '""',
            "appendonly": "yes" if self._appendonly else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",  # an evicted job is a lost job
        }
        path = self.directory / "redis.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        return path

    def _is_ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:  # it does not listen yet, or still reads its data
            return False
