"""What configs and names say of attention: how wide a head may be, and whether positions are rotated into queries and keys."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isomorph.infer.by_name.tokens import words
from isomorph.tensors import Manifest

HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
)
GROUPS = (
    "num_key_value_heads",
    "n_kv_heads",
    "n_query_groups",
    "num_query_groups",
    "num_kv_heads",
    "multi_query_group_num",
    "n_head_kv",
)
HEAD_DIM = ("head_dim", "d_kv", "kv_channels", "head_size", "d_head", "attention_head_dim", "dim_head")
ROTARY = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rotary_pct",
    "rotary_dim",
    "rotary_emb_base",
    "rope_base",
    "partial_rotary_factor",
)
USUAL = (64, 128, 32, 80, 96, 256, 16, 48, 72, 112, 160, 192, 40, 24, 20, 12, 8, 4, 2)
"""Widths of a head in the models of the field, the usual ones first."""
MOST_WIDTHS = 8
POSITIONS = frozenset(
    {"position", "positional", "positions", "pos", "wpe", "posembed", "relpos", "relative", "rel", "alibi"}
)
NO_POSITIONS = frozenset({"ids", "index", "rope", "rotary", "freqs", "coords"})
ROTATES = frozenset({"rope", "rotary", "freqs", "freq", "inv_freq"})
ATTENTION = frozenset({"q", "k", "query", "key", "qkv", "wq", "wk", "in", "attn", "attention"})
_INDEX = re.compile(r"(?<![^./_])\d+(?![^./_:])")


@dataclass(frozen=True)
class Facts:
    """`heads`, `groups` (of keys and values) and `widths` are what configs state of heads; `rotary`: positions may be rotated into
    q and k."""

    heads: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    rotary: bool = True
    lengths: frozenset[int] = frozenset()
    """The sizes of all dims: queries are as wide as what projects their sum back."""

    def head_dims(self, rows: Iterable[int], *, even: bool = False) -> tuple[int, ...]:
        """What the width of a head may be, where these are the rows of queries (the first), keys and values."""
        several = list(rows)
        common = math.gcd(*several)
        stated = [*self.widths, *(several[0] // heads for heads in self.heads if several[0] % heads == 0)]
        found = [width for width in dict.fromkeys(stated) if width and common % width == 0]
        if not found:
            found = [width for width in USUAL if common % width == 0 and (width < several[0] or common < several[0])]
        return tuple([width for width in found if not even or width % 2 == 0][:MOST_WIDTHS])

    def groupings(self, rows: int) -> tuple[tuple[int, int], ...]:
        """What the width of a head and the number of groups may be, where these are the rows of queries, keys and values together
        and a group has several queries."""
        found: list[tuple[int, int]] = []
        likely: list[tuple[int, int]] = []
        for width in self.widths or USUAL:
            total = rows // width
            if rows % width == 0 and total > 3:
                stated = [
                    *self.groups,
                    *((total - heads) // 2 for heads in self.heads if total > heads and (total - heads) % 2 == 0),
                ]
                for groups in dict.fromkeys(stated or range(1, total // 4 + 1)):
                    if groups and total % groups == 0 and total // groups > 3:
                        is_known = (total - 2 * groups) * width in self.lengths
                        (likely if is_known else found).append((width, groups))
        is_equal = (
            rows % 3 == 0 and rows // 3 in self.lengths
        )  # as many keys as queries: then a coincidence is not looked for
        return tuple((likely if likely or is_equal else found)[:MOST_WIDTHS])


def facts_of(source: Manifest, target: Manifest, configs: Sequence[Mapping[str, Any] | None]) -> Facts:
    """The facts of two sides and their configs."""
    stated = [pair for config in configs if config for pair in _flat(config)]
    rotates = any(key in ROTARY for key, _ in stated)
    return Facts(
        _stated(HEADS, stated),
        _stated(GROUPS, stated),
        _stated(HEAD_DIM, stated),
        rotates or not all(_has_positions(side) for side in (source, target)),
        frozenset(size for side in (source, target) for spec in side.values() for size in spec.shape),
    )


def _stated(keys: Sequence[str], stated: Sequence[tuple[str, Any]]) -> tuple[int, ...]:
    found = (value for key in keys for name, value in stated if name == key and type(value) is int and value > 0)
    return tuple(dict.fromkeys(found))


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    pending: list[Mapping[str, Any]] = [config]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, Mapping):
                pending.append(value)
            elif value is not None:
                yield key, value


def _has_positions(manifest: Manifest) -> bool:
    """Whether every stack of layers with attention has learned positions of its own, and nothing is named for rotation."""
    positions: set[str] = set()
    stacks: set[str] = set()
    for name in manifest:
        found = frozenset(words(name))
        if found & ROTATES:
            return False
        index = _INDEX.search(name)
        if found & POSITIONS and not found & NO_POSITIONS:
            positions.add(_INDEX.sub("", name))
        if index and found & ATTENTION:
            stacks.add(name[: index.start()])
    return len(positions) >= max(1, len(stacks))
