"""A dub that is stopped anywhere: the old output is whole, nothing lies about, the next run makes the same file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

KILLED = Path(__file__).parent / "killed.py"
N = 20  # places over a run at which it is stopped
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
FACE = (50, 30, 56)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and a choice of cores")


def one_core() -> None:
    """A library that sees several cores starts threads, which do not survive a fork."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@pytest.fixture
def kill(face_clip, speech, generator_file: Path, tmp_path: Path):
    """Stop dubs at some of N places; what was found after each."""

    def run(number: signal.Signals, points: list[int]) -> list[dict]:
        video, audio = face_clip(lambda frame: [FACE], languages=("eng",)), speech()
        (tmp_path / "runs").mkdir()
        words = [tmp_path / "runs", video, audio, generator_file, int(number), N, *points]
        done = subprocess.run(
            [sys.executable, str(KILLED), *map(str, words)],
            env=os.environ | {"PYTHONPATH": str(KILLED.parents[2]), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            preexec_fn=one_core,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return run


def losses(number: signal.Signals, each: dict) -> list[str]:
    """What one stopped run, and the one after it, did that they should not have done."""
    promises = {
        f"exit code {each['code']}": each["code"] == CODES[number],
        f"the old output is {each['kept']}": each["kept"] == "old" or (each["kept"] == "new" and each["point"] == N),
        # nobody cleans up after a kill but the next run; until then what lies there is hidden
        f"left {each['left']}": all(number is signal.SIGKILL and name.startswith(".") for name in each["left"]),
        f"again: exit code {each['again']}": each["again"] == 0,
        "again: another file": each["same"],
        f"again: left {each['left_again']}": each["left_again"] == [],
    }
    return [what for what, kept in promises.items() if not kept]


@pytest.mark.parametrize(
    ("number", "points"),
    [(signal.SIGINT, [4, 12, 19]), (signal.SIGTERM, [6, 18]), (signal.SIGKILL, [9, 15, 19])],
    ids=["INT", "TERM", "KILL"],
)
def test_a_stopped_run_costs_nothing(kill, number: signal.Signals, points: list[int]) -> None:
    found = kill(number, points)
    assert [(each["point"], losses(number, each)) for each in found] == [(point, []) for point in points]
    if number is signal.SIGKILL:
        assert all(each["left"] for each in found), "a kill in the middle of a dub leaves what the next run clears away"


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=["INT", "TERM", "KILL"])
def test_wherever_it_is_stopped(kill, number: signal.Signals) -> None:
    points = list(range(1, N + 1))
    found = kill(number, points)
    assert [(each["point"], losses(number, each)) for each in found] == [(point, []) for point in points]
