"""localstripe's own command, kept on 127.0.0.1: by itself it listens on every address. Runs in .oracles/localstripe."""

import runpy
import socket

LOOPBACK = "::ffff:127.0.0.1"


class _Loopback(socket.socket):
    """A socket of both worlds that is bound to loopback wherever it was to be bound."""

    def bind(self, address: tuple[str, int], /) -> None:  # type: ignore[override]  # only ever asked like this
        super().bind((LOOPBACK, address[1]))


socket.socket = _Loopback  # type: ignore[misc]  # that is the point
runpy.run_module("localstripe.server", run_name="__main__")
