"""--fit and --length stretch on generated footage: each picture holds its number, each sentence begins with a click."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.config import Config
from lipdub.dub.options import SyncOptions
from lipdub.dub.preview import excerpt
from lipdub.dub.still import filmed
from lipdub.dub.sync import plan_sync
from lipdub.errors import InputError, OutputError
from lipdub.events import Warning_
from lipdub.faces.selection import Speaker
from lipdub.media.audio import load_audio, write_wav
from lipdub.media.probe import probe

RATE = 25
BITS, BIT = 9, 7  # of a picture's number, and the pixels of each: too small for a face
FACE = (50, 20, 56)
# Ten sentences, (start, end) in the video and in the dub: some last longer, some shorter, pauses change, too.
SOURCE = [(0.4, 1.2), (1.5, 2.3), (2.6, 3.2), (3.2, 4.0), (4.5, 5.1), (5.3, 6.3), (6.8, 7.2), (7.4, 8.2), (8.3, 9.0)]
SOURCE += [(9.3, 9.8)]
TARGET = [(0.5, 1.6), (1.9, 2.6), (3.0, 3.8), (3.8, 4.9), (5.3, 5.8), (6.0, 7.4), (7.9, 8.2), (8.5, 9.3), (9.45, 10.4)]
TARGET += [(10.7, 11.3)]


@pytest.fixture
def footage(face_clip, draw_faces, monkeypatch: pytest.MonkeyPatch):
    """Maker of a clip whose pictures hold their number as white squares in the lowest rows."""

    def picture(size, markers, number=0, scene=0):
        page = draw_faces(size, markers, number, scene)
        page[-12:] = 0
        for bit in range(BITS):
            if number >> bit & 1:
                page[-9 : -9 + BIT, 4 + 16 * bit : 4 + 16 * bit + BIT] = 255
        return page

    monkeypatch.setitem(face_clip.__globals__, "face_picture", picture)

    def make(name: str = "clip.mp4", seconds: float = 10.0) -> Path:
        return face_clip(lambda number: [FACE], name, n_frames=round(seconds * RATE), languages=("eng",))

    return make


@pytest.fixture
def clicks(tmp_path: Path):
    """Maker of a dub: a hum with a click where each sentence begins."""

    def make(starts_s, seconds: float) -> Path:
        t = np.arange(round(seconds * 16000)) / 16000
        sound = 0.1 * np.sin(2 * np.pi * 150 * t) * (1 + 0.5 * np.sin(2 * np.pi * 4 * t))
        for start_s in starts_s:
            sound[round(start_s * 16000) :][:80] = 0.9
        write_wav(tmp_path / "dub.wav", sound.astype(np.float32), 16000)
        return tmp_path / "dub.wav"

    return make


def numbers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """When each picture is shown, and the number that it holds."""
    times, found = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            grey = frame.to_ndarray(format="gray")[-9 : -9 + BIT]
            bits = [grey[2:-2, 6 + 16 * bit : 9 + 16 * bit].mean() > 128 for bit in range(BITS)]
            times.append(float(frame.pts * frame.time_base))
            found.append(sum(1 << bit for bit, on in enumerate(bits) if on))
    return np.array(times), np.array(found)


def starts(path: Path) -> np.ndarray:
    """When the clicks of a file's first audio track are heard."""
    sound = load_audio(path, sample_rate=16000)
    loud = np.flatnonzero(sound > 0.6) / 16000
    return loud[np.insert(np.diff(loud) > 0.1, 0, True)]


def test_every_sentence_is_shown_when_it_is_heard(dub, footage, clicks, tmp_path: Path) -> None:
    fit = tmp_path / "fit.json"
    fit.write_text(json.dumps([{"source": a, "target": b} for a, b in zip(SOURCE, TARGET, strict=True)]))
    dub.output = tmp_path / "out.mkv"
    video = footage()
    report = dub(video, clicks([start for start, _ in TARGET], 11.6), fit=fit)
    times, seen = numbers(dub.output)
    assert seen.tolist() == list(range(250))  # every frame, once
    heard = starts(dub.output)
    assert heard == pytest.approx([start for start, _ in TARGET], abs=0.002)
    for (source_s, _), at_s in zip(SOURCE, heard, strict=True):
        shown = seen[np.searchsorted(times, at_s + 1e-6, "right") - 1]
        assert abs(shown / RATE - source_s) <= 0.04
    lengths = np.diff(times) * RATE
    assert lengths.max() <= 1.5 + 0.03 and lengths.min() >= 1 / 1.5 - 0.03  # 1 ms of Matroska's clock
    # The last sentence ends at 11.3 s in the dub, and 0.2 s before the video's end, which keep their speed.
    assert report.retiming.output_s == pytest.approx(11.5)
    made = probe(dub.output)
    assert made.video.duration_s == pytest.approx(11.5, abs=0.005) and made.streams == ("video", "audio")
    assert [each.off_s for each in report.retiming.sentences] == pytest.approx([0] * 10, abs=1e-3)
    assert report.warnings[0] == "audio stream 1 is left out: it cannot follow the new times of the picture"
    assert report.dubbed == 250 and report.segments[0].last_s == pytest.approx(times[-1], abs=1e-3)


def test_sentences_out_of_reach_are_named(dub, footage, clicks, tmp_path: Path) -> None:
    fit = tmp_path / "fit.json"
    fit.write_text(
        '[{"source": [0, 0.4], "target": [0, 1.2]}, {"source": [0.4, 1], "target": [1.2, 1.8]}]', encoding="utf-8"
    )
    report = dub(footage(seconds=1.0), clicks([], 2.0), fit=fit, stretch_max=2.0)
    assert report.retiming.sentences[1].off_s == pytest.approx(-0.4)
    told = "1 of 2 sentences begin where the picture is more than 0.04 s off (-0.40 s at 1.20 s): --stretch-max 2"
    assert any(warning.startswith(told) for warning in report.warnings)
    assert "fit" in {event.code for event in dub.events if isinstance(event, Warning_)}


@pytest.mark.parametrize(
    ("sentences", "end_off_s"),
    [
        # 0.4 s of picture, at most twice as slow, for 2 s of speech; the video's last 0.2 s follow.
        ('[{"source": [0, 0.4], "target": [0, 0.5]}, {"source": [0.4, 0.8], "target": [0.5, 2.5]}]', [0, -1.2]),
        # The sentence is longer than the rest of the video, which is shown at most twice as slow.
        ('[{"source": [0, 0.4], "target": [0, 0.5]}, {"source": [0.4, 1.2], "target": [0.5, 3.5]}]', [0, -1.8]),
        # The next sentence begins at once in the video, after a pause in the dub.
        ('[{"source": [0, 0.4], "target": [0, 0.4]}, {"source": [0.4, 0.8], "target": [0.6, 1.0]}]', [0.2, 0]),
    ],
    ids=["no-room", "behind-the-video", "no-pause"],
)
def test_ends_out_of_reach_are_named(dub, footage, clicks, tmp_path: Path, sentences: str, end_off_s) -> None:
    """Though both sentences begin when they are heard."""
    (fit := tmp_path / "fit.json").write_text(sentences, encoding="utf-8")
    report = dub(footage(seconds=1.0), clicks([], 4.0), fit=fit, stretch_max=2.0)
    rows = report.retiming.sentences
    assert [each.off_s for each in rows] == pytest.approx([0, 0], abs=1e-3)
    assert [each.end_off_s for each in rows] == pytest.approx(end_off_s, abs=2e-3)
    assert [each.shown_s[1] - each.target_s[1] for each in rows] == pytest.approx(end_off_s, abs=2e-3)
    off_s, at_s = next((each.end_off_s, each.target_s[1]) for each in rows if abs(each.end_off_s) > 0.04)
    told = f"1 of 2 sentences end where the picture is more than 0.04 s off ({off_s:+.2f} s at {at_s:.2f} s): starts"
    assert [warning for warning in report.warnings if "sentences" in warning] == [
        f"{told} are met first, within --stretch-max 2"
    ]


@pytest.mark.parametrize("seconds", [1.3, 0.8])
def test_the_whole_picture_is_stretched_to_the_speech(dub, footage, clicks, seconds: float) -> None:
    report = dub(footage(seconds=1.0), clicks([], seconds), length="stretch", keep_original_audio=False)
    assert report.warnings == ()  # its audio was not to be kept
    times, seen = numbers(dub.output)
    assert seen.tolist() == list(range(25)) and report.frames == 25
    assert np.diff(times) == pytest.approx(np.full(24, seconds / RATE), abs=2e-4)
    made = probe(dub.output)
    assert made.video.duration_s == pytest.approx(seconds, abs=1e-3)
    assert made.audio[0].duration_s == pytest.approx(seconds, abs=0.05)


def test_an_extension_follows_what_was_fitted(dub, footage, clicks, tmp_path: Path) -> None:
    fit = tmp_path / "fit.json"
    fit.write_text('[{"source": [0.2, 0.8], "target": [0.2, 1.0]}]', encoding="utf-8")
    report = dub(footage(seconds=1.0), clicks([], 1.6), fit=fit, length="audio", extend="freeze")
    assert report.retiming.output_s == pytest.approx(1.2) and report.added == 8  # at the mean rate
    assert probe(dub.output).video.duration_s == pytest.approx(1.6, abs=0.025)  # within half a frame


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"length": "stretch"}, "the audio is 3.00 times as long as the video, --stretch-max is 1.5"),
        ({"length": "stretch", "stretch_max": 4.0, "face": "speaking"}, "which --length stretch leaves out"),
        ({"length": "stretch", "stretch_max": 4.0, "speakers": (Speaker(),)}, "which --length stretch leaves out"),
        ({"fit_source": Path("a.srt")}, "--fit-source belongs to --fit"),
        ({"fit": Path("absent.json")}, "cannot open absent.json"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_the_work(dub, footage, clicks, options, what: str) -> None:
    with pytest.raises(InputError) as caught:
        dub(footage(seconds=0.4), clicks([], 1.2), **options)
    assert what in caught.value.what and not dub.output.exists()


@pytest.mark.parametrize(("seconds", "raised"), [(1.2, True), (2.0, False)])  # --stretch-max goes to 4
def test_a_limit_that_cannot_be_given_is_not_advised(dub, footage, clicks, seconds: float, raised: bool) -> None:
    with pytest.raises(InputError) as caught:
        dub(footage(seconds=0.4), clicks([], seconds), length="stretch")
    assert ("--stretch-max" in caught.value.remedy) is raised and "--length audio" in caught.value.remedy


def test_a_container_with_one_frame_rate_is_refused(dub, footage, clicks, tmp_path: Path) -> None:
    dub.output = tmp_path / "out.avi"
    with pytest.raises(OutputError, match=r"\.avi has one frame rate"):
        dub(footage(seconds=0.4), clicks([], 0.5), length="stretch")


def test_a_dry_run_tells_the_new_times(footage, clicks, generator_file, fake_backend, tmp_path) -> None:
    options = SyncOptions(generator=str(generator_file), device="cpu", length="stretch")
    plan = plan_sync(footage(seconds=1.0), clicks([], 1.25), tmp_path / "out.mp4", options)
    assert (plan.video_s, plan.output_s, plan.frames) == (1.0, 1.25, 25)
    assert plan.retiming.slowest == pytest.approx(1.25)


def test_a_preview_of_a_fitted_video_is_refused(footage, clicks, tmp_path: Path) -> None:
    options = SyncOptions(fit=tmp_path / "fit.json")
    with pytest.raises(InputError, match="--preview cannot be combined"), excerpt(footage(), clicks([], 1), options, 1):
        pass


def test_a_picture_has_no_sentences(clicks, tmp_path: Path) -> None:
    portrait = tmp_path / "portrait.png"
    portrait.write_bytes(b"\x89PNG")
    options = SyncOptions(fit=tmp_path / "fit.json")
    with (
        pytest.raises(InputError, match="it has no sentences"),
        filmed(portrait, clicks([], 1), options, Config(), lambda *_: None),
    ):
        pass
