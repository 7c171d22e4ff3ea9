from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lipdub.config import Config, load_config
from lipdub.errors import InputError, OutputError, WeightsError
from lipdub.evaluation.evaluate import FOREIGN, REAL, UNTOUCHED, EvalOptions, evaluate, names_of
from lipdub.evaluation.report import EvalReport, as_csv, blocks, markdown
from lipdub.evaluation.table import Line
from lipdub.events import Done, Event, Progress, Stage
from lipdub.models.expert import Expert
from lipdub.weights import config_json, save_state

pytestmark = pytest.mark.usefixtures("found_by_squares")
FAST = load_config(None, ["media.preset=ultrafast", "face.size=32"])


@pytest.fixture
def run(square_judge, generator_file: Path, tmp_path: Path) -> Callable[..., EvalReport]:
    """`evaluate` with the small generator and the judge of squares."""

    def make(clips: Path, config: Config = FAST, on_event=lambda event: None, **changes: object) -> EvalReport:
        options = EvalOptions(clips=clips, output=tmp_path / "out", weights=(str(generator_file),), device="cpu")
        return evaluate(replace(options, **changes), config, judge=square_judge(), on_event=on_event)

    return make


def verdicts(report: EvalReport) -> list[dict]:
    return [json.loads(line) for line in Path(report.verdicts).read_text(encoding="utf-8").splitlines()]


def line_of(report: EvalReport, pairing: str, row: str) -> Line:
    return next(line for line in report.lines if (line.pairing, line.row) == (pairing, row))


def test_every_row_is_judged_on_the_same_pairs(run, talking) -> None:
    events: list[Event] = []
    report = run(talking(), on_event=events.append)
    counts = {(line.pairing, line.row): (line.n, line.failed) for line in report.lines}
    rows = (REAL, FOREIGN, UNTOUCHED, "tiny")
    assert counts == {(p, row): (n, 0) for p, n in (("own", 3), ("other", 2), ("speaker", 3)) for row in rows}
    found = verdicts(report)
    pairs = {row: [(v["pairing"], v["picture"], v["sound"]) for v in found if v["row"] == row] for row in rows}
    assert pairs[REAL] == pairs[FOREIGN] == pairs[UNTOUCHED] == pairs["tiny"]
    stages = [event for event in events if isinstance(event, Stage)]
    assert [(stage.name, stage.total, stage.unit) for stage in stages] == [
        ("clips", 3, "clips"),
        ("judge", 32, "videos"),
    ]
    assert [e.done for e in events if isinstance(e, Progress)] == [*range(1, 4), *range(1, 33)]
    assert isinstance(events[-1], Done) and events[-1].report == report
    assert sorted(path.name for path in Path(report.verdicts).parent.iterdir()) == ["clips.jsonl"]  # dubs are gone


def test_each_row_has_the_figures_that_it_can_have(run, talking) -> None:
    report = run(talking())
    for pairing in ("own", "other", "speaker"):
        real, foreign = (line_of(report, pairing, row) for row in (REAL, FOREIGN))
        assert real.cells["follows_r"].mean == pytest.approx(1)
        assert foreign.cells["follows_r"].mean < 0.8
        assert ("replaced_z" in real.cells) == (pairing != "own")
    own, cross = (line_of(report, pairing, "tiny") for pairing in ("own", "speaker"))
    assert {"psnr", "lmd", "sharpness", "jitter", "dubbed"} <= set(own.cells)
    assert {"psnr", "lmd"}.isdisjoint(cross.cells) and {"sharpness", "replaced_z"} <= set(cross.cells)
    assert "psnr" not in line_of(report, "own", REAL).cells and "dubbed" not in line_of(report, "own", REAL).cells
    untouched = line_of(report, "speaker", UNTOUCHED)
    assert untouched.cells["replaced_z"].mean > untouched.cells["follows_z"].mean
    assert "expert" not in own.cells and "perceptual" not in own.cells


def test_failures_are_counted_with_their_reason(run, talking) -> None:
    report = run(talking(faceless=("a/2.mp4",)), pairings=("own",))
    for row in (REAL, UNTOUCHED, "tiny"):
        assert (line_of(report, "own", row).n, line_of(report, "own", row).failed) == (3, 1)
    assert {verdict.picture for verdict in report.failures if verdict.row == "tiny"} == {"a/2.mp4"}
    failed = [v for v in verdicts(report) if v["error"]]
    assert len(failed) == len(report.failures)
    assert all(set(v["values"].values()) == {None} for v in failed)
    assert any("0 of 40 frames" in v["error"] for v in failed)
    assert "1 FAILED" in markdown(report) and "### Failures" in markdown(report)


def test_a_clip_that_has_no_sound_fails_and_the_others_go_on(run, talking, face_clip) -> None:
    folder = talking()
    face_clip(lambda t: [(50, 20, 56)], "footage/b/mute.mp4", n_frames=30)
    report = run(folder, pairings=("own",))
    assert {v.picture for v in report.failures if v.row == "tiny"} == {"b/mute.mp4"}
    assert "no audio stream" in report.failures[0].error
    assert line_of(report, "own", "tiny").cells["psnr"].n == 3


def test_nothing_that_can_be_judged_is_an_error(run, talking) -> None:
    folder = talking(("a.mp4", "b.mp4"), faceless=("a.mp4", "b.mp4"))
    with pytest.raises(InputError, match=r"nothing could be judged.*0 of 40 frames"):
        run(folder)


def test_the_expert_gives_its_loss(run, talking, tiny_config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "expert.safetensors"
    state = Expert(tiny_config.expert).state_dict()
    save_state(path, state, {"kind": "expert", "config": config_json(tiny_config, "expert", "mel")})
    report = run(talking(), pairings=("own",), expert=str(path))
    cells = line_of(report, "own", "tiny").cells
    assert cells["expert"].n == 3 and 0 <= cells["expert"].mean <= 6.91
    assert any(line.startswith("expert: expert.safetensors, sha256 ") for line in report.protocol)


def test_the_backbone_gives_the_perceptual_metric(run, talking, monkeypatch) -> None:
    class Features(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (images,)

    monkeypatch.setattr("lipdub.training.stages.load_features", lambda name: Features())
    monkeypatch.setattr("lipdub.evaluation.evaluate._file", lambda name: name)
    report = run(talking(), pairings=("own",), features="backbone")
    assert line_of(report, "own", "tiny").cells["perceptual"].n == 3
    assert "perceptual" not in line_of(report, "own", UNTOUCHED).cells
    assert "perceptual by Features: backbone" in report.protocol


def test_dubs_are_kept_on_request_and_results_are_not_replaced_unasked(run, talking, tmp_path: Path) -> None:
    folder = talking()
    run(folder, pairings=("speaker",), limit=1, keep_dubs=True)
    (kept,) = (tmp_path / "out" / "dubs" / "tiny" / "speaker").iterdir()
    assert kept.suffix == ".mp4" and "__" in kept.stem
    before = (tmp_path / "out" / "clips.jsonl").read_bytes()
    with pytest.raises(OutputError, match=r"clips\.jsonl exists"):
        run(folder)
    assert (tmp_path / "out" / "clips.jsonl").read_bytes() == before
    run(folder, pairings=("own",), limit=1, overwrite=True)
    assert (tmp_path / "out" / "clips.jsonl").read_bytes() != before


def test_two_weights_are_two_rows_and_are_compared(run, talking, generator_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(generator_file.read_bytes())
    report = run(talking(), pairings=("own",), weights=(str(generator_file), str(copy)))
    assert [(d.row, d.against) for d in report.differences] == [
        ("tiny", UNTOUCHED),
        ("copy", UNTOUCHED),
        ("copy", "tiny"),
    ]
    same = report.differences[-1].cells
    assert all(cell.mean == pytest.approx(0, abs=1e-9) and not cell.excludes_zero for cell in same.values())
    assert [block.header[-1] for block in blocks(report)] == ["copy", "copy - tiny"]


def test_what_stops_everything(run, talking, tmp_path: Path) -> None:
    folder = talking(("a.mp4",))
    with pytest.raises(InputError, match="fitting sound"):
        run(folder, pairings=("other",))
    with pytest.raises(WeightsError, match="nosuch"):
        run(folder, weights=("nosuch",))
    with pytest.raises(InputError, match="no video"):
        run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="different ones"):
        run(folder, weights=("generator", "generator"))
    assert not (tmp_path / "out").exists()


def test_names_of_rows() -> None:
    assert names_of(["generator", "runs/a.safetensors"]) == {"generator": "generator", "a": "runs/a.safetensors"}
    assert list(names_of(["x/a.safetensors", "y/a.safetensors"])) == ["x/a.safetensors", "y/a.safetensors"]


def test_csv_has_a_line_per_mean_and_difference(run, talking) -> None:
    report = run(talking(), pairings=("own",))
    rows = list(csv.DictReader(as_csv(report).splitlines()))
    means = [row for row in rows if row["kind"] == "mean"]
    assert len(means) == 4 * 12
    one = next(row for row in means if (row["row"], row["measure"]) == ("tiny", "psnr"))
    cell = line_of(report, "own", "tiny").cells["psnr"]
    assert (one["pairs"], one["failed"], one["n"]) == ("3", "0", "3")
    assert float(one["mean"]) == pytest.approx(cell.mean, rel=1e-5) and float(one["low"]) <= float(one["high"])
    empty = next(row for row in means if (row["row"], row["measure"]) == ("tiny", "expert"))
    assert (empty["n"], empty["mean"]) == ("0", "")
    assert {row["against"] for row in rows if row["kind"] == "difference"} == {UNTOUCHED}


def test_markdown_has_rows_as_the_thesis_does_and_the_protocol(run, talking) -> None:
    report = run(talking(), pairings=("own",))
    text = markdown(report)
    head = next(line for line in text.splitlines() if line.startswith("| row |"))
    assert "masked PSNR (15, 16), dB ↑" in head and "LMD, % ↓" in head
    assert [line.split(" | ")[0] for line in text.splitlines()[4:8]] == [
        f"| {row}" for row in (REAL, FOREIGN, UNTOUCHED, "tiny")
    ]
    for line in report.protocol:
        assert f"- {line}" in text
    assert "Judge: the width of squares" in text and "seed 0" in text
