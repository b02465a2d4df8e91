"""HTTP servers on this machine that answer as stores do, wrongly where a test asks for it."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes


class Reply(NamedTuple):
    """`send` is how many bytes of the body are sent before the connection is closed (None: all of them)."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012  (never changed)
    send: int | None = None
    length: int | None = None


Fault = Callable[[Request, Reply], Reply]


class Server:
    """`answer(request)` is asked for every request; `faults` each spoil one answer to a GET with a Range, the first ones first."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.faults: list[Fault] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, parts.path, query, self.headers, body)
                outer.asked.append(request)
                reply = outer.answer(request)
                if request.method == "GET" and "Range" in self.headers and outer.faults:
                    reply = outer.faults.pop(0)(request, reply)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in reply.headers:
                    self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
                self.end_headers()
                if request.method != "HEAD":
                    self.wfile.write(reply.body[: reply.send])
                if reply.send is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing."""

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away is what some tests are about."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Reply:
    """The object, or the part of it that is asked for."""
    asked = request.headers.get("Range")
    if not asked:
        return Reply(200, data, headers)
    first, last = (int(text) for text in asked.removeprefix("bytes=").split("-"))
    if last >= len(data):
        return Reply(416, b"", headers)
    said = {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
    return Reply(206, data[first : last + 1], said)


class Files(Server):
    """path -> bytes, as a web server (or a public bucket) gives them; a HEAD or a GET of `denied` is answered 403."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.denied: set[str] = set()

    def answer(self, request: Request) -> Reply:
        path = unquote(request.path)
        if path in self.denied:
            return Reply(403)
        data = self.files.get(path)
        if data is None:
            if "list-type" in request.query:
                return Reply(200, b"<ListBucketResult></ListBucketResult>", {"Content-Type": "application/xml"})
            return Reply(404)
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": tag, "Last-Modified": "Sun, 01 Nov 2026 10:00:00 GMT"}
        if request.headers.get("If-Match") not in (None, tag):
            return Reply(412, b"", headers)
        if request.method == "HEAD":
            return Reply(200, b"", {**headers, "Content-Length": str(len(data))})
        return ranged(request, data, headers)


class FakeGoogle(Server):
    """Google's JSON interface, as far as it is used: objects with generations, resumable sessions, rewrites in two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.buckets = {"weights"}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.generation = 1000
        self.fail_chunks = 0
        """So many chunks are taken in half, and answered 503."""
        self.half_done: set[str] = set()

    def put(self, bucket: str, name: str, data: bytes) -> None:
        self.generation += 1
        self.objects[bucket, name] = (data, self.generation)

    def names(self) -> list[str]:
        return sorted(name for _, name in self.objects)

    def answer(self, request: Request) -> Reply:
        if request.path.startswith("/session/"):
            return self._session(request)
        match = re.fullmatch(
            r"(/upload)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?(?:/rewriteTo/b/([^/]+)/o/([^/]+))?", request.path
        )
        assert match is not None, request.path
        bucket, key = match[2], unquote(match[3] or "")
        if bucket not in self.buckets:
            return Reply(404)
        if match[1]:
            return self._begin(request, bucket)
        if match[4]:
            return self._rewrite(request, bucket, key, match[4], unquote(match[5]))
        if not key:
            return self._list(request, bucket)
        found = self.objects.get((bucket, key))
        if found is None or request.query.get("generation", str(found[1])) != str(found[1]):
            return Reply(404)
        if request.method == "DELETE":
            del self.objects[bucket, key]
            return Reply(204)
        if request.query.get("alt") == "media":
            return ranged(request, found[0], {})
        return _json({"size": str(len(found[0])), "generation": str(found[1]), "updated": "2026-11-01T10:00:00.123Z"})

    def _list(self, request: Request, bucket: str) -> Reply:
        prefix = request.query["prefix"]
        names = [name for home, name in self.objects if home == bucket and name.startswith(prefix)]
        folders = sorted(
            {prefix + name[len(prefix) :].split("/")[0] + "/" for name in names if "/" in name[len(prefix) :]}
        )
        items = sorted(name for name in names if "/" not in name[len(prefix) :])
        start = int(request.query.get("pageToken", "0"))
        page = items[start : start + 2]  # small pages: there is always another one
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(items) else {}
        return _json({"items": [{"name": name} for name in page], "prefixes": folders if not start else [], **more})

    def _begin(self, request: Request, bucket: str) -> Reply:
        name = request.query["name"]
        if request.query.get("ifGenerationMatch") == "0" and (bucket, name) in self.objects:
            return Reply(412)
        key = f"/session/{len(self.sessions)}"
        self.sessions[key] = {"bucket": bucket, "name": name, "data": b"", "query": request.query}
        return Reply(200, b"", {"Location": self.url + key})

    def _session(self, request: Request) -> Reply:
        session = self.sessions.get(request.path)
        if session is None:
            return Reply(404)
        if request.method == "DELETE":
            del self.sessions[request.path]
            return Reply(499)
        said = request.headers["Content-Range"]
        total = said.rpartition("/")[2]
        data = request.body
        if "*/" not in said:
            first = int(said.removeprefix("bytes ").split("-")[0])
            assert first == len(session["data"]), (first, len(session["data"]))
            if self.fail_chunks and request.path + said not in self.half_done:
                self.fail_chunks -= 1
                self.half_done.add(request.path + said)
                session["data"] += data[: len(data) // 2 // 262144 * 262144]
                return Reply(503)
            session["data"] += data
            if total == "*":
                assert len(data) % 262144 == 0
        if total != "*" and len(session["data"]) == int(total):
            if (
                session["query"].get("ifGenerationMatch") == "0"
                and (session["bucket"], session["name"]) in self.objects
            ):
                return Reply(412)
            self.put(session["bucket"], session["name"], session["data"])
            del self.sessions[request.path]
            return _json({})
        have = len(session["data"])
        return Reply(308, b"", {"Range": f"bytes=0-{have - 1}"} if have else {})

    def _rewrite(self, request: Request, bucket: str, key: str, to_bucket: str, to_key: str) -> Reply:
        found = self.objects.get((bucket, key))
        if found is None:
            return Reply(404)
        if request.query.get("ifSourceGenerationMatch", str(found[1])) != str(found[1]):
            return Reply(412)
        if request.query.get("ifGenerationMatch") == "0" and (to_bucket, to_key) in self.objects:
            return Reply(412)
        if "rewriteToken" not in request.query:
            return _json({"done": False, "rewriteToken": "half"})
        self.put(to_bucket, to_key, found[0])
        return _json({"done": True})


class FakeHub(Server):
    """The hub, as far as huggingface_hub asks for it here: one model with one branch, files redirected to another place."""

    def __init__(self, name: str = "owner/model") -> None:
        super().__init__()
        self.name = name
        self.files: dict[str, bytes] = {}
        self.head = "a" * 40
        self.commits: list[dict[str, Any]] = []
        self.uploaded: dict[str, bytes] = {}
        self.redirects = 0

    def answer(self, request: Request) -> Reply:
        path = unquote(request.path)
        if path.startswith("/place/"):
            assert "authorization" not in request.headers or request.headers["authorization"] != "Bearer secret"
            return ranged(request, self.files[path.removeprefix("/place/")], {})
        if path.startswith("/lfs/"):
            self.uploaded[path.removeprefix("/lfs/")] = request.body
            return Reply(200)
        if path == "/api/repos/create" or self.name not in path:
            return Reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        rest = path.partition(self.name)[2]
        if rest.startswith("/resolve/"):
            self.redirects += 1
            name = rest.removeprefix("/resolve/").partition("/")[2]
            other = self.url.replace("127.0.0.1", "localhost")
            return Reply(302, b"", {"Location": f"{other}/place/{name}"}) if name in self.files else Reply(404)
        if rest.startswith("/paths-info/"):
            asked = parse_qs(request.body.decode()).get("paths") or json.loads(request.body)["paths"]
            return _json([self._entry(name) for name in asked if name in self.files])
        if rest.startswith("/tree/"):
            prefix = rest.removeprefix("/tree/").partition("/")[2]
            prefix = prefix + "/" if prefix else ""
            names = [name for name in self.files if name.startswith(prefix)]
            if prefix and not names:
                return Reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            folders = sorted({name[len(prefix) :].split("/")[0] for name in names if "/" in name[len(prefix) :]})
            found = [self._entry(name) for name in sorted(names) if "/" not in name[len(prefix) :]]
            return _json(found + [{"type": "directory", "path": prefix + name, "oid": "0" * 40} for name in folders])
        if rest.startswith("/preupload/"):
            names = [one["path"] for one in json.loads(request.body)["files"]]
            return _json(
                {
                    "files": [
                        {"path": n, "uploadMode": "lfs" if n.endswith("tensors") else "regular", "shouldIgnore": False}
                        for n in names
                    ]
                }
            )
        if rest.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(request.body)["objects"]
            made = [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}", "header": {}}}} for one in wanted
            ]
            return _json({"transfer": "basic", "objects": made}, "application/vnd.git-lfs+json")
        if rest.startswith("/commit/"):
            self.commits += [json.loads(line) for line in request.body.splitlines() if line]
            self.head = "b" * 40
            return _json(
                {
                    "commitUrl": f"{self.url}/{self.name}/commit/{self.head}",
                    "commitOid": self.head,
                    "pullRequestUrl": None,
                }
            )
        if rest in ("", "/revision/main") or rest.startswith("/revision/"):
            if rest.startswith("/revision/") and rest.removeprefix("/revision/") not in ("main", self.head):
                return Reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return _json(
                {
                    "id": self.name,
                    "sha": self.head,
                    "siblings": [],
                    "tags": [],
                    "private": False,
                    "downloads": 0,
                    "likes": 0,
                }
            )
        raise AssertionError(path)

    def _entry(self, name: str) -> dict[str, Any]:
        digest = hashlib.sha1(self.files[name]).hexdigest()
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": digest}


def _json(found: Any, kind: str = "application/json") -> Reply:
    return Reply(200, json.dumps(found).encode(), {"Content-Type": kind})


def ignores_range(request: Request, reply: Reply) -> Reply:
    return reply._replace(status=200)


def busy(request: Request, reply: Reply) -> Reply:
    return Reply(503)


def ends_early(request: Request, reply: Reply) -> Reply:
    return reply._replace(send=len(reply.body) // 2)


def is_shorter(request: Request, reply: Reply) -> Reply:
    """As long as it says, and less than was asked for."""
    return reply._replace(body=reply.body[:-1])


def is_longer(request: Request, reply: Reply) -> Reply:
    return reply._replace(body=reply.body + b"!")


def elsewhere(request: Request, reply: Reply) -> Reply:
    first, last, total = re.findall(r"\d+", reply.headers["Content-Range"])
    moved = f"bytes {int(first) + 1}-{int(last) + 1}/{total}"
    return reply._replace(headers={**reply.headers, "Content-Range": moved})


def unsaid(request: Request, reply: Reply) -> Reply:
    return reply._replace(headers={name: value for name, value in reply.headers.items() if name != "Content-Range"})


def grown(request: Request, reply: Reply) -> Reply:
    said = re.sub(r"/\d+", "/999999", reply.headers["Content-Range"])
    return reply._replace(headers={**reply.headers, "Content-Range": said})


def other_tag(request: Request, reply: Reply) -> Reply:
    return reply._replace(headers={**reply.headers, "ETag": '"another"'})


def precondition_failed(request: Request, reply: Reply) -> Reply:
    return Reply(412)


def gone(request: Request, reply: Reply) -> Reply:
    return Reply(404)


def too_short_now(request: Request, reply: Reply) -> Reply:
    return Reply(416)


def slow(request: Request, reply: Reply) -> Reply:
    time.sleep(0.6)
    return reply
