"""Places: every address has its share, health and callbacks have some of their own, and who keeps one waiting goes."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from api.application import open_application
from api.context import Context
from api.http import asgi, protocol
from api.http import server as server_module
from api.http.asgi import App
from api.http.event_stream import OpenStreams
from api.http.request import Shares, Waiting
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.api_keys import create_api_key
from storage.postgres.database import Database
from tests.api.conftest import terms, token_of
from tests.api.driver import Client, Response
from tests.api.http.wire import Wire
from tests.servers import eventually

OTHERS = [f"127.0.0.{number}" for number in range(10, 250)]
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


# -- counting ----------------------------------------------------------------------------------------------------------


def test_an_address_has_its_share_once_the_free_places_are_taken() -> None:
    shares = Shares(10, 2, free=5)
    assert [shares.take("a") for _ in range(6)] == [True] * 5 + [False]
    assert [shares.take("b") for _ in range(3)] == [True, True, False]
    shares.release("a")
    assert not shares.take("a"), "it has four of seven"
    assert [shares.take("c", kept=2) for _ in range(2)] == [True, True]
    assert not shares.take("d", kept=2)
    assert shares.take("d")
    assert shares.count == 9
    for address in "aaaabbccd":
        shares.release(address)
    assert (shares.count, shares._by_address) == (0, {})
    assert [shares.take(None) for _ in range(11)] == [True] * 10 + [False], "without an address all share one total"
    shares.release(None)
    assert (shares.count, shares._by_address) == (9, {})


def test_the_longest_waiting_is_cut_first() -> None:
    waiting, ended = Waiting(), []
    for name in "abc":
        waiting.begin(name, lambda name=name: ended.append(name))  # type: ignore[misc]
    waiting.begin("a", lambda: ended.append("a again"))
    waiting.end("b")
    waiting.cut(3600.0)
    assert ended == []
    waiting.cut(0.0)
    waiting.cut(0.0)
    assert ended == ["c", "a again"]


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty connections, of which ten are free and two an address's share; then four for health and callbacks."""
    monkeypatch.setattr(server_module, "_connections_max", lambda: 20)
    monkeypatch.setattr(protocol, "CONNECTIONS_KEPT", 4)
    monkeypatch.setattr(server_module, "KEEP_ALIVE_S", 3600)


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "expected"),
    [
        (1024, 1 << 20, 3400, 3000),
        (1024, resource.RLIM_INFINITY, 3400, 3000),
        (1024, 2400, 2400, 2000),
        (256, 256, 256, 1),
        (65_536, 65_536, None, 3000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 3000),
    ],
)
def test_connections_stay_within_the_files_that_may_be_opened(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, expected: int
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert server_module._connections_max() == expected
    assert limits == ([] if raised is None else [(raised, hard)])


@asynccontextmanager
async def idle(settings: Settings, *sources: str, sent: bytes = b"") -> AsyncIterator[list[Wire]]:
    wires = [await Wire.open(settings, source) for source in sources]
    for wire in wires:
        await wire.send(sent)
    try:
        yield wires
    finally:
        for wire in wires:
            wire.close()


async def ask(settings: Settings, request: bytes, source: str) -> bytes:
    async with idle(settings, source, sent=request) as (wire,):
        return (await wire.read_all())[9:12]


async def test_idle_connections_of_one_address_do_not_keep_others_out(
    few: None, served: str, settings: Settings
) -> None:
    """3,050 of them made health a 503."""
    async with idle(settings, *["127.0.0.1"] * 60) as wires:
        refused = [await wire.read_all() for wire in wires[10:]]
        assert {response[:12] for response in refused} <= {b"HTTP/1.1 503", b""}
        assert b"retry-after" in refused[-1]
        for source in OTHERS[:10]:
            assert await ask(settings, HEALTH, source) == b"200"
        assert await ask(settings, HEALTH, "127.0.0.1") == b"503"

    async def is_served() -> bool:
        return await ask(settings, HEALTH, "127.0.0.1") == b"200"

    await eventually(is_served)


async def test_behind_a_trusted_proxy_its_connections_are_not_shared_out(
    few: None, app: App[Context], settings: Settings, draining: asyncio.Event
) -> None:
    server = server_module.make_server(app, msgspec.structs.replace(settings, trusted_proxy_hops=1), draining)
    task = asyncio.create_task(server.serve(server_module.listen(settings)))
    await eventually(lambda: server.started)
    async with idle(settings, *["127.0.0.1"] * 18):
        assert await ask(settings, HEALTH, "127.0.0.1") == b"200"
    server.drain()
    await task


async def test_the_last_connections_are_for_health_and_callbacks(few: None, served: str, settings: Settings) -> None:
    callback = b"POST /callbacks/main HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    page = HEALTH.replace(b"/healthz", b"/o/shell")
    assert await ask(settings, page, OTHERS[-1]) == b"200"
    async with idle(settings, *OTHERS[:20]):
        assert await ask(settings, HEALTH, OTHERS[-1]) == b"200"
        assert await ask(settings, callback, OTHERS[-1]) == b"401"
        assert await ask(settings, page, OTHERS[-1]) == b"503"


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nX-Slow: ", HEALTH.replace(b"close", b"keep-alive")])
async def test_who_waits_goes_when_others_come(
    few: None, served: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Idle, within a head or between two requests: long before the deadline of ten seconds."""
    monkeypatch.setattr(protocol, "PRESSED_HEAD_S", 0.0)
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 3600.0)
    async with idle(settings, *OTHERS[:10], sent=sent) as wires:
        if sent.endswith(b"\r\n\r\n"):
            for wire in wires:
                await wire.read_response()
        assert await ask(settings, HEALTH, OTHERS[-1]) == b"200"
        assert {await wire.read_all() for wire in wires} == {b""}


async def test_nobody_is_hurried_while_there_is_room(
    few: None, served: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PRESSED_HEAD_S", 0.0)
    async with idle(settings, OTHERS[0], sent=HEALTH[:20]) as (wire,):
        assert await ask(settings, HEALTH, OTHERS[1]) == b"200"
        await wire.send(HEALTH[20:])
        assert (await wire.read_all())[9:12] == b"200"


# -- requests ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def slow_bodies(
    app: App[Context], addresses: list[str], target: str = "/callbacks/main"
) -> AsyncIterator[list[asyncio.Task[Response]]]:
    """Requests whose body never ends."""
    clients = [Client(app, address=address) for address in addresses]
    tasks = [asyncio.create_task(client.call("POST", target, body=[b"{"], ends=False)) for client in clients]
    await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def patient(
    resources: Resources, draining: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App[Context]]:
    """Six requests at once, of which three are free, one an address's share, and one kept for callbacks."""
    monkeypatch.setattr(asgi, "REQUESTS_KEPT", 1)
    async with open_application(resources, draining, body_timeout_s=3600.0) as app:
        app._places = Shares(6, 1, free=3)
        yield app


async def test_an_address_has_its_share_of_requests(patient: App[Context]) -> None:
    async with slow_bodies(patient, ["198.51.100.1"] * 3) as tasks:
        refused = await Client(patient, address="198.51.100.1").get("/o/shell")
        assert (refused.status, refused.problem, refused.headers["retry-after"]) == (503, "unavailable", "2")
        assert (await Client(patient, address="198.51.100.1").get("/healthz")).status == 200
        assert (await Client(patient, address="198.51.100.2").get("/o/shell")).status == 200
        assert not any(task.done() for task in tasks)


async def test_requests_with_an_api_key_are_not_shared_out(patient: App[Context], resources: Resources) -> None:
    """A merchant's backend has one address, and many requests."""
    _, key = await create_api_key(resources.db, "tests")
    backend = Client(patient, api_key=key, address="198.51.100.1")
    async with slow_bodies(patient, ["198.51.100.1"] * 3):
        assert (await backend.get("/v1/orders")).status == 200
        many = await asyncio.gather(*(backend.get("/v1/orders") for _ in range(2)))
        assert [response.status for response in many] == [200, 200]


async def test_the_share_is_that_of_the_caller_behind_the_proxy(patient: App[Context]) -> None:
    patient._hops = 1
    async with slow_bodies(patient, ["192.0.2.1"] * 3):
        proxy = Client(patient, address="192.0.2.1")
        assert (await proxy.get("/o/shell")).status == 503
        assert (await proxy.get("/o/shell", x_forwarded_for="198.51.100.9")).status == 200


async def test_callbacks_have_places_of_their_own(patient: App[Context]) -> None:
    async with slow_bodies(patient, [f"198.51.100.{number}" for number in range(5)]):
        assert (await Client(patient).get("/o/shell")).status == 503
        assert (await Client(patient).call("POST", "/callbacks/main", body=b"{}")).status == 401


async def test_half_sent_bodies_end_when_others_come(patient: App[Context], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "PRESSED_BODY_S", 0.0)
    async with slow_bodies(patient, [f"198.51.100.{number}" for number in range(3)]) as tasks:
        assert (await Client(patient).get("/o/shell")).status == 200
        assert [(await task).problem for task in tasks] == ["body_too_slow"] * 3
    assert patient._places.count == 0


async def test_any_number_of_looks_at_readiness_is_one_look_at_the_stores(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health has no limit, and the database has four connections."""
    looks = 0
    find_fault = Database.find_fault

    async def counted(db: Database) -> str | None:
        nonlocal looks
        looks += 1
        return await find_fault(db)

    monkeypatch.setattr(Database, "find_fault", counted)
    responses = await asyncio.gather(*(client.get("/readyz") for _ in range(500)))
    assert {response.status for response in responses} == {200}
    assert looks == 1
    assert (await client.get("/readyz")).status == 200
    assert looks == 2, "a result is not kept"


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_streams_that_are_being_opened_count(
    resources: Resources, draining: asyncio.Event, client: Client
) -> None:
    """253 of one address passed a cap of 100: each was counted after its order had been looked up."""
    order = (await client.post("/v1/orders", terms())).json
    async with open_application(resources, draining, streams=OpenStreams(per_address_max=5)) as app:
        opening = [Client(app).stream(f"/o/{token_of(order)}/events") for _ in range(20)]
        streams = [await stream.__aenter__() for stream in opening]
        await asyncio.gather(*(stream.until(lambda now: now.status) for stream in streams))
        assert sorted(stream.status for stream in streams) == [200] * 5 + [429] * 15
        assert app.context.streams.count == 5
        for stream in opening:
            await stream.__aexit__(None, None, None)
        assert app.context.streams.count == 0


async def test_a_stream_that_never_begins_gives_its_place_back(client: Client, buyer: Client) -> None:
    order = (await client.post("/v1/orders", terms())).json
    assert (await buyer.call("HEAD", f"/o/{token_of(order)}/events")).status == 200
    assert (await buyer.get("/o/" + "t" * 22 + "/events")).status == 404
    assert client.app.context.streams.count == 0
