"""The servers of tests leave nothing open, whatever connects while they close."""

import asyncio
import gc
import socket
import warnings
from contextlib import ExitStack

import pytest

from tests.connections import Connections

CLIENTS = 5


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_is_accepted_during_the_close_is_closed(turns: int) -> None:
    """The close begins so many turns of the event loop after the clients have connected."""
    connections = Connections(hold)
    with ExitStack() as stack, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        port = await connections.listen()
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CLIENTS)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await connections.close()
        gc.collect()
        assert [str(warning.message) for warning in seen] == []
        for client in clients:
            client.settimeout(60)
            assert ended(client)


async def test_what_is_written_and_not_read_is_given_up_at_the_close() -> None:
    async def write_much(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(50_000_000))

    connections = Connections(write_much)
    port = await connections.listen()
    with socket.create_connection(("127.0.0.1", port)) as client:
        await asyncio.to_thread(client.recv, 1)
        async with asyncio.timeout(60):
            await connections.close()


async def hold(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
