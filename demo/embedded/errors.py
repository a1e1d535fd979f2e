"""Errors of embedded servers. Their messages are shown at the terminal."""


class EmbeddedError(Exception):
    """An embedded server is not available."""


class BinariesMissingError(EmbeddedError):
    """The server's binary is not installed; the message names the packages."""


class ServerFailedError(EmbeddedError):
    """The server did not start; the message has the end of its log."""
