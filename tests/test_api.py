"""The Python API, as a user writes against it."""

from __future__ import annotations

import os
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path

import pytest

import lipdub

ROOT = Path(__file__).parents[1]
USER = """
from pathlib import Path

import lipdub
from lipdub.errors import LipdubError, NoFaceError
from lipdub.events import Event, Progress


def show(event: Event) -> None:
    if isinstance(event, Progress):
        print(event.done)


def dub(video: Path) -> list[str]:
    anna = lipdub.Speaker(face="id:0", sound=Path("anna.wav"), turns=((0.0, 5.0),))
    options = lipdub.SyncOptions(face=(12.0, 30.0), speakers=(anna,), overwrite=True, compare=Path("side.mp4"))
    config = lipdub.load_config(None, ["face.min_face=40"])
    people = lipdub.list_faces(video, on_event=show)
    expected: int = lipdub.plan(video, "dub.wav", "out.mp4", options).dubbed
    try:
        report = lipdub.sync(video, "dub.wav", "out.mp4", options, config=config, on_event=show)
    except NoFaceError as error:
        return [error.what, error.remedy]
    except LipdubError:
        raise
    reveal_type(report)
    return [f"{report.dubbed} of {expected}", *report.warnings, *(str(face.id) for face in people.faces)]
"""


def test_sync_and_plan_take_the_same_arguments() -> None:
    sync, plan = signature(lipdub.sync), signature(lipdub.plan)
    assert sync.parameters == plan.parameters
    assert [*sync.parameters] == ["video", "audio", "output", "options", "config", "on_event"]
    assert [p.name for p in sync.parameters.values() if p.kind is Parameter.KEYWORD_ONLY] == ["config", "on_event"]
    assert (sync.return_annotation, plan.return_annotation) == ("SyncReport", "SyncPlan")


@pytest.mark.slow
def test_a_user_s_file_passes_mypy_strict(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "user.py"]
    variables = os.environ | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "lipdub.dub.report.SyncReport"' in done.stdout
