from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lipdub.config import Config, MediaConfig
from lipdub.dub.analyze import DubPlan
from lipdub.dub.estimate import KEY_EVERY, Costs
from lipdub.dub.options import SyncOptions
from lipdub.dub.report import SyncPlan
from lipdub.dub.sync import plan_sync
from lipdub.errors import InputError, NoFaceError, OutputError, SetupError
from lipdub.events import Event, Plan, Stage, Warning_
from lipdub.media.atomic import AtomicOutput

FACE, LEFT, RIGHT = (50, 30, 56), (6, 34, 48), (90, 30, 60)


@pytest.fixture
def plan(generator_file: Path, fake_backend, tmp_path: Path, monkeypatch) -> Callable[..., SyncPlan]:
    """Run `plan_sync`; checks that no file is made or changed. `plan.events` holds what it told."""
    (tmp_path / "planned").mkdir()
    events: list[Event] = []

    def listing() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def run(video: Path, audio: Path, output: str = "dubbed.mp4", **options: object) -> SyncPlan:
        chosen = replace(SyncOptions(generator=str(generator_file), device="cpu"), **options)
        config, before = Config(media=MediaConfig(preset="ultrafast")), listing()
        with monkeypatch.context() as patch:
            patch.setattr(AtomicOutput, "__enter__", lambda self: pytest.fail("a dry run writes nothing"))
            try:
                path = tmp_path / "planned" / output
                return plan_sync(video, audio, path, chosen, config=config, on_event=events.append)
            finally:
                assert listing() == before

    run.events = events
    return run


def test_it_says_what_would_be_done(plan, face_clip, speech) -> None:
    video = face_clip(lambda number: [FACE], n_frames=10, languages=("eng",))
    found = plan(video, speech(0.9))
    assert (found.frames, found.video_s, found.audio_s) == (10, 0.4, 0.9)
    assert found.source == "h264 160x120 yuv420p, 25 fps"
    assert (found.encoder, found.pix_fmt, found.container) == ("libx264", "yuv420p", "mp4")
    assert (found.dub, found.dub_encoder) == ("pcm_s16le 16000 Hz mono", "aac")
    assert found.kept == ("audio stream 1 (aac): copy",)
    assert found.warnings == ("the audio is 0.50 s longer than the video; its end is cut",)
    assert (found.dubbed, found.passed, found.shots) == (10, {}, (0.0,))
    (face,) = found.faces
    assert (face.id, face.shot, face.first_s, face.last_s, face.frames, face.dubbed) == (0, 0, 0.0, 0.4, 10, 10)
    assert face.usable == 1.0 and 30 < face.size_px < 60
    assert (found.device, Path(found.output).name) == ("cpu", "dubbed.mp4")


def test_containers_and_codecs_are_those_of_the_run(plan, face_clip, speech) -> None:
    video = face_clip(lambda number: [FACE], n_frames=6, languages=("eng",))
    found = plan(video, speech(0.1), "dubbed.mkv", codec="hevc", keep_original_audio=False, language="uk")
    assert found.language == "ukr"
    assert (found.encoder, found.container, found.dub_encoder, found.kept) == ("libx265", "matroska", "pcm_s16le", ())
    found = plan(video, speech(0.24), "dubbed.avi")
    assert (found.container, found.dub_encoder) == ("avi", "copy")
    assert found.warnings == ("chapters do not fit into avi",)


def test_events_end_with_the_plan(plan, face_clip, speech) -> None:
    found = plan(face_clip(lambda number: [FACE]), speech(0.9))
    stages = [event for event in plan.events if isinstance(event, Stage)]
    assert [(stage.name, stage.index, stage.count) for stage in stages] == [
        ("read", 1, 3),
        ("faces", 2, 3),
        ("trial", 3, 3),
    ]
    assert [event.code for event in plan.events if isinstance(event, Warning_)] == ["length"]
    assert plan.events[-1] == Plan(found)


@pytest.mark.parametrize(
    ("markers", "options"),
    [
        (lambda number: [FACE], {"start_s": 0.2, "end_s": 0.64}),
        (lambda number: [FACE] if 5 <= number < 14 or number >= 18 else [], {}),
        (lambda number: [LEFT, RIGHT], {"face": (30.0, 60.0)}),
        (lambda number: [LEFT, RIGHT], {"face": "all"}),
    ],
)
def test_the_run_does_what_the_plan_said(plan, dub, face_clip, speech, markers, options) -> None:
    video, audio = face_clip(markers, n_frames=26), speech(1.04)
    found, report = plan(video, audio, **options), dub(video, audio, **options)
    assert (found.frames, found.dubbed, found.passed) == (report.frames, report.dubbed, report.passed)
    assert sum(face.dubbed > 0 for face in found.faces) == report.faces
    assert found.dubbed > 0


def test_people_that_are_not_chosen_are_listed_too(plan, face_clip, speech) -> None:
    found = plan(face_clip(lambda number: [LEFT, RIGHT]), speech())
    assert sorted(face.dubbed for face in found.faces) == [0, 10]
    assert len({face.id for face in found.faces}) == 2


def test_shots_are_told_by_their_time(plan, face_clip, speech) -> None:
    places = [FACE, (4, 4, 48), (100, 60, 56)]
    video = face_clip(lambda n: [places[n // 10]], n_frames=30, scenes=lambda n: n // 10)
    found = plan(video, speech(1.2), start_s=0.2)
    assert found.shots == (0.0, 0.4, 0.8)
    assert [(face.shot, face.first_s, face.last_s) for face in found.faces] == [
        (0, 0.2, 0.4),
        (1, 0.4, 0.8),
        (2, 0.8, 1.2),
    ]


def test_what_a_run_would_refuse_is_refused(plan, face_clip, speech, tmp_path: Path) -> None:
    video, audio = face_clip(lambda number: [FACE]), speech()
    (tmp_path / "planned" / "there.mp4").write_bytes(b"precious")
    for output, kind, words, options in [
        ("there.mp4", OutputError, "exists", {}),
        ("../clip.mp4", OutputError, "is the input", {"overwrite": True}),
        ("nowhere/a.mp4", OutputError, "does not exist", {}),
        ("a.xyz", OutputError, r"cannot write \.xyz", {}),
        ("a.avi", OutputError, "does not take vp9", {"codec": "vp9"}),
        ("a.mp4", SetupError, "mpeg3", {"codec": "mpeg3"}),
        ("a.mp4", SetupError, "tpu", {"device": "tpu"}),
        ("a.mp4", InputError, "invalid language tag", {"language": "klingon"}),
        ("a.mp4", InputError, "has no frame from 9.00 s on", {"start_s": 9.0}),
        ("a.mp4", NoFaceError, "fit --face 1,1", {"face": (1.0, 1.0)}),
    ]:
        with pytest.raises(kind, match=words):
            plan(video, audio, output, **options)
    assert plan(video, audio, "there.mp4", overwrite=True).dubbed == 10


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions")
def test_a_folder_that_cannot_be_written_is_refused(plan, face_clip, speech, tmp_path: Path) -> None:
    (tmp_path / "planned").chmod(0o500)
    with pytest.raises(OutputError, match="cannot write into"):
        plan(face_clip(lambda number: [FACE]), speech())


def test_the_estimate_counts_picture_sound_and_what_is_kept(plan, dub, face_clip, speech, tmp_path: Path) -> None:
    video, audio = face_clip(lambda number: [FACE], n_frames=40, languages=("eng",)), speech(1.6)
    estimate = plan(video, audio, "dubbed.mkv", crf=0).estimate
    assert set(estimate.seconds) == {"read", "faces", "dub"} and min(estimate.seconds.values()) > 0
    dub.output = tmp_path / "out" / "dubbed.mkv"
    dub(video, audio)
    size = dub.output.stat().st_size
    assert 0.6 * size < estimate.output_bytes < 1.6 * size
    assert 0 < estimate.needed_bytes < estimate.output_bytes < estimate.free_bytes


def test_a_full_disk_is_a_warning(plan, face_clip, speech, monkeypatch) -> None:
    monkeypatch.setattr("lipdub.dub.estimate.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    found = plan(face_clip(lambda number: [FACE]), speech())
    assert len(found.warnings) == 1 and "hardly room" in found.warnings[0]


def test_costs_add_up() -> None:
    costs = Costs(frame_s=0.01, face_s=0.1, track_s=1.0, key_bytes=1000, frame_bytes=10)
    weights = [np.array([0, 0.5, 1, 1]), np.array([1.0, 0])]
    jobs = [SimpleNamespace(weight=weight) for weight in weights]
    assert costs.seconds(DubPlan(np.zeros(100), jobs, {})) == pytest.approx(1.0 + 0.4 + 2.0)
    assert costs.picture_bytes(KEY_EVERY - 1, 2) == 2000 + 10 * (KEY_EVERY - 3)
    assert costs.picture_bytes(3, 9) == 3000


def test_a_film_of_another_length_is_planned_at_that_length(plan, face_clip, speech) -> None:
    video = face_clip(lambda number: [FACE], n_frames=10)
    found = plan(video, speech(0.9), "dubbed.mov", length="audio", extend="bounce")
    assert (found.frames, found.dubbed, found.video_s, found.output_s) == (22, 22, 0.4, 0.9)
    assert (found.warnings, found.dub_encoder) == ((), "copy")
    assert found.faces[0].last_s == 0.88
    found = plan(video, speech(0.2), "dubbed.mov", length="shortest")
    assert (found.frames, found.output_s, found.warnings) == (5, 0.2, ())
    assert plan(video, speech(0.4), "dubbed.mov").output_s == 0.4
