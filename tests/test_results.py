"""RESULTS.md and every marked figure agree with benchmarks/results/*.json; a figure that nobody measured is found."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "results.py"
FIELDS = {"title", "command", "commit", "date", "machine", "weights", "values"}


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_agree_with_the_results() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_each_result_says_how_it_was_measured(results: ModuleType) -> None:
    for name, one in results.load().items():
        assert set(one) == FIELDS and all(one.values()), name
        for value in one["values"]:
            assert (
                {"key", "metric", "value"}
                <= set(value)
                <= {
                    "key",
                    "metric",
                    "value",
                    "interval",
                    "n",
                    "unit",
                    "digits",
                    "bar",
                    "run",
                }
            )
            if "interval" in value:
                assert value["interval"][0] <= value["value"] <= value["interval"][1], f"{name}.{value['key']}"
    assert len((ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").splitlines()) <= 140


def test_a_wrong_figure_is_put_right_and_an_unknown_one_refused(results: ModuleType) -> None:
    data = {"dubs": {"values": [{"key": "r", "metric": "r", "value": 0.614, "interval": [0.5, 0.7], "unit": "dB"}]}}
    assert results.filled("r <!--r dubs.r-->0.9<!--/r-->!", data) == "r <!--r dubs.r-->0.61 dB [0.50, 0.70]<!--/r-->!"
    assert results.filled("<!--r dubs.r value--><!--/r-->", data) == "<!--r dubs.r value-->0.61 dB<!--/r-->"
    with pytest.raises(KeyError, match=r"dubs\.z"):
        results.filled("<!--r dubs.z-->1<!--/r-->", data)


def test_a_figure_without_a_result_is_found(results: ModuleType) -> None:
    text = (
        "It runs at 25 fps, takes <!--r speed.peak-->9 MB<!--/r-->, `--x 3 fps`.\n```\n12 MB\n```\n3 people, 2 hours."
    )
    assert results.unmarked(text) == ["25 fps", "2 hours"]


def test_a_benchmark_records_its_own_run(results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    old = {"title": "Dubs", "values": [{"key": "r", "metric": "opening r", "value": 0.1, "bar": "0.6", "n": 3}]}
    (tmp_path / "dubs.json").write_text(json.dumps(old), encoding="utf-8")
    values = [
        {"key": "r", "metric": "r", "value": 0.5, "interval": [0.4, 0.6], "n": 16},
        {"key": "z", "value": 4.0, "metric": "z"},
    ]
    done = json.loads(results.record("dubs", values, title="new", weights="w").read_text(encoding="utf-8"))
    assert set(done) == FIELDS and done["title"] == "Dubs" and done["weights"] == "w"
    assert done["values"][0] == {
        "metric": "opening r",
        "bar": "0.6",
        "key": "r",
        "value": 0.5,
        "interval": [0.4, 0.6],
        "n": 16,
    }
    assert "bar" not in done["values"][1]


def test_recording_some_values_keeps_the_others(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    first = [{"key": key, "metric": f"of {key}", "value": 1.0} for key in ("ratio", "growth")]
    results.record("speed", first, title="Speed", weights="old")
    for weights in ("new", "newer"):
        results.record("speed", [{"key": "ratio", "metric": "of ratio", "value": 2.0}], title="Speed", weights=weights)
    done = results.load()["speed"]
    ratio, growth = done["values"]
    assert done["weights"] == "newer" and ratio == {"key": "ratio", "metric": "of ratio", "value": 2.0}
    assert growth["value"] == 1.0 and growth["run"]["weights"] == "old" and set(growth["run"]) == set(results.RUN)
    assert f"| of growth ({growth['run']['date']}, commit {growth['run']['commit']}) |" in results.page(results.load())
