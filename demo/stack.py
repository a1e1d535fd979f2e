"""All processes on loopback: Postgres, Redis, api, worker, the simulated channels and the merchant.

The demo, `nodrop up`, the benchmarks and the scenario tests start this stack. No process outlives the one that started
it.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from secrets import token_bytes
from types import MappingProxyType, TracebackType
from typing import Any, Self

import httpx
import msgspec
from msgspec.structs import replace

from core.account import AccountConfig
from core.settings import read_settings
from demo.embedded import EmbeddedPostgres, EmbeddedRedis, free_port
from demo.service import NO_TLS, ROOT, NoCookies, Service
from simulator.shoppers.shop import Shop
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.postgres.database import Database
from storage.postgres.migrate import migrate
from storage.redis.address import redis_address
from storage.redis.client import close_redis, open_redis
from storage.sealing import Sealer, new_master_key

DATABASE = "nodrop"
SANDBOX_ONLY: Mapping[str, str] = MappingProxyType({"sandbox": "sandbox"})


class Stack:
    """All processes of a deployment. `unit_s` is the length of a minute; leases and HTTP deadlines keep theirs.

    `accounts` are names with their channels; the channel makes the keys of both sides when the stack starts. `checkout`
    is where the next process of nodrop finds its code.
    """

    def __init__(
        self,
        directory: Path,
        *,
        unit_s: float = 0.25,
        seed: int = 1,
        apis: int = 1,
        workers: int = 1,
        fsync: bool = True,
        rate_per_s: int = 200,
        accounts: Mapping[str, str] = SANDBOX_ONLY,
        account: Mapping[str, Any] | None = None,
        ports: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.postgres = EmbeddedPostgres(directory / "postgres", fsync=fsync)
        self.redis = EmbeddedRedis(directory / "redis")
        self.master_key = new_master_key("first")
        self.notify_secret = "whsec_" + b64encode(token_bytes(32)).decode()
        self.api_key = ""
        self._unit_s = unit_s
        self._seed = seed
        self._env = dict(env or {})
        self.rate_per_s = rate_per_s
        self.accounts = tuple(accounts)
        self._channels = dict(accounts)
        self._account = dict(account or {})
        self._opened: dict[str, AccountConfig] = {}
        self._ports = dict(ports or {})
        self.channel_url = self._url("channel")
        self.merchant_url = self._url("merchant")
        self.api_urls = [self._url(f"api{number or ''}") for number in range(apis)]
        self.apis: list[Service] = []
        self.workers: list[Service] = []
        self._worker_count = workers
        self.simulators: list[Service] = []
        self.checkout = ROOT

    @property
    def api_url(self) -> str:
        return self.api_urls[0]

    @property
    def database_url(self) -> str:
        return self.postgres.url(DATABASE)

    @property
    def notify_url(self) -> str:
        return f"{self.merchant_url}/notifications"

    @property
    def environ(self) -> dict[str, str]:
        """Environment of nodrop's processes."""
        return {
            "PATH": os.environ.get("PATH", ""),
            **{name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ},
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis.url,
            "PUBLIC_URL": self.api_url,
            "HOST": "127.0.0.1",
            "NODROP_MASTER_KEYS": self.master_key,
            "NOTIFY_SECRETS": self.notify_secret,
            "NOTIFY_ALLOW_NETS": "127.0.0.0/8",
            "BACKOFF_UNIT_S": str(self._unit_s),
            "PAYABLE_MARGIN_S": str(5 * self._unit_s),
            "ARM_HORIZON_S": str(30 * self._unit_s),
            "SWEEP_INTERVAL_S": "0.5",
            "UNDELIVERED_INTERVAL_S": str(max(1.0, 5 * self._unit_s)),
            "SWEEP_GRACE_S": "1.5",
            "PROCESSES": str(len(self.api_urls) + self._worker_count),
            "LOG_LEVEL": "info",
            **self._env,
        }

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop all processes, in the reverse order of their start."""
        services = [*self.workers, *self.apis, *self.simulators]
        await asyncio.gather(*(service.stop(5.0) for service in services))
        await asyncio.to_thread(self.redis.stop)
        await asyncio.to_thread(self.postgres.stop)

    def shop(self) -> Shop:
        """Return a client of the merchant's API with its key."""
        return Shop(self.api_url, self.api_key)

    async def open_database(self) -> Database:
        """Open a connection pool for reading from outside; the caller closes it."""
        database = Database.from_settings(read_settings(self.environ))
        await database.open()
        return database

    async def flush_redis(self) -> None:
        """Send FLUSHALL."""
        redis = open_redis(redis_address(read_settings(self.environ)))
        try:
            await redis.flushall()
        finally:
            await close_redis(redis)

    async def open_account(self, name: str, channel: str = "sandbox", **config: Any) -> AccountConfig:
        """Return the configuration of an account, opened at its simulated channel once and not stored."""
        if name not in self._opened:
            wanted = {"name": name, "channel": channel, "callback_url": f"{self.api_url}/callbacks/{name}"}
            opened = await self.control("POST", "channel", "/control/accounts", wanted)
            self._opened[name] = AccountConfig(
                name=name,
                channel=channel,
                rate_per_s=self.rate_per_s,
                base_url=opened["base_url"],
                credentials=opened["credentials"],
            )
        return replace(self._opened[name], **config)

    def new_worker(self, name: str = "") -> Service:
        """Return another worker process, not started."""
        return self._service(name or f"worker{len(self.workers) or ''}", "worker")

    async def replace_apis(self) -> None:
        """End each web process as a platform does, and start one of the code at `checkout` in its place."""
        for number, old in enumerate(self.apis):
            await old.stop()
            self.apis[number] = self._new_api(number)
            await self.apis[number].start()

    # -- starting ------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.redis.start)
        await self._start_simulators()
        await self._prepare_database()
        await self._start_services()

    async def _start_services(self) -> None:
        self.apis = [self._new_api(number) for number in range(len(self.api_urls))]
        for _ in range(self._worker_count):
            self.workers.append(self.new_worker())
        await asyncio.gather(*(service.start() for service in (*self.apis, *self.workers)))

    def _new_api(self, number: int) -> Service:
        url = self.api_urls[number]
        return self._service(f"api{number or ''}", "api", health_url=f"{url}/healthz", PORT=url.rpartition(":")[2])

    def _service(self, name: str, module: str, health_url: str = "", **env: str) -> Service:
        arguments = self._arguments(name, module)
        environ = self.environ | env
        return Service(name, *arguments, env=environ, log=self._log(name), health_url=health_url, cwd=self.checkout)

    def _arguments(self, _name: str, module: str) -> tuple[str, ...]:
        """Return what follows `python -m` for a process of nodrop."""
        return (module,)

    async def _prepare_database(self) -> None:
        await asyncio.to_thread(self.postgres.create_database, DATABASE)
        await migrate(self.database_url)
        database = await self.open_database()
        try:
            for account in await self._open_accounts():
                await put_account(database, Sealer.from_setting(self.master_key), account)
            _, self.api_key = await create_api_key(database, "demo")
        finally:
            await database.close()

    async def _open_accounts(self) -> list[AccountConfig]:
        return [await self.open_account(name, channel, **self._account) for name, channel in self._channels.items()]

    async def _start_simulators(self) -> None:
        speed = str(60.0 / self._unit_s)
        channel = self._simulator("channel", self.channel_url, "--seed", str(self._seed), "--speed", speed)
        merchant = self._simulator("merchant", self.merchant_url, MERCHANT_SECRETS=self.notify_secret)
        self.simulators = [channel, merchant]
        await asyncio.gather(channel.start(), merchant.start())

    def _simulator(self, name: str, url: str, *arguments: str, **env: str) -> Service:
        port = url.rpartition(":")[2]
        return Service(
            name,
            "simulator",
            name,
            "--port",
            port,
            *arguments,
            env={"PATH": os.environ.get("PATH", ""), **env},
            log=self._log(name),
            health_url=f"{url}/healthz",
        )

    async def control(self, method: str, process: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
        """Call the control API of `process`, which is channel or merchant."""
        base = self.channel_url if process == "channel" else self.merchant_url
        content = None if body is None else msgspec.json.encode(body)
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, cookies=NoCookies(), timeout=60.0) as client:
            response = await client.request(method, base + path, content=content)
            response.raise_for_status()
            return msgspec.json.decode(response.content)

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports.get(name) or free_port()}"

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"
