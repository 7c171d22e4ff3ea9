from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.config import Config, QualityConfig, load_config
from lipdub.dub.report import Segment, ShotReport, SyncReport
from lipdub.errors import InputError, NoFaceError, WeightsError
from lipdub.evaluation.quality import Trace, check, faults_of, is_sure, jitter
from lipdub.events import Done, Event, Stage
from lipdub.html.page import quality_page, write_page

CALM = {"offset_ms": 40.0, "confidence": 0.9, "silence": 30.0, "jitter": 1.5, "seam": 2.0}


@pytest.fixture(autouse=True)
def finds_squares(fake_faces, monkeypatch) -> None:
    monkeypatch.setattr("lipdub.faces.choose.builtin_backend", lambda config, device: fake_faces())


@pytest.fixture
def clip(face_clip) -> Path:
    """A square that stays for 60 frames, and a cut to another one."""
    return face_clip(
        lambda t: [(50, 20, 56)] if t < 40 else [(20, 30, 60)],
        n_frames=60,
        languages=("eng",),
        scenes=lambda t: 0 if t < 40 else 1,
    )


def test_each_shot_is_a_segment_and_pictures_come_with_it(clip: Path) -> None:
    events: list[Event] = []
    quality = check(clip, on_event=events.append)
    parts = quality.report.segments
    assert [(part.shot, part.first_s, part.frames) for part in parts] == [(0, 0.0, 40), (1, 1.6, 20)]
    assert [len(trace.openings) for trace in quality.traces] == [40, 20]
    assert {picture.shape for trace in quality.traces for picture in trace.pictures} == {(192, 192, 3)}
    assert all(len(trace.pictures) == 3 for trace in quality.traces)
    assert [(event.name, event.index) for event in events if isinstance(event, Stage)] == [("faces", 1), ("judge", 2)]
    assert isinstance(events[-1], Done) and events[-1].report == quality.report


@pytest.mark.bundled_expert
def test_the_bundled_expert_judges_offsets_where_it_is_at_hand(clip: Path) -> None:
    report = check(clip).report
    assert report.by == "the lip-sync expert"
    assert report.segments[0].offset_ms % 40 == 0 and report.segments[0].confidence >= 0


def test_without_the_expert_offsets_are_by_loudness(clip: Path) -> None:
    assert check(clip).report.by == "loudness"
    with pytest.raises(WeightsError, match="nosuch"):
        check(clip, expert="nosuch.safetensors")


def test_long_shots_are_cut_into_pieces_of_one_length(clip: Path) -> None:
    parts = check(clip, load_config(None, ["quality.segment_s=0.5"])).report.segments
    assert [part.frames for part in parts] == [10, 10, 10, 10, 10, 10]
    assert [part.first_s for part in parts] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.0])


def test_what_cannot_be_judged_says_why(face_clip) -> None:
    with pytest.raises(InputError, match="no audio"):
        check(face_clip(lambda t: [(50, 20, 56)], "mute.mp4"))
    with pytest.raises(NoFaceError, match="no face is clear"):
        check(face_clip(lambda t: [], "empty.mp4", languages=("eng",)))


def test_an_offset_that_chance_could_find_is_not_believed() -> None:
    limits = QualityConfig()
    assert is_sure(0.3, 4.0, limits, True) and not is_sure(0.3, 0.5, limits, True)
    assert not is_sure(0.3, 4.0, limits, False) and not is_sure(None, 4.0, limits, True)


def test_only_what_is_sure_and_beyond_a_limit_is_a_fault() -> None:
    limits = QualityConfig()
    assert faults_of(CALM, 4.0, limits, False) == []
    assert faults_of(dict.fromkeys(CALM), 4.0, limits, False) == []
    assert faults_of(CALM | {"offset_ms": -400.0}, 4.0, limits, False) == ["lips 400 ms before their sound"]
    unsure = CALM | {"offset_ms": 400.0, "confidence": 0.4}
    assert faults_of(unsure, 4.0, limits, False) == []
    assert faults_of(unsure, 10.0, limits, False) == ["lips 400 ms after their sound"]  # ten seconds say more
    assert faults_of(unsure, 4.0, limits, True) == ["lips 400 ms after their sound"]  # an expert's scale is another
    assert len(faults_of(CALM | {"silence": 500.0, "jitter": 9.0, "seam": 30.0}, 4.0, limits, True)) == 3


@pytest.mark.parametrize(("every", "expected"), [(1, 2.0), (10, 4.0)])
def test_cheeks_that_hardly_change_count_as_half_a_level(every: int, expected: float) -> None:
    turn = np.linspace(0, 2 * np.pi, 68)
    points = 48 + np.stack([12 * np.cos(turn), 24 + 6 * np.sin(turn)], 1)  # mouth and chin: below the cheeks
    times = np.arange(41)
    faces = np.full((41, 96, 96, 3), 100, np.uint8)
    faces[1::2, 48:] += 2  # round the lips: two levels from frame to frame
    faces[times // every % 2 == 1, :48] += 1  # cheeks: one level, in each frame or in each tenth
    assert jitter(faces, np.broadcast_to(points, (41, 68, 2))) == pytest.approx(expected, rel=1e-4)


def test_a_page_holds_all_that_it_shows_and_trusts_no_name(clip: Path, tmp_path: Path) -> None:
    quality = check(clip)
    shot = ShotReport(first_s=0.0, frames=40, dubbed=31, passed={"no face": 9})
    dub = SyncReport(
        output="o.mp4", frames=60, dubbed=31, passed={}, faces=1, seconds=1.0, fps=60.0, stages={}, device="cpu",
        generator="<script>alert(1)</script>", shots=(shot,), warnings=("a & b",),
    )  # fmt: skip
    text = quality_page(quality, dub)
    assert "<script" not in text and "&lt;script&gt;" in text and "a &amp; b" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "http" not in text
    assert text.count("data:image/jpeg;base64,") == 6 and text.count("<svg") == 2
    assert "31</td>" in text and "9 no face" in text
    write_page(tmp_path / "page.html", text, overwrite=False)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text


def test_a_trace_with_silence_at_both_ends_is_drawn() -> None:
    from lipdub.html.page import traced

    silent = np.array([True, True, False, False, True])
    svg = traced(Trace(np.arange(5) / 25, np.linspace(0, 1, 5), np.linspace(1, 0, 5), silent, ()))
    assert svg.count('class="hush"') == 2


def test_the_command_prints_segments_and_strict_is_exit_code_10(clip: Path, tmp_path: Path) -> None:
    def run(*words: str):
        return CliRunner().invoke(app, ["eval", str(clip), "-q", *words])

    calm = run("--strict", "--html", str(tmp_path / "q.html"))
    assert calm.exit_code == 0, calm.output
    assert calm.stdout.splitlines()[0].split()[:3] == ["TIME", "SHOT", "FACE"]
    assert "0 of 2 segments with a fault" in calm.stdout and (tmp_path / "q.html").is_file()
    assert run("--html", str(tmp_path / "q.html")).exit_code == 5
    faulty = run("--strict", "--set", "quality.max_seam=0")
    assert faulty.exit_code == 10 and "visible border" in faulty.stdout and "2 segments of" in faulty.stderr
    assert run("--set", "quality.max_seam=0").exit_code == 0
    events = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert events[-1]["type"] == "done" and len(events[-1]["report"]["segments"]) == 2


def test_sync_writes_a_report_of_what_it_made(clip: Path, speech, fake_backend, generator_file, tmp_path) -> None:
    words = ["sync", clip, speech(2.4), "-o", tmp_path / "o.mp4", "--report", tmp_path / "r.html", "-q"]
    words += ["--weights", generator_file, "--device", "cpu", "--set", "media.preset=ultrafast"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Dub of o.mp4" in page and page.count("<svg") == 2 and "<td>40</td><td>40</td>" in page
    again = CliRunner().invoke(app, [str(word) for word in [*words[:4], tmp_path / "new.mp4", *words[5:]]])
    assert again.exit_code == 5 and not (tmp_path / "new.mp4").exists()  # refused before the work


def test_what_a_dub_has_painted_is_judged_and_nothing_else(face_clip) -> None:
    left, right = (20, 30, 50), (90, 30, 50)
    both = face_clip(lambda t: [left, right] if t < 40 else [left], "two.mp4", n_frames=60, languages=("eng",))
    middle = {"x": 115.0, "y": 55.0}  # of the right one
    segments = [
        Segment(face=7, first_s=0.2, last_s=0.6, at_s=0.4, **middle),
        Segment(face=7, first_s=1.0, last_s=1.4, at_s=1.2, **middle),
        Segment(face=7, first_s=1.8, last_s=2.2, at_s=2.0, **middle),  # it has gone
    ]
    report = check(both, segments=segments).report
    assert [(part.face, part.first_s, part.last_s) for part in report.segments] == [(7, 0.2, 0.6), (7, 1.0, 1.4)]
    assert report.lost == 1
    largest = check(both).report
    assert len(largest.segments) == 1 and largest.lost == 0
    with pytest.raises(NoFaceError):
        check(both, segments=segments[2:])


def test_a_report_looks_at_the_face_that_was_chosen(
    face_clip, speech, fake_backend, generator_file, tmp_path, monkeypatch
) -> None:
    asked = []
    monkeypatch.setattr("lipdub.cli.sync.show_report", lambda report: asked.extend(report.segments))
    clip = face_clip(lambda t: [(20, 30, 60), (100, 30, 44)], n_frames=30, languages=("eng",))
    talk = tmp_path / "talk.toml"
    talk.write_text('[[speaker]]\nface = "120,50@0.5"\nturns = [[0.4, 0.8]]\n', encoding="utf-8")
    words = ["sync", clip, speech(1.2), "-o", tmp_path / "o.mp4", "--report", tmp_path / "r.html", "--speakers", talk]
    words += ["--weights", generator_file, "--device", "cpu", "--set", "media.preset=ultrafast"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    (segment,) = asked
    assert (segment.face, segment.first_s, segment.last_s) == (1, 0.4, 0.76)  # frames by their middles
    assert (segment.x, segment.y) == pytest.approx((122, 52), abs=8)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1 and "face 1</h2>" in page  # the larger one is left alone, and not judged


def test_limits_of_the_configuration_are_used(clip: Path) -> None:
    config = replace(Config(), quality=replace(QualityConfig(), max_jitter=0.0))
    assert all("flickers" in part.faults[0] for part in check(clip, config).report.segments)
