"""HTTP, one request at a time: connections kept open, a timeout on everything, bodies bounded."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from isomorph.stores.trying import CONNECT_SECONDS, READ_SECONDS, PassingError, is_passing

LARGEST_BODY = 32 << 20
MOST_HOPS = 5
MOST_IDLE = 32
AGENT = "isomorph"


class Answer(NamedTuple):
    """What a server answered. `body` is empty where it was read into a buffer; `url` is where the last redirect led."""

    status: int
    headers: Message
    body: bytes
    url: str

    def header(self, name: str) -> str | None:
        found = self.headers.get(name)
        return None if found is None else str(found)


class _Idle:
    """Connections that are open and unused, by host; whoever asks next takes one."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def take(self, key: tuple[str, str]) -> http.client.HTTPConnection | None:
        with self._lock:
            found = self._open.get(key)
            return found.pop() if found else None

    def give(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        with self._lock:
            kept = self._open.setdefault(key, [])
            if len(kept) < MOST_IDLE:
                kept.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            for kept in self._open.values():
                for connection in kept:
                    connection.close()
            self._open.clear()


_idle = _Idle()
atexit.register(_idle.close)
close_connections = _idle.close


def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | memoryview | None = None,
    into: memoryview | None = None,
    follow: bool = True,
) -> Answer:
    """One request. `into` takes the body of a 206, which must be exactly as long.

    Redirects are followed (not from https to http), and what authorises us is told to no other host. Raises PassingError for
    connections that fail, bodies that end early, and answers that ask to come again.
    """
    given = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})}
    for _ in range(MOST_HOPS):
        answer = _once(method, url, given, body, into)
        location = answer.headers.get("Location")
        if not follow or answer.status not in (301, 302, 303, 307, 308) or location is None:
            return answer
        there = urljoin(url, str(location))
        before, after = urlsplit(url), urlsplit(there)
        if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
            return answer
        if (after.scheme, after.netloc) != (before.scheme, before.netloc):
            given = {name: value for name, value in given.items() if name.lower() not in ("authorization", "cookie")}
        url = there
    raise PassingError("it redirects without end")


def _once(
    method: str, url: str, headers: Mapping[str, str], body: bytes | memoryview | None, into: memoryview | None
) -> Answer:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    key = (parts.scheme, parts.netloc)
    for is_last in (False, True):
        kept = _idle.take(key)
        connection = kept if kept is not None else _connect(parts.scheme, parts.netloc)
        if body is not None:
            headers = {**headers, "Content-Length": str(len(body))}
        response = None
        try:
            connection.request(method, target, body=body, headers=dict(headers))
            response = connection.getresponse()
            answer = _read(response, url, method, into)
            if response.isclosed() and not response.will_close:
                _idle.give(key, connection)
            else:
                _close(connection, response)
        except (http.client.HTTPException, OSError) as error:
            _close(connection, response)
            if kept is not None and not is_last:
                continue  # the server had closed what was kept open
            said = str(error) or type(error).__name__
            raise PassingError(f"no answer from {parts.netloc} ({said})") from None
        except BaseException:
            _close(connection, response)
            raise
        if is_passing(answer.status):
            raise PassingError(f"{parts.netloc} answered {answer.status}")
        return answer
    raise PassingError(f"no answer from {parts.netloc}")


def _close(connection: http.client.HTTPConnection, response: http.client.HTTPResponse | None) -> None:
    if response is not None:
        response.close()
    connection.close()


def _read(response: http.client.HTTPResponse, url: str, method: str, into: memoryview | None) -> Answer:
    if method == "HEAD":
        response.read()
        return Answer(response.status, response.headers, b"", url)
    if into is None or response.status != 206:
        if into is not None and response.status == 200:  # the whole file, perhaps: not read
            return Answer(200, response.headers, b"", url)
        found = response.read(LARGEST_BODY + 1)
        if len(found) > LARGEST_BODY:
            raise PassingError(f"an answer of more than {LARGEST_BODY:,} bytes")
        return Answer(response.status, response.headers, found, url)
    done = 0
    while done < len(into):
        count = response.readinto(into[done:])
        if count == 0:
            raise PassingError(f"the answer ended after {done:,} of {len(into):,} bytes")
        done += count
    if response.read(1):
        raise PassingError(f"the answer has more than the {len(into):,} bytes that were asked for")
    return Answer(206, response.headers, b"", url)


def _connect(scheme: str, host: str) -> http.client.HTTPConnection:
    proxy = None
    with contextlib.suppress(KeyError, ValueError):
        if not urllib.request.proxy_bypass(host):
            proxy = urlsplit(urllib.request.getproxies()[scheme]).netloc.rpartition("@")[2]
    try:
        connection: http.client.HTTPConnection
        if scheme == "https":
            connection = http.client.HTTPSConnection(
                proxy or host, timeout=CONNECT_SECONDS, context=ssl.create_default_context()
            )
            if proxy:
                connection.set_tunnel(host)
        else:
            connection = http.client.HTTPConnection(proxy or host, timeout=CONNECT_SECONDS)
            if proxy:
                connection.set_tunnel(host)
        connection.connect()
    except (http.client.HTTPException, OSError) as error:
        raise PassingError(f"{host} cannot be reached ({error})") from None
    if connection.sock is not None:
        connection.sock.settimeout(READ_SECONDS)
    return connection
