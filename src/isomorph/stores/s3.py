"""s3:// through boto3: ranges with If-Match, multipart uploads, and parts that the store copies itself.

Credentials, region, profile and endpoint are found as boto3 finds them: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL …; where there
are no credentials, requests are not signed, which is enough for public buckets.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import boto3
import botocore.exceptions as failures
from botocore import UNSIGNED
from botocore.config import Config

from isomorph.errors import FormatError, RefusedError, SourceChanged, printable
from isomorph.stores.answers import CHANGED, check_range, check_version, range_header
from isomorph.stores.base import Entry, Stat, Store, Upload
from isomorph.stores.trying import CONNECT_SECONDS, READ_SECONDS, PassingError, is_passing, trying
from isomorph.stores.url import Url

Result = TypeVar("Result")

CONNECTIONS = 32
LARGEST_COPY = 1 << 30
"""Bytes of one part copied by the store (5 GiB are allowed; several at once are faster than one)."""
CREDENTIALS = (
    "Give credentials as for the AWS command line: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
OTHER_NAME = "Use --overwrite, or another name"


class S3(Store):
    """Amazon's store, and those that speak like it."""

    copies_ranges = True

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None
        self._first = threading.Lock()
        self.is_signed = True

    @property
    def client(self) -> Any:
        with self._first:
            if self._client is None:
                self._client = self._connect()
        return self._client

    def _connect(self) -> Any:
        session = boto3.session.Session()
        anonymous = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
        self.is_signed = not anonymous and session.get_credentials() is not None
        settings = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "max_pool_connections": CONNECTIONS,
            "retries": {"total_max_attempts": 1},  # `trying` does it, and checks what came
            "user_agent_extra": "isomorph",
        }
        if not self.is_signed:
            settings["signature_version"] = UNSIGNED
        return session.client("s3", config=Config(**settings), region_name=session.region_name or "us-east-1")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def stat(self, url: Url) -> Stat | None:
        if not url.key:
            return None
        found = self._ask(url, lambda: self.client.head_object(Bucket=url.bucket, Key=url.key), missing=None)
        if found is None:
            return None
        return Stat(int(found["ContentLength"]), found.get("ETag", ""), int(found["LastModified"].timestamp()) * 10**9)

    def list(self, url: Url, most: int) -> Sequence[Entry]:
        prefix = url.key + "/" if url.key else ""
        found: list[Entry] = []
        more: dict[str, str] = {}
        while len(found) < most:
            page = self._ask(
                url,
                lambda more=more: self.client.list_objects_v2(  # type: ignore[misc]  # mypy sees no default in a lambda
                    Bucket=url.bucket, Prefix=prefix, Delimiter="/", MaxKeys=min(1000, most + 1), **more
                ),
            )
            found += [Entry(one["Prefix"][len(prefix) : -1], True) for one in page.get("CommonPrefixes", ())]
            found += [
                Entry(one["Key"][len(prefix) :], False) for one in page.get("Contents", ()) if one["Key"] != prefix
            ]
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        return found

    def fill(self, url: Url, stat: Stat, offset: int, buffer: memoryview) -> None:
        asked = {"Bucket": url.bucket, "Key": url.key, "Range": range_header(offset, len(buffer))}
        if stat.version:
            asked["IfMatch"] = stat.version
        self._ask(url, lambda: self._fill(url, stat, offset, buffer, asked), reading=True)

    def _fill(self, url: Url, stat: Stat, offset: int, buffer: memoryview, asked: dict[str, str]) -> None:
        answer = self.client.get_object(**asked)
        body = answer["Body"]
        try:
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            check_range(url, stat, offset, len(buffer), status, answer.get("ContentRange"))
            check_version(url, stat.version, answer.get("ETag"))
            done = 0
            while done < len(buffer):
                data = body.read(min(1 << 20, len(buffer) - done))
                if not data:
                    raise PassingError(f"the answer ended after {done:,} of {len(buffer):,} bytes")
                buffer[done : done + len(data)] = data
                done += len(data)
            if body.read(1):
                raise PassingError(f"the answer has more than the {len(buffer):,} bytes that were asked for")
        except BaseException:
            body.close()
            raise

    def begin(self, url: Url, nbytes: int, *, replace: bool) -> Upload:
        return _Multipart(self, url, replace=replace)

    def put(self, url: Url, data: bytes, *, replace: bool) -> None:
        condition = {} if replace else {"IfNoneMatch": "*"}
        self._write(url, lambda: self.client.put_object(Bucket=url.bucket, Key=url.key, Body=data, **condition))
        self.forget()

    def copy(self, url: Url, stat: Stat, to: Url, *, replace: bool) -> None:
        from concurrent.futures import ThreadPoolExecutor

        upload = _Multipart(self, to, replace=replace)
        try:
            count = -(-stat.nbytes // LARGEST_COPY)
            bounds = [stat.nbytes * number // count for number in range(count + 1)]
            with ThreadPoolExecutor(min(8, count)) as pool:
                copies = [
                    pool.submit(upload.copy, number, url, stat, bounds[number], bounds[number + 1] - bounds[number])
                    for number in range(count)
                ]
                for one in copies:
                    one.result()
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    def remove(self, url: Url) -> None:
        self._write(url, lambda: self.client.delete_object(Bucket=url.bucket, Key=url.key))
        self.forget()

    _required: Any = object()

    def _ask(self, url: Url, act: Callable[[], Any], *, missing: Any = _required, reading: bool = False) -> Any:
        """What reading asks. `missing` is given for an object that is not there, where it is given."""

        def once() -> Any:
            try:
                return act()
            except failures.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if is_passing(status):
                    raise PassingError(f"the store answered {status}{_said(error)}") from None
                if status == 404 and missing is not self._required and _code(error) != "NoSuchBucket":
                    return missing
                raise self._refusal(url, error, status, reading) from None
            except failures.BotoCoreError as error:
                raise self._failure(url, error) from None

        return trying(once, lambda problem: FormatError(url, f"cannot be read: {problem}", "Try again later"))

    def _refusal(self, url: Url, error: failures.ClientError, status: int, reading: bool) -> Exception:
        if reading and status in (404, 410, 412):
            return SourceChanged(url, CHANGED if status == 412 else "was removed or replaced while it was read")
        if reading and status == 416:
            return SourceChanged(url, "changed while it was read: it has become shorter")
        if status == 404:
            return FormatError(url, f"there is no bucket {printable(url.bucket)}", "Look at the name and the region")
        if status in (401, 403):
            advice = "" if self.is_signed else "No credentials were found. "
            return FormatError(url, f"may not be read ({status}{_said(error)})", advice + CREDENTIALS)
        return FormatError(url, f"cannot be read: the store answered {status}{_said(error)}")

    def _failure(self, url: Url, error: failures.BotoCoreError) -> Exception:
        if isinstance(error, failures.NoCredentialsError | failures.PartialCredentialsError):
            return FormatError(url, "may not be read: there are no credentials", CREDENTIALS)
        if isinstance(
            error,
            failures.HTTPClientError
            | failures.ConnectionError
            | failures.ResponseStreamingError
            | failures.IncompleteReadError,
        ):
            return PassingError(f"the connection failed ({printable(str(error), 200)})")
        return FormatError(
            url, f"cannot be read: {printable(str(error), 200)}", "Look at the AWS_… variables and profile"
        )

    def _write(self, url: Url, act: Callable[[], Result]) -> Result:
        """What writing asks, with errors that are about a target."""

        def once() -> Result:
            try:
                return act()
            except failures.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == 409 and _code(error) == "ConditionalRequestConflict":
                    raise PassingError("another upload of the same name is under way") from None
                if is_passing(status) and status != 501:
                    raise PassingError(f"the store answered {status}{_said(error)}") from None
                raise self._not_written(url, error, status) from None
            except failures.BotoCoreError as error:
                failed = self._failure(url, error)
                if isinstance(failed, FormatError):
                    failed = RefusedError(url, failed.problem.replace("read", "written"), failed.advice)
                raise failed from None

        return trying(once, lambda problem: RefusedError(url, f"cannot be written: {problem}", "Try again later"))

    def _not_written(self, url: Url, error: failures.ClientError, status: int) -> Exception:
        if status == 412:
            return RefusedError(url, "appeared while it was written; not touched", OTHER_NAME)
        if _code(error) == "NoSuchUpload":
            return RefusedError(url, "cannot be written: the upload was ended from elsewhere", "Run it again")
        if status == 404:
            return RefusedError(url, f"cannot be written: there is no bucket {printable(url.bucket)}", "Make it first")
        if status in (401, 403):
            return RefusedError(url, f"may not be written ({status}{_said(error)})", CREDENTIALS)
        return RefusedError(url, f"cannot be written: the store answered {status}{_said(error)}")


class _Multipart(Upload):
    """A multipart upload. Parts are numbered from 0 here, from 1 there."""

    def __init__(self, store: S3, url: Url, *, replace: bool) -> None:
        self._store, self._url, self._client = store, url, store.client
        self._condition = {} if replace else {"IfNoneMatch": "*"}
        begun = store._write(url, lambda: self._client.create_multipart_upload(Bucket=url.bucket, Key=url.key))
        self._where = {"Bucket": url.bucket, "Key": url.key, "UploadId": begun["UploadId"]}
        self._tags: dict[int, str] = {}

    def put(self, number: int, offset: int, data: bytes | bytearray) -> None:
        answer = self._store._write(
            self._url, lambda: self._client.upload_part(**self._where, PartNumber=number + 1, Body=data)
        )
        self._tags[number] = answer["ETag"]

    def copy(self, number: int, source: Url, stat: Stat, offset: int, nbytes: int) -> None:
        asked: dict[str, Any] = {"CopySource": {"Bucket": source.bucket, "Key": source.key}}
        if stat.version:
            asked["CopySourceIfMatch"] = stat.version
        if nbytes < stat.nbytes:
            asked["CopySourceRange"] = range_header(offset, nbytes)

        def act() -> Any:
            try:
                return self._client.upload_part_copy(**self._where, PartNumber=number + 1, **asked)
            except failures.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == 412 or _code(error) == "NoSuchKey":
                    raise SourceChanged(source, CHANGED) from None
                raise

        answer = self._store._write(self._url, act)
        self._tags[number] = answer["CopyPartResult"]["ETag"]

    def finish(self) -> None:
        parts = [{"PartNumber": number + 1, "ETag": self._tags[number]} for number in sorted(self._tags)]
        self._store._write(
            self._url,
            lambda: self._client.complete_multipart_upload(
                **self._where, MultipartUpload={"Parts": parts}, **self._condition
            ),
        )
        self._store.forget()

    def abort(self) -> None:
        try:
            self._client.abort_multipart_upload(**self._where)
        except (failures.ClientError, failures.BotoCoreError):
            return  # it is gone, or the store cannot be reached: nothing more can be done from here


def _code(error: failures.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _said(error: failures.ClientError) -> str:
    code = _code(error)
    return f" {printable(code, 80)}" if code and not code.isdigit() else ""
