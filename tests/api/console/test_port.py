"""Where the console is: nowhere, at the port of all, or at one of its own."""

import asyncio
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from api.application import open_application
from api.context import Context
from api.http.asgi import App
from api.http.server import listen, make_server
from core.errors import ConfigurationError
from core.settings import Settings
from demo.embedded import free_port
from demo.service import NO_TLS
from runtime.resources import open_resources
from tests.api.driver import Client
from tests.servers import eventually

ADDRESSES = ("/ops", "/ops/signin", "/ops/me", "/ops/static/ops.css", "/healthz", "/readyz", "/docs", "/v1/orders")


async def test_without_the_setting_there_is_no_console(settings: Settings) -> None:
    async with (
        open_resources(replace(settings, ops=False)) as resources,
        open_application(resources, asyncio.Event()) as app,
    ):
        for path in ADDRESSES[:4]:
            response = await Client(app).get(path)
            assert (response.status, response.problem) == (404, "not_found")


async def test_with_a_port_of_its_own_each_port_serves_its_part(settings: Settings) -> None:
    """By whole requests over both, and one drain for both."""
    own = replace(settings, ops_port=free_port())
    draining = asyncio.Event()
    async with open_resources(own) as resources, open_application(resources, draining) as app:
        server = make_server(app, own, draining)
        task = asyncio.create_task(server.serve(listen(own)))
        await eventually(lambda: server.started)
        statuses: dict[int, list[int]] = {}
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
            for port in (own.port, own.ops_port):
                statuses[port] = [(await http.get(f"http://127.0.0.1:{port}{path}")).status_code for path in ADDRESSES]
        server.drain()
        await task
    assert statuses[own.port] == [404, 404, 404, 404, 200, 200, 200, 401]
    assert statuses[own.ops_port] == [303, 200, 303, 404, 200, 404, 404, 404]


def test_a_port_of_its_own_that_is_taken_is_named() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as refused:
            listen(Settings(host="127.0.0.1", port=0, ops=True, ops_port=port))
    assert refused.value.detail.startswith(f"OPS_PORT: another process listens on port {port} of 127.0.0.1")


async def test_other_routes_take_no_notice_of_a_session(app: App[Context]) -> None:
    """A cookie of the console opens nothing outside of it."""
    response: Any = await Client(app).get("/v1/orders", cookie="nodrop-ops=x")
    assert (response.status, response.problem) == (401, "unauthorized")
