"""What can be wrong with an embedded server. The message is for the person at the terminal."""


class EmbeddedError(Exception):
    """An embedded server cannot be had."""


class BinariesMissingError(EmbeddedError):
    """No server's binary is on this machine; the message tells what to install."""


class ServerFailedError(EmbeddedError):
    """The server did not come up; the message holds the end of its log."""
