from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lipdub import __version__
from lipdub.cli.app import app
from lipdub.dub.options import SyncOptions
from lipdub.dub.sync import sync_video
from lipdub.media.disclosure import disclosure_tags
from lipdub.weights import entry_of


def inspect(*args: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, args)])


@pytest.fixture
def dubbed(face_clip, speech, generator_file: Path, fake_backend, tmp_path: Path) -> Path:
    output, options = tmp_path / "out.mp4", SyncOptions(generator=str(generator_file), device="cpu")
    sync_video(face_clip(lambda number: [(50, 30, 56)], n_frames=5), speech(0.2), output, options)
    return output


def test_what_sync_wrote_is_read_back(dubbed: Path) -> None:
    result = inspect(dubbed)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{dubbed}: lipdub {__version__} altered the lips in this file with AI."
    for words in ("compositeWithTrainedAlgorithmicMedia", "lipdub_version", "weights unknown here", "container"):
        assert words in result.stdout
    assert [line.split()[:3] for line in lines[-2:]] == [["0", "video", "h264"], ["1", "audio", "aac"]]


def test_json_is_one_object(dubbed: Path) -> None:
    found = json.loads(inspect(dubbed, "--json").stdout)
    assert (found["type"], found["altered"], found["weights"]) == ("file", True, None)
    assert found["marks"]["lipdub_version"] == __version__ and found["verdict"].startswith("lipdub ")
    assert [stream["kind"] for stream in found["streams"]] == ["video", "audio"]


def test_bundled_weights_are_named(dubbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = disclosure_tags(__version__, entry_of("generator").sha256)
    monkeypatch.setattr("lipdub.media.inspect.marks_in", lambda tags: marks)
    assert "the weights 'generator' of this version" in inspect(dubbed).stdout
    assert json.loads(inspect(dubbed, "--json").stdout)["weights"] == "generator"


def test_a_file_without_marks_is_no_error(face_clip) -> None:
    video = face_clip(lambda number: [], n_frames=3)
    result = inspect(video)
    assert result.exit_code == 0 and "No mark of lipdub" in result.stdout.splitlines()[0]
    assert "comment" not in result.stdout
    assert json.loads(inspect(video, "--json").stdout)["altered"] is False


def test_a_file_that_cannot_be_read_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("words\n" * 100)
    for name in ("text.mp4", "nosuch.mp4"):
        result = inspect(tmp_path / name)
        assert (result.exit_code, result.stdout) == (3, "") and name in result.stderr
