"""A bucket of a test, and the small checkpoint that is put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isomorph.stores.table import store_of

BUCKET = "weights"


class Bucket:
    """A bucket of its own for a test."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[tuple[str, dict[str, Any]]] = []
        client.meta.events.register(
            "provide-client-params.s3", lambda params, model, **_: self.calls.append((model.name, params))
        )

    def put(self, key: str, data: bytes | Path) -> str:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data if isinstance(data, bytes) else data.read_bytes())
        store_of("s3").forget()
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    @property
    def keys(self) -> list[str]:
        return sorted(one["Key"] for one in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []))

    @property
    def unfinished(self) -> list[str]:
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


def save_tower(path: Path, *, rows: int) -> Path:
    random = np.random.default_rng(0)
    arrays = {f"blocks.{number}.w": random.standard_normal((rows, 1024), np.float32) for number in range(2)}
    arrays |= {f"blocks.{number}.b": random.standard_normal(1024, np.float32) for number in range(4)}
    np.savez(path, **arrays, scale=np.float32(3))
    return path
