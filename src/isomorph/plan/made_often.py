"""A frozen dataclass for what a plan holds a million of: type checkers see that it is frozen, and making one takes a third."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as made_often
else:
    from dataclasses import dataclass

    def made_often(*, frozen: bool, slots: bool) -> object:
        """The same, without the `__setattr__` that a frozen one calls for each field; equality and hashes as there."""
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["made_often"]
