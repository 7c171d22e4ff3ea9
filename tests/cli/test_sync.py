from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import typer
from typer.testing import CliRunner, Result

from lipdub.cli.app import app
from lipdub.cli.arguments import output_path, parse_time
from lipdub.config import MediaConfig
from lipdub.dub.options import SyncOptions
from lipdub.errors import InputError, ResourceError
from lipdub.faces.selection import parse_face
from lipdub.media.ffmpeg import ffmpeg_binary

FACE = (50, 30, 56)
ROOT = Path(__file__).parents[2]
NEEDLESS = {  # slow to import, and of no use to a dub
    *("accelerate", "face_alignment", "huggingface_hub", "jinja2", "librosa", "matplotlib", "numba", "pandas"),
    *("ray", "skimage", "sympy", "tensorboard", "torch._dynamo", "torch._inductor", "torchvision"),
}
FAST = ["--set", "media.preset=ultrafast", "--device", "cpu"]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "dubbed.mp4"


@pytest.fixture
def sync(face_clip, speech, generator_file: Path, fake_backend, output: Path) -> Callable[..., Result]:
    """Run `lipdub sync` on a made clip; keywords replace the clip, the dub and the weights."""

    def run(
        *args: str, video: Path | None = None, audio: Path | None = None, weights: str | Path = generator_file
    ) -> Result:
        inputs = [video or face_clip(lambda number: [FACE]), audio or speech()]
        words = ["sync", *inputs, "-o", output, "--weights", weights, *FAST, *args]
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def n_pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_done_is_exit_code_0_and_says_what_was_done(sync, output: Path) -> None:
    result = sync("--end", "0.2")
    assert (result.exit_code, result.stdout) == (0, "")
    assert n_pictures(output) == 10
    lines = result.stderr.splitlines()
    assert lines[0] == "[1/4] read"
    assert any(line.startswith(f"{output}: 5 of 10 frames dubbed, 1 person, ") for line in lines)
    assert lines[-1] == "  5 frames left as they were: outside the range"


def test_a_dub_starts_without_what_it_does_not_need(face_clip, speech, output: Path) -> None:
    code = "import sys\nfrom lipdub.cli import app\ntry:\n    app.main()\nfinally:\n    print(*sys.modules)"
    words = [sys.executable, "-c", code, "sync", face_clip(lambda number: []), speech(), "-o", output, "--no-cache"]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, words)], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4, done.stderr  # the last frame was looked at, and no face seen
    modules = set(done.stdout.split())
    assert {"torch", "av", "lipdub.dub.render"} < modules
    assert not NEEDLESS & modules


def test_quiet_is_silent_but_for_warnings(sync, speech, output: Path) -> None:
    result = sync("-q")
    assert (result.exit_code, result.output) == (0, "")
    result = sync("-q", "-y", audio=speech(0.9, "long.wav"))
    assert result.exit_code == 0
    assert result.stderr == "warning: the audio is 0.50 s longer than the video; its end is cut\n"


def test_json_is_one_object_a_line_that_ends_with_the_report(sync, speech, output: Path) -> None:
    result = sync("--json", audio=speech(0.2))
    assert (result.exit_code, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] != "progress"] == [
        *("start", "stage", "warning", "stage", "stage", "stage", "done")
    ]
    report = events[-1]["report"]
    assert (report["output"], report["frames"], report["dubbed"], report["faces"]) == (str(output), 10, 10, 1)
    assert report["warnings"] == [event["message"] for event in events if event["type"] == "warning"]
    assert (report["passed"], report["device"]) == ({}, "cpu")


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(sync, face_clip, output: Path) -> None:
    result = sync("--dry-run", "--end", "0.2")
    assert result.exit_code == 0, result.output
    assert not list(output.parent.iterdir())
    text = result.stdout.splitlines()
    assert text[0] == "dry run: nothing was written"
    assert "picture  h264 160x120 yuv420p, 25 fps, 10 frames, 0.40 s -> libx264 yuv420p" in text
    assert text[text.index("frames   5 of 10 would be dubbed") + 1].strip() == (
        "5 would be left as they are: outside the range"
    )
    table = next(number for number, line in enumerate(text) if line.startswith("ID  SHOT"))
    assert text[table + 1].split()[:2] == ["0", "0"] and text[table + 1].split()[-1] == "5"
    assert text[-2].startswith("time     about 0:") and text[-1].startswith("disk     about ")
    assert "[3/3] trial" in result.stderr
    quiet = sync("--dry-run", "-q")
    assert quiet.stderr == "" and quiet.stdout.startswith("dry run")


def test_a_dry_run_with_json_ends_with_the_plan(sync, output: Path) -> None:
    result = sync("--dry-run", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] != "progress"] == ["start", *["stage"] * 3, "plan"]
    plan = events[-1]["plan"]
    assert (plan["output"], plan["frames"], plan["dubbed"], plan["passed"]) == (str(output), 10, 10, {})
    assert plan["faces"][0]["id"] == 0 and plan["estimate"]["output_bytes"] > 0
    assert not list(output.parent.iterdir())


def test_a_dry_run_has_the_exit_codes_of_the_run(sync, face_clip, output: Path) -> None:
    assert sync("--dry-run", video=face_clip(lambda number: [])).exit_code == 4
    output.write_bytes(b"precious")
    assert sync("--dry-run").exit_code == 5 and output.read_bytes() == b"precious"


def test_json_ends_with_the_error(sync, face_clip) -> None:
    result = sync("--json", video=face_clip(lambda number: []))
    assert result.exit_code == 4
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["type"], last["code"]) == ("error", 4) and "no face" in last["what"]
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--face", "everyone"], "--face"),
        (["--face", "3;4"], "--face"),
        (["--start", "soon"], "--start"),
        (["--end", "1:2:3:4"], "--end"),
        (["--start", "0.3", "--end", "0.2"], "--end"),
        (["--batch-size", "0"], "--batch-size"),
        (["--strength", "9"], "--strength"),
        (["--language", "english"], "--language"),
        (["--original-audio", "none"], "--original-audio"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_wrong_usage_is_exit_code_2(sync, output: Path, args: list[str], word: str) -> None:
    result = sync(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert word in result.stderr and "Usage: lipdub sync" in result.stderr
    assert not list(output.parent.iterdir())


def test_inputs_that_cannot_be_used_are_exit_code_3(sync, speech, tmp_path: Path, output: Path) -> None:
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.wav"
    text.write_text("this is no film\n" * 50)
    empty.write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    for inputs, word in [
        ({"video": text}, "text.mp4"),
        ({"video": speech()}, "no video stream"),
        ({"video": tmp_path / "nosuch.mp4"}, "nosuch.mp4"),
        ({"video": tmp_path / "folder.mp4"}, "folder.mp4"),
        ({"audio": empty}, "empty.wav"),
        ({"audio": speech(0.0, "none.wav")}, "none.wav"),
        ({"audio": text}, "text.mp4"),
    ]:
        result = sync(**inputs)
        assert (result.exit_code, result.stdout) == (3, ""), result.output
        assert "error: " in result.stderr and word in result.stderr
        assert not list(output.parent.iterdir())


def test_a_setting_that_does_not_exist_is_exit_code_3(sync) -> None:
    result = sync("--set", "sync.nosuch=1")
    assert result.exit_code == 3 and "nosuch" in result.stderr


def test_a_video_as_the_dub_gives_its_sound(sync, face_clip, output: Path) -> None:
    dub = face_clip(lambda number: [], "other.mp4", languages=("deu",))
    assert sync(audio=dub).exit_code == 0
    with av.open(str(output)) as made:
        assert [stream.type for stream in made.streams] == ["video", "audio"]


def test_no_face_is_exit_code_4(sync, face_clip, output: Path) -> None:
    result = sync(video=face_clip(lambda number: []))
    assert (result.exit_code, result.stdout) == (4, "")
    assert "frames 0 to 9: no face" in result.stderr
    assert not output.exists()


def test_an_existing_output_is_exit_code_5(sync, output: Path) -> None:
    output.write_bytes(b"precious")
    result = sync()
    assert (result.exit_code, output.read_bytes()) == (5, b"precious")
    assert "-y" in result.stderr
    assert sync("-y").exit_code == 0 and n_pictures(output) == 10


def test_an_absent_device_or_face_finder_is_exit_code_6(sync, monkeypatch, output: Path) -> None:
    from lipdub.faces.choose import face_backend

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = sync("--device", "cuda")
    assert result.exit_code == 6 and "--device cpu" in result.stderr
    monkeypatch.setattr("lipdub.dub.networks.face_backend", face_backend)
    result = sync("--detector", "nosuch")
    assert result.exit_code == 6 and "builtin" in result.stderr
    assert not list(output.parent.iterdir())


def test_absent_weights_are_exit_code_7(sync, tmp_path: Path, output: Path) -> None:
    result = sync(weights=tmp_path / "nosuch.safetensors")
    assert result.exit_code == 7 and "nosuch.safetensors" in result.stderr
    result = sync("--set", "generator.embedding=64")
    assert result.exit_code == 7 and "generator.embedding = 32, not 64" in result.stderr
    assert not list(output.parent.iterdir())


def test_too_little_memory_is_exit_code_8(sync, monkeypatch, output: Path) -> None:
    def draw(*args: object, **kwargs: object) -> None:
        import torch

        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("lipdub.models.generator.Generator.draw", draw)
    result = sync()
    assert result.exit_code == 8 and "--device cpu" in result.stderr
    assert not list(output.parent.iterdir())


def test_every_option_reaches_the_job(sync, monkeypatch) -> None:
    asked: list[SyncOptions] = []

    def sync_video(video, audio, output, options, *, config, on_event) -> None:
        assert config.media.preset == "ultrafast" and config.face.min_face == 40
        asked.append(options)
        raise ResourceError("stop here", "go on")

    monkeypatch.setattr("lipdub.dub.sync.sync_video", sync_video)
    words = "--face 12,34.5 --start 1:02.5 --end 1:00:00 --batch-size 3 --strength 1.5 --detector face-alignment:yunet"
    words += " --crf 20 --codec hevc --original-audio drop --language uk -y --set face.min_face=40"
    words += " --motion gentle --only-speaking"
    assert sync(*words.split(), weights="mine").exit_code == 8
    assert asked == [
        SyncOptions(
            device="cpu",
            batch_size=3,
            face=(12.0, 34.5),
            start_s=62.5,
            end_s=3600.0,
            overwrite=True,
            detector="face-alignment:yunet",
            generator="mine",
            strength=1.5,
            keep_original_audio=False,
            language="uk",
            crf=20,
            codec="hevc",
            motion="gentle",
            only_speaking=True,
        )
    ]


def test_the_old_sound_is_kept_unless_told_otherwise(sync, face_clip, output: Path) -> None:
    video = face_clip(lambda number: [FACE], languages=("eng",))
    for words, kept in [
        ([], ["ukr", "eng"]),
        (["--original-audio", "keep"], ["ukr", "eng"]),
        (["--original-audio", "drop"], ["ukr"]),
    ]:
        assert sync("-y", "--language", "uk", *words, video=video).exit_code == 0
        with av.open(str(output)) as made:
            assert [stream.language for stream in made.streams.audio] == kept


def test_faces_and_times_are_read() -> None:
    assert [parse_face(text) for text in ("largest", "all", "3,4", " 3.5 , 4 ")] == ["largest", "all", (3, 4), (3.5, 4)]
    times = [parse_time(text, "--end") for text in (None, "0", "12.5", "1:02.5", "1:00:02", "90:00")]
    assert times == [None, 0, 12.5, 62.5, 3602, 5400]
    for text in ("", "-1", "1:", ":3", "1,5", "nan"):
        with pytest.raises(typer.BadParameter):
            parse_time(text, "--end")
    assert [parse_face(text) for text in ("7", "id:7", "id:7,12")] == ["id:7", "id:7", "id:7,12"]
    for text in ("", "1.5", "1,2,3", "-1,2", "LARGEST", "me.jpg", "1,2@", "id:", "id:a", "id:1,", "id7"):
        with pytest.raises(InputError):
            parse_face(text)


def test_the_help_names_what_a_person_looks_for() -> None:
    text = " ".join(CliRunner().invoke(app, ["sync", "--help"]).stdout.split())
    for words in (
        "largest (in each shot), all, speaking",
        "x,y@t",
        "Face selection:",
        "id:N",
        "[h:]mm:ss",
        "h264, hevc, vp9, av1 or prores",
        "--overwrite",
    ):
        assert words in text


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_ffmpeg_of_the_settings_makes_previews_and_fills_pipes(sync, tmp_path, capfdbinary, face_clip) -> None:
    other, log = tmp_path / "other", tmp_path / "log"
    other.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nexec "{ffmpeg_binary()}" "$@"\n')
    other.chmod(0o755)
    assert sync("--preview", "0.2", "--set", f"media.ffmpeg='{other}'").exit_code == 0
    ends = [Path(line.split()[-1]).name for line in log.read_text().splitlines()]
    assert {"video.mkv", "dub.wav"} <= {*ends}
    with output_path(Path("-"), MediaConfig(ffmpeg=str(other))) as film:
        shutil.copy(face_clip(lambda number: []), film)
    assert b"moof" in capfdbinary.readouterr().out and log.read_text().endswith("pipe:1\n")
