"""A connection that is used once more after its loss was noticed."""

import asyncio

import uvloop

from storage.closed import is_closed_handle


def test_the_error_of_the_event_loop_that_processes_run_on_is_known() -> None:
    """The words are uvloop's own: a version with others fails here."""
    error = uvloop.run(write_to_a_closed_connection())
    assert error is not None
    assert is_closed_handle(error)
    assert not is_closed_handle(RuntimeError("a mistake of our own"))


async def write_to_a_closed_connection() -> RuntimeError | None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        await asyncio.sleep(0)
        try:
            writer.write(b"PING\r\n")
        except RuntimeError as error:
            return error
    return None
