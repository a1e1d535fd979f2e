"""Routes, whole bodies, and answers that go wrong as they should."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from simulator.kernel.traffic import Traffic, busiest_second
from simulator.kit.asgi import BODY_BYTES_MAX, App, BadBody, Cut, Hang, Later, Reply, Request, Response, Route, decode
from simulator.kit.serve import serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _echo(request: Request) -> Reply:
    return Response(body=f"{request.method} {request.target} {request.params} {len(request.body)}".encode())


async def _cut(_: Request) -> Reply:
    return Cut(response=Response(body=b'{"whole": true}'), keep=5)


async def _hang(request: Request) -> Reply:
    return Hang(seconds=float(request.params["seconds"]))


async def _later(_: Request) -> Reply:
    return Later(seconds=0.05, reply=Response(body=b"late"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url() -> AsyncIterator[str]:
    routes = [
        Route("GET", "/things/{name}", _echo),
        Route("POST", "/things/{name}", _echo),
        Route("GET", "/things/special", _cut),
        Route("GET", "/cut", _cut),
        Route("GET", "/hang/{seconds}", _hang),
        Route("GET", "/later", _later),
    ]
    async with serving(App(routes)) as base:
        yield base


async def test_target_is_as_sent_and_parameters_are_decoded(http: httpx.AsyncClient, url: str) -> None:
    response = await http.get(f"{url}/things/a%7Cb%2Fc?x=%20y")
    assert response.text == "GET /things/a%7Cb%2Fc?x=%20y {'name': 'a|b/c'} 0"


@pytest.mark.parametrize("path", ["/", "/things", "/things/", "/things/a/b", "/%74hings/a"])
async def test_unknown_address_is_404(http: httpx.AsyncClient, url: str, path: str) -> None:
    assert (await http.get(url + path)).status_code == 404


async def test_other_method_is_405_and_names_those_that_are(http: httpx.AsyncClient, url: str) -> None:
    response = await http.delete(f"{url}/things/a")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(("size", "status"), [(BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413)])
async def test_body_has_a_limit(http: httpx.AsyncClient, url: str, size: int, status: int) -> None:
    assert (await http.post(f"{url}/things/a", content=b"x" * size)).status_code == status


async def test_cut_answer_breaks_in_mid_body(http: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="received 5 bytes, expected 15"):
        await http.get(f"{url}/cut")


async def test_hanging_answer_outlasts_the_client(http: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await http.get(f"{url}/hang/60", timeout=httpx.Timeout(60, read=0.05))


async def test_hanging_answer_ends_without_a_whole_one(http: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(f"{url}/hang/0.01")


async def test_later_answer_is_whole(http: httpx.AsyncClient, url: str) -> None:
    began = asyncio.get_running_loop().time()
    assert (await http.get(f"{url}/later")).text == "late"
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_stopping_does_not_wait_for_those_who_hang(http: httpx.AsyncClient) -> None:
    has_come = asyncio.Event()

    async def hang(_: Request) -> Reply:
        has_come.set()
        return Hang(seconds=60)

    async with serving(App([Route("GET", "/hang", hang)])) as base:
        hanging = asyncio.create_task(http.get(f"{base}/hang"))
        await has_come.wait()
        assert not hanging.done()
    with pytest.raises(httpx.RemoteProtocolError):
        await hanging


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000, b"[]", b'{"a":NaN}'])
async def test_bad_body_is_one_kind_of_error(body: bytes) -> None:
    with pytest.raises(BadBody):
        decode(body, dict[str, object])


@pytest.mark.parametrize(
    ("times", "most"),
    [((), 0), ((1.0,), 1), ((1.0, 1.999), 2), ((1.0, 2.0), 1), ((1.9, 2.1, 2.8, 2.95), 3), ((5.0, 1.0, 1.5), 2)],
)
async def test_busiest_second_begins_anywhere(times: tuple[float, ...], most: int) -> None:
    assert busiest_second(times) == most


async def test_limit_is_strict_in_every_second_and_refusals_do_not_count() -> None:
    traffic = Traffic()
    admitted = [n / 100 for n in range(300) if traffic.admits("m-1", 7, n / 100)]
    assert busiest_second(admitted) == 7
    assert len(admitted) == 21


async def test_a_server_tells_its_own_time() -> None:
    """As channels do, whose clock may be wrong; once, so that no second server's time is beside it."""
    now = datetime(2026, 11, 23, 4, 0, 0, 900_000, tzinfo=UTC)
    async with (
        serving(App([Route("GET", "/cut", _echo)], now=lambda: now)) as url,
        httpx.AsyncClient(timeout=60) as client,
    ):
        response = await client.get(f"{url}/cut")
    assert response.headers.get_list("date") == ["Mon, 23 Nov 2026 04:00:00 GMT"]
