"""What every Config checks before its numbers are computed with: that they are numbers, and which."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

SAID = {
    "int": "a whole number above 0",
    "float": "a finite number",
    "str": "a word",
    "bool": "true or false",
    "int | Size": "a whole number above 0, or two: height and width",
    "int | None": "a whole number above 0, or null",
}


def check_settings(config: Any, of: type | None = None) -> None:
    """Raise ValueError for the first field (of the class `of`, or all) that is not what its annotation says.

    A whole number is above 0, but counts of layers and labels and ids may be 0; an epsilon is not negative. Other annotations than
    those of SAID are left.
    """
    for field in fields(config if of is None else of):
        kind, value = str(field.type), getattr(config, field.name)
        may_be_0 = kind == "int" and field.name.endswith(("_id", "layers", "labels"))
        is_epsilon = field.name.endswith(("_eps", "_epsilon"))
        good = {
            "int": _is_whole(value, 0 if may_be_0 else 1),
            "float": _is_number(value) and (value >= 0 or not is_epsilon),
            "str": isinstance(value, str),
            "bool": isinstance(value, bool),
            "int | Size": _is_whole(value)
            or (isinstance(value, tuple) and len(value) == 2 and all(map(_is_whole, value))),
            "int | None": value is None or _is_whole(value),
        }
        if not good.get(kind, True):
            said = "a whole number that is not negative" if may_be_0 else SAID[kind]
            raise ValueError(
                f"{field.name} is {value!r}: it must be {'a number that is not negative' if is_epsilon else said}"
            )


def _is_whole(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
