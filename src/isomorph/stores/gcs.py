"""gs:// by Google's JSON interface: ranges of one generation, resumable uploads in order, and copies inside the store.

Credentials are found by google-auth as for Google's own tools (GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default
login`, the machine's account); where there are none, requests are anonymous, which is enough for public buckets. With
STORAGE_EMULATOR_HOST another server is asked, without credentials.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from isomorph.errors import FormatError, MissingExtra, RefusedError, SourceChanged, printable
from isomorph.stores.answers import CHANGED, check_range, range_header
from isomorph.stores.base import Entry, Stat, Store, Upload
from isomorph.stores.http import Answer, ask
from isomorph.stores.trying import ATTEMPTS, PassingError, trying
from isomorph.stores.url import Url

SERVER = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
UNIT = 256 << 10
"""Bytes: what is sent of an object before its last byte comes in multiples of it."""
CREDENTIALS = "Give credentials: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS"
OTHER_NAME = "Use --overwrite, or another name"
REFRESH_EARLY = 60.0


class Google(Store):
    """Google's store. The version is the generation."""

    def __init__(self) -> None:
        super().__init__()
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator and "://" not in emulator:
            emulator = "http://" + emulator
        self.server = emulator.rstrip("/") or SERVER
        self._token = _Token() if not emulator else None

    def stat(self, url: Url) -> Stat | None:
        if not url.key:
            return None
        answer = self._read(url, _object(url))
        if answer.status == 404:
            return None
        found = self._checked(url, answer)
        changed = datetime.fromisoformat(str(found.get("updated", "1970-01-01T00:00:00Z")))
        return Stat(int(found["size"]), str(found["generation"]), int(changed.timestamp() * 1000) * 10**6)

    def list(self, url: Url, most: int) -> Sequence[Entry]:
        prefix = url.key + "/" if url.key else ""
        found: list[Entry] = []
        more: dict[str, str] = {}
        while len(found) < most:
            query = {"prefix": prefix, "delimiter": "/", "maxResults": str(min(1000, most + 1)), **more}
            page = self._checked(url, self._read(url, _bucket(url), query))
            found += [Entry(one[len(prefix) : -1], True) for one in page.get("prefixes", ())]
            found += [
                Entry(one["name"][len(prefix) :], False) for one in page.get("items", ()) if one["name"] != prefix
            ]
            if not page.get("nextPageToken"):
                break
            more = {"pageToken": str(page["nextPageToken"])}
        return found

    def fill(self, url: Url, stat: Stat, offset: int, buffer: memoryview) -> None:
        query = {"alt": "media", "generation": stat.version}
        answer = self._read(url, _object(url), query, {"Range": range_header(offset, len(buffer))}, buffer)
        if answer.status in (401, 403):
            raise self._denied(url, answer.status)
        check_range(url, stat, offset, len(buffer), answer.status, answer.header("Content-Range"))

    def begin(self, url: Url, nbytes: int, *, replace: bool) -> Upload:
        return _Resumable(self, url, nbytes, replace=replace)

    def put(self, url: Url, data: bytes, *, replace: bool) -> None:
        upload = _Resumable(self, url, len(data), replace=replace)
        upload.put(0, 0, data)
        upload.finish()

    def copy(self, url: Url, stat: Stat, to: Url, *, replace: bool) -> None:
        query = {"ifSourceGenerationMatch": stat.version, **({} if replace else {"ifGenerationMatch": "0"})}
        path = f"{_object(url)}/rewriteTo{_object(to).removeprefix('/storage/v1')}"
        token = ""
        while True:
            more = {"rewriteToken": token} if token else {}
            answer = self._write(to, "POST", path, **query, **more)
            if answer.status in (404, 412):
                if self.stat(url) is None or self.stat(url) != stat:
                    raise SourceChanged(url, CHANGED)
                raise RefusedError(to, "appeared while it was written; not touched", OTHER_NAME)
            found = self._checked(to, answer, writing=True)
            if found.get("done", True):
                break
            token = str(found["rewriteToken"])
        self.forget()

    def remove(self, url: Url) -> None:
        answer = self._write(url, "DELETE", _object(url))
        if answer.status != 404:
            self._checked(url, answer, writing=True)
        self.forget()

    def _read(
        self,
        url: Url,
        path: str,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        into: memoryview | None = None,
    ) -> Answer:
        return trying(
            lambda: self._ask("GET", self._address(path, query or {}), headers, None, into),
            lambda problem: FormatError(url, f"cannot be read: {problem}", "Try again later"),
        )

    def _write(self, url: Url, method: str, path: str, **query: str) -> Answer:
        return trying(lambda: self._ask(method, self._address(path, query), None, b""), _not_written(url))

    def _address(self, path: str, query: dict[str, str]) -> str:
        return self.server + path + (f"?{urlencode(query)}" if query else "")

    def _ask(
        self,
        method: str,
        address: str,
        headers: dict[str, str] | None,
        body: bytes | memoryview | None = None,
        into: memoryview | None = None,
    ) -> Answer:
        token = self._token.text() if self._token is not None else ""
        given = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        return ask(method, address, headers=given, body=body, into=into, follow=False)

    def _checked(self, url: Url, answer: Answer, *, writing: bool = False) -> dict[str, Any]:
        if answer.status in (200, 201, 204):
            found: dict[str, Any] = json.loads(answer.body) if answer.body else {}
            return found
        if writing:
            raise self._refused(url, answer.status)
        if answer.status == 404:
            raise FormatError(url, f"there is no bucket {printable(url.bucket)}", "Look at its name")
        if answer.status in (401, 403):
            raise self._denied(url, answer.status)
        raise FormatError(url, f"cannot be read: the store answered {answer.status}")

    def _denied(self, url: Url, status: int) -> FormatError:
        anonymous = self._token is None or not self._token.text()
        return FormatError(
            url, f"may not be read ({status})", ("No credentials were found. " if anonymous else "") + CREDENTIALS
        )

    def _refused(self, url: Url, status: int) -> RefusedError:
        if status == 412:
            return RefusedError(url, "appeared while it was written; not touched", OTHER_NAME)
        if status == 404:
            return RefusedError(url, f"cannot be written: there is no bucket {printable(url.bucket)}", "Make it first")
        if status in (401, 403):
            return RefusedError(url, f"may not be written ({status})", CREDENTIALS)
        return RefusedError(url, f"cannot be written: the store answered {status}")


class _Resumable(Upload):
    """A resumable upload: one chunk after the other. What is not a multiple of UNIT waits for what follows it."""

    in_order = True

    def __init__(self, store: Google, url: Url, nbytes: int, *, replace: bool) -> None:
        self._store, self._url, self._nbytes = store, url, nbytes
        self._held = bytearray()
        self._sent = 0
        self._session = ""
        self._condition = {} if replace else {"ifGenerationMatch": "0"}

    def _begin(self, condition: dict[str, str]) -> None:
        path = f"/upload{_bucket(self._url)}"
        answer = self._store._write(self._url, "POST", path, uploadType="resumable", name=self._url.key, **condition)
        self._store._checked(self._url, answer._replace(body=b""), writing=True)
        self._session = answer.header("Location") or ""

    def put(self, number: int, offset: int, data: bytes | bytearray) -> None:
        if not self._session:
            self._begin(self._condition)
        self._held += data
        whole = len(self._held) // UNIT * UNIT
        if offset + len(data) >= self._nbytes:  # the last chunk makes the object appear: it waits for `finish`
            whole = max(0, (len(self._held) - 1) // UNIT * UNIT)
        if whole:
            self._send(bytes(memoryview(self._held)[:whole]), is_last=False)
            del self._held[:whole]

    def finish(self) -> None:
        if not self._session:
            self._begin(self._condition)
        self._send(bytes(self._held), is_last=True)
        self._store.forget()

    def abort(self) -> None:
        session, self._session = self._session, ""
        if session:
            try:
                self._store._ask("DELETE", session, None, b"")
            except PassingError:
                return  # the store cannot be reached; it forgets the session after a week

    def _send(self, data: bytes, *, is_last: bool) -> None:
        """Send the next bytes. After a failure the store is asked how many of them it has."""
        first, end = self._sent, self._sent + len(data)
        attempts = iter(range(ATTEMPTS))

        def once() -> Answer:
            start = first
            if next(attempts):
                found = self._ask_put(f"bytes */{self._nbytes}", b"")
                start = max(first, _received(found))
                if found.status != 308 or (start >= end and not is_last):
                    return found
            return self._ask_put(f"bytes {start}-{end - 1}/{self._nbytes if is_last else '*'}", data[start - first :])

        answer = trying(once, _not_written(self._url))
        if answer.status not in ((200, 201) if is_last else (308,)):
            raise self._store._refused(self._url, answer.status)
        if not is_last and _received(answer) != end:
            raise RefusedError(
                self._url, f"cannot be written: the store took {_received(answer):,} of {end:,} bytes", "Run it again"
            )
        self._sent = end

    def _ask_put(self, content_range: str, data: bytes) -> Answer:
        return self._store._ask("PUT", self._session, {"Content-Range": content_range}, data)


class _Token:
    """What authorises us, renewed before it ends; "" where there are no credentials."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._is_asked = False

    def text(self) -> str:
        with self._lock:
            if not self._is_asked:
                self._credentials, self._is_asked = _credentials(), True
            found = self._credentials
            if found is None:
                return ""
            if not found.valid or (found.expiry is not None and found.expiry.timestamp() - time.time() < REFRESH_EARLY):
                import google.auth.exceptions
                import google.auth.transport.requests

                try:
                    found.refresh(google.auth.transport.requests.Request())
                except google.auth.exceptions.TransportError as error:
                    raise PassingError(f"no token could be had ({printable(str(error), 200)})") from None
                except google.auth.exceptions.GoogleAuthError as error:
                    raise FormatError(
                        "gs://", f"no token could be had ({printable(str(error), 200)})", CREDENTIALS
                    ) from None
            return str(found.token)


def _credentials() -> Any:
    try:
        import google.auth
        import google.auth.exceptions
    except ImportError:
        raise MissingExtra("gs://", "gcs") from None
    try:
        return google.auth.default(scopes=[SCOPE])[0]
    except google.auth.exceptions.DefaultCredentialsError:
        return None


def _not_written(url: Url) -> Callable[[str], Exception]:
    return lambda problem: RefusedError(url, f"cannot be written: {problem}", "Try again later")


def _received(answer: Answer) -> int:
    """How many bytes a session has: `Range: bytes=0-99` says 100."""
    _, _, last = (answer.header("Range") or "").rpartition("-")
    return int(last) + 1 if last.isdigit() else 0


def _bucket(url: Url) -> str:
    return f"/storage/v1/b/{quote(url.bucket, safe='')}/o"


def _object(url: Url) -> str:
    return f"{_bucket(url)}/{quote(url.key, safe='')}"
