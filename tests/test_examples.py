"""The examples do what they say, on a generated clip."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lipdub.cli.batch import read_manifest
from lipdub.dub.demo import make_demo_inputs
from lipdub.media.probe import probe

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_demo_inputs(tmp_path_factory.mktemp("clip"), 1.0)


def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=300)


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"]({path.name})" in listed for path in EXAMPLES.iterdir() if path.name != "README.md")


@pytest.mark.parametrize("name", ["python_api.py", "json_events.py"])
def test_an_example_without_its_files_says_how_it_is_called(name: str) -> None:
    done = run(sys.executable, EXAMPLES / name)
    assert done.returncode == 1 and f"python {name} VIDEO SPEECH OUTPUT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_python_api(clip, tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / "python_api.py", *clip, tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    assert "stage 3 of 4: dub\n  25 frames\n" in done.stdout
    assert "25 of 25 frames dubbed, faces: 1" in done.stdout and probe(tmp_path / "out.mp4").video is not None
    failed = run(sys.executable, EXAMPLES / "python_api.py", clip[1], clip[1], tmp_path / "none.mp4")
    assert failed.returncode == 3 and "has no video stream" in failed.stderr


@pytest.mark.slow
def test_json_events(clip, tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / "json_events.py", *clip, tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    stages = [f"{name} ({number} of 4)" for number, name in enumerate(("read", "faces", "dub", "write"), start=1)]
    assert done.stdout.splitlines() == [*stages, "25 of 25 frames dubbed"]
    failed = run(sys.executable, EXAMPLES / "json_events.py", "absent.mp4", clip[1], tmp_path / "none.mp4")
    assert failed.returncode == 3 and "failed with code 3: cannot open absent.mp4" in failed.stdout


@pytest.mark.slow
def test_json_events_are_cancelled_by_a_signal(tmp_path: Path) -> None:
    video, speech = make_demo_inputs(tmp_path, 8.0)
    words = [sys.executable, "-u", str(EXAMPLES / "json_events.py"), str(video), str(speech), str(tmp_path / "out.mp4")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while not parent.stdout.readline().startswith("faces"):
            pass
        time.sleep(0.5)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(60) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["portrait.mp4", "speech.wav"]


@pytest.mark.slow
def test_exit_codes(clip, tmp_path: Path) -> None:
    lipdub = f"{sys.executable} -m lipdub"
    done = run("sh", EXAMPLES / "exit_codes.sh", *clip, tmp_path / "out.mp4", LIPDUB=lipdub)
    assert (done.returncode, done.stdout) == (0, f"dubbed: {tmp_path / 'out.mp4'}\n")
    bad = run("sh", EXAMPLES / "exit_codes.sh", "absent.mp4", clip[1], tmp_path / "none.mp4", LIPDUB=lipdub)
    assert (bad.returncode, bad.stdout) == (3, "input: not readable; get the file again\n")
    dull = run("sh", EXAMPLES / "exit_codes.sh", *clip, tmp_path / "no-such-folder" / "a.mp4", LIPDUB=lipdub)
    assert (dull.returncode, dull.stdout) == (5, "failed with code 5\n")


@pytest.mark.slow
def test_the_list(clip, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "films.csv", tmp_path)
    shutil.copy(clip[0], tmp_path / "video.mp4")
    for name in ("speech_de.wav", "speech_fr.wav"):
        shutil.copy(clip[1], tmp_path / name)
    assert len(read_manifest(tmp_path / "films.csv", device="cpu", weights="generator")) == 2
    done = run(sys.executable, "-m", "lipdub", "batch", tmp_path / "films.csv", "--serial")
    assert done.returncode == 0, done.stderr
    sounds = [probe(tmp_path / "out" / f"video.{tag}.mp4").audio[0].language for tag in ("de", "fr")]
    assert sounds == ["deu", "fra"] or sounds == ["ger", "fre"]
