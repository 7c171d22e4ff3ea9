from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from lipdub.cli.app import app
from lipdub.cli.command import commands_of, long_options
from lipdub.data.store import ClipEntry, write_manifest
from lipdub.errors import ResourceError
from lipdub.evaluation.options import OPTIONS, EvalOptions
from lipdub.faces.crop import TEMPLATE


@pytest.fixture
def run(
    face_clip, fake_backend, fake_faces, generator_file: Path, tmp_path: Path, monkeypatch
) -> Callable[..., Result]:
    """`lipdub eval` on two drawn clips, with a judge of squares."""

    class SquareLandmarkTracker:
        name, caveat, ours = "squares", "It reads squares.", False

        def __init__(self, *files: Path) -> None:
            assert all(path.is_file() for path in files)

        def begin(self) -> None:
            pass

        def look(self, frame: np.ndarray) -> np.ndarray | None:
            boxes = fake_faces().detect([frame])[0].boxes
            if not len(boxes):
                return None
            side = boxes[0, 2] - boxes[0, 0]
            points = (boxes[0, :2] + TEMPLATE * side).astype(np.float32)
            points[66, 1] += side - 50
            return points

    monkeypatch.setattr("lipdub.evaluation.landmark_track.MeshLandmarkTracker", SquareLandmarkTracker)
    monkeypatch.setattr("lipdub.evaluation.networks.find", lambda entry: None)  # no bundled expert: faster
    (tmp_path / "clips").mkdir()
    for name, phase in (("a", 0), ("b", 1)):
        face_clip(
            lambda t, phase=phase: [(50, 20, 56 + 3 * np.sin(t * (1 + phase / 3)))],
            f"clips/{name}.mp4",
            n_frames=30,
            languages=("eng",),
        )
    words = ["eval", tmp_path / "clips", "-o", tmp_path / "out", "--yunet", generator_file, "--mesh", generator_file]
    words += ["--weights", generator_file, "--device", "cpu", "--set", "media.preset=ultrafast"]

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(app, [str(word) for word in (*words, *args)])

    return invoke


def test_the_table_and_its_protocol_are_data(run, tmp_path: Path) -> None:
    result = run("--pairing", "own", "--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "own sound"
    assert lines[1].split() == ["real", "real,", "other", "sound", "source", "untouched", "tiny"]
    assert any(line.startswith("opening z ↑") for line in lines) and "Judge: squares" in result.stdout
    assert result.stderr.startswith("[1/2] clips\n") and "[2/2] judge" in result.stderr
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").startswith("pairing,kind,row,")
    assert (tmp_path / "t.md").read_text(encoding="utf-8").startswith("### own sound\n")
    assert len((tmp_path / "out" / "clips.jsonl").read_text(encoding="utf-8").splitlines()) == 8


def test_strict_is_exit_code_10_when_a_clip_failed(run, face_clip) -> None:
    assert run("--pairing", "own", "--strict", "-q").exit_code == 0
    face_clip(lambda t: [], "clips/faceless.mp4", n_frames=30, languages=("eng",))
    result = run("--pairing", "own", "--strict", "-y", "-q")
    assert result.exit_code == 10
    assert "2 of 3, 1 FAILED" in result.stdout
    rows = "real, real, other sound, source untouched, tiny"
    assert f"warning: own, faceless.mp4 with the sound of faceless.mp4, failed for {rows}: " in result.stderr
    assert "error: 6 results failed" in result.stderr  # and twice it is the third clip of another pair
    assert run("--pairing", "own", "-y", "-q").exit_code == 0


def test_json_ends_with_the_table(run) -> None:
    result = run("--pairing", "own", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["type"] == "done"
    assert [line["row"] for line in events[-1]["report"]["lines"]][-1] == "tiny"


def test_existing_tables_are_not_replaced_unasked(run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("precious", encoding="utf-8")
    result = run("--csv", str(tmp_path / "t.csv"))
    assert result.exit_code == 5 and not (tmp_path / "out").exists()
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "precious"
    lost = run("--html", str(tmp_path / "nowhere" / "page.html"))
    assert lost.exit_code == 5 and "nowhere does not exist" in lost.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("args", [["--pairing", "nosuch"], ["--limit", "0"], ["--seconds", "0"]])
def test_wrong_usage_is_exit_code_2(run, args: list[str]) -> None:
    assert run(*args).exit_code == 2


def test_options_that_need_each_other(run, tmp_path: Path) -> None:
    assert run("--table", "4.1").exit_code == run("--runs", "r").exit_code == 2
    assert run("--videos", f"a={tmp_path}", "--videos", f"a={tmp_path}").exit_code == 2
    absent = run("--videos", "nosuch")
    assert absent.exit_code == 3 and "no folder nosuch" in absent.stderr
    folder = CliRunner().invoke(app, ["eval", str(tmp_path / "clips")])
    assert folder.exit_code == 2 and "--output" in folder.output


def test_what_another_tool_has_to_dub_is_a_table(run, tmp_path: Path) -> None:
    result = run("--pairs-only", "--pairing", "speaker", "-q")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'out' / 'pairs.tsv'}\n"
    lines = (tmp_path / "out" / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[3] for line in lines] == ["file", "speaker/a__b.mp4", "speaker/b__a.mp4"]
    assert not (tmp_path / "out" / "clips.jsonl").exists()


def test_absent_judges_are_exit_code_7(run) -> None:
    result = run("--mesh", "face-landmarker")
    assert result.exit_code == 7 and "lipdub weights pull face-landmarker" in result.stderr


def test_options_and_their_help_are_those_of_the_fields() -> None:
    params = long_options(commands_of(typer.main.get_command(app))["eval"])
    for option in OPTIONS.values():
        param = params[option.name]
        assert (param.name, param.help, param.rich_help_panel) == (option.key, option.help, option.panel)
    written = {name: params[option.name].default for name, option in OPTIONS.items()}
    defaults = EvalOptions(clips=Path("a"), output=Path("b"))
    assert written == {name: getattr(defaults, name) for name in OPTIONS}


def test_every_option_reaches_the_job(run, monkeypatch, tmp_path: Path, generator_file: Path) -> None:
    asked: list[EvalOptions] = []

    def evaluate(options, config, *, on_event):
        asked.append(options)
        raise ResourceError("stop here", "go on")

    monkeypatch.setattr("lipdub.evaluation.evaluate.evaluate", evaluate)
    words = "--weights b --pairing other --pairing own --speakers s.tsv --dataset d --split val --expert e --features f"
    words += " --seconds 3 --limit 4 --seed 5 --keep-dubs -y --syncnet s --html p.html --table 4.1"
    words += " --lpips l --identity i --fid f"
    words += f" --runs r --videos peer={tmp_path} --videos {tmp_path / 'clips'}"
    assert run(*words.split()).exit_code == 8
    assert asked == [
        EvalOptions(
            clips=tmp_path / "clips",
            output=tmp_path / "out",
            weights=(str(generator_file), "b"),
            pairings=("other", "own"),
            speakers=Path("s.tsv"),
            dataset=Path("d"),
            split="val",
            expert="e",
            features="f",
            syncnet="s",
            lpips="l",
            identity="i",
            fid="f",
            html=Path("p.html"),
            runs=Path("r"),
            videos={"peer": tmp_path, "clips": tmp_path / "clips"},
            yunet=str(generator_file),
            mesh=str(generator_file),
            seconds=3.0,
            limit=4,
            seed=5,
            device="cpu",
            keep_dubs=True,
            overwrite=True,
        )
    ]


def test_a_split_alone_judges_the_footage_that_was_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[EvalOptions] = []

    def evaluate(options, config, *, on_event):
        asked.append(options)
        raise ResourceError("stop here", "go on")

    monkeypatch.setattr("lipdub.evaluation.evaluate.evaluate", evaluate)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["eval", "--split", "test"])
    assert result.exit_code == 3 and "dataset is not a prepared data set" in result.stderr
    (tmp_path / "footage").mkdir()
    (tmp_path / "dataset").mkdir()
    entry = ClipEntry(id="a", speaker="a", group="g", split="test", frames=9, source="a.mp4", start_s=0.0)
    write_manifest(tmp_path / "dataset", [entry], {"footage": str(tmp_path / "footage")})
    assert CliRunner().invoke(app, ["eval", "--split", "test"]).exit_code == 8
    (options,) = asked
    assert (options.clips, options.dataset, options.split) == (tmp_path / "footage", Path("dataset"), "test")
    assert options.output == Path("judged")
    (tmp_path / "footage").rmdir()
    result = CliRunner().invoke(app, ["eval", "--split", "test"])
    assert result.exit_code == 3 and "has gone" in result.stderr


def test_dubs_of_one_video_are_judged_by_its_audio(run, face_clip, speech, tmp_path: Path) -> None:
    source = face_clip(lambda t: [(50, 20, 56)], "source.mp4", n_frames=30)
    words = ["eval", source, "--audio", speech(1.2), "--videos", f"copy={source}", "-o", tmp_path / "out"]
    words += ["--side-by-side", "-q", *(f"--{name}={tmp_path / 'clips' / 'a.mp4'}" for name in ("yunet", "mesh"))]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "given audio"
    assert result.stdout.splitlines()[1].split() == ["source", "untouched", "copy"]
    assert (tmp_path / "out" / "side-by-side" / "index.html").is_file()
    lacking = CliRunner().invoke(app, ["eval", str(source), "--videos", f"copy={source}", "-o", str(tmp_path / "b")])
    assert lacking.exit_code == 2 and "--audio" in lacking.output
    folder = CliRunner().invoke(app, ["eval", str(tmp_path), "--audio", str(source), "-o", str(tmp_path / "b")])
    assert folder.exit_code == 2 and "one video" in folder.output
    absent = CliRunner().invoke(
        app, ["eval", str(source), "--audio", str(source), "--videos", "a=nosuch.mp4", "-o", "b"]
    )
    assert absent.exit_code == 3 and "no file nosuch.mp4" in absent.output
