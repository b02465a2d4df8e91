"""Blocks of a source given to a target as well: no bytes are moved (XFS, btrfs and others; ioctl FICLONERANGE).

Two files share whole blocks, where the same bytes lie at the same offset modulo the block size. Whether a file system does it is
found out by doing it, with one block and a file without a name; nothing is concluded from what the file system is called.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from pathlib import Path

from isomorph.formats.base import Checkpoint

FICLONERANGE = 0x4020940D
"""From linux/fs.h: _IOW(0x94, 13, struct file_clone_range)."""
LARGEST_BLOCK = 1 << 16
LEAST_NBYTES = 1 << 16
"""Shorter runs are copied: a call takes as long, and every one of them is an extent of the file."""


def clone_range(source: int, offset: int, nbytes: int, target: int, target_offset: int) -> None:
    """Let `target` share these bytes of `source` (descriptors). OSError where the file system cannot; nothing was written then."""
    fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, offset, nbytes, target_offset))


def shared_block(folder: Path, source: int, nbytes: int) -> int | None:
    """The block size, when a file in `folder` can share blocks with the open file `source` of `nbytes` bytes; else None."""
    try:
        block = os.statvfs(folder).f_bsize
        if not 512 <= block <= LARGEST_BLOCK or block & (block - 1) or nbytes < block:
            return None
        probe = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # no such file system, or no such system
        return None
    try:
        clone_range(source, 0, block, probe, 0)
    except OSError:
        return None
    finally:
        os.close(probe)
    return block


class Cloner:
    """Which files of a source can share blocks with files in a folder. Asked once for each device; safe from several threads."""

    def __init__(self, folder: Path, source: Checkpoint) -> None:
        self._folder, self._source = folder, source
        self._blocks: dict[int, int | None] = {}
        self._devices: dict[int, int] = {}
        self._lock = threading.Lock()

    def block(self, file: int) -> int | None:
        """The block size that target and file number `file` of the source share; None where they cannot."""
        with self._lock:
            device = self._device(file)
            if device is None:
                return None
            if device not in self._blocks:
                descriptor = self._source.descriptor(file)
                assert descriptor is not None  # it has a device
                nbytes = os.fstat(descriptor).st_size
                if nbytes < LEAST_NBYTES:
                    return None  # too short to tell, and for anything to be shared
                self._blocks[device] = shared_block(self._folder, descriptor, nbytes)
            return self._blocks[device]

    def _device(self, file: int) -> int | None:
        if file not in self._devices:
            descriptor = self._source.descriptor(file)
            if descriptor is None or descriptor < 0:
                return None
            self._devices[file] = os.fstat(descriptor).st_dev
        return self._devices[file]

    def common_block(self) -> int | None:
        """The largest block of all files that can share; None where none can."""
        found = [block for file in range(len(self._source.paths)) if (block := self.block(file)) is not None]
        return max(found, default=None)

    def clone(self, file: int, offset: int, nbytes: int, target: int, target_offset: int) -> bool:
        """Share the range; False where that failed (then it is to be copied, and that device is not asked again)."""
        descriptor = self._source.descriptor(file)
        with contextlib.suppress(OSError):
            if descriptor is not None:
                clone_range(descriptor, offset, nbytes, target, target_offset)
                return True
        with self._lock:
            device = self._device(file)
            if device is not None:
                self._blocks[device] = None
        return False
