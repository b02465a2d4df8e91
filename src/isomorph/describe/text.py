"""Text that a person reads: byte counts, numbers, natural order, and names from files made safe to print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from isomorph.errors import whole_line

_DIGITS = re.compile(r"(\d+)")


def escaped(text: str) -> str:
    r"""The whole text with every control, bidirectional, surrogate and other invisible character spelled out.

    >>> escaped("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return whole_line(text)


def escaped_lines(text: str) -> str:
    """As `escaped`, but line breaks (`\\n`) stay."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts `layers.2` before `layers.10`.

    >>> sorted(["h.10", "h.2"], key=natural)
    ['h.2', 'h.10']
    """
    return tuple(
        (0, int(part), part) if part.isascii() and part.isdigit() and len(part) < 1000 else (1, 0, part)
        for part in _DIGITS.split(name)
    )


def bytes_text(nbytes: int) -> str:
    """`1.71 GB`: decimal units, three significant digits.

    >>> bytes_text(1_711_000_000)
    '1.71 GB'
    """
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            if unit == "B":
                return f"{nbytes} B"
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
        value /= 1000
    raise AssertionError("the last unit always returns")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 tensor`, `592 tensors`, `1,024 tensors`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shape_text(shape: Sequence[int]) -> str:
    """`[3072 1024]`, as the notation writes axes."""
    return f"[{' '.join(map(str, shape))}]"


def ranges(indices: Iterable[int]) -> str:
    """`0..23`, `0,2,4`, `0..2,4..23`: sorted numbers, runs of three or more folded.

    >>> ranges([0, 1, 2, 5])
    '0..2,5'
    """
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(
        str(first) if first == last else f"{first}..{last}" if last > first + 1 or len(runs) == 1 else f"{first},{last}"
        for first, last in runs
    )


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names, escaped, with commas; of many only the first `most`, and how many more there are."""
    text = ", ".join(map(escaped, names[:most]))
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def columns(rows: Sequence[Sequence[str]], indent: str = "  ", gap: str = "  ") -> list[str]:
    """The rows with their cells aligned to the left; nothing is ever cut."""
    if not rows:
        return []
    most = max(map(len, rows))
    widths = [max((len(row[column]) for row in rows if column < len(row) - 1), default=0) for column in range(most)]
    return [(indent + gap.join(cell.ljust(widths[at]) for at, cell in enumerate(row))).rstrip() for row in rows]
