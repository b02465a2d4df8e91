"""A side -> which module owns which names of the state dict, and which modules a run called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from isomorph.trace.nouns import Capture, ModuleFacts
from isomorph.trace.protocol import Side


def owner_of(modules: Mapping[str, ModuleFacts]) -> dict[str, str]:
    """State-dict name -> the module whose own it is."""
    return {name: module.name for module in modules.values() for name in module.own}


@dataclass(frozen=True)
class Owners:
    """Of one side. `mapped` are the names of its state dict that the morph pairs with a name of the other side's."""

    modules: Mapping[str, ModuleFacts]
    mapped: frozenset[str]
    called: frozenset[str]

    @staticmethod
    def of(side: Side, seen: Capture, mapped: Collection[str]) -> Owners:
        return Owners(side.modules(), frozenset(mapped), frozenset(call.module for call in seen.began))

    @cached_property
    def owner(self) -> Mapping[str, str]:
        """State-dict name -> the module whose own it is."""
        return owner_of(self.modules)

    @cached_property
    def below(self) -> Mapping[str, frozenset[str]]:
        """Module -> the mapped names of its own and of all below it."""
        found: dict[str, frozenset[str]] = {}

        def walk(name: str) -> frozenset[str]:
            if name not in found:
                found[name] = frozenset()  # a module that holds itself
                facts = self.modules[name]
                parts = [walk(child) for child in facts.children if child in self.modules]
                found[name] = frozenset(one for one in facts.own if one in self.mapped).union(*parts)
            return found[name]

        for name in self.modules:
            walk(name)
        return found

    @cached_property
    def whole(self) -> frozenset[str]:
        """Modules that own all the mapped names below them themselves, have some, and were called."""
        return frozenset(
            name
            for name, names in self.below.items()
            if names and name in self.called and names <= set(self.modules[name].own)
        )

    @cached_property
    def wide(self) -> tuple[str, ...]:
        """Called modules with mapped names below them, but the model itself, in the order of definition."""
        return tuple(name for name in self.modules if name and name in self.called and self.below[name])
