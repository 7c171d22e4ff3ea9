"""docs/faults.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| [^|]+ \| [^|]+ \| `([\w/]+\.py)::(\w+)` \|$", re.MULTILINE)


def test_every_row_has_a_test_that_exists() -> None:
    text = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| fault ")]
    assert len(rows) == len(lines) >= 60, "a row that is not: fault, promise, test"
    assert len({*rows}) >= 60
    trees = {file: ast.parse((TESTS / file).read_text(encoding="utf-8")) for file in {file for file, _ in rows}}
    for file, name in rows:
        tree = trees[file]
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"no {name} in {file}"
