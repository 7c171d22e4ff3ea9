"""The runner of the benchmarks, that each of them still starts, and what `speed` makes of its runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import wave
from importlib import import_module
from pathlib import Path

import pytest

from lipdub.dub.demo import make_demo_inputs

ROOT = Path(__file__).parents[1]
FILES = {path.stem: path for path in ROOT.glob("benchmarks/*/*.py")}
COMMAND = re.compile(r"python -m benchmarks ([a-z_]+)([^`\n]*)")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def test_the_runner_lists_every_benchmark_with_what_is_good() -> None:
    done = run()
    lines = {words[0]: words[1] for line in done.stdout.splitlines() if len(words := line.split(maxsplit=1)) == 2}
    assert done.returncode == 0 and set(lines) == set(FILES)
    assert all(re.search(r"\(good: .+\)\.$", text) for text in lines.values()), lines
    refused = run("nosuch")
    assert refused.returncode == 2 and "no benchmark 'nosuch'" in refused.stderr


@pytest.mark.parametrize("name", FILES)
def test_each_benchmark_starts(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "mutants":
        pytest.importorskip("resource", reason="limits on memory are Unix'")
    monkeypatch.setattr(sys, "argv", [f"python -m benchmarks {name}", "--help"])
    with pytest.raises(SystemExit) as end:
        import_module(f"benchmarks.{FILES[name].parent.name}.{name}").main()
    assert end.value.code == 0 and f"usage: python -m benchmarks {name} " in capsys.readouterr().out


def test_commands_in_texts_and_results_name_a_benchmark_and_its_options() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/results/*.json"), *FILES.values()]
    found = [match for path in texts for match in COMMAND.findall(path.read_text(encoding="utf-8"))]
    assert {name for name, _ in found} == set(FILES)
    for name, arguments in found:
        known = set(re.findall(r"--[a-z][a-z-]*", FILES[name].read_text(encoding="utf-8"))) | {"--help"}
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments)) <= known, name


def test_an_interrupted_loop_leaves_no_input_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = import_module("benchmarks.speed.speed")
    target = tmp_path / "audio.wav"

    def interrupted(command: list[str], **options: object) -> None:
        Path(command[-1]).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(speed.subprocess, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            speed.looped(tmp_path / "source.wav", target, 2.0)
    assert not target.exists()
    with wave.open(str(tmp_path / "source.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8000))
    with wave.open(str(speed.looped(tmp_path / "source.wav", target, 2.0))) as file:
        assert file.getnframes() == 2 * 8000
    assert {path.name for path in tmp_path.iterdir()} == {"source.wav", "audio.wav"}


def test_speed_gives_the_median_of_its_runs_and_their_spread() -> None:
    speed = import_module("benchmarks.speed.speed")
    short = {"ratio": [2.0, 2.6, 2.2], "fps": [20.0, 25.0, 24.0], "peak": [900.0, 910.0, 905.0]}
    long = {"ratio": [1.9], "fps": [30.0], "peak": [995.5]}
    values = speed.results_of({speed.Job("720p", 600.0): long, speed.Job.parse("720p@60"): short})
    found = {value["key"]: value for value in values}
    assert list(found) == [f"{key}_720p_{s}s" for s in (600, 60) for key in ("ratio", "fps", "peak")] + ["growth_720p"]
    ratio = found["ratio_720p_60s"]
    assert (ratio["value"], ratio["interval"], ratio["n"]) == (2.2, [2.0, 2.6], 3)
    assert found["growth_720p"]["value"] == pytest.approx(1.1)
    assert "600 s over that of 60 s" in found["growth_720p"]["metric"]


@pytest.mark.slow
def test_speed_measures_floor_and_command_in_turn(tmp_path: Path) -> None:
    video, audio = map(str, make_demo_inputs(tmp_path, 1.0))
    done = run("speed", video, audio, "-o", str(tmp_path / "out"), "--jobs", "360p@1", "--runs", "2", timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| 360p_1s")]
    assert [row[1:3] for row in rows] == [["1", "25 of 25"], ["2", "25 of 25"]]
    ratios = [float(row[3]) / float(row[4]) for row in rows]
    told = re.search(r"360p_1s: ([\d.]+) times the floor \(([\d.]+) to ([\d.]+) in 2 runs\)", done.stdout)
    assert told is not None
    assert [float(each) for each in told.groups()] == pytest.approx([sum(ratios) / 2, *sorted(ratios)], rel=0.2)


@pytest.mark.slow
def test_the_accelerator_benchmark_has_a_dry_run(tmp_path: Path) -> None:
    words = "--device cpu --seconds 0.1 --batches 2 --precisions no --presets debug --steps 2"
    done = run("accelerator", *words.split(), timeout=300)
    assert done.returncode == 0, done.stderr
    assert "in one go" in done.stdout and "Training, preset debug" in done.stdout


def test_results_are_recorded_with_the_command_that_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = import_module("benchmarks.results")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["python -m benchmarks speed", "/films/a.mp4", "--runs", "5"])
    path = results.record("speed", [{"key": "ratio", "metric": "r", "value": 2.0}], title="Speed", weights="w")
    made = json.loads(path.read_text(encoding="utf-8"))
    assert made["command"] == "python -m benchmarks speed a.mp4 --runs 5"
    assert re.match(r"\d+ cores, \S", made["machine"])
