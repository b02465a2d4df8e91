"""Correspondence: which source tensors make which target tensors, as far as names and shapes say. Plain data; no axes yet.

Bundle   tensors of one class along its stacked indices (mostly one tensor)
Link     source bundles that together hold the elements of target bundles: one instance, of one layer say
Match    the links of a class: one for every layer, expert, …
Choice   what the names leave open: several ways to make these targets, one of which is right
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Bundle:
    """Tensors of one class that go together into one link, row-major along their indices: `("e.0.w", "e.1.w")` when experts are
    stacked on the other side, else one name. `extents` are the sizes of these indices: `()` for one name, `(8,)` for eight experts,
    `(4, 2)` for stages x blocks. `role` is what the vocabulary of the field calls it in its context (`query`, `gate`), or ""."""

    names: tuple[str, ...]
    extents: tuple[int, ...] = ()
    role: str = ""
    copies: tuple[str, ...] = ()
    """Further tensors that hold the same values as `names[0]`: a norm in the files of all ranks."""


@dataclass(frozen=True, slots=True)
class Link:
    """The elements of `sources` are those of `targets`. One bundle on each side: a copy, transposed or reshaped maybe, or a stack.
    Several on one side: fused, split; their order inside the fused tensor is not said (bundles stand in order of role, then name).

    `surplus` is the number of source elements less the number of target elements: 0, or the padding that one side has
    (vocabulary rows; a bias that one side leaves out).
    """

    sources: tuple[Bundle, ...]
    targets: tuple[Bundle, ...]
    surplus: int = 0

    @property
    def source_names(self) -> Iterator[str]:
        """The names of all its sources."""
        return (name for bundle in self.sources for name in (*bundle.names, *bundle.copies))

    @property
    def target_names(self) -> Iterator[str]:
        """The names of all its targets."""
        return (name for bundle in self.targets for name in (*bundle.names, *bundle.copies))


@dataclass(frozen=True)
class Match:
    """One class of the target and what makes it: a link for every value of the indices that both sides count.

    `key` is the target class's template, `{}` in the place of indices (several templates, for a split, are joined by `, `).
    `score` is the evidence, a sum of log-likelihood ratios; `why` says it in words.
    """

    key: str
    links: tuple[Link, ...]
    score: float = 0.0
    why: str = ""

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """All source names."""
        return tuple(name for link in self.links for name in link.source_names)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """All target names."""
        return tuple(name for link in self.links for name in link.target_names)


@dataclass(frozen=True)
class Choice:
    """Targets that can be made in several ways. Each option is a tuple of matches, together: two norms of one shape without telling
    names have two options of two matches each (four with their biases). The truth is one of the options."""

    key: str
    options: tuple[tuple[Match, ...], ...]
    why: str = ""
    likely: int | None = None

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """All target names that any option makes."""
        return tuple(dict.fromkeys(name for option in self.options for match in option for name in match.targets))


@dataclass(frozen=True)
class Correspondence:
    """What names and shapes say. A target is in a match (certain), in a choice, or unplaced; never in two of them."""

    matches: tuple[Match, ...]
    choices: tuple[Choice, ...] = ()
    unused: tuple[str, ...] = ()
    """Sources in no match and in no option."""
    unplaced: tuple[str, ...] = ()
    """Targets that no source can make, as far as names and shapes say."""
    notes: tuple[str, ...] = ()
