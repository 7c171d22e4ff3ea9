from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.data.store import read_manifest

runner = CliRunner()


@pytest.fixture
def source(face_clip: Callable[..., Path], fake_faces: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of two speakers, a second each, for a backend that sees bright squares."""
    monkeypatch.setattr("lipdub.faces.choose.builtin_backend", lambda *_: fake_faces())
    for name in ("anna", "ben"):
        (tmp_path / "source" / name).mkdir(parents=True)
        face_clip(lambda number: [(50, 30, 60)], f"source/{name}/a.mp4", n_frames=25, languages=["eng"])
    return tmp_path / "source"


def test_prepare_makes_a_data_set_and_tells_its_counts(source: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["prepare", str(source), "-o", str(tmp_path / "data"), "--side", "48"])
    assert result.exit_code == 0, result.stderr
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines())
    assert (rows["side"], rows["files"]) == ("48", "2")
    assert rows["minutes"] == "0.03"
    assert "2/2 files, 2 clips" in result.stderr
    assert {e.speaker for e in read_manifest(tmp_path / "data")[0]} == {"anna", "ben"}


def test_a_table_names_the_speakers(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "speakers.tsv"
    table.write_text("path\tspeaker\nanna/a.mp4\tzoe\n")
    arguments = ["prepare", str(source), "-o", str(tmp_path / "data"), "--speakers", str(table), "--keep-offset"]
    assert runner.invoke(app, arguments).exit_code == 0
    assert {e.speaker for e in read_manifest(tmp_path / "data")[0]} == {"zoe", "ben"}


def test_shards_are_a_data_set_of_their_own(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="needs the extra shards")
    arguments = ["prepare", str(source), "-o", str(tmp_path / "data"), "--side", "48", "--shards", "5"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert f"2 shards in {tmp_path / 'data' / 'shards'}" in result.stderr
    assert read_manifest(tmp_path / "data" / "shards") == read_manifest(tmp_path / "data")


def test_shards_without_webdataset_are_refused_before_anything_is_made(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipdub.data.shards.find_spec", lambda name: None)
    result = runner.invoke(app, ["prepare", str(source), "-o", str(tmp_path / "data"), "--shards", "5"])
    assert result.exit_code == 6
    assert 'pip install "lipdub[shards]"' in result.stderr
    assert not (tmp_path / "data").exists()


def test_other_settings_for_the_same_folder_are_refused(source: Path, tmp_path: Path) -> None:
    arguments = ["prepare", str(source), "-o", str(tmp_path / "data"), "--side"]
    assert runner.invoke(app, [*arguments, "48"]).exit_code == 0
    result = runner.invoke(app, [*arguments, "64"])
    assert result.exit_code == 3
    assert "clip.side = 48, not 64" in result.stderr
    assert "--output" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["{empty}", "-o", "{out}"], 3, "no video below"),
        (["{empty}/absent", "-o", "{out}"], 3, "no video below"),
        (["{empty}", "-o", "{out}", "--set", "face.sice=3"], 3, "sice"),
        (["{empty}"], 2, "--output"),
        (["-o", "{out}"], 2, "argument"),
        (["{empty}", "-o", "{out}", "--side", "8"], 2, "--side"),
        (["{empty}", "-o", "{out}", "--val-share", "2"], 2, "--val-share"),
        (["{empty}", "-o", "{out}", "--jobs", "0"], 2, "--jobs"),
        (["{empty}", "-o", "{out}", "--shards", "0"], 2, "--shards"),
    ],
)
def test_bad_calls_have_their_exit_codes(tmp_path: Path, arguments: list[str], code: int, named: str) -> None:
    (tmp_path / "empty").mkdir()
    filled = [a.format(empty=tmp_path / "empty", out=tmp_path / "out") for a in arguments]
    result = runner.invoke(app, ["prepare", *filled])
    assert result.exit_code == code
    assert named in result.stderr
    assert not (tmp_path / "out").exists()
