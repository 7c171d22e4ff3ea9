from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from markupsafe import Markup

from lipdub.config import Config, ReferenceConfig, load_config, to_dict
from lipdub.errors import InputError, OutputError, WeightsError
from lipdub.evaluation.evaluate import FOREIGN, REAL, UNTOUCHED, evaluate, list_pairs, names_of
from lipdub.evaluation.options import EvalOptions
from lipdub.evaluation.report import EvalReport, as_csv, blocks, markdown
from lipdub.evaluation.table import COLUMNS, Line
from lipdub.events import Done, Event, Progress, Stage, Warning_
from lipdub.models.expert import Expert
from lipdub.models.generator import Generator
from lipdub.models.wav2lip import Wav2Lip
from lipdub.weights import config_json, save_state

pytestmark = pytest.mark.usefixtures("fake_backend")
FAST = load_config(None, ["media.preset=ultrafast", "face.size=32"])


@pytest.fixture
def run(square_tracker, generator_file: Path, tmp_path: Path) -> Callable[..., EvalReport]:
    """`evaluate` with the small generator and the judge of squares."""

    def make(
        clips: Path, config: Config = FAST, on_event=lambda event: None, judge=None, **changes: object
    ) -> EvalReport:
        options = EvalOptions(clips=clips, output=tmp_path / "out", weights=(str(generator_file),), device="cpu")
        return evaluate(replace(options, **changes), config, judge=judge or square_tracker(), on_event=on_event)

    return make


@dataclass(frozen=True)
class Evaluated:
    """Three clips, evaluated in all pairings."""

    report: EvalReport
    events: list[Event]


@pytest.fixture(scope="module")
def whole(talking_in, square_tracker, fake_faces, generator_file: Path, tmp_path_factory) -> Evaluated:
    """Made once, for tests that only read it."""
    folder, events = tmp_path_factory.mktemp("whole"), []
    options = EvalOptions(clips=talking_in(folder), output=folder / "out", weights=(str(generator_file),), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lipdub.dub.networks.face_backend", lambda name, config, device: fake_faces())
        patch.setattr("lipdub.dub.networks.occlusion_detector", lambda margin, device: None)
        patch.setattr("lipdub.evaluation.networks.find", lambda entry: None)
        return Evaluated(evaluate(options, FAST, judge=square_tracker(), on_event=events.append), events)


def verdicts(report: EvalReport) -> list[dict]:
    return [json.loads(line) for line in Path(report.verdicts).read_text(encoding="utf-8").splitlines()]


def line_of(report: EvalReport, pairing: str, row: str) -> Line:
    return next(line for line in report.lines if (line.pairing, line.row) == (pairing, row))


def test_every_row_is_judged_on_the_same_pairs(whole) -> None:
    report, events = whole.report, whole.events
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
    assert sorted(path.name for path in Path(report.verdicts).parent.iterdir()) == [
        "clips.jsonl",
        "pairs.tsv",
    ]  # no dubs


def test_each_row_has_the_figures_that_it_can_have(whole) -> None:
    report = whole.report
    for pairing in ("own", "other", "speaker"):
        real, foreign = (line_of(report, pairing, row) for row in (REAL, FOREIGN))
        assert real.cells["opening_r"].mean == pytest.approx(1)
        assert foreign.cells["opening_r"].mean < 0.8
        assert ("replaced_z" in real.cells) == (pairing != "own")
    own, cross = (line_of(report, pairing, "tiny") for pairing in ("own", "speaker"))
    assert {"psnr", "lmd", "sharpness", "jitter", "dubbed"} <= set(own.cells)
    assert {"psnr", "lmd"}.isdisjoint(cross.cells) and {"sharpness", "replaced_z"} <= set(cross.cells)
    assert "psnr" not in line_of(report, "own", REAL).cells and "dubbed" not in line_of(report, "own", REAL).cells
    untouched = line_of(report, "speaker", UNTOUCHED)
    assert untouched.cells["replaced_z"].mean > untouched.cells["opening_z"].mean
    assert "expert" not in own.cells and own.cells["perceptual"].mean > 0  # by the bundled landmark network


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
    report = run(talking(("a.mp4", "b.mp4")), pairings=("own",), expert=str(path))
    cells = line_of(report, "own", "tiny").cells
    assert cells["expert"].n == 2 and 0 <= cells["expert"].mean <= 6.91
    assert any(line.startswith("expert: expert.safetensors, sha256 ") for line in report.protocol)


def test_the_backbone_gives_the_perceptual_metric(run, talking, monkeypatch) -> None:
    class Features(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (images,)

    monkeypatch.setattr("lipdub.evaluation.networks.load_features", lambda name: Features())
    monkeypatch.setattr("lipdub.evaluation.networks.file_of", lambda name: name)
    report = run(talking(("a.mp4", "b.mp4")), pairings=("own",), features="backbone")
    assert line_of(report, "own", "tiny").cells["perceptual"].n == 2
    assert "perceptual" not in line_of(report, "own", UNTOUCHED).cells
    assert "perceptual by Features: backbone" in report.protocol
    assert "perceptual (7), Features ↓" in markdown(report)


def test_networks_of_others_are_columns_and_what_is_absent_is_named(run, talking, monkeypatch) -> None:
    class Stand(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
            return a.float().mean((2, 3)) if b is None else (a - b).abs().mean((1, 2, 3))

        def embed(self, face: object, landmarks: object) -> np.ndarray:
            return np.array([1.0, 0.0])

    for name in ("load_lpips", "load_inception", "FaceRecognizer"):
        monkeypatch.setattr(f"lipdub.evaluation.networks.{name}", lambda name: Stand())
    monkeypatch.setattr("lipdub.evaluation.networks.locate", Path)
    monkeypatch.setattr("lipdub.evaluation.networks.file_of", lambda name: f"file of {name}")
    report = run(talking(("a.mp4", "b.mp4")), pairings=("own",), lpips="vgg16", identity="sface", fid="inception")
    dub, real = (line_of(report, "own", row).cells for row in ("tiny", REAL))
    assert dub["lpips"].n == 2 and dub["lpips"].mean > 0 and dub["identity"].mean == 1
    assert {"lpips", "identity"}.isdisjoint(real)  # it is itself
    assert [(one.pairing, one.row, one.frames) for one in report.frechet] == [
        ("own", FOREIGN, 16),
        ("own", "tiny", 16),
    ]
    assert blocks(report)[-1].header == ("", "own sound") and "(16)" in blocks(report)[-1].rows[0][1]
    assert "### FID" in markdown(report) and ",set,tiny,,fid," in as_csv(report)
    assert "LPIPS on VGG-16: file of vgg16" in report.protocol
    assert next(line for line in report.protocol if line.startswith("Not measured")) == (
        "Not measured: expert loss (--expert expert), perceptual by VGG (--features vgg16), "
        "LSE-C and LSE-D (--syncnet syncnet.safetensors)."
    )


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
    report = run(talking(("a.mp4", "b.mp4")), pairings=("own",), weights=(str(generator_file), str(copy)))
    assert [(d.row, d.against) for d in report.differences] == [
        ("tiny", UNTOUCHED),
        ("copy", UNTOUCHED),
        ("copy", "tiny"),
    ]
    same = report.differences[-1].cells
    assert all(cell.mean == pytest.approx(0, abs=1e-9) and not cell.excludes_zero for cell in same.values())
    assert [block.header[-1] for block in blocks(report)] == ["copy", "copy - tiny"]


def test_another_tools_videos_are_a_row_whatever_their_size_and_rate(run, talking, tmp_path: Path) -> None:
    folder, peer = talking(), tmp_path / "peer"
    table = list_pairs(EvalOptions(clips=folder, output=tmp_path / "out", pairings=("own",)))
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == ["pairing", "picture", "sound", "file"] and len(lines) == 4
    for number, (_, picture, _, file) in enumerate(lines[1:3]):  # of three: one was not made
        (peer / file).parent.mkdir(parents=True, exist_ok=True)
        copy_at(Path(picture), peer / file, twice=number == 0)
    report = run(folder, pairings=("own",), weights=(), videos={"peer": peer})
    line = line_of(report, "own", "peer")
    assert (line.n, line.failed) == (3, 1) and "has no own/b-3__b-3.mp4" in report.failures[0].error
    assert line.cells["psnr"].mean > 30 and line.cells["opening_r"].mean > 0.95
    assert [(d.row, d.against) for d in report.differences] == [("peer", UNTOUCHED)]


def copy_at(source: Path, target: Path, *, twice: bool) -> None:
    """Encode a clip anew, `twice` with double the size and every frame shown twice."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream("libx264", rate=50 if twice else 25)
        stream.width, stream.height, stream.pix_fmt = (320, 240, "yuv420p") if twice else (160, 120, "yuv420p")
        stream.options = {"crf": "8", "preset": "ultrafast"}
        pictures = [frame.to_ndarray(format="rgb24") for frame in given.decode(video=0)]
        for picture in [one for one in pictures for _ in range(1 + twice)]:
            larger = picture.repeat(1 + twice, 0).repeat(1 + twice, 1)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(larger, format="rgb24")))
        made.mux(stream.encode())


def test_the_page_shows_worst_clips_and_needs_nothing_else(run, talking, tmp_path: Path) -> None:
    report = run(talking(faceless=("a/2.mp4",)), pairings=("own",), html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text and "http" not in text and not re.search(r"(src|href)=\"(?!data:)", text)
    assert "The 2 worst" in text and "Contact sheet" in text and "Offsets of lips and sound" in text
    assert text.count("<h3>own: ") == 2  # what failed in all rows cannot be shown
    seen = sum(not verdict["error"] for verdict in verdicts(report))
    assert text.count("data:image/jpeg") == 2 * seen  # on the sheet, and among the worst
    for line in report.protocol:
        assert str(Markup.escape(line)) in text
    assert f"{len(report.failures)} results failed" in text and "0 of 40 frames" in text
    assert not list((tmp_path / "out").glob(".dubs*"))


def test_runs_of_the_ablation_are_rows_of_table_4_1(run, talking, tmp_path: Path, tiny_config) -> None:
    plain = replace(
        tiny_config,
        generator=replace(tiny_config.generator, residual=False, attention=False, audio_skips=False, mask_head=False),
        reference=replace(tiny_config.reference, sampling="random"),
    )
    for name, config in (("a", plain), ("full", tiny_config), ("other", replace(tiny_config, reference=NEIGHBOURS))):
        make_run(tmp_path / "runs" / name, config)
    report = run(talking(("a.mp4", "b.mp4")), pairings=("own",), weights=(), runs=tmp_path / "runs")
    assert [line.row for line in report.lines][3:] == ["4.1 row 1", "4.1 row 7"]
    table = report.ablation
    assert len(table) == 9 and table[0][:6] == ("Random 1", *["No"] * 5) and table[-1][0] == "Real"
    measured = [not row[8].startswith("not run") for row in table[:8]]
    assert measured == [True, *[False] * 5, True, False] and table[6][8].endswith("[15.2]")
    assert not list((tmp_path / "out").glob("**/*.safetensors"))
    assert any("4.1 row 7: row7-full.safetensors" in line and "ResNet" in line for line in report.protocol)
    assert "Table 4.1" in markdown(report) and blocks(report)[0].header[0] == "Refs."
    with pytest.raises(InputError, match=r"row of Table 4\.1"):
        run(talking(), weights=(), runs=tmp_path / "nowhere", overwrite=True)


NEIGHBOURS = ReferenceConfig(sampling="neighbourhood")  # with everything switched on: no row


def make_run(folder: Path, config: Config) -> None:
    folder.mkdir(parents=True)
    sections = ("mel", "reference", "generator", "expert", "loss", "train")
    text = json.dumps({name: to_dict(getattr(config, name)) for name in sections})
    (folder / "config.json").write_text(text, encoding="utf-8")
    torch.save({"model": Generator(config.generator).state_dict()}, folder / "checkpoint.pt")


def test_wav2lip_is_a_row_and_its_terms_are_said(run, talking, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights, events = tmp_path / "w2l.safetensors", []
    save_state(weights, Wav2Lip().state_dict(), {"kind": "wav2lip"})
    report = run(talking(), pairings=("own",), limit=1, weights=(str(weights),), on_event=events.append)
    line = line_of(report, "own", "w2l")
    assert (line.n, line.failed) == (1, 0) and line.cells["psnr"].mean < 40
    said = [event.message for event in events if isinstance(event, Warning_)]
    assert len(said) == 1 and said[0].startswith("w2l: ") and "commercial use is prohibited" in said[0]
    assert any(text.startswith("w2l: w2l.safetensors") and "prohibited" in text for text in report.protocol)


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
    assert names_of(["runs/peer.safetensors"], ["peer"]) == {"runs/peer.safetensors": "runs/peer.safetensors"}
    assert names_of([], ["peer"]) == {} and names_of([], alone=False) == {}
    with pytest.raises(InputError, match="cannot be called real"):
        names_of([], ["real"])


def test_csv_has_a_line_per_mean_and_difference(whole) -> None:
    report = whole.report
    rows = list(csv.DictReader(as_csv(report).splitlines()))
    assert {row["pairing"] for row in rows} == {"own", "other", "speaker"}
    means = [row for row in rows if (row["kind"], row["pairing"]) == ("mean", "own")]
    assert len(means) == 4 * len(COLUMNS)
    one = next(row for row in means if (row["row"], row["measure"]) == ("tiny", "psnr"))
    cell = line_of(report, "own", "tiny").cells["psnr"]
    assert (one["pairs"], one["failed"], one["n"]) == ("3", "0", "3")
    assert float(one["mean"]) == pytest.approx(cell.mean, rel=1e-5) and float(one["low"]) <= float(one["high"])
    empty = next(row for row in means if (row["row"], row["measure"]) == ("tiny", "expert"))
    assert (empty["n"], empty["mean"]) == ("0", "")
    assert {row["against"] for row in rows if row["kind"] == "difference"} == {UNTOUCHED}


def test_markdown_has_rows_as_the_thesis_does_and_the_protocol(whole) -> None:
    report = whole.report
    text = markdown(report)
    head = next(line for line in text.splitlines() if line.startswith("| row |"))
    assert "masked PSNR (15, 16), dB ↑" in head and "LMD, % ↓" in head
    assert [line.split(" | ")[0] for line in text.splitlines()[4:8]] == [
        f"| {row}" for row in (REAL, FOREIGN, UNTOUCHED, "tiny")
    ]
    for line in report.protocol:
        assert f"- {line}" in text
    assert "Judge: the width of squares" in text and "seed 0" in text


def test_our_own_landmarks_are_marked_wherever_they_judge(run, talking, square_tracker) -> None:
    judge, events = square_tracker(), []
    judge.ours, judge.name, judge.caveat = True, "OUR OWN squares", "No independent judge."
    clips = talking()
    report = run(clips, pairings=("own",), limit=1, on_event=events.append)
    assert not report.own_landmarks and "[our landmarks]" not in markdown(report)
    report = run(clips, pairings=("own",), limit=1, judge=judge, on_event=events.append, overwrite=True)
    head = next(line for line in markdown(report).splitlines() if line.startswith("| row |"))
    marked = [title for title in head.split(" | ") if "[our landmarks]" in title]
    assert {"opening r [our landmarks] ↑", "LMD, % [our landmarks] ↓"} <= set(marked)
    assert not {title for title in marked if "PSNR" in title or "vL" in title or "perceptual" in title}
    assert "Judge: OUR OWN squares. No independent judge." in report.protocol
    assert any(line.startswith("Not measured: ") and "not ours" in line for line in report.protocol)
    assert any(event.code == "judge" for event in events if isinstance(event, Warning_))
    assert any(line.startswith("perceptual by our landmark network: landmarks.safetensors") for line in report.protocol)
