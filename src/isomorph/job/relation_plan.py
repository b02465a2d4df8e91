"""Relations between two models' state dicts -> a plan, without the text of a morph: what a bridge carries values over by."""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.infer.factor.relation import moves_of
from isomorph.infer.nouns import Filled, Part, Relation
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan, Target
from isomorph.tensors import DType, Manifest, TensorSpec, dtype


def plan_of(relations: Sequence[Relation], manifest: Manifest) -> Plan:
    """The plan that these relations are, on a manifest that holds what they read. Raises ValueError for one that is no bijection.

    It holds moves and targets alone: what a bridge reads. Targets have the dtype of what they are made of; copies are not checked.
    """
    targets: dict[str, Target] = {}
    moves: list[Move] = []
    for one in relations:
        made = {name: TensorSpec(dtype_made(one, manifest), one.shape(part)) for part in one.right
                if isinstance(part, Part) for name in part.every}  # fmt: skip
        moves += moves_of(one, manifest, made)
        targets.update({name: Target(name, spec, "exact", 0, 0) for name, spec in made.items()})
    return Plan(manifest, targets, tuple(moves), (), (), ())


def dtype_made(relation: Relation, manifest: Manifest) -> DType:
    """The dtype of what a relation makes: its constants' or its sources', after its casts."""
    kinds = [manifest[name].dtype for name in relation.sources]
    kinds += [one.dtype for one in relation.left if isinstance(one, Filled) and one.dtype is not None]
    found = kinds[0] if kinds else dtype("f32")
    for op in relation.operators:
        if op.name == "cast" and op.target is not None:
            found = dtype(op.target)
    return found
