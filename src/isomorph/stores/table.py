"""scheme -> the store, made when it is first used. The library it needs is an extra."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING

from isomorph.errors import MissingExtra

if TYPE_CHECKING:
    from isomorph.stores.base import Store

STORES = {
    "s3": ("isomorph.stores.s3:S3", "s3"),
    "gs": ("isomorph.stores.gcs:Google", "gcs"),
    "hf": ("isomorph.stores.hub:Hub", "hub"),
    "https": ("isomorph.stores.web:Web", ""),
    "http": ("isomorph.stores.web:Web", ""),
}
_made: dict[str, Store] = {}
_lock = threading.Lock()


def store_of(scheme: str) -> Store:
    """The store of that scheme. MissingExtra where its library is not installed."""
    with _lock:
        if scheme not in _made:
            where, extra = STORES[scheme]
            module, _, name = where.partition(":")
            try:
                made: Store = getattr(importlib.import_module(module), name)()
            except ImportError as error:
                if not extra or (error.name or "").startswith("isomorph"):
                    raise
                raise MissingExtra(f"{scheme}://", extra) from None
            _made[scheme] = made
        return _made[scheme]


def forget_stores() -> None:
    """Make the stores anew: the environment they were made in has changed."""
    with _lock:
        for made in _made.values():
            made.close()
        _made.clear()
    from isomorph.stores.http import close_connections

    close_connections()
