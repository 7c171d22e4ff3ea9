from __future__ import annotations

import sys
from dataclasses import replace
from io import StringIO

import pytest

from lipdub.cli.train import watching
from lipdub.training.run import TrainProgress

PROGRESS = TrainProgress(
    step=1200,
    steps=20_000,
    share=0.06,
    losses={"l1": 0.04321, "mask": 0.5},
    clips_per_s=8.25,
    wait=0.0123,
    left_s=3725.0,
    skipped=2,
)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(sys, "stderr", made := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return made


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watching() as (say, show):
        say("continuing at step 7")
        show(PROGRESS)
        show(replace(PROGRESS, left_s=None, skipped=0))
    told = capsys.readouterr()
    pace = "8.2 clips/s, 1.2 % waited"
    losses = "step 1,200 of 20,000 (6.0 %): l1 0.04321  mask 0.5"
    assert told.err.splitlines() == [
        "continuing at step 7",
        f"{losses}  {pace}, 1:02:05 left, 2 steps skipped",
        f"{losses}  {pace}",
    ]
    assert told.out == ""


def test_in_a_terminal_a_table_is_kept_up_to_date_below_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with watching() as (say, show):
        say("[12] clips to train on")
        show(PROGRESS)
        show(replace(PROGRESS, step=1300, losses={"l1": 0.01}))
        say("validate 1300: val_l1 0.1")
    told = terminal.getvalue()
    assert told.startswith("[12] clips to train on")
    assert "1,200 of 20,000 (6.0 %)" in told and "1:02:05 left" in told and "2 steps skipped" in told
    again = told[told.index("1,300 of") :]
    assert "0.01" in again and "mask" not in again  # what was there is replaced
    assert "\x1b[1A" in told  # the cursor goes up: the same lines are written anew
    assert "validate 1300: val_l1 0.1" in again


def test_a_process_that_has_nothing_to_show_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with watching():
        pass
    assert "┌" not in terminal.getvalue() and "step" not in terminal.getvalue()
