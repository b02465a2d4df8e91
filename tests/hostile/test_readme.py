"""The table of threats is true: each row has tests, and they exist; and no test of this project can be left out silently."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TEXT = (HERE / "README.md").read_text(encoding="utf-8")
ROWS = {*range(1, 47)}
SKIPPING = {
    "skip",
    "skipif",
    "xfail",
    "importorskip",
    "SkipTest",
    "skipTest",
    "skipUnless",
    "skipIf",
    "expectedFailure",
    "collect_ignore",
}


@cache
def defined(path: Path) -> frozenset[str]:
    """The functions of a test file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_row_has_tests_and_they_exist() -> None:
    rows = {
        int(cells[1]): re.findall(r"`([^`]+\.py)::(\w+)`", cells[3])
        for line in TEXT.splitlines()
        if (cells := line.split("|"))[1:] and cells[1].strip().isdigit()
    }
    assert rows.keys() == ROWS
    assert [row for row, tests in rows.items() if not tests] == []
    named = re.findall(r"`([^`]+\.py)::(\w+)`", TEXT)
    assert len(named) == TEXT.count("::")
    missing = [f"{file}::{test}" for file, test in named if test not in defined((HERE / file).resolve())]
    assert missing == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    """A test that cannot run here fails here."""
    found = []
    for path in sorted(HERE.parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            word = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if word in SKIPPING:
                found.append(f"{path.relative_to(HERE.parent)}:{node.lineno} {word}")  # type: ignore[attr-defined]
    assert found == []
