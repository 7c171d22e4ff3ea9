from __future__ import annotations

import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lipdub.cli.results import show_report
from lipdub.config import SyncConfig, load_config
from lipdub.dub.active_speaker import SpeakerScores
from lipdub.dub.analyze import FaceTracks
from lipdub.dub.driving_audio import DrivingAudio
from lipdub.dub.job import Job
from lipdub.dub.networks import Networks, resolve_device
from lipdub.dub.options import SyncOptions
from lipdub.dub.preview import excerpt
from lipdub.errors import InputError, NoFaceError, OutputError, SetupError, WeightsError
from lipdub.events import Done, Progress, Stage, Warning_
from lipdub.faces.selection import Speaker
from lipdub.media.audio import load_audio, write_wav
from lipdub.media.disclosure import read_marks
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe
from lipdub.models.generator import Drawn, Generator
from lipdub.weights import load_state, save_state

FACE = (50, 30, 56)  # left, top and side of the face's crop
LEFT, RIGHT = (6, 34, 48), (90, 30, 60)  # two of them


def one(number: int):
    return [FACE]


def changed(before: list[np.ndarray], after: list[np.ndarray], face: tuple[int, int, int] = FACE) -> float:
    """Mean change of the luma over the lower middle of a face."""
    x, y, side = face
    area = slice(y + side * 6 // 10, y + side * 9 // 10), slice(x + side * 3 // 10, x + side * 7 // 10)
    return float(np.abs(before[0][area].astype(float) - after[0][area]).mean())


def equal(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "timing",
    [
        {"rate": Fraction(25)},
        {"rate": Fraction(30000, 1001)},
        {"pts": [0, 33, 50, 133, 160, 260, 261, 300, 400, 433], "time_base": Fraction(1, 1000)},
    ],
    ids=["25", "30000/1001", "variable"],
)
def test_the_same_pictures_at_the_same_times(dub, face_clip, speech, pictures, timing) -> None:
    video = face_clip(one, **timing)
    report = dub(video, speech())
    before, after = pictures(video), pictures(dub.output)
    assert [time for time, _ in after] == [time for time, _ in before]
    assert len(after) == 10 == report.frames == report.dubbed
    assert all(changed(a, b) > 5 for (_, a), (_, b) in zip(before, after, strict=True))
    info, source = probe(dub.output), probe(video)
    assert info.video is not None and source.video is not None
    assert (info.video.width, info.video.height) == (source.video.width, source.video.height) == (160, 120)
    assert info.streams == ("video", "audio")


def test_everything_else_of_the_file_is_kept(dub, face_clip, speech, tmp_path: Path) -> None:
    plain, video = face_clip(one, "plain.mp4", languages=("eng", "fra")), tmp_path / "all.mp4"
    text = tmp_path / "words.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:00,200\nhello\n")
    argv = [ffmpeg_binary(), "-v", "error", "-i", plain, "-i", text, "-map", "0", "-map", "1", "-c", "copy"]
    argv += ["-c:s", "mov_text", "-metadata:s:s:0", "language=spa", "-metadata", "title=A film"]
    subprocess.run([*argv, video], check=True)
    report = dub(video, speech())
    assert report.warnings == ()
    with av.open(str(dub.output)) as made:
        kinds = [(stream.type, stream.language) for stream in made.streams if stream.type != "data"]
        assert kinds[0][0] == "video"
        assert kinds[1][0] == "audio" and kinds[1][1] not in ("eng", "fra")
        assert kinds[2:] == [("audio", "eng"), ("audio", "fra"), ("subtitle", "spa")]
        default = [bool(stream.disposition & av.stream.Disposition.default) for stream in made.streams.audio]
        assert default == [True, False, False]
        assert [chapter["metadata"]["title"] for chapter in made.chapters()] == ["Chapter 0", "Chapter 1"]
        assert made.metadata["title"] == "A film"
    assert set(read_marks(dub.output)) == {"comment", "digital_source_type", "lipdub_version", "lipdub_weights"}
    dub(video, speech(), keep_original_audio=False, overwrite=True)
    assert probe(dub.output).streams.count("audio") == 1


def test_the_language_of_the_new_track(dub, face_clip, speech) -> None:
    video = face_clip(one, languages=("eng",))
    report = dub(video, speech(), language="uk-UA")
    assert [stream.language for stream in probe(dub.output).audio] == ["ukr", "eng"] and report.warnings == ()
    with pytest.raises(InputError, match="invalid language tag 'klingon'"):
        dub(video, speech(), language="klingon", overwrite=True)


def test_nothing_changes_away_from_the_face(dub, face_clip, speech, pictures) -> None:
    video = face_clip(one, n_frames=6)
    dub(video, speech())
    (x, y, side), slack = FACE, 2
    luma, chroma = np.zeros((120, 160), bool), np.zeros((60, 80), bool)
    luma[y - slack : y + side + slack, x - slack : x + side + slack] = True
    chroma[(y - slack) // 2 : (y + side + slack) // 2 + 1, (x - slack) // 2 : (x + side + slack) // 2 + 1] = True
    for (_, before), (_, after) in zip(pictures(video), pictures(dub.output), strict=True):
        assert np.array_equal(before[0][~luma], after[0][~luma])
        assert np.array_equal(before[1][:, ~chroma], after[1][:, ~chroma])
        brow = round(y + side * (SyncConfig().top - 0.05))  # eyes stay, whatever the mask says
        assert np.array_equal(before[0][:brow], after[0][:brow])
        assert changed(before, after) > 5


def test_a_video_that_lies_on_its_side(dub, face_clip, speech, pictures) -> None:
    video = face_clip(one, n_frames=5, rotation=90)
    dub(video, speech(0.2))
    made = probe(dub.output).video
    assert made is not None and made.rotation in (90, 270) and (made.width, made.height) == (160, 120)
    (x, y, side), outside = FACE, np.ones((120, 160), bool)
    outside[y - 2 : y + side + 2, x - 2 : x + side + 2] = False
    for (_, before), (_, after) in zip(pictures(video), pictures(dub.output), strict=True):
        assert np.array_equal(before[0][outside], after[0][outside])
        assert changed(before, after) > 5


def test_only_the_range_is_dubbed(dub, face_clip, speech, pictures) -> None:
    video = face_clip(one, n_frames=24)
    report = dub(video, speech(0.96), start_s=0.2, end_s=0.64)  # frames 5 to 15
    pairs = list(zip(pictures(video), pictures(dub.output), strict=True))
    touched = [not equal(before, after) for (_, before), (_, after) in pairs]
    assert touched == [5 <= number < 16 for number in range(24)]
    assert report.passed == {"outside the range": 13}
    assert (report.frames, report.dubbed) == (24, 11)
    amounts = [changed(before, after) for (_, before), (_, after) in pairs]
    for order in (amounts[5:9], amounts[15:11:-1]):  # the shot goes on before and after the range: faded, not switched
        assert order == sorted(order) and order[0] < 0.5 * order[3]


def test_frames_without_a_face_pass_through(dub, face_clip, speech, pictures) -> None:
    video = face_clip(lambda number: [FACE] if 5 <= number < 14 or number >= 18 else [], n_frames=26)
    report = dub(video, speech(1.04))
    touched = [not equal(a, b) for (_, a), (_, b) in zip(pictures(video), pictures(dub.output), strict=True)]
    assert touched == [5 <= number < 14 or number >= 18 for number in range(26)]
    assert report.passed == {"no face": 5, "other or unclear face": 4}
    assert report.dubbed + sum(report.passed.values()) == report.frames == 26


def test_a_face_is_left_alone_while_nobody_speaks(dub, face_clip, pictures, tmp_path: Path, capsys) -> None:
    video = face_clip(one, n_frames=60)
    sound = np.zeros(int(2.4 * 16_000), np.float32)
    sound[: 16_000 * 4 // 5] = 0.3 * np.sin(np.arange(16_000 * 4 // 5) * 0.2)  # 0.8 s
    write_wav(tmp_path / "half.wav", sound, 16_000)
    report = dub(video, tmp_path / "half.wav", only_speaking=True)
    touched = [not equal(a, b) for (_, a), (_, b) in zip(pictures(video), pictures(dub.output), strict=True)]
    assert all(touched[:20]) and not any(touched[30:])
    (rest,) = report.rests
    assert 0.8 <= rest.first_s <= 1.2 and rest.last_s == pytest.approx(2.36) and rest.confidence > 0.9
    assert report.passed == {"nobody speaks": 60 - sum(touched)} == report.shots[0].passed
    show_report(report)
    assert f"in 1 place, {rest.last_s - rest.first_s:.1f} s in all, a face stays" in capsys.readouterr().err
    everything = dub(video, tmp_path / "half.wav", overwrite=True)
    assert (everything.dubbed, everything.rests) == (60, ())


@pytest.mark.parametrize(
    ("face", "dubbed"), [("all", (True, True)), ("largest", (False, True)), ((30.0, 60.0), (True, False))]
)
def test_the_faces_that_were_asked_for(dub, face_clip, speech, pictures, face, dubbed) -> None:
    video = face_clip(lambda number: [LEFT, RIGHT], n_frames=6)
    report = dub(video, speech(), face=face)
    assert report.faces == sum(dubbed)
    for (_, before), (_, after) in zip(pictures(video), pictures(dub.output), strict=True):
        assert (changed(before, after, LEFT) > 2, changed(before, after, RIGHT) > 2) == dubbed
    assert (report.dubbed, report.passed) == (6, {})


def test_a_silent_dub_is_told(dub, face_clip, speech) -> None:
    report = dub(face_clip(one), speech(level=0.0))
    assert report.dubbed == 10
    (warning,) = report.warnings
    assert "silent" in warning


@pytest.mark.parametrize(("seconds", "words"), [(0.9, "0.50 s longer"), (0.2, "0.20 s shorter")])
def test_another_length_is_said_and_the_picture_stays_whole(dub, face_clip, speech, seconds, words) -> None:
    report = dub(face_clip(one), speech(seconds))
    assert len(report.warnings) == 1 and words in report.warnings[0]
    assert [(e.code, e.message) for e in dub.events if isinstance(e, Warning_)] == [("length", report.warnings[0])]
    made = probe(dub.output)
    assert made.video is not None and made.video.frames == 10
    assert made.video.duration_s == pytest.approx(0.4)
    assert made.audio[0].duration_s == pytest.approx(0.4, abs=0.08)


def test_a_clean_voice_drives_the_lips_and_the_mix_is_heard(dub, face_clip, speech, pictures) -> None:
    video, voice, mix = face_clip(one), speech(), speech(name="mix.wav", level=0.0)
    dub(video, voice, overwrite=True)
    spoken = [planes for _, planes in pictures(dub.output)]
    dub(video, mix, overwrite=True)
    resting = [planes for _, planes in pictures(dub.output)]
    report = dub(video, mix, drive_audio=voice, overwrite=True)
    driven = [planes for _, planes in pictures(dub.output)]
    assert report.warnings == ()
    assert all(equal(a, b) for a, b in zip(spoken, driven, strict=True))
    assert not all(equal(a, b) for a, b in zip(resting, driven, strict=True))
    assert np.abs(load_audio(dub.output)).max() < 0.01  # the mix is silent, the voice is not


def test_the_mix_beside_a_clean_voice_is_not_analyzed(dub, face_clip, speech, monkeypatch) -> None:
    analyzed: list[Path] = []
    real = Networks.load_driving_audio

    def load_driving_audio(self: Networks, path: Path, *, isolate: bool = False) -> DrivingAudio:
        analyzed.append(path)
        return real(self, path, isolate=isolate)

    monkeypatch.setattr(Networks, "load_driving_audio", load_driving_audio)
    voice, mix = speech(name="voice.wav"), speech(name="mix.wav", level=0.0)
    dub(face_clip(one), mix, drive_audio=voice)
    assert analyzed == [voice]


def test_a_voice_and_a_mix_of_other_lengths_are_said(dub, face_clip, speech) -> None:
    report = dub(face_clip(one), speech(), drive_audio=speech(0.2, "voice.wav"))
    assert len(report.warnings) == 1 and "differ by 0.20 s" in report.warnings[0]
    assert [event.code for event in dub.events if isinstance(event, Warning_)] == ["drive"]


def test_audio_behind_the_end_of_the_video_is_refused(dub, face_clip, speech, tmp_path: Path) -> None:
    """A file may say that its sound begins late; the output had no dub, or ended with exit 5 after the work."""
    late = tmp_path / "late.mka"
    argv = [ffmpeg_binary(), "-v", "error", "-i", speech(), "-output_ts_offset", "3", "-c:a", "flac", late]
    subprocess.run(argv, check=True)
    with pytest.raises(InputError, match=r"begins at 3\.00 s, where the video is over"):
        dub(face_clip(one), late)


def test_a_driving_voice_of_several_files_is_heard_whole(dub, face_clip, speech, tmp_path: Path) -> None:
    """As a service that sends sentences leaves it: WAV files one behind another."""
    (tmp_path / "two.wav").write_bytes(speech(0.2, "a.wav").read_bytes() * 2)
    report = dub(face_clip(one), speech(), drive_audio=tmp_path / "two.wav")
    assert "two.wav was joined from 2 sounds: they are read one after another" in report.warnings
    assert not any("differ by" in warning for warning in report.warnings)


def test_a_preview_takes_the_same_piece_of_the_voice_as_of_the_mix(face_clip, speech) -> None:
    voice, mix = speech(name="voice.wav"), speech(name="mix.wav", level=0.0)
    with excerpt(face_clip(one), mix, SyncOptions(drive_audio=voice, start_s=0.1), 0.2) as (_, heard, options):
        assert options.drive_audio not in (None, voice)
        piece, whole = load_audio(options.drive_audio), load_audio(voice)
        assert np.abs(load_audio(heard)).max() < 0.01
    assert len(piece) == pytest.approx(3200, abs=2)
    assert np.abs(piece[:3190] - whole[1600:4790]).max() < 0.01


def test_events_tell_stages_progress_and_the_report(dub, face_clip, speech) -> None:
    report = dub(face_clip(one), speech())
    stages = [event for event in dub.events if isinstance(event, Stage)]
    assert [(stage.name, stage.index, stage.count) for stage in stages] == [
        ("read", 1, 4),
        ("faces", 2, 4),
        ("dub", 3, 4),
        ("write", 4, 4),
    ]
    assert [event.done for event in dub.events if isinstance(event, Progress)][-1] == 10
    assert dub.events[-1] == Done(report)
    assert set(report.stages) == {"read", "faces", "dub", "write"}
    assert (report.output, report.device, report.faces) == (str(dub.output), "cpu", 1)


def test_an_existing_output_is_refused(dub, face_clip, speech) -> None:
    dub.output.write_bytes(b"precious")
    video, audio = face_clip(one), speech()
    with pytest.raises(OutputError, match="exists"):
        dub(video, audio)
    assert dub.output.read_bytes() == b"precious"
    assert dub(video, audio, overwrite=True).dubbed == 10
    assert probe(dub.output).video is not None


@pytest.mark.parametrize("role", ["video", "audio", "drive"])
def test_an_input_is_never_the_output(dub, face_clip, speech, role: str) -> None:
    video, audio, drive = face_clip(one), speech(), speech(name="drive.wav")
    dub.output = {"video": video, "audio": audio, "drive": drive}[role]
    before = dub.output.read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        dub(video, audio, drive_audio=drive, overwrite=True)
    assert dub.output.read_bytes() == before


@pytest.mark.parametrize("old", [None, b"precious"])
def test_a_failure_in_the_middle_leaves_nothing_behind(dub, face_clip, speech, monkeypatch, old: bytes | None) -> None:
    calls, real = [], Generator.draw

    def draw(self, *args, **kwargs) -> Drawn:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("a bug")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Generator, "draw", draw)
    if old is not None:
        dub.output.write_bytes(old)
    with pytest.raises(RuntimeError, match="a bug"):
        dub(face_clip(one), speech(), batch_size=3, overwrite=True)
    assert len(calls) == 2
    assert [(path, path.read_bytes()) for path in dub.output.parent.iterdir()] == ([(dub.output, old)] if old else [])


@pytest.mark.parametrize(
    ("markers", "face", "words"),
    [
        (lambda number: [], "largest", "no face of at least 20 pixels"),
        (lambda number: [FACE], (3.0, 3.0), "the only face does not fit --face 3,3"),
        (lambda number: [(60, 40, 14)], "largest", "no face of at least 20 pixels"),
    ],
    ids=["none", "elsewhere", "too small"],
)
def test_no_usable_face_is_an_error_and_makes_no_file(dub, face_clip, speech, markers, face, words: str) -> None:
    with pytest.raises(NoFaceError, match=words) as caught:
        dub(face_clip(markers), speech(), face=face)
    assert "frames 0 to 9" in caught.value.what
    assert ("profiles" in caught.value.remedy) == ("no face" in words)
    assert not list(dub.output.parent.iterdir())


def test_two_outputs_need_two_names(dub, face_clip, speech) -> None:
    same, further = dub.output.parent / "." / dub.output.name, dub.output.with_name("b.mp4")
    for options in ({"compare": same}, {"overlay": same}, {"compare": further, "overlay": further}):
        with pytest.raises(OutputError, match="two outputs have the name"):
            dub(face_clip(one), speech(), **options)
        assert not list(dub.output.parent.iterdir())


def test_a_range_without_frames_is_an_error(dub, face_clip, speech) -> None:
    with pytest.raises(InputError, match=r"no frame from 5\.00 s on: they are at 0\.00 s to 0\.36 s"):
        dub(face_clip(one), speech(), start_s=5.0)


def broken(rows_of_call):
    """Generator.draw whose picture is NaN in some rows of each call."""
    real, calls = Generator.draw, []

    def draw(self, masked, *args, **kwargs) -> Drawn:
        drawn = real(self, masked, *args, **kwargs)
        rows = rows_of_call(len(calls), len(masked))
        calls.append(1)
        face = drawn.face.clone()
        face[rows] = float("nan")
        return replace(drawn, face=face)

    return draw


def test_pictures_that_are_not_finite_are_left_out_and_counted(dub, face_clip, speech, pictures, monkeypatch) -> None:
    monkeypatch.setattr(Generator, "draw", broken(lambda call, n: [1] if call == 0 else []))
    video = face_clip(one)
    config = load_config(None, ["sync.precision=no", "media.preset=ultrafast"])  # bf16 tries again
    report = dub(video, speech(), batch_size=4, config=config)
    touched = [not equal(a, b) for (_, a), (_, b) in zip(pictures(video), pictures(dub.output), strict=True)]
    assert touched == [number != 1 for number in range(10)]
    assert (report.frames, report.dubbed, report.passed) == (10, 9, {"no picture from the generator": 1})
    assert len(report.warnings) == 1 and report.warnings[0].startswith("1 face")


def test_a_generator_that_gives_nothing_is_an_error(dub, face_clip, speech, monkeypatch) -> None:
    monkeypatch.setattr(Generator, "draw", broken(lambda call, n: list(range(n))))
    with pytest.raises(WeightsError, match="10 faces"):
        dub(face_clip(one), speech())
    assert not list(dub.output.parent.iterdir())


def test_refusals_come_before_the_long_work(dub, face_clip, speech, monkeypatch) -> None:
    video, audio = face_clip(one), speech()

    def track_faces(*args, **kwargs) -> None:
        raise AssertionError("the video was searched first")

    monkeypatch.setattr("lipdub.dub.sync.track_faces", track_faces)
    with pytest.raises(SetupError, match="no encoder for 'mpeg3'"):
        dub(video, audio, codec="mpeg3")
    with pytest.raises(OutputError, match="does not take vp9"):
        dub.output = dub.output.with_suffix(".avi")
        dub(video, audio, codec="vp9")
    with pytest.raises(OutputError, match=r"cannot write \.xyz"):
        dub.output = dub.output.with_suffix(".xyz")
        dub(video, audio)
    assert not list(dub.output.parent.iterdir())


def test_the_output_container_decides_the_codec(dub, face_clip, speech) -> None:
    dub.output = dub.output.with_suffix(".webm")
    dub(face_clip(one, n_frames=5), speech(0.2), crf=None)
    made = probe(dub.output).video
    assert made is not None and made.codec in ("vp9", "av1")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "tpu", "cuda:", "cuda:x", "cpu:7", ""])
def test_a_device_that_is_absent_is_refused(monkeypatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SetupError, match="is not available"):
        resolve_device(name)


def test_the_fastest_device_is_found(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(SetupError, match="cuda:2"):
        resolve_device("cuda:2")


@pytest.fixture
def listening(generator_file: Path, tmp_path: Path) -> Path:
    """Weights of the small generator, its decoder moved by the sound as far as is plain to see after rounding."""
    state, metadata = load_state(generator_file)
    state["shape_embed.2.weight"] *= 200
    save_state(tmp_path / "listening.safetensors", state, metadata)
    return tmp_path / "listening.safetensors"


def test_two_people_speak_with_two_sounds(dub, face_clip, speech, pictures, listening: Path) -> None:
    video = face_clip(lambda number: [LEFT, RIGHT], n_frames=12)
    loud, silent = speech(0.48, "loud.wav"), speech(0.48, "silent.wav", level=0.0)
    both = (
        Speaker(face=(30.0, 60.0, 0.1), sound=loud),
        Speaker(face=(120.0, 60.0), sound=silent, turns=((0.2, 0.48),)),
    )
    report = dub(video, loud, speakers=both, generator=str(listening))
    assert (report.faces, report.dubbed) == (2, 12)
    made = pictures(dub.output)
    for number, ((_, before), (_, after)) in enumerate(zip(pictures(video), made, strict=True)):
        assert (changed(before, after, LEFT) > 2, changed(before, after, RIGHT) > 1) == (True, number >= 5)
    dub(video, loud, face="all", generator=str(listening), overwrite=True)
    with_one = pictures(dub.output)
    assert not equal(made[8][1], with_one[8][1])  # the right mouth heard something else
    assert changed(made[8][1], with_one[8][1], RIGHT) > 1 and changed(made[8][1], with_one[8][1], LEFT) == 0


def test_two_sounds_at_once_are_refused(dub, face_clip, speech) -> None:
    sound = speech(name="a.wav")
    with pytest.raises(InputError, match=r"overlapping turns for face 0 at 0\.20 s"):
        dub(
            face_clip(one),
            sound,
            speakers=(Speaker(face="all", turns=((0.0, 0.3),)), Speaker(face="id:0", sound=sound, turns=((0.2, 0.4),))),
        )
    assert not list(dub.output.parent.iterdir())


def test_a_point_at_a_time_is_who_is_there_then(dub, face_clip, speech, pictures) -> None:
    video = face_clip(lambda n: [LEFT, RIGHT] if n < 8 else [LEFT], n_frames=16, scenes=lambda n: n // 8)
    report = dub(video, speech(0.64), face=(30.0, 60.0, 0.5))
    touched = [not equal(a, b) for (_, a), (_, b) in zip(pictures(video), pictures(dub.output), strict=True)]
    assert touched == [number >= 8 for number in range(16)] and report.dubbed == 8
    with pytest.raises(NoFaceError, match=r"--face 120,60@0\.5"):
        dub(video, speech(0.64), face=(120.0, 60.0, 0.5), overwrite=True)


def test_who_speaks_needs_the_sound_of_the_video(dub, face_clip, speech) -> None:
    with pytest.raises(InputError, match="no audio stream"):
        dub(face_clip(one), speech(), face="speaking")


@pytest.mark.parametrize("certain", [True, False])
def test_it_is_told_where_who_speaks_is_not_sure(
    dub, face_clip, speech, monkeypatch: pytest.MonkeyPatch, certain: bool
) -> None:
    def speaker_scores(job: Job, faces: FaceTracks) -> SpeakerScores:
        return SpeakerScores(tuple(faces.tracks), np.full((len(faces.tracks), len(faces.times_s)), 0.5), 25.0, certain)

    monkeypatch.setattr(Job, "speaker_scores", speaker_scores)
    report = dub(face_clip(one), speech(), face="speaking")
    told = [event.code for event in dub.events if isinstance(event, Warning_)]
    assert report.dubbed == 10 and told == ([] if certain else ["speaking"])


def test_comparison_and_overlay_have_every_picture(dub, face_clip, speech, tmp_path: Path) -> None:
    compare, overlay = tmp_path / "compare.mp4", tmp_path / "overlay.mp4"
    report = dub(face_clip(one, rate=Fraction(30000, 1001)), speech(), compare=compare, overlay=overlay)
    assert "compare" in report.stages and [e.name for e in dub.events if isinstance(e, Stage)][-1] == "compare"
    shown = [probe(path).video for path in (compare, overlay)]
    assert [(info.width, info.height) for info in shown if info] == [(320, 120 + 96), (160, 120)]
    for path in (compare, overlay):
        with av.open(str(path)) as film:
            times = [round(frame.pts * frame.time_base * 30000) for frame in film.decode(video=0)]
        assert times == [1001 * number for number in range(10)]
    assert probe(compare).streams == ("video", "audio")
    with pytest.raises(OutputError, match="exists"):
        dub.output = tmp_path / "new.mp4"
        dub(face_clip(one), speech(), compare=compare)


def tail(pictures, path: Path, n: int) -> list[list[np.ndarray]]:
    return [planes for _, planes in pictures(path)][-n:]


@pytest.mark.parametrize(
    ("extend", "order"), [("freeze", [9] * 5), ("loop", [0, 1, 2, 3, 4]), ("bounce", [8, 7, 6, 5, 4])]
)
def test_the_mouth_speaks_behind_the_end_of_the_video(
    dub, face_clip, speech, pictures, tmp_path, extend, order
) -> None:
    """Away from the face the added pictures are those of the video; at the mouth they are painted."""
    video = face_clip(lambda n: [FACE], languages=("eng",))
    compare, overlay = tmp_path / "c.mp4", tmp_path / "o.mp4"
    report = dub(video, speech(0.6), length="audio", extend=extend, compare=compare, overlay=overlay)
    assert (report.frames, report.added, report.dubbed, report.warnings) == (15, 5, 15, ())
    before, after = pictures(video), pictures(dub.output)
    assert [time for time, _ in after] == [Fraction(n, 25) for n in range(15)]
    for source, (_, made) in zip(order, after[10:], strict=True):
        old = before[source][1]
        assert np.array_equal(old[0][:, :40], made[0][:, :40]), "the picture"
        assert changed(old, made) > 1, "the mouth"
    assert [len(pictures(each)) for each in (compare, overlay)] == [15, 15]
    info = probe(dub.output)
    assert info.audio[0].duration_s == pytest.approx(0.6, abs=0.03)
    assert info.video.duration_s == pytest.approx(0.6, abs=0.001)
    assert info.audio[1].duration_s == pytest.approx(0.4, abs=0.07), "the old sound ends where it did"


@pytest.mark.parametrize(("length", "seconds", "n"), [("audio", 0.2, 5), ("shortest", 0.2, 5), ("shortest", 0.6, 10)])
def test_the_film_ends_with_its_dub(dub, face_clip, speech, tmp_path, length, seconds, n) -> None:
    """And so do the old sound, subtitles and chapters."""
    clip = face_clip(lambda number: [FACE], languages=("eng",))
    cues = "1\n00:00:00,100 --> 00:00:00,350\nhello\n\n2\n00:00:00,300 --> 00:00:00,390\nbye\n"
    (tmp_path / "s.srt").write_text(cues)
    video = tmp_path / "subtitled.mkv"
    argv = [ffmpeg_binary(), "-v", "error", "-i", clip, "-i", tmp_path / "s.srt", "-map", "0", "-map", "1"]
    subprocess.run([*map(str, argv), "-c", "copy", "-c:s", "srt", "-map", "-0:d", str(video)], check=True)
    for suffix in (".mp4", ".mkv"):
        dub.output = dub.output.with_suffix(suffix)
        report = dub(video, speech(seconds), length=length, crf=None)
        end_s = min(seconds, 0.4)
        assert (report.frames, report.added, report.warnings) == (n, 0, ())
        with av.open(str(dub.output)) as made:
            assert made.duration / 1e6 <= end_s + 0.129, "two packets of AAC at 16 kHz"
            chapters = [float(each["end"] * each["time_base"]) for each in made.chapters()]
            assert len(chapters) == (1 if n == 5 else 2) and max(chapters) <= end_s + 0.001
        with av.open(str(dub.output)) as made:
            shown = [p for p in made.demux(made.streams.subtitles[0]) if p.size > 2]
            ends = [float((p.pts + (p.duration or 0)) * p.time_base) for p in shown]
            assert len(ends) == (1 if n == 5 else 2) and max(ends) <= end_s + 0.011


@pytest.mark.parametrize(("length", "n"), [("audio", 15), ("stretch", 10)])
def test_a_film_of_another_length_goes_into_a_transport_stream(dub, face_clip, speech, length, n) -> None:
    """Its clock begins with the priming of the sound, before the first picture."""
    dub.output = dub.output.with_suffix(".ts")
    assert dub(face_clip(one), speech(0.6), length=length, crf=None).frames == n
    info = probe(dub.output)
    assert info.video.duration_s == pytest.approx(0.6, abs=0.001)


def test_a_preview_lies_within_a_short_speech_track(face_clip, speech) -> None:
    video = face_clip(one)  # 0.4 s
    with excerpt(video, speech(0.16), SyncOptions(), 0.08) as (piece, heard, _):
        assert np.abs(load_audio(heard)).max() > 0.1
        assert probe(piece).video.duration_s == pytest.approx(0.08, abs=0.001)
    with (
        pytest.raises(InputError, match=r"dub\.wav is over at 0\.16 s"),
        excerpt(video, speech(0.16), SyncOptions(start_s=0.2), 0.1),
    ):
        pass


def test_who_speaks_cannot_be_told_behind_the_videos_own_sound(dub, face_clip, speech) -> None:
    video = face_clip(lambda number: [FACE], languages=("eng",))
    with pytest.raises(InputError, match="cannot tell who speaks"):
        dub(video, speech(1.0), length="audio", face="speaking")


def test_only_the_range_is_dubbed_in_a_longer_film(dub, face_clip, speech) -> None:
    report = dub(face_clip(lambda number: [FACE]), speech(0.6), length="audio", extend="loop", start_s=0.2, end_s=0.5)
    assert (report.frames, report.passed["outside the range"]) == (15, 7)


def test_a_label_is_seen_in_every_picture_and_told(dub, face_clip, speech, pictures) -> None:
    video = face_clip(lambda number: [(60, 60, 56)] if number < 8 else [], size=(320, 240))
    plain = dub(video, speech(0.4), lossless=True, crf=None)
    before = pictures(dub.output)
    assert "lipdub_label" not in read_marks(dub.output)
    report = dub(video, speech(0.4), lossless=True, crf=None, label="AI-dubbed", overwrite=True)
    assert (report.frames, report.dubbed) == (plain.frames, plain.dubbed)
    for (_, old), (_, new) in zip(before, pictures(dub.output), strict=True):
        assert (old[0][:30, :120] != new[0][:30, :120]).mean() > 0.5, "the corner"
        assert np.array_equal(old[0][40:], new[0][40:]), "the rest"
    assert read_marks(dub.output)["lipdub_label"] == "AI-dubbed"


def test_a_dub_goes_on_over_damage_and_says_so(dub, face_clip, speech, pictures) -> None:
    video = face_clip(one, n_frames=50)
    with av.open(str(video)) as container:
        place = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(video.read_bytes())
    for number in range(place[0] + place[1] // 2, place[0] + place[1] - 8):
        data[number] ^= 0x5A
    video.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged at"):
        dub(video, speech(2.0))
    report = dub(video, speech(2.0), on_damage="skip")
    assert [time for time, _ in pictures(dub.output)] == [Fraction(number, 25) for number in range(50)]
    assert report.frames == report.dubbed == 50
    assert sum(each.replaced for each in report.damage) == 1 and report.damage[0].first_s == pytest.approx(0.8)
    assert any(warning.startswith("damage at 0.800 s") for warning in report.warnings)
    assert report.to_dict()["damage"][0]["replaced"] == 1
