"""A plan as JSON, whole, and back.

What a plan was made from (flat programs, source specs, config, sizes, cast) is written so that it can be made again; what follows
from it (targets, moves, checks) is written so that anyone can read it and carry it out. Reading back makes the plan again and
compares: a file whose moves were edited, or that another version would plan otherwise, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from isomorph.errors import UsageError
from isomorph.language import rules, tree
from isomorph.language.rules import Program
from isomorph.language.tree import Op
from isomorph.plan.moves import Along, Box, Fill, Move, Source
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest, spec

VERSION = 1

_NODES: dict[str, type[Any]] = {
    **{name: kind for name, kind in vars(tree).items() if isinstance(kind, type) and is_dataclass(kind)},
    **{f"rules.{name}": kind for name, kind in vars(rules).items() if isinstance(kind, type) and is_dataclass(kind)},
}
_TAGS = {kind: tag for tag, kind in reversed(_NODES.items())}


def to_json(plan: Plan) -> dict[str, Any]:
    """The whole plan as plain data."""
    return {
        "isomorph_plan": VERSION,
        "digest": plan.digest,
        **programs_to_json(plan),
        "source": {name: str(tensor) for name, tensor in plan.source.items()},
        "shared": [list(names) for names in plan.source.shared],
        "targets": {
            name: {
                "spec": str(target.spec),
                "class": target.klass,
                "rule": plan.rules[target.rule].origin.text,
                "line": plan.rules[target.rule].origin.line,
            }
            for name, target in plan.targets.items()
        },
        "moves": [move_to_json(move) for move in plan.moves],
        "checks": [
            {
                "kind": check.kind,
                "source": _source(check.source),
                "expected": _source(check.expected),
                "operators": [_node(op) for op in check.operators],
            }
            for check in plan.checks
        ],
        "dropped": list(plan.dropped),
        "unmade": list(plan.unmade),
        "warnings": list(plan.warnings),
    }


def from_json(data: Mapping[str, Any]) -> Plan:
    """The plan again, proved again. Raises UsageError when the data is no plan, or not the plan that it says it is."""
    from isomorph.plan.prove import make_plan

    if not isinstance(data, Mapping) or data.get("isomorph_plan") != VERSION:
        raise UsageError(
            "this is no plan of isomorph (version 1): write one with  isomorph plan … -o plan.json --output DST"
        )
    try:
        programs, cast = programs_from_json(data)
        source = Manifest(
            {name: spec(text) for name, text in data["source"].items()},
            shared=tuple(tuple(names) for names in data["shared"]),
        )
        config, sizes, digest = data["config"], data["sizes"], data["digest"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"this plan cannot be read ({type(error).__name__}: {error}): plan again") from None
    plan = make_plan(programs, source, config=config, sizes=sizes, cast=cast)
    if plan.digest != digest:
        raise UsageError("this plan was changed after it was proved, or by another version of isomorph: plan again")
    return plan


def programs_to_json(plan: Plan) -> dict[str, Any]:
    """What a plan was made from, besides its source: flat programs, config, sizes, cast."""
    return {
        "programs": [_node(program) for program in plan.programs],
        "config": dict(plan.config),
        "sizes": dict(plan.sizes),
        "cast": None if plan.cast is None else _node(plan.cast),
    }


def programs_from_json(data: Mapping[str, Any]) -> tuple[tuple[Program, ...], Op | None]:
    """The programs and the cast again. UsageError when they are something else."""
    try:
        programs = tuple(_read(program) for program in data["programs"])
        cast = None if data["cast"] is None else _read(data["cast"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"this plan cannot be read ({type(error).__name__}: {error}): plan again") from None
    if not programs or not all(isinstance(program, Program) for program in programs) or not isinstance(cast, Op | None):
        raise UsageError("this plan cannot be read (its programs are something else): plan again")
    return programs, cast


def move_to_json(move: Move) -> dict[str, Any]:
    found: dict[str, Any] = {"target": _source(move.target), "source": _source(move.source)}
    if move.operators:
        found["operators"] = [_node(op) for op in move.operators]
    return found


def _source(source: Source) -> dict[str, Any]:
    if isinstance(source, Box):
        return {"tensor": source.tensor, "offset": source.offset, "shape": source.shape, "strides": source.strides}
    if isinstance(source, Fill):
        value = source.value
        return {
            "value": str(value),
            "dtype": source.dtype.name,
            "shape": source.shape,
            "arange_strides": source.arange_strides,
        }
    if isinstance(source, Along):
        return {
            "along": _node(source.operator),
            "parts": [move_to_json(part) for part in source.parts],
            "outer": source.outer,
            "before": source.before,
            "after": source.after,
            "offset": source.offset,
            "shape": source.shape,
            "strides": source.strides,
        }
    return {"sum": [_source(inner) for inner in source.sources], "operators": [_node(op) for op in source.operators]}


def _node(value: Any) -> Any:
    """A node of the language as plain data: `{"is": "Axis", "name": "h"}`; spans and defaults are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        found: dict[str, Any] = {"is": _TAGS[type(value)]}
        for each in fields(value):
            if each.name != "span":
                found[each.name] = _node(getattr(value, each.name))
        return found
    if isinstance(value, tuple | list):
        return [_node(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _node(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | bool | float):
        return value
    if isinstance(value, Fraction):
        return str(value)
    raise TypeError(type(value).__name__)


def _read(data: Any) -> Any:
    if isinstance(data, Mapping):
        if "is" in data and data["is"] in _NODES:
            kind = _NODES[data["is"]]
            hints = _hints(data["is"])
            values = {key: _read(value) for key, value in data.items() if key in hints}
            wrong = [key for key, value in values.items() if not _fits(value, hints[key])]
            if wrong:
                raise TypeError(f"{data['is']}: its {wrong[0]} is a {type(values[wrong[0]]).__name__}")
            return kind(**values)
        return {key: _read(value) for key, value in data.items()}
    if isinstance(data, list):
        return tuple(_read(item) for item in data)
    return data


@cache
def _hints(tag: str) -> dict[str, Any]:
    """field -> its type, of a node."""
    hints = get_type_hints(_NODES[tag])
    return {each.name: hints[each.name] for each in fields(_NODES[tag])}


def _fits(value: Any, hint: Any) -> bool:
    """True when a value that was read is of the type that the node's field has."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(item, inner[0]) for item in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(held, inner[1]) for key, held in value.items()
        )
    if hint is Any or hint is object:
        return True
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(hint, type) and isinstance(value, hint)
