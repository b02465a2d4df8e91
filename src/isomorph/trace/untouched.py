"""While a model runs its modules may keep things (caches, counters, statistics). Afterwards they hold what they held before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_CONTAINERS = (dict, list)


@contextmanager
def untouched(modules: Iterable[Any], saved: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """On leaving, every attribute of the modules is what it was, and so are the entries of their plain dicts and lists.

    `saved()` keeps values of tensors that may be overwritten in place, and gives what puts them back.
    """
    before = [(module, vars(module).copy(), _entries(module)) for module in modules]
    restore = saved()
    try:
        yield
    finally:
        for module, attributes, entries in before:
            now = vars(module)
            for name in [name for name in now if name not in attributes]:
                del now[name]
            for name, value in attributes.items():
                if now.get(name) is not value:
                    now[name] = value
            for container, held in entries:
                _put_back(container, held)
        restore()


def _entries(module: Any) -> list[tuple[Any, Any]]:
    """The dicts and lists among a module's attributes, and a copy of each."""
    found = [held for held in vars(module).values() if isinstance(held, _CONTAINERS)]
    return [(held, () if not held else dict(held) if isinstance(held, dict) else list(held)) for held in found]


def _put_back(container: Any, held: Any) -> None:
    if not container and not held:
        return
    if isinstance(container, list):
        if list(map(id, container)) != list(map(id, held)):
            container[:] = held
    elif list(container) != list(held) or list(map(id, container.values())) != list(map(id, held.values())):
        container.clear()
        container.update(held)
