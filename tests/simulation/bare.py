"""A world with a channel, a merchant and no faults, for tests of the inner half: `python -m tests.simulation.bare SCENE
SEED URL` runs a scene and prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from secrets import token_bytes
from typing import TYPE_CHECKING, Any

from tests.simulation import start

if __name__ == "__main__":
    start.begin(int(sys.argv[2]))

import msgspec

from core.account import AccountConfig
from core.settings import read_settings
from simulator.kernel import control, dispatch
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import App
from simulator.kit.http_client import ClientResponse, NoResponse
from simulator.sandbox.channel import Sandbox
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.postgres.database import Database
from storage.sealing import Sealer, new_master_key
from tests.simulation import clock
from tests.simulation.accidents import State
from tests.simulation.faults import FaultBook
from tests.simulation.network import Network, Server
from tests.simulation.world import PUBLIC_URL, World, open_world

if TYPE_CHECKING:
    from tests.simulation.processes import Process

API_PORT, CHANNEL_PORT, MERCHANT_PORT = 8000, 9001, 9100
TIMEOUT_S = 60.0
RESPONSE_BYTES_MAX = 1 << 20
CHANNEL_URL = f"http://127.0.0.1:{CHANNEL_PORT}"


class Bare:
    """The world and who is around it. `notified`: when a notification came, the order's number and the type."""

    def __init__(self, world: World, network: Network, simulation: Simulation, db: Database, key: str) -> None:
        self.world = world
        self.db = db
        self.notified: list[tuple[float, str, str]] = []
        self._simulation = simulation
        self._network = network
        self._key = key
        network.serve(MERCHANT_PORT, Server("merchant", app=self._take_notification))

    async def place(self, process: Process, order_no: str, **terms: Any) -> ClientResponse:
        """Place an order at a process. Raises NoResponse."""
        body = {
            "order_no": order_no,
            "amount": 8888,
            "currency": "CNY",
            "subject": "Tea, 250 g",
            "account": "sandbox",
            "notify_url": f"http://127.0.0.1:{MERCHANT_PORT}/notifications",
            **terms,
        }
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        self._network.serve(API_PORT, Server("api", pick=lambda: process))
        return await self._post(f"{PUBLIC_URL}/v1/orders", headers, msgspec.json.encode(body))

    async def pay(self, placed: ClientResponse) -> None:
        """Pay at the channel, whose callback is lost."""
        number = msgspec.json.decode(placed.body)["payments"][0]["out_trade_no"]
        url = f"{CHANNEL_URL}/control/payments/{number}/pay"
        paid = await self._post(url, {}, b'{"at_fault": {"callback": "lost"}}')
        assert paid.status == 200, paid.body

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> ClientResponse:
        client = self._network.client("outside")
        return await client.exchange(
            "POST", url, headers=headers, within_s=TIMEOUT_S, body_bytes_max=RESPONSE_BYTES_MAX, body=body
        )

    async def until_paid(self, *order_nos: str, within_s: float = 7200.0) -> float:
        """Wait until these orders are paid here; return the time."""
        async with asyncio.timeout(within_s):
            while self._count_unpaid(order_nos):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(1.0)  # a second of the world
        return clock.TIME.seconds

    def _count_unpaid(self, order_nos: tuple[str, ...]) -> int:
        sql = "SELECT count(*) FROM orders WHERE order_no = ANY($1) AND status = 'paid'"
        return len(order_nos) - int(self.world.postgres.run("fetchval", sql, list(order_nos)))

    async def _take_notification(self, _scope: Any, receive: Any, send: Any) -> None:
        body = msgspec.json.decode((await receive())["body"])
        self.notified.append((clock.TIME.seconds, body["data"]["order_no"], body["type"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def open_bare(seed: int, url: str) -> AsyncIterator[Bare]:
    """A world with an account, whose processes are not started."""
    master_key = new_master_key("first")
    secret = "whsec_" + b64encode(token_bytes(32)).decode()
    channel = Sandbox()
    simulation = Simulation({"sandbox": channel}, seed=seed, now=clock.now)
    simulation.base_url = simulation.urls["sandbox"] = CHANNEL_URL
    app = App([*dispatch.routes(simulation, channel), *control.routes(simulation)], now=clock.now)
    network = Network(FaultBook(seed, elapsed=lambda: clock.TIME.seconds))
    network.serve(CHANNEL_PORT, Server("sandbox", app=app))
    environ = {"NODROP_MASTER_KEYS": master_key, "NOTIFY_SECRETS": secret}
    async with open_world(seed, database_url=url, environ=environ, network=network) as world:
        db = Database.from_settings(read_settings(world.environ))
        await db.open()
        opened = channel.open_account("sandbox", f"{PUBLIC_URL}/callbacks/sandbox")
        simulation.accounts[opened.account.merchant_id] = opened.account
        account = AccountConfig(
            name="sandbox", channel="sandbox", rate_per_s=200, base_url=CHANNEL_URL, credentials=opened.credentials
        )
        await put_account(db, Sealer.from_setting(master_key), account)
        _, key = await create_api_key(db, "shop")
        yield Bare(world, network, simulation, db, key)


# -- scenes ------------------------------------------------------------------------------------------------------------


async def paid_without_callback(bare: Bare) -> dict[str, Any]:
    """Three orders are paid, no callback comes."""
    api = await bare.world.start("api", "api")
    await bare.world.start("worker", "worker")
    for number in range(3):
        placed = await bare.place(api, f"order-{number}")
        assert placed.status == 201, placed.body
        await asyncio.sleep(7.0)
        await bare.pay(placed)
    paid_at = await bare.until_paid("order-0", "order-1", "order-2")
    await asyncio.sleep(5.0)
    return {"paid_at": paid_at, "notified": [kind for _, _, kind in bare.notified]}


async def killed_again_and_again(bare: Bare) -> dict[str, Any]:
    """Processes are killed in the middle of their calls of the stores, and started again a while later."""
    world, random = bare.world, bare.world.random("scene")
    is_over = False

    async def keep(kind: str, name: str) -> None:
        while not is_over:
            process = await world.start(kind, name)
            await asyncio.shield(process.ended)
            await asyncio.sleep(random.uniform(0.5, 10.0))

    keepers = [asyncio.create_task(keep(kind, f"{kind}{number}")) for kind in ("api", "worker") for number in (1, 2)]
    await asyncio.sleep(1.0)
    world.postgres.accidents.crash_share = world.redis.accidents.crash_share = 0.01
    world.postgres.accidents.cut_share = world.redis.accidents.cut_share = 0.01
    numbers = [f"order-{number}" for number in range(ORDERS)]
    await asyncio.gather(*(_sell(bare, number, random.uniform(0.0, 60.0)) for number in numbers))
    await asyncio.sleep(60.0)
    world.postgres.accidents.crash_share = world.redis.accidents.crash_share = 0.0
    paid_at = await bare.until_paid(*numbers)
    is_over = True
    for keeper in keepers:
        keeper.cancel()
    await asyncio.sleep(120.0)
    return {
        "paid_at": paid_at,
        "crashes": sum(" crash process=" in line for line in world.events.lines),
        "notified": sorted({number for _, number, kind in bare.notified if kind == "order.paid"}),
        "orders": sorted(numbers),
    }


async def stores_in_trouble(bare: Bare) -> dict[str, Any]:
    """Both stores are refusing, frozen, read-only and restarted in turn, Redis flushed and full, while orders come."""
    world, random = bare.world, bare.world.random("scene")
    for kind in ("api", "worker"):
        await world.start(kind, kind)
    numbers = [f"order-{number}" for number in range(ORDERS)]
    sales = [asyncio.create_task(_sell(bare, number, random.uniform(0.0, 240.0))) for number in numbers]
    for trouble in _TROUBLES:
        await asyncio.sleep(random.uniform(10.0, 30.0))
        await trouble(world)
    await asyncio.gather(*sales)
    paid_at = await bare.until_paid(*numbers)
    await asyncio.sleep(120.0)
    notified = sorted({number for _, number, kind in bare.notified if kind == "order.paid"})
    return {"paid_at": paid_at, "notified": notified, "orders": sorted(numbers)}


ORDERS = 20


async def _sell(bare: Bare, order_no: str, after_s: float) -> None:
    """Place an order as a shop does, again until it is answered, and pay it."""
    await asyncio.sleep(after_s)
    while True:
        apis = [each for each in bare.world.processes.values() if each.app is not None]
        for api in apis:
            with suppress(NoResponse):
                placed = await bare.place(api, order_no)
                if placed.status in (200, 201) and b'"checkout":{' in placed.body:
                    await asyncio.sleep(5.0)
                    await bare.pay(placed)
                    return
        await asyncio.sleep(1.0)


async def _while_postgres_is(state: State, world: World) -> None:
    world.postgres.be(state)
    await asyncio.sleep(20.0)
    world.postgres.be(State.UP)


async def _while_redis_is(state: State, world: World) -> None:
    world.redis.be(state)
    await asyncio.sleep(20.0)
    world.redis.be(State.UP)


async def _while_read_only(world: World) -> None:
    world.postgres.be_read_only(True)
    await asyncio.sleep(20.0)
    world.postgres.be_read_only(False)
    world.redis.be_read_only(True)
    await asyncio.sleep(20.0)
    world.redis.be_read_only(False)
    world.redis.be_full(True)
    await asyncio.sleep(20.0)
    world.redis.be_full(False)


async def _restart_and_flush(world: World) -> None:
    world.redis.flush()
    await asyncio.sleep(10.0)
    world.postgres.restart()
    await asyncio.sleep(10.0)
    world.redis.restart(is_empty=True)


_TROUBLES: tuple[Callable[[World], Awaitable[None]], ...] = (
    partial(_while_postgres_is, State.FROZEN),
    partial(_while_postgres_is, State.REFUSING),
    partial(_while_redis_is, State.FROZEN),
    partial(_while_redis_is, State.REFUSING),
    _while_read_only,
    _restart_and_flush,
)

SCENES: dict[str, Callable[[Bare], Awaitable[dict[str, Any]]]] = {
    scene.__name__: scene for scene in (paid_without_callback, killed_again_and_again, stores_in_trouble)
}


def main() -> None:
    name, seed, url = sys.argv[1:]

    async def play() -> None:
        began_s = clock.REAL_MONOTONIC()
        async with open_bare(int(seed), url) as bare:
            result = await SCENES[name](bare)
            result |= {"digest": bare.world.events.digest, "events": bare.world.events.lines}
        result["real_s"] = clock.REAL_MONOTONIC() - began_s
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")

    start.run(play)
    sys.stdout.flush()
    os._exit(0)  # nothing of the processes that were killed runs any more


if __name__ == "__main__":
    main()
