from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lipdub.cli import console
from lipdub.errors import InputError
from lipdub.events import Done, Job, Plan, Progress, Stage, Warning_, duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Report:
    output: Path
    rate: Fraction
    fps: np.float32
    counts: dict[str, int]
    loss: float
    boxes: np.ndarray


REPORT = Report(Path("ä.mp4"), Fraction(30000, 1001), np.float32(24.5), {"no face": 3}, math.nan, np.array([1, 2]))


def run(clock: Clock, *, n_frames: int = 100, fps: float = 8.0, **options: bool) -> None:
    with console.progress(clock=clock, **options) as on_event:
        on_event(Stage("read", 1, 2, None))
        clock.now += 1.0
        on_event(Stage("dub", 2, 2, n_frames))
        for done in range(1, n_frames + 1):
            clock.now += 1 / fps
            if done == 30:
                on_event(Warning_("length", "the dub is\nlonger"))
            on_event(Progress(done))
        on_event(Done(REPORT))


def test_plain_lines_come_every_five_seconds_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    run(Clock())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "[1/2] read",
        "[1/2] read  0:01",
        "[2/2] dub",
        "warning: the dub is longer",
        "[2/2] dub  40/100  8.0 fps  0:08 left",
        "[2/2] dub  80/100  8.0 fps  0:02 left",
        "[2/2] dub  100 frames, 8.0 fps, 0:12",
    ]


def test_what_an_earlier_run_finished_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with console.progress(clock=clock) as on_event:
        on_event(Stage("batch", 1, 1, 100, "videos", 90))
        clock.now += 10
        on_event(Progress(95))
        on_event(Done(None))
        on_event(Stage("batch", 1, 1, 2, "videos", 2))
        on_event(Progress(2))
        on_event(Done(None))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "[1/1] batch  95/100  0.5 videos/s  0:10 left"
    assert lines[-1] == "[1/1] batch  2 videos, 0:00"


def test_units_other_than_frames_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with console.progress(clock=clock) as on_event:
        on_event(Stage("clips", 1, 1, None, "clips"))
        clock.now += 8
        on_event(Progress(4))
        on_event(Done(None))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["[1/1] clips  4  0.5 clips/s", "[1/1] clips  4 clips, 0.5 clips/s, 0:08"]


def test_quiet_shows_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    run(Clock(), quiet=True)
    assert capsys.readouterr() == ("", "warning: the dub is longer\n")


def test_json_lines_are_typed_thinned_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    run(Clock(), json_lines=True)
    out, err = capsys.readouterr()
    assert err == "" and out.isascii()
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0] == {"type": "start", "schema": 1}
    assert events[2] == {
        "type": "stage",
        "name": "dub",
        "index": 2,
        "count": 2,
        "total": 100,
        "unit": "frames",
        "before": 0,
    }
    assert {"type": "warning", "code": "length", "message": "the dub is\nlonger"} in events
    steps = [event["done"] for event in events if event["type"] == "progress"]
    assert steps[0] == 1 and steps[-1] == 100  # the last one is never thinned out
    assert steps[1:-1] == [*range(5, 100, 4)]  # one each 0.5 s
    assert events[-1] == {
        "type": "done",
        "report": {
            "output": "ä.mp4",
            "rate": "30000/1001",
            "fps": 24.5,
            "counts": {"no face": 3},
            "loss": None,
            "boxes": [1, 2],
        },
    }


def test_an_error_becomes_the_last_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError), console.progress(json_lines=True):
        raise InputError("no audio", "give one")
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"type": "error", "code": 3, "what": "no audio", "remedy": "give one"}


def test_a_plan_ends_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    for json_lines in (False, True):
        with console.progress(clock=Clock(), json_lines=json_lines) as on_event:
            on_event(Stage("faces", 1, 1, 5))
            on_event(Progress(5))
            on_event(Plan({"frames": 5}))
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "[1/1] faces  5 frames, 0:00"
    assert json.loads(out.splitlines()[-1]) == {"type": "plan", "plan": {"frames": 5}}


def test_a_terminal_gets_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "is_fancy", lambda stream: True)
    run(Clock())
    out, err = capsys.readouterr()
    assert out == ""
    assert "warning: the dub is longer" in err
    assert "[2/2] dub" in err and "100/100  8.0 fps" in err


def test_jobs_of_a_batch_are_a_table_in_a_terminal_and_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def batch(clock: Clock) -> str:
        with console.progress(clock=clock) as on_event:
            on_event(Stage("batch", 1, 1, 3, "videos"))
            for number, state in enumerate(("done", "failed")):
                on_event(Job(f"/films/{number}.mp4", "running"))
                clock.now += 10
                on_event(Job(f"/films/{number}.mp4", state, 250 if state == "done" else 0, 10.0))
                on_event(Progress(number + 1))
            on_event(Job("/films/2.mp4", "running"))
            clock.now += 3
        return capsys.readouterr().err

    lines = batch(Clock()).splitlines()
    assert "/films/0.mp4: 250 frames, 0:10, 25.0 fps" in lines and not any("1.mp4" in line for line in lines)
    monkeypatch.setattr(console, "is_fancy", lambda stream: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    last = batch(Clock()).split("output")[-1]  # the table as it was drawn last
    rows = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).split() for line in last.splitlines()]
    assert [row for row in rows if row and row[0].endswith(".mp4")] == [
        ["2.mp4", "running", "0:03"],
        ["1.mp4", "failed", "0:10"],
        ["0.mp4", "done", "250", "0:10", "25.0"],
    ]
    assert any("2/3" in row for row in rows)


@pytest.mark.parametrize(
    ("terminal", "environment", "fancy"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),  # https://no-color.org: only if not empty
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_bars_need_a_terminal_that_wants_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], fancy: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    class Stream:
        def isatty(self) -> bool:
            return terminal

    assert console.is_fancy(Stream()) is fancy


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("NAME", "KIND"), [("a", "long kind"), ("longer", "x")])
    assert capsys.readouterr().out == "NAME    KIND\na       long kind\nlonger  x\n"


def test_a_grid_is_drawn_in_a_terminal_and_plain_elsewhere(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("judged", "3 of 3"), ("PSNR [dB]", "27.52 [26.60, 28.44]")]
    console.grid("own sound", ("", "generator"), rows)
    assert capsys.readouterr().out.splitlines() == [
        "own sound",
        "           generator",
        "judged     3 of 3",
        "PSNR [dB]  27.52 [26.60, 28.44]",
    ]
    monkeypatch.setattr(console, "is_fancy", lambda stream: True)
    console.grid("own sound", ("", "generator"), rows)
    out = capsys.readouterr().out
    assert out.startswith("own sound\n") and "┃" in out and "27.52 [26.60, 28.44]" in out
    monkeypatch.setenv("COLUMNS", "30")
    console.grid("own sound", ("", "generator"), rows)
    out = capsys.readouterr().out
    assert "27.52 │" in out and "│ [26.60, 28.44] │" in out and "│ PSNR [dB] │" in out
