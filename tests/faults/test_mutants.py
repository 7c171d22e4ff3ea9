"""A small slice of `python -m benchmarks mutants`: damaged inputs end with documented exit codes and leave nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs Linux: fork, limits on memory, a choice of cores"
)
def test_damaged_inputs_end_as_documented(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks", "mutants", "-o", str(tmp_path), "--count", "50", "--seed", "9"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    outcomes = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    bad = [each for each in outcomes if each["code"] not in range(2, 11) and each["code"] != 0]
    assert (done.returncode, bad) == (0, []), done.stdout + done.stderr
    assert len(outcomes) >= 50  # shares of the kinds are rounded
    assert {each["code"] for each in outcomes} >= {0, 3, 7}, "damage is both survived and refused"
