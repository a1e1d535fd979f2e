"""The rules of nodrop: pure functions and frozen data. Nothing here reads a clock, a socket, a file or chance."""
