"""What was written is sent to the disk beside the writing, and noted in the journal when it is there."""

from __future__ import annotations

import contextlib
import threading

from isomorph.engine.journal import Journal, Progress, sync_data

SYNC_EVERY = 96 << 20
"""Bytes after which a sync begins, where none is under way."""


class Syncer:
    """Sends what was written to the disk, beside the writing, and notes it in the journal."""

    def __init__(self, descriptor: int, journal: Journal | None) -> None:
        self._descriptor, self._journal = descriptor, journal
        self._thread: threading.Thread | None = None
        self._since = 0
        self._noted = False

    def wants(self, nbytes: int) -> bool:
        self._since += nbytes
        return self._since >= SYNC_EVERY and (self._thread is None or not self._thread.is_alive())

    def sync(self, progress: Progress) -> None:
        self._since = 0
        self._thread = threading.Thread(target=self._sync, args=(progress,), daemon=True)
        self._thread.start()

    def _sync(self, progress: Progress) -> None:
        with contextlib.suppress(OSError):  # the sync at the end says what is wrong
            sync_data(self._descriptor)
            if self._journal is not None:
                self._journal.note(progress)
                self._noted = True

    def finish(self) -> bool:
        """Wait for a sync that is under way; True when anything was noted."""
        if self._thread is not None:
            self._thread.join()
        return self._noted
