"""What was written is sent to the disk beside the writing, and noted in the journal when it is there."""

from __future__ import annotations

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
        self._error: OSError | None = None

    def wants(self, nbytes: int) -> bool:
        self._since += nbytes
        return self._since >= SYNC_EVERY and (self._thread is None or not self._thread.is_alive())

    def sync(self, progress: Progress) -> None:
        self._since = 0
        self._thread = threading.Thread(target=self._sync, args=(progress,), daemon=True)
        self._thread.start()

    def _sync(self, progress: Progress) -> None:
        try:
            sync_data(self._descriptor)
            if self._journal is not None:
                self._journal.note(progress)
                self._noted = True
        except OSError as error:
            # The kernel says only once what it could not write: a later sync may succeed, and prove nothing.
            self._error = error

    def finish(self) -> bool:
        """Wait for a sync that is under way; True when anything was noted."""
        if self._thread is not None:
            self._thread.join()
        return self._noted

    def check(self) -> None:
        """Raise what a sync failed with."""
        if self._error is not None:
            raise self._error
