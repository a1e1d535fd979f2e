"""Garbage collection: what was there at the start is looked through no more, what comes later is."""

import gc
import weakref

from runtime.garbage import CONTAINERS_MAX, keep_start


class Knot:
    """Garbage only once it is looked for."""

    def __init__(self) -> None:
        self.itself = self


def test_the_start_is_frozen_and_later_garbage_is_found() -> None:
    before = gc.get_threshold()
    try:
        keep_start()
        assert gc.get_freeze_count() > len(gc.get_objects())
        assert (gc.get_threshold(), gc.isenabled()) == ((CONTAINERS_MAX, *before[1:]), True)
        knot = weakref.ref(Knot())
        gc.collect()
        assert knot() is None
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
