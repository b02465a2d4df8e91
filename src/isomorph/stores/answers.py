"""The answer to a request for a range, checked: part of that object, those bytes, that many, of that version, or an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isomorph.errors import FormatError, SourceChanged, printable

if TYPE_CHECKING:
    from isomorph.stores.base import Stat
    from isomorph.stores.url import Url

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
CHANGED = "changed while it was read: it is another version now"


def range_header(offset: int, nbytes: int) -> str:
    """
    >>> range_header(10, 5)
    'bytes=10-14'
    """
    return f"bytes={offset}-{offset + nbytes - 1}"


def check_range(url: Url, stat: Stat, offset: int, nbytes: int, status: int, content_range: str | None) -> None:
    """FormatError when the server sends something else than it was asked for; SourceChanged when the object is another now."""
    if status == 200:
        raise FormatError(
            url, "the server ignores Range, and sends the whole file for a part of it", "Download it, and read the copy"
        )
    if status in (404, 410, 412):
        raise SourceChanged(url, CHANGED if status == 412 else "was removed or replaced while it was read")
    if status == 416:
        raise SourceChanged(url, f"changed while it was read: byte {offset + nbytes - 1:,} is no longer there")
    if status != 206:
        raise FormatError(url, f"cannot be read: the server answered {status}")
    match = _CONTENT_RANGE.fullmatch((content_range or "").strip())
    if match is None:
        raise FormatError(
            url, f"the server does not say which bytes it sends (Content-Range: {printable(str(content_range))})"
        )
    first, last, total = int(match[1]), int(match[2]), match[3]
    if (first, last) != (offset, offset + nbytes - 1):
        raise FormatError(
            url,
            f"the server sent bytes {first:,} to {last + 1:,} although {offset:,} to {offset + nbytes:,} were asked for",
        )
    if total != "*" and int(total) != stat.nbytes:
        raise SourceChanged(url, f"changed while it was read: {stat.nbytes:,} bytes when opened, {int(total):,} now")


def check_version(url: Url, expected: str, found: str | None) -> None:
    """SourceChanged when an answer carries the tag of another version."""
    if expected and found and found != expected:
        raise SourceChanged(url, CHANGED)
