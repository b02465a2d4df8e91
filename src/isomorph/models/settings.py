"""What every Config checks before its numbers are computed with: that they are numbers, and which."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

SAID = {
    "int": "a whole number above 0",
    "float": "a number that is not negative",
    "str": "a word",
    "bool": "true or false",
}


def check_settings(config: Any, of: type | None = None) -> None:
    """Raise ValueError for the first field (of the class `of`, or all) that is not what its annotation says.

    A whole number is above 0, but counts of layers and labels and ids may be 0; other annotations than those of SAID are left.
    """
    for field in fields(config if of is None else of):
        kind, value = str(field.type), getattr(config, field.name)
        least = 0 if field.name.endswith(("_id", "layers", "labels")) else 1
        good = {
            "int": isinstance(value, int) and not isinstance(value, bool) and value >= least,
            "float": isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf,
            "str": isinstance(value, str),
            "bool": isinstance(value, bool),
        }
        if not good.get(kind, True):
            said = "a whole number that is not negative" if kind == "int" and least == 0 else SAID[kind]
            raise ValueError(f"{field.name} is {value!r}: it must be {said}")
