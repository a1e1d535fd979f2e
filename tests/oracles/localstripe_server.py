"""localstripe's command, bound to 127.0.0.1; by default it listens on every address. Runs in .oracles/localstripe."""

import runpy
import socket

LOOPBACK = "::ffff:127.0.0.1"


class _Loopback(socket.socket):
    """A socket that is always bound to loopback."""

    def bind(self, address: tuple[str, int], /) -> None:  # type: ignore[override]  # localstripe passes this form only
        super().bind((LOOPBACK, address[1]))


socket.socket = _Loopback  # type: ignore[misc]  # that is the point
runpy.run_module("localstripe.server", run_name="__main__")
