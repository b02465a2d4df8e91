"""Every planted fault, family by family, and those that are none: equivalent mutants, with the reason."""

from __future__ import annotations

import functools
from collections import Counter

from benchmarks.faults.faults_bert import bert
from benchmarks.faults.faults_clip import clip
from benchmarks.faults.faults_paddle import paddle
from benchmarks.faults.faults_t5 import t5
from benchmarks.faults.faults_vit import vit
from benchmarks.faults.faults_vit_kernels import kernels
from benchmarks.faults.planted import Fault


@functools.cache
def all_faults() -> tuple[Fault, ...]:
    """All of them, each under its own id."""
    found = tuple(fault for family in (clip, vit, kernels, bert, t5, paddle) for fault in family())
    if len({fault.id for fault in found}) != len(found):
        raise ValueError("two faults have one id")
    return found


@functools.cache
def some_faults() -> tuple[Fault, ...]:
    """What is traced unless all are asked for: of each family every kind of fault once, at the depth taken least so far."""
    kinds: dict[tuple[str, str], list[Fault]] = {}
    for fault in all_faults():
        kinds.setdefault((fault.family, fault.equivalent or fault.kinds[0]), []).append(fault)
    taken: Counter[tuple[str, str]] = Counter()
    chosen = set()
    for (family, _), faults in kinds.items():
        one = min(faults, key=lambda fault: taken[family, fault.depth])
        taken[family, one.depth] += 1
        chosen.add(one.id)
    return tuple(fault for fault in all_faults() if fault.id in chosen)
