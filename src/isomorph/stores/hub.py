"""hf:// through huggingface_hub: files of one commit by ranges; written as one commit of finished files.

hf://owner/repo, hf://owner/repo@revision/file, hf://datasets/owner/repo/file. A slash in a revision is written %2F. The revision is
looked up once and its commit read from then on, so that what is read never changes. HF_TOKEN and HF_ENDPOINT are respected.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]  # the first is listed nowhere

from isomorph.errors import FormatError, IsomorphError, RefusedError, printable
from isomorph.stores.answers import check_range, range_header
from isomorph.stores.base import Entry, Stat, Store
from isomorph.stores.http import Answer, ask
from isomorph.stores.trying import PassingError, is_passing, trying
from isomorph.stores.url import Url

Result = TypeVar("Result")

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
LOCATED_FOR = 300.0
"""Seconds for which the place that a file was redirected to is asked again without asking the hub."""
LOGIN = "Log in: hf auth login, or set HF_TOKEN"


class Repo(NamedTuple):
    """Which repository a URL is in, which revision of it is asked for (None: the main branch), and the path inside."""

    kind: str
    name: str
    revision: str | None
    path: str


def repo_of(url: Url) -> Repo:
    """FormatError for a URL that names no repository.

    >>> from isomorph.stores.url import path_of
    >>> repo_of(path_of("hf://openai/clip@refs%2Fpr%2F3/model.safetensors"))
    Repo(kind='model', name='openai/clip', revision='refs/pr/3', path='model.safetensors')
    """
    parts = list(url.parts[1:])
    kind = KINDS[parts.pop(0)] if parts and parts[0] in KINDS else "model"
    if len(parts) < 2:
        raise FormatError(url, "names no repository", "Write hf://owner/repo")
    name, at, revision = parts[1].partition("@")
    return Repo(kind, f"{parts[0]}/{name}", unquote(revision) if at else None, "/".join(parts[2:]))


class Hub(Store):
    """Repositories of models (and data sets and spaces)."""

    is_staged = True

    def __init__(self) -> None:
        super().__init__()
        self._endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        self._api = huggingface_hub.HfApi(endpoint=self._endpoint)
        self._commits: dict[tuple[str, str, str | None], str] = {}
        self._located: dict[str, tuple[float, str]] = {}
        self._guard = threading.Lock()

    def stat(self, url: Url) -> Stat | None:
        repo = repo_of(url)
        if not repo.path:
            return None
        commit = self._commit(url, repo)
        found = self._ask(
            url, lambda: self._api.get_paths_info(repo.name, [repo.path], revision=commit, repo_type=repo.kind)
        )
        files: list[Any] = [one for one in found if hasattr(one, "blob_id")]
        if not files:
            return None
        return Stat(files[0].size, files[0].lfs.sha256 if files[0].lfs is not None else files[0].blob_id)

    def list(self, url: Url, most: int) -> Sequence[Entry]:
        repo = repo_of(url)
        commit = self._commit(url, repo)

        def act() -> list[Entry]:
            from itertools import islice

            tree = self._api.list_repo_tree(repo.name, repo.path or None, revision=commit, repo_type=repo.kind)
            return [Entry(one.path.rpartition("/")[2], not hasattr(one, "blob_id")) for one in islice(tree, most)]

        try:
            return self._ask(url, act)
        except EntryNotFoundError:
            return ()

    def fill(self, url: Url, stat: Stat, offset: int, buffer: memoryview) -> None:
        repo = repo_of(url)
        address = huggingface_hub.hf_hub_url(
            repo.name, repo.path, repo_type=repo.kind, revision=self._commit(url, repo), endpoint=self._endpoint
        )
        answer = trying(
            lambda: self._get(address, {"Range": range_header(offset, len(buffer))}, buffer),
            lambda problem: FormatError(url, f"cannot be read at byte {offset:,}: {problem}", "Try again later"),
        )
        if answer.status in (401, 403):
            raise FormatError(url, f"may not be read ({answer.status})", LOGIN)
        check_range(url, stat, offset, len(buffer), answer.status, answer.header("Content-Range"))

    def _get(self, address: str, headers: dict[str, str], buffer: memoryview) -> Answer:
        """A range from where the file was last found, else through the hub, which redirects there."""
        with self._guard:
            since, there = self._located.get(address, (0.0, ""))
        if there and time.monotonic() - since < LOCATED_FOR:
            answer = ask("GET", there, headers=headers, into=buffer)
            if answer.status not in (400, 401, 403):
                return answer
        told = build_hf_headers(library_name="isomorph")
        answer = ask("GET", address, headers={**told, **headers}, into=buffer)
        if answer.status == 206 and answer.url != address:
            with self._guard:
                self._located[address] = (time.monotonic(), answer.url)
        return answer

    def commit(self, url: Url, files: Sequence[tuple[Path, Url]]) -> None:
        """Write finished local files as one commit, on what the branch is now. RefusedError."""
        repo = repo_of(url)
        operations = [
            huggingface_hub.CommitOperationAdd(path_in_repo=repo_of(to).path, path_or_fileobj=str(file))
            for file, to in files
        ]
        if not sys.stderr.isatty():
            disable_progress_bars()
        try:
            self._ask(
                url,
                lambda: self._api.create_commit(
                    repo.name,
                    operations,
                    commit_message=f"Weights converted by isomorph: {', '.join(to.name for _, to in files[:3])}",
                    repo_type=repo.kind,
                    revision=repo.revision,
                    parent_commit=self._commit(url, repo),
                ),
            )
        except FormatError as error:
            problem = error.problem.replace("read", "written")
            raise RefusedError(url, problem, error.advice) from None
        with self._guard:
            self._commits.clear()
        self.forget()

    def _commit(self, url: Url, repo: Repo) -> str:
        key = (repo.kind, repo.name, repo.revision)
        with self._guard:
            found = self._commits.get(key)
        if found is None:
            info = self._ask(url, lambda: self._api.repo_info(repo.name, revision=repo.revision, repo_type=repo.kind))
            found = str(info.sha)
            with self._guard:
                self._commits[key] = found
        return found

    def _ask(self, url: Url, act: Callable[[], Result]) -> Result:
        def once() -> Result:
            try:
                return act()
            except (IsomorphError, EntryNotFoundError):
                raise
            except GatedRepoError:
                raise FormatError(
                    url, "may not be read: the repository is gated", f"Ask for access on its page. {LOGIN}"
                ) from None
            except RepositoryNotFoundError:
                raise FormatError(
                    url, f"there is no repository {printable(repo_of(url).name)}, or it is private", LOGIN
                ) from None
            except RevisionNotFoundError:
                raise FormatError(
                    url, f"has no revision {printable(str(repo_of(url).revision))}", "Look at its branches"
                ) from None
            except HFValidationError as error:
                raise FormatError(url, f"names no repository: {printable(str(error), 200)}") from None
            except HfHubHTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                if is_passing(status):
                    raise PassingError(f"the hub answered {status}") from None
                if status == 412:
                    raise FormatError(url, "cannot be read: another commit came first", "Run it again") from None
                advice = LOGIN if status in (401, 403) else None
                raise FormatError(url, f"cannot be read: the hub answered {status}", advice) from None
            except RuntimeError as error:  # an upload of one of several files failed
                raise FormatError(url, f"cannot be read: {printable(str(error), 200)}", "Run it again") from error
            except Exception as error:
                if not isinstance(error, OSError) and not type(error).__module__.startswith(("http", "requests")):
                    raise
                raise PassingError(f"no answer from the hub ({printable(str(error), 200)})") from None

        return trying(once, lambda problem: FormatError(url, f"cannot be read: {problem}", "Try again later"))
