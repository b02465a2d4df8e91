"""https:// and http://: a file behind a web server that answers requests for ranges. Only read."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from isomorph.errors import FormatError
from isomorph.stores.answers import check_range, check_version, range_header
from isomorph.stores.base import Entry, Stat, Store
from isomorph.stores.http import Answer, ask
from isomorph.stores.trying import trying
from isomorph.stores.url import Url


class Web(Store):
    """The version is a strong ETag, else what the server says of the last change."""

    writes = False

    def stat(self, url: Url) -> Stat | None:
        answer = trying(lambda: ask("HEAD", str(url)), lambda problem: FormatError(url, f"cannot be read: {problem}"))
        if answer.status in (404, 410):
            return None
        if answer.status != 200:
            raise FormatError(url, f"cannot be read: the server answered {answer.status}", _advice(answer.status))
        length = answer.header("Content-Length") or ""
        if not length.isdigit():
            raise FormatError(url, "the server does not say how long it is", "Download it, and read the copy")
        changed = answer.header("Last-Modified") or ""
        try:
            modified = int(parsedate_to_datetime(changed).timestamp()) * 10**9
        except (TypeError, ValueError, OverflowError):
            modified = 0
        return Stat(int(length), _version(answer), modified)

    def list(self, url: Url, most: int) -> Sequence[Entry]:
        return ()  # a web server does not say what lies beside

    def fill(self, url: Url, stat: Stat, offset: int, buffer: memoryview) -> None:
        headers = {"Range": range_header(offset, len(buffer))}
        if stat.version.startswith('"'):
            headers["If-Match"] = stat.version
        answer = trying(
            lambda: ask("GET", str(url), headers=headers, into=buffer),
            lambda problem: FormatError(url, f"cannot be read at byte {offset:,}: {problem}"),
        )
        check_range(url, stat, offset, len(buffer), answer.status, answer.header("Content-Range"))
        check_version(url, stat.version, _version(answer))


def _version(answer: Answer) -> str:
    tag = answer.header("ETag") or ""
    return tag if tag.startswith('"') else (answer.header("Last-Modified") or "")


def _advice(status: int) -> str | None:
    return "It may not be read without a login" if status in (401, 403) else None
