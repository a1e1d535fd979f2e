"""The network of a world: the product's own connections over it, and each of its faults."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from channels.carrier import Carrier
from channels.http_connection import Connection
from channels.transport import Response, Transport
from core.errors import ChannelUnavailable
from simulator.kit.asgi import App, Cut, Hang, Reply, Request, Route
from simulator.kit.asgi import Response as Reply200
from simulator.kit.http_client import NoResponse
from tests.simulation.faults import FaultBook
from tests.simulation.in_world import in_world
from tests.simulation.network import HTML_ERROR, Blackout, LinkFaults, Network, Server

T = TypeVar("T")
PORT = 9001
URL = f"http://127.0.0.1:{PORT}/v1/payments/x"


class Bench:
    """A network with one channel, which counts what it did."""

    def __init__(self, *, only: frozenset[str] | None = None) -> None:
        self.book = FaultBook(7, only, elapsed=asyncio.get_running_loop().time)
        self.network = Network(self.book)
        self.acted = 0
        self.reply: Reply = Reply200(body=b'{"status":"paid"}')
        app = App([Route("GET", "/v1/payments/{number}", self._handle)])
        self.network.serve(PORT, Server("channel", app=app))
        carrier = Carrier(self._connect, None, requests_max=4, wait_s=1.0)
        self.transport = Transport(timeout_s=10.0, carrier=carrier)

    async def _handle(self, _: Request) -> Reply:
        self.acted += 1
        return self.reply

    async def _connect(self, _: object) -> Connection:
        return (await self.network.create_connection(Connection, "127.0.0.1", PORT))[1]

    async def call(self) -> Response:
        return await self.transport.call("GET", URL, headers={})


def on_bench(test: Callable[[Bench], Awaitable[T]], **options: Any) -> T:
    """Run a test in virtual time."""

    async def main() -> T:
        bench = Bench(**options)
        try:
            async with bench.transport:
                return await test(bench)
        finally:
            bench.network.close()

    return in_world(main)


def test_product_calls_over_its_own_connections() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(2):
            response = await bench.call()
            assert (response.status, response.body) == (200, b'{"status":"paid"}')
        assert bench.acted == 2
        assert 0.01 < asyncio.get_running_loop().time() < 1.0

    on_bench(test)


@pytest.mark.parametrize(
    ("fault", "acted", "reason"),
    [
        ("refused", 0, "cut_off"),
        ("cut_before", 0, "cut_off"),
        ("answered_5xx", 0, "status_50"),
        ("cut_after", 1, "cut_off"),
        ("cut_within", 1, "cut_off"),
        ("failed_after", 1, "status_50"),
    ],
)
def test_failed_exchange_has_an_unknown_outcome(fault: str, acted: int, reason: str) -> None:
    async def test(bench: Bench) -> None:
        bench.network.set_faults({"product>channel": msgspec.convert({fault: 1.0}, LinkFaults)})
        with pytest.raises(ChannelUnavailable) as caught:
            await bench.call()
        assert reason in str(caught.value)
        assert bench.acted == acted
        assert [name.rpartition(" ")[2] for name in bench.book.happened] == [fault]

    on_bench(test)


def test_truncated_and_html_responses_are_whole_http() -> None:
    async def test(bench: Bench) -> None:
        bench.network.set_faults({"*>channel": LinkFaults(truncated=1.0)})
        assert (await bench.call()).body == b'{"status'
        bench.network.set_faults({"product>*": LinkFaults(html_error=1.0)})
        assert (await bench.call()).body == HTML_ERROR

    on_bench(test)


def test_doubled_request_acts_twice() -> None:
    async def test(bench: Bench) -> None:
        bench.network.set_faults({"*>*": LinkFaults(doubled=1.0)})
        await bench.call()
        await asyncio.sleep(61)
        assert bench.acted == 2

    on_bench(test)


def test_slow_request_is_overtaken_and_acts_after_its_time_out() -> None:
    async def test(bench: Bench) -> None:
        bench.network.set_faults({"*>*": LinkFaults(slow=1.0, slow_s=(20.0, 20.0))})
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await bench.call()
        assert asyncio.get_running_loop().time() == pytest.approx(10.0)

    on_bench(test)


def test_silent_outage_hangs_and_another_refuses() -> None:
    async def test(bench: Bench) -> None:
        outages = (
            Blackout(name="a", link="*>channel", from_s=5.0, until_s=8.0, is_silent=True),
            Blackout(name="b", link="product>*", from_s=20.0, until_s=30.0),
        )
        bench.network.set_faults({}, outages)
        await bench.call()
        await asyncio.sleep(6.0)
        with pytest.raises(ChannelUnavailable):
            await bench.call()
        assert asyncio.get_running_loop().time() == pytest.approx(8.0)
        await asyncio.sleep(14.0)
        with pytest.raises(ChannelUnavailable):
            await bench.call()
        bench.network.end_faults()
        assert (await bench.call()).status == 200
        assert list(bench.book.happened) == ["a", "b"]

    on_bench(test)


def test_fault_that_is_left_out_does_not_happen() -> None:
    async def test(bench: Bench) -> None:
        bench.network.set_faults({"*>*": LinkFaults(cut_after=1.0)})
        failed = 0
        for _ in range(3):
            try:
                await bench.call()
            except ChannelUnavailable:
                failed += 1
        assert failed == 1

    on_bench(test, only=frozenset({"product>channel GET /v1/payments/x  #2 cut_after"}))


def test_hung_and_cut_replies_of_a_simulator() -> None:
    async def test(bench: Bench) -> None:
        client = bench.network.client("shopper")
        bench.reply = Hang(seconds=60.0)
        with pytest.raises(NoResponse):
            await client.exchange("GET", URL, headers={}, within_s=5.0, body_bytes_max=100, body=None)
        bench.reply = Cut(response=Reply200(body=b"123456"), keep=3)
        with pytest.raises(NoResponse):
            await client.exchange("GET", URL, headers={}, within_s=5.0, body_bytes_max=100, body=None)
        with pytest.raises(ChannelUnavailable):
            await bench.call()

    on_bench(test)


class Crashing:
    """A process that ends while it handles its first request."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_begun = False

    async def app(self, *_: object) -> None:
        self.has_begun = True
        await asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work)

    def crash(self) -> None:
        self.ended.set_result(None)


def test_crash_of_a_process_cuts_its_exchanges() -> None:
    async def test(bench: Bench) -> None:
        process = Crashing()
        bench.network.serve(8000, Server("api", pick=lambda: process))
        client = bench.network.client("merchant")
        url = "http://127.0.0.1:8000/v1/orders"
        asyncio.get_running_loop().call_later(1.0, process.crash)
        with pytest.raises(NoResponse):
            await client.exchange("POST", url, headers={}, within_s=30.0, body_bytes_max=100, body=b"{}")
        assert process.has_begun
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)

    on_bench(test)


def test_draws_depend_on_seed_and_name_alone() -> None:
    async def faults() -> dict[str, float]:
        bench = Bench()
        bench.network.set_faults({"*>*": LinkFaults(cut_before=0.5)})
        async with bench.transport:
            for _ in range(20):
                try:
                    await bench.call()
                except ChannelUnavailable:
                    continue
        bench.network.close()
        return bench.book.happened

    first, second = in_world(faults), in_world(faults)
    assert first == second
    assert 2 < len(first) < 18


def test_seed_crashes_a_process_in_the_middle_of_an_exchange() -> None:
    async def test(bench: Bench) -> None:
        process = Crashing()
        bench.network.serve(8000, Server("api", pick=lambda: process))
        bench.network.crash_share = 1.0
        client = bench.network.client("merchant", "W1-0")
        url = "http://127.0.0.1:8000/v1/orders"
        with pytest.raises(NoResponse):
            await client.exchange("POST", url, headers={}, within_s=30.0, body_bytes_max=100, body=b"{}")
        assert asyncio.get_running_loop().time() < 1.0
        assert list(bench.book.happened) == ["merchant>api W1-0 POST #1 serving crash"]

    on_bench(test)
