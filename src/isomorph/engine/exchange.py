"""Two folders swap their names in one step, so that nobody ever sees the files of an old checkpoint among those of a new one.

Linux has it (`renameat2` with RENAME_EXCHANGE, on ext4, XFS, btrfs, tmpfs and others); where it has not, `exchange` says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two files or folders of one file system; False where that is not possible, and nothing was done."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(swap(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
