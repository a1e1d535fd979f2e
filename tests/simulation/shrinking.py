"""Shrinking of a list of faults to a few that still break something, with a limit of tries.

First the shortest prefix is found, then parts of it are left out: halves, quarters … single ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

IsBroken = Callable[[Sequence[str]], bool]


class _Limit:
    """Asks until the tries are used up; from then on the answer is no."""

    def __init__(self, is_broken: IsBroken, tries: int) -> None:
        self._is_broken = is_broken
        self.tries = tries

    def __call__(self, names: Sequence[str]) -> bool:
        if self.tries <= 0:
            return False
        self.tries -= 1
        return self._is_broken(names)


def shrink(names: Sequence[str], is_broken: IsBroken, tries: int) -> list[str]:
    """Return some of the faults, in their order, that still break it. All of them do."""
    ask = _Limit(is_broken, tries)
    if ask([]):
        return []
    return _without_parts(_prefix(list(names), ask), ask)


def _prefix(names: list[str], ask: _Limit) -> list[str]:
    """Return a short prefix that breaks it."""
    low, high = 0, len(names)  # a prefix of `high` breaks it, one of `low` does not
    while high - low > 1:
        middle = (low + high) // 2
        if ask(names[:middle]):
            high = middle
        else:
            low = middle
        if not ask.tries:
            break
    return names[:high]


def _without_parts(names: list[str], ask: _Limit) -> list[str]:
    size = len(names) // 2
    while size:
        at = 0
        while at < len(names) and ask.tries:
            rest = names[:at] + names[at + size :]
            if rest and ask(rest):
                names = rest
            else:
                at += size
        size = min(size // 2, len(names) // 2) if ask.tries else 0
    return names
