"""What a proof of some targets alone takes: tensors of the source, and which of those between the stages of a chain go further.

    targets ──last stage──▶ their instances ──▶ what these take ──stage before──▶ the instances that make it ──▶ … ──▶ sources

An instance takes all its tensors or none, so a stage makes tensors that the next was not asked for: these are left aside there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isomorph.plan.plan import Plan


@dataclass(frozen=True)
class Need:
    """`sources` prove some targets by themselves; of what stage k + 1 makes of them, `through[k]` goes further (None: all)."""

    sources: tuple[str, ...]
    through: tuple[tuple[str, ...] | None, ...]


class Needs:
    """The same question of one plan, asked for many sets of targets."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._makers = [
            {name: number for number, link in enumerate(links) for name in link.targets} for links in plan.before
        ]
        self._unasked = [[number for number, link in enumerate(links) if not link.sources] for links in plan.before]
        """Instances that take nothing (a constant that is written): they are there in every proof."""

    def of(self, names: Iterable[str], *, and_checks: bool) -> Need:
        """What these targets need. `and_checks`: and what no target is made of and is only checked."""
        plan = self.plan
        asked = dict.fromkeys(plan.targets[name].instance for name in names)
        if and_checks:
            asked.update((number, None) for number, one in enumerate(plan.instances) if not one.targets)
        needed = {name: None for number in asked for name in plan.instances[number].sources}
        through: list[tuple[str, ...] | None] = []
        for stage in reversed(range(len(plan.before))):
            links, makers = plan.before[stage], self._makers[stage]
            numbers = dict.fromkeys(makers[name] for name in needed)
            numbers.update(dict.fromkeys(self._unasked[stage]))
            if and_checks:
                numbers.update(dict.fromkeys(self._only_checked[stage]))
            is_all = all(name in needed for number in numbers for name in links[number].targets)
            through.append(None if is_all else tuple(needed))
            needed = {name: None for number in numbers for name in links[number].sources}
        return Need(tuple(needed), tuple(reversed(through)))

    @cached_property
    def _only_checked(self) -> list[list[int]]:
        """For every stage but the last, the instances of which something is checked, and that lead to no target."""
        before = self.plan.before
        if not any(link.is_checked for links in before for link in links):
            return [[] for _ in before]
        found: list[list[int]] = []
        needed = {name for one in self.plan.instances for name in one.sources}
        for links in reversed(before):
            reached = [not needed.isdisjoint(link.targets) for link in links]
            found.append([number for number, link in enumerate(links) if link.is_checked and not reached[number]])
            needed = {
                name for link, is_reached in zip(links, reached, strict=True) if is_reached or link.is_checked
                for name in link.sources
            }  # fmt: skip
        return found[::-1]
