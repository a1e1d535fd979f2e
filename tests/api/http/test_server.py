"""`python -m api` as a process: its start, its limits on the wire, its drain, and its log."""

import asyncio
import json
import socket
from contextlib import suppress
from errno import EACCES
from pathlib import Path
from signal import SIGTERM
from time import monotonic
from urllib.parse import urlsplit

import httpx
import pytest

from api.http import protocol
from api.http.server import listen, listening_fault
from core.clocks import CORRECT_S
from core.errors import ConfigurationError
from core.settings import Settings
from demo.service import NO_TLS
from tests.api.conftest import MASTER_KEYS, environment, terms, token_of
from tests.api.http.wire import exchange
from tests.servers import Process, eventually

CANARY = "canary-4242424242424242"


async def test_sigterm_ends_streams_with_a_retry_and_exits_with_0(
    process: Process, http: httpx.AsyncClient, settings: Settings
) -> None:
    order = (await http.post("/v1/orders", json=terms())).json()
    async with http.stream("GET", f"/o/{token_of(order)}/events") as stream:
        chunks = stream.aiter_text()
        assert "retry:" in await anext(chunks)
        began = monotonic()
        exited = asyncio.create_task(process.terminate())
        rest = "".join([chunk async for chunk in chunks])
        assert monotonic() - began < 50.0, "a stream does not wait for the end of the grace"
    assert "retry: " in rest.rsplit("\n\n", 2)[-2]
    assert await exited == 0
    assert monotonic() - began < 50.0


async def test_a_draining_process_says_it_is_not_ready_and_still_answers(
    process: Process, http: httpx.AsyncClient
) -> None:
    """Routers need a moment to hear of it."""
    ready = await http.get("/readyz")
    answer = ready.json()
    assert answer.pop("clock") in ("right", "not_compared"), "a busy machine is too slow to compare its clock"
    assert abs(answer.pop("clock_skew_s") or 0.0) <= CORRECT_S
    assert (ready.status_code, answer) == (
        200,
        {
            "ready": True,
            "postgres": True,
            "postgres_fault": None,
            "redis": True,
            "redis_fault": None,
            "draining": False,
        },
    )
    process.send(SIGTERM)

    async def unready() -> bool:
        response = await http.get("/readyz")
        return response.status_code == 503 and response.json()["draining"] is True

    await eventually(unready)
    assert (await http.get("/healthz")).status_code == 200
    assert await process.wait() == 0


async def test_requests_under_way_are_answered_during_a_drain(process: Process, settings: Settings) -> None:
    """A body that is half there when SIGTERM comes is read to its end."""
    reader, writer = await asyncio.open_connection(settings.host, settings.port)
    writer.write(b"POST /callbacks/main HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await writer.drain()
    exited = asyncio.create_task(process.terminate())
    await process.wait_for_line("api_draining")
    writer.write(b"cd")
    response = await asyncio.wait_for(reader.read(), 30)
    assert response.startswith(b"HTTP/1.1 401")
    assert await exited == 0
    writer.close()


@pytest.mark.servers
async def test_missing_configuration_is_named_and_nothing_starts(tmp_path: Path) -> None:
    process = Process("api", env={"PORT": "0"}, log=tmp_path / "api.log")
    async with process:
        assert await process.wait() == 2
    for name in ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "NODROP_MASTER_KEYS"):
        assert name in process.output()


async def test_a_port_in_use_is_named_and_the_process_ends(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server((settings.host, settings.port)):
        async with Process("api", env=environment(settings), log=tmp_path / "api.log") as process:
            assert await process.wait() == 2
    assert f"api: PORT: another process listens on port {settings.port} of 127.0.0.1" in process.output()
    assert "api_started" not in process.output()
    assert "library_logged" not in process.output()


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_a_host_that_is_not_here_is_named(host: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        listen(Settings(host=host, port=0))
    assert refused.value.detail == f"HOST: {host} is no address of this machine; 0.0.0.0 is all of them"


def test_it_listens_on_every_address_of_its_host() -> None:
    listeners = listen(Settings(host="localhost", port=0))
    assert {listener.getsockname()[0] for listener in listeners} <= {"127.0.0.1", "::1"}
    for listener in listeners:
        listener.close()


def test_a_port_for_the_superuser_alone_is_named() -> None:
    fault = listening_fault(PermissionError(EACCES, "Permission denied"), "127.0.0.1", "PORT", 80)
    assert fault == "PORT: this user may not listen on port 80; set one from 1024 on"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("user", "DATABASE_URL: Postgres at 127.0.0.1:{port} refuses the user or the password in it"),
        ("database", "DATABASE_URL: Postgres at 127.0.0.1:{port} has no database nowhere: create it, or set another"),
    ],
)
async def test_a_login_that_postgres_refuses_is_named(
    settings: Settings, tmp_path: Path, wrong: str, sentence: str
) -> None:
    """The platform keeps the release before. A password that changes while the process runs is no reason to end."""
    parts = urlsplit(settings.database_url)
    login = parts._replace(netloc=f"nobody:wrong@127.0.0.1:{parts.port}") if wrong == "user" else parts
    url = login.geturl() if wrong == "user" else parts._replace(path="/nowhere").geturl()
    env = environment(settings, DATABASE_URL=url)
    for module in ("api", "worker"):
        async with Process(module, env=env, log=tmp_path / f"{module}.log") as process:
            assert await process.wait() == 2
        assert f"{module}: {sentence.format(port=parts.port)}" in process.output()
        assert "wrong@" not in process.output()


async def test_a_misspelt_variable_is_named(settings: Settings, tmp_path: Path) -> None:
    env = environment(settings, SWEEP_INTERVALS="1", HOME="/")
    async with Process("api", env=env, log=tmp_path / "api.log") as process:
        line = json.loads(await process.wait_for_line("variable_unknown"))
    assert (line["level"], line["name"], line["wanted"]) == ("warning", "SWEEP_INTERVALS", "SWEEP_INTERVAL_S")


async def test_without_its_stores_it_starts_and_says_what_is_missing(settings: Settings, tmp_path: Path) -> None:
    nowhere = {"DATABASE_URL": "postgres://u:p@127.0.0.1:9/x", "REDIS_URL": "redis://127.0.0.1:9/0"}
    async with Process("api", env=environment(settings, **nowhere), log=tmp_path / "api.log") as process:
        await process.wait_for_http(f"{settings.public_url}/healthz")
        async with httpx.AsyncClient(base_url=settings.public_url, trust_env=False, verify=NO_TLS, timeout=60) as http:
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["postgres"], ready.json()["redis"]) == (503, False, False)
            assert (ready.json()["postgres_fault"], ready.json()["redis_fault"]) == ("unreachable", "unreachable")
            shown = await http.get("/o/" + "t" * 22)
            assert (shown.status_code, ">Payment processing<" in shown.text) == (503, True)


async def test_it_serves_without_docstrings(settings: Settings, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """`python -OO` drops docstrings and assertions."""
    process = Process("api", env=environment(settings, PYTHONOPTIMIZE="2"), log=tmp_path / "api.log")
    async with process:
        await process.wait_for_http(f"{settings.public_url}/healthz")
        placed = await http.post("/v1/orders", json=terms())
        assert placed.status_code == 201
        assert (await http.get("/v1/orders/none")).json()["title"] == "There is nothing here under this name."
        assert (await http.get("/openapi.json")).status_code == 200
        assert await process.terminate() == 0


async def test_the_log_holds_no_token_key_body_or_address(
    process: Process, http: httpx.AsyncClient, settings: Settings
) -> None:
    order = (await http.post("/v1/orders", json=terms(subject=CANARY, metadata={"k": CANARY}))).json()
    await http.get(f"/o/{token_of(order)}?q={CANARY}", headers={"cookie": CANARY, "x-forwarded-for": "198.51.100.77"})
    await http.get("/v1/orders", headers={"authorization": f"Bearer {CANARY}"})
    await http.post(f"/callbacks/{CANARY}", content=CANARY, headers={"sandbox-signature": CANARY})
    await http.get(f"/{CANARY}")
    await process.terminate()
    output = process.output()
    for secret in (CANARY, token_of(order), http.headers["authorization"].split()[1], "198.51.100.77", MASTER_KEYS):
        assert secret not in output
    lines = [json.loads(line) for line in output.splitlines()]
    assert {"api_started", "request_answered", "api_draining", "api_stopped"} <= {line["event"] for line in lines}
    answered = [line for line in lines if line["event"] == "request_answered"]
    assert ("/o/{token}", 200) in [(line["route"], line["status"]) for line in answered]
    assert sum(line["event"] == "proxy_not_trusted" for line in lines) == 1


async def test_metrics_want_a_key_and_have_no_label_from_a_path(process: Process, http: httpx.AsyncClient) -> None:
    await http.get(f"/o/{CANARY}-token")
    text = (await http.get("/metrics")).text
    assert 'nodrop_http_requests_total{method="GET",route="/o/{token}",status="404"} 1.0' in text
    assert CANARY not in text
    assert (await http.get("/metrics", headers={"authorization": ""})).status_code == 401


# -- on the wire -------------------------------------------------------------------------------------------------------


async def test_heads_that_are_too_large_are_refused(process: Process, settings: Settings) -> None:
    for head in (
        b"GET / HTTP/1.1\r\nX: " + b"a" * 500_000,
        b"GET /" + b"a" * 500_000,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 50_000,
    ):
        response = await exchange(settings, head)
        assert response.startswith(b"HTTP/1.1 400") or response == b"", "a reset may overtake the response"
    assert process.output().count("request_answered") == 1, "none of them became a request"


async def test_what_is_no_http_is_400_and_the_next_is_served(
    process: Process, settings: Settings, http: httpx.AsyncClient
) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /callbacks/main HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /callbacks/main HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /callbacks/main HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        assert b"400" in (await exchange(settings, sent))[:16], sent
    assert (await http.get("/healthz")).status_code == 200


async def test_ten_megabytes_are_refused_while_they_come(process: Process, settings: Settings) -> None:
    # A body that has come to its end when it is refused leaves the connection open, unless the client closes it.
    head = b"POST /callbacks/main HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = await exchange(settings, head + b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 413"), "and the response is not lost to a reset"
    endless = await exchange(settings, head + b"a00000\r\n" + b"x" * 0xA00000)
    assert endless.startswith(b"HTTP/1.1 413") or endless == b""


async def test_five_hundred_slow_sockets_do_not_keep_others_out(
    app: object, served: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them never send a byte, half of them drip a header; all are closed at the deadline for heads."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.5)
    pairs = [await asyncio.open_connection(settings.host, settings.port) for _ in range(500)]
    for _, writer in pairs[::2]:
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    async with httpx.AsyncClient(base_url=served, trust_env=False, verify=NO_TLS, timeout=60) as http:
        assert (await http.get("/healthz")).status_code == 200
    async with asyncio.timeout(60):
        for reader, _ in pairs:
            with suppress(ConnectionResetError):  # how the kernel closes a socket with bytes that nobody read
                assert await reader.read() == b""
    for _, writer in pairs:
        writer.close()
