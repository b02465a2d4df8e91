"""What is wrong in a candidate: its code asks here, at the exact place, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Faults:
    """`planted` says what is wrong by "module:what"; everything else is done right.

    >>> faults = Faults({"blocks.2.attn:scale": "none"})
    >>> faults.below("blocks.2").below("attn")("scale", "head")
    'none'

    `asked` collects every question, so that a fault that nothing asks for can be told.
    """

    planted: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    asked: set[str] = field(default_factory=set)

    def below(self, name: str) -> Faults:
        """The same, seen from a module inside."""
        return Faults(self.planted, f"{self.place}.{name}" if self.place else name, self.asked)

    def __call__(self, what: str, right: Any) -> Any:
        """What is to be done here: `right`, or what is planted."""
        key = f"{self.place}:{what}"
        self.asked.add(key)
        return self.planted.get(key, right)


SOUND = Faults()
