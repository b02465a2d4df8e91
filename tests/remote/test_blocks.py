"""What was read is kept, what comes next is fetched ahead: the same bytes, few requests, bounded memory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.stores import blocks
from isomorph.stores.blocks import PAGE, Blocks

DATA = random.Random(0).randbytes(3 << 20)


class Far:
    """An object whose requests are counted; those in `broken` fail once."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data, self.asked, self.broken = data, list[tuple[int, int]](), 0
        self._lock = threading.Lock()
        self.blocks = Blocks(len(data), self.fill)

    def fill(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            self.asked.append((offset, len(buffer)))
            if self.broken:
                self.broken -= 1
                raise OSError("broken")
        assert offset + len(buffer) <= len(self.data)
        buffer[:] = self.data[offset : offset + len(buffer)]

    def read(self, offset: int, nbytes: int) -> bytes:
        found = bytearray(nbytes)
        self.blocks.read_into(offset, memoryview(found))
        return bytes(found)


@pytest.fixture
def far() -> Iterator[Far]:
    found = Far()
    yield found
    found.blocks.close()


@given(st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(0, 1 << 20)), max_size=12))
def test_any_reads_give_the_bytes(reads: list[tuple[int, int]]) -> None:
    """Whatever is read in whatever order is what lies there."""
    found = Far()
    for offset, nbytes in reads:
        count = min(nbytes, len(DATA) - offset)
        assert DATA[offset : offset + count] == found.read(offset, count)
    found.blocks.close()


def test_a_reader_that_goes_forward_asks_every_byte_once(far: Far) -> None:
    """Small reads, one after the other: long requests, no byte twice, all of them once."""
    assert DATA == b"".join(far.read(at, min(5000, len(DATA) - at)) for at in range(0, len(DATA), 5000))
    assert len(DATA) == sum(nbytes for _, nbytes in far.asked)
    assert len(far.asked) < 24


def test_a_reader_that_jumps_asks_little(far: Far) -> None:
    """Headers far from each other: a page or two each; announced ones are asked at once, and not again."""
    places = [number * 40 * PAGE // 10 * 10 for number in range(4)]
    far.blocks.expect((place, 100) for place in places)
    assert [DATA[place : place + 100] for place in places] == [far.read(place, 100) for place in places]
    assert len(far.asked) == 4 and all(nbytes <= PAGE for _, nbytes in far.asked)


def test_a_failure_is_raised_and_not_kept(far: Far) -> None:
    far.broken = 1
    with pytest.raises(OSError, match="broken"):
        far.read(0, 10)
    assert DATA[:10] == far.read(0, 10)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All objects together keep no more than the bound, and nothing when they are closed."""
    monkeypatch.setattr(blocks, "MOST_KEPT", 1 << 20)
    before = blocks._held
    several = [Far() for _ in range(3)]
    for at in range(0, len(DATA) - 70_000, 70_000):
        for one in several:
            assert DATA[at : at + 70_000] == one.read(at, 70_000)
            assert blocks._held <= 2 << 20
    for one in several:
        one.blocks.close()
    assert before == blocks._held


def test_a_large_read_goes_straight_into_its_buffer() -> None:
    data = bytes(5 << 20)
    found = Far(data)
    assert data == found.read(0, len(data))
    assert 3 == len(found.asked) and {} == found.blocks._pages


def test_a_large_read_that_fails_leaves_its_buffer_alone() -> None:
    """Nobody writes into the buffer after the error was raised."""
    found = Far(bytes(9 << 20))
    found.broken = 1
    with pytest.raises(OSError, match="broken"):
        found.read(0, 9 << 20)
    asked = len(found.asked)
    time.sleep(0.05)
    assert asked == len(found.asked)


def test_many_readers_at_once(far: Far) -> None:
    """Threads that read pieces out of order get their bytes."""
    wrong: list[int] = []

    def read(start: int) -> None:
        for at in range(start * 50_000, len(DATA) - 50_000, 200_000):
            if DATA[at : at + 50_000] != far.read(at, 50_000):
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong
