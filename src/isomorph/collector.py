"""The garbage collector, told to wait: planning and headers make hundreds of thousands of small objects, none of them garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection inside. Looking for some would take a third of the time.

    What was made inside counts as old afterwards, so that the next look at what is young does not go through all of it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():  # else someone keeps things out of every look, and they must stay so
                gc.freeze()
                gc.unfreeze()  # puts what was frozen among the old
            gc.enable()
