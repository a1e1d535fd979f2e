"""The events of a world in their order. Their digest is the run's: the same seed has the same one."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from tests.simulation.clock import CURRENT, TIME


class Events:
    """Events as lines of text. All of them count for the digest; the last `kept_max` are kept."""

    def __init__(self, kept_max: int = 200_000) -> None:
        self.lines: list[str] = []
        self._kept_max = kept_max
        self._digest = blake2b(digest_size=16)

    def note(self, kind: str, /, **fields: Any) -> None:
        """Note an event of the process that runs now."""
        text = " ".join([f"{TIME.seconds:.6f}", getattr(CURRENT.get(), "label", "-"), kind])
        self._add(text + "".join(f" {name}={value}" for name, value in fields.items()))

    def write(self, line: bytes) -> None:
        """Note a line of the product's log: the stream of `configure_logs`."""
        self._add(f"{TIME.seconds:.6f} {getattr(CURRENT.get(), 'label', '-')} log {line.decode().rstrip()}")

    def flush(self) -> None: ...

    def _add(self, line: str) -> None:
        self._digest.update(line.encode("utf-8", "backslashreplace") + b"\n")
        self.lines.append(line)
        if len(self.lines) > 2 * self._kept_max:
            del self.lines[: self._kept_max]

    @property
    def digest(self) -> str:
        return self._digest.copy().hexdigest()
