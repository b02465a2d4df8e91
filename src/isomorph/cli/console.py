"""What is printed, and how: text or JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from isomorph.describe.text import escaped_lines


def print_lines(lines: Iterable[str]) -> None:
    """Lines on stdout, whole: nothing is cut to a width, and nothing in them is obeyed by a terminal."""
    write = sys.stdout.write
    for line in lines:
        write(escaped_lines(line) + "\n")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")
