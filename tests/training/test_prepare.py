from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lipdub.config import Config, load_config
from lipdub.data.corpora import speaker_of, speaker_table
from lipdub.data.offset import SourceOffset, group_offsets, shift_sound, slice_mel
from lipdub.data.prepare import PrepareOptions, prepare, split_speakers
from lipdub.data.store import ClipEntry, read_arrays, read_clip, read_manifest, stored_offset, write_arrays
from lipdub.errors import InputError

WIDTH, HEIGHT = 96, 72  # of a film
LEVELS = 4  # grey levels of the patch on the nose per frame: what frame it is can be read off a crop


def film(path: Path, seconds: float, *, rate: int = 25, face: bool = True, sound: bool = True) -> Path:
    """A bright square, which the fake backend takes for a face, with a patch in it that brightens frame by frame.

    A tone comes and goes, a quarter of a second each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    still = cv2.resize(np.random.default_rng(1).integers(30, 120, (6, 8, 3), np.uint8), (WIDTH, HEIGHT))
    if face:
        still[10:58, 24:72] = 245
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "6"}
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono") if sound else None
        for number in range(round(seconds * rate)):
            picture = still.copy()
            picture[24:44, 40:56] = LEVELS * number
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            times = np.arange(round(seconds * 16000)) / 16000
            wave = 9000 * np.sin(2 * np.pi * 300 * times) * (np.sin(2 * np.pi * 2 * times) > 0)
            block = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            block.sample_rate, block.pts = 16000, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def frame_numbers(folder: Path, entry: ClipEntry) -> list[int]:
    """Which source frames a stored clip shows."""
    frames = read_clip(folder, entry).frames
    side = frames.shape[1]
    points = read_arrays(folder, entry.id)[0]
    x, y = points[:, 30].mean(0)  # the nose's tip lies on the square
    assert 0.3 * side < x < 0.7 * side
    patch = frames[:, round(float(y)) - 3 : round(float(y)) + 1, round(float(x)) - 2 : round(float(x)) + 3]
    return np.rint(patch.mean((1, 2, 3)) / LEVELS).astype(int).tolist()


@pytest.fixture
def backend(fake_faces: type, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Stands in for the builtin networks; lists the backends that were asked for."""
    made: list[object] = []

    def build(*_: object) -> object:
        made.append(fake_faces())
        return made[-1]

    monkeypatch.setattr("lipdub.faces.choose.builtin_backend", build)
    return made


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage of four speakers, some of it of no use."""
    folder = tmp_path_factory.mktemp("footage") / "source"
    film(folder / "anna" / "one.mkv", 1.0)
    film(folder / "anna" / "fast.mkv", 1.0, rate=50)
    film(folder / "ben" / "long.mkv", 2.3)
    film(folder / "ben" / "slow.mkv", 1.2, rate=10)
    film(folder / "cora" / "two.MOV", 1.0)
    film(folder / "alone.mkv", 1.0)
    film(folder / "cora" / "silent.mkv", 1.0, sound=False)
    film(folder / "cora" / "short.mkv", 0.6)
    film(folder / "cora" / "nobody.mkv", 1.0, face=False)
    film(folder / "cora" / "nobody2.mkv", 1.0, face=False)
    (folder / "cora" / "broken.mp4").write_bytes(b"this is no film" * 100)
    (folder / "notes.txt").write_text("not a film")
    return folder


def options(source: Path, output: Path, **more: object) -> PrepareOptions:
    return PrepareOptions(
        source=source, output=output, **({"side": 64, "max_s": 1.0, "val_share": 0.3, "crf": 4} | more)
    )


@pytest.fixture
def prepared(tree: Path, backend: list[object], tmp_path: Path) -> tuple[Path, dict, list[str]]:
    """The tree, prepared: folder, summary, what was said."""
    lines: list[str] = []
    summary = prepare(options(tree, tmp_path / "data"), Config(), lines.append)
    return tmp_path / "data", summary, lines


def test_a_tree_becomes_a_data_set(prepared: tuple[Path, dict, list[str]], tree: Path) -> None:
    folder, summary, lines = prepared
    entries, stored = read_manifest(folder)
    assert stored == json.loads(json.dumps(summary))
    frames = {
        source: [e.frames for e in entries if e.source == source] for source in sorted({e.source for e in entries})
    }
    assert frames == {
        "alone.mkv": [25],
        "anna/fast.mkv": [25],
        "anna/one.mkv": [25],
        "ben/long.mkv": [25, 25],  # and .3 s that are left over
        "ben/slow.mkv": [25],  # 1.1 s between its first and last frame: 28 frames at 25 fps, 3 of them left over
        "cora/two.MOV": [25],
    }
    assert summary["files"] == 11
    assert sum(summary["clips"].values()) == len(entries) == 7
    assert summary["minutes"] == round(7 / 60, 2)
    assert (summary["side"], summary["margin"], summary["fps"]) == (64, 1.6, 25.0)
    assert Path(summary["footage"]).is_absolute() and (Path(summary["footage"]) / "anna" / "one.mkv").is_file()
    assert lines[-1] == "11/11 files, 7 clips"


def test_what_was_dropped_is_counted_with_its_reason(prepared: tuple[Path, dict, list[str]]) -> None:
    _, summary, lines = prepared
    dropped = dict(summary["dropped"])
    assert dropped.pop("no face") == 2
    assert dropped.pop("no face long enough") == 1
    assert sorted(dropped.values()) == [1, 1]
    assert any("no audio stream" in reason for reason in dropped)
    assert not any("/" in reason for reason in dropped)  # the reason does not name the file, so that it can be counted
    assert any(line.startswith("cora/silent.mkv: dropped, ") for line in lines)


def test_clips_have_25_frames_a_second_whatever_the_source(prepared: tuple[Path, dict, list[str]]) -> None:
    folder = prepared[0]
    numbers = {(e.source, e.start_s): frame_numbers(folder, e) for e in read_manifest(folder)[0]}
    assert numbers["anna/one.mkv", 0.0] == list(range(25))
    assert numbers["anna/fast.mkv", 0.0] == list(range(0, 50, 2))
    assert numbers["ben/long.mkv", 1.0] == list(range(25, 50))
    slow = numbers["ben/slow.mkv", 0.0]
    assert slow == sorted(slow)
    assert np.abs(np.array(slow) / 10 - np.arange(25) / 25).max() <= 0.0501


def test_the_sound_of_a_clip_is_that_of_its_time(prepared: tuple[Path, dict, list[str]]) -> None:
    folder = prepared[0]
    for entry in read_manifest(folder)[0]:
        if entry.source == "ben/long.mkv":
            mel = read_arrays(folder, entry.id)[2]
            assert mel.shape == (80, 81)
            loud = mel.max(0) > 0.5
            times = entry.start_s + np.arange(81) / 80
            wanted = np.sin(2 * np.pi * 2 * times) > 0
            away = np.abs(times[:, None] * 4 - np.round(times[:, None] * 4)).min(1) > 0.15  # not while it comes or goes
            assert np.array_equal(loud[away], wanted[away])


def test_a_folder_is_a_speaker_and_a_file_outside_of_any_too(prepared: tuple[Path, dict, list[str]]) -> None:
    entries = read_manifest(prepared[0])[0]
    assert {e.source: e.speaker for e in entries} == {
        "alone.mkv": "alone",
        "anna/fast.mkv": "anna",
        "anna/one.mkv": "anna",
        "ben/long.mkv": "ben",
        "ben/slow.mkv": "ben",
        "cora/two.MOV": "cora",
    }
    assert {e.group for e in entries} == {".", "anna", "ben", "cora"}


def test_no_speaker_is_in_two_splits(prepared: tuple[Path, dict, list[str]]) -> None:
    _, summary, _ = prepared
    entries = read_manifest(prepared[0])[0]
    assert {e.split for e in entries} == {"train", "val"}
    parts = {(e.speaker, e.split) for e in entries}
    assert len(parts) == 4
    assert summary["speakers"] == {"train": 3, "val": 1}


def test_a_second_call_does_no_work(prepared: tuple[Path, dict, list[str]], tree: Path, backend: list[object]) -> None:
    folder, summary, _ = prepared
    made = len(backend)
    assert made == 9  # not for the broken and the silent one
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in {".mp4", ".npz"}}
    manifest = (folder / "clips.jsonl").read_bytes()
    assert prepare(options(tree, folder), Config(), lambda line: None) == summary
    assert len(backend) == made
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (folder / "clips.jsonl").read_bytes() == manifest


def test_a_stopped_call_is_continued(tree: Path, backend: list[object], tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # at the first dropped file
        prepare(options(tree, tmp_path / "data"), Config(), stop)
    done = len(list((tmp_path / "data" / "done").iterdir()))
    assert 0 < done < 11
    made = len(backend)
    summary = prepare(options(tree, tmp_path / "data"), Config(), lambda line: None)
    assert summary["files"] == 11
    assert len(backend) < made + 9
    assert not list((tmp_path / "data").rglob("*.part*"))


def test_a_data_set_is_not_continued_with_other_settings(prepared: tuple[Path, dict, list[str]], tree: Path) -> None:
    with pytest.raises(InputError, match=r"clip\.side = 64, not 96"):
        prepare(options(tree, prepared[0], side=96), Config(), print)
    with pytest.raises(InputError, match=r"mel\.hop"):
        prepare(options(tree, prepared[0]), load_config(None, ["mel.hop=160"]), print)
    prepare(options(tree, prepared[0], val_share=0.5), Config(), lambda line: None)  # splits are made anew
    assert len({e.speaker for e in read_manifest(prepared[0], "val")[0]}) == 2


def test_footage_of_no_use_is_an_input_error(tmp_path: Path, backend: list[object]) -> None:
    with pytest.raises(InputError, match="no video below"):
        prepare(options(tmp_path, tmp_path / "data"), Config(), print)
    film(tmp_path / "in" / "a.mkv", 1.0, sound=False)
    with pytest.raises(InputError, match="nothing of use") as raised:
        prepare(options(tmp_path / "in", tmp_path / "data"), Config(), print)
    assert "no audio stream" in raised.value.what


@pytest.mark.slow
def test_several_processes_share_the_files(tmp_path: Path) -> None:
    for name in "abcdef":  # without sound, so that no network is needed in the processes
        film(tmp_path / "in" / f"{name}.mkv", 0.2, sound=False)
    lines: list[str] = []
    with pytest.raises(InputError, match="no audio stream"):
        prepare(options(tmp_path / "in", tmp_path / "data", jobs=2), Config(), lines.append)
    assert [line.partition(":")[0] for line in lines[:6]] == [f"{name}.mkv" for name in "abcdef"]
    assert len(list((tmp_path / "data" / "done").iterdir())) == 6


def test_a_table_names_speakers_by_the_end_of_the_path(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("path\tseconds\tspeaker\ntrain/news/1.mp4\t3\tann\n/data/train/news/11.mp4\t3\tbob\n")
    table = speaker_table(path)

    def speaker(name: str) -> str:
        return speaker_of(name, table, "as the layout says")

    assert speaker("news/1.mp4") == "ann"
    assert speaker("news/11.mp4") == "bob"
    assert speaker("1.mp4") == "ann"
    assert speaker("ws/1.mp4") == "as the layout says"  # whole names only
    assert speaker("news/2.mp4") == "as the layout says"


@pytest.mark.parametrize("text", ["name\tspeaker\na\tb\n", "path\tperson\na\tb\n", "path,speaker\na,b\n"])
def test_a_table_without_its_columns_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match="path and speaker"):
        speaker_table(path)
    with pytest.raises(InputError, match="path and speaker"):
        speaker_table(tmp_path / "absent.tsv")


ENTRY = ClipEntry(id="0", speaker="s", group="g", split="train", frames=100, source="0.mp4", start_s=0.0)


def entries_of(**frames: int) -> list[ClipEntry]:
    return [replace(ENTRY, id=name, speaker=name, source=name, frames=n) for name, n in frames.items()]


def test_a_large_speaker_is_kept_for_training() -> None:
    made = entries_of(large=5000, **{f"s{i}": 100 for i in range(19)})
    split = split_speakers(made, options(Path(), Path(), val_share=0.5, test_share=0.2))
    parts = {e.speaker: e.split for e in split}
    assert parts["large"] == "train"
    assert sorted(parts.values()) == ["test"] * 4 + ["train"] * 6 + ["val"] * 10


def test_a_grown_corpus_keeps_its_splits() -> None:
    few = entries_of(**{f"s{i}": 100 for i in range(20)})
    many = few + entries_of(**{f"t{i}": 100 for i in range(10)})
    before, after = ({e.speaker: e.split for e in split_speakers(m, options(Path(), Path()))} for m in (few, many))
    held_out = {name for name, part in before.items() if part == "val"}
    assert len(held_out) == 6
    assert sum(after[name] == "val" for name in held_out) >= 3


def test_something_is_held_out_of_a_single_speaker() -> None:
    by_file = [replace(ENTRY, id=str(i), source=f"{i % 3}.mp4") for i in range(9)]
    split = split_speakers(by_file, options(Path(), Path()))
    assert {e.split for e in split} == {"train", "val"}
    assert len({(e.source, e.split) for e in split}) == 3
    by_clip = [replace(ENTRY, id=str(i)) for i in range(4)]
    assert sorted(e.split for e in split_speakers(by_clip, options(Path(), Path()))) == ["train"] * 3 + ["val"]
    assert [e.split for e in split_speakers([ENTRY], options(Path(), Path()))] == ["train"]


def test_the_lag_of_a_group_is_found_and_corrected_once(
    make_data: Callable[..., list[ClipEntry]], tmp_path: Path
) -> None:
    mel = Config().mel
    folder = tmp_path / "data"
    clips = [("a", "train", 40), ("b", "train", 50), ("c", "val", 45)]
    entries = make_data(folder, clips, lag_s=0.08)
    before = [read_arrays(folder, e.id)[2] for e in entries]
    offsets = group_offsets(folder, entries, mel)
    assert offsets == {"made": 0.08}
    shifted = shift_sound(folder, entries, offsets, mel)
    assert {e.offset_s for e in shifted} == {0.08}
    for old, entry in zip(before, entries, strict=True):
        new = read_arrays(folder, entry.id)[2]
        assert new.shape == old.shape
        assert np.abs(new[:, 6:] - old[:, :-6]).max() <= 1 / 127  # .08 s are 6.4 columns
        assert new[:, :6].max() == -1
        assert stored_offset(folder, entry.id) == 0.08
    bytes_before = [(folder / "clips" / f"{e.id}.npz").read_bytes() for e in entries]
    again = group_offsets(folder, shifted, mel)
    assert again == {"made": 0.08}
    assert shift_sound(folder, shifted, again, mel) == shifted
    assert [(folder / "clips" / f"{e.id}.npz").read_bytes() for e in entries] == bytes_before


def test_clips_that_join_a_shifted_group_are_shifted_too(
    make_data: Callable[..., list[ClipEntry]], tmp_path: Path
) -> None:
    mel = Config().mel
    folder = tmp_path / "data"
    entries = make_data(folder, [("a", "train", 60), ("b", "train", 60), ("c", "train", 60)], lag_s=0.08)
    shift_sound(folder, entries[:2], {"made": 0.08}, mel)
    new = (folder / "clips" / "2.npz").read_bytes()
    old = (folder / "clips" / "0.npz").read_bytes()
    offsets = group_offsets(folder, entries, mel)  # two are shifted already: their lag is that of the footage still
    assert offsets == {"made": 0.08}
    shift_sound(folder, entries, offsets, mel)
    assert (folder / "clips" / "0.npz").read_bytes() == old
    assert (folder / "clips" / "2.npz").read_bytes() != new
    assert {stored_offset(folder, e.id) for e in entries} == {0.08}


@pytest.mark.parametrize("lag_s", [0.0, -0.12])
def test_a_lag_of_either_sign_is_measured(
    make_data: Callable[..., list[ClipEntry]], tmp_path: Path, lag_s: float
) -> None:
    entries = make_data(tmp_path / "data", [("a", "train", 50), ("b", "train", 50)], lag_s=lag_s)
    assert group_offsets(tmp_path / "data", entries, Config().mel) == {"made": lag_s}


def test_a_short_group_is_not_shifted_by_chance(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> None:
    entries = make_data(tmp_path / "data", [(name, "train", 30) for name in "abcd"])
    rng = np.random.default_rng(0)
    for entry in entries:  # sound that has nothing to do with the lips
        landmarks, confidence, mel = read_arrays(tmp_path / "data", entry.id)
        noise = np.repeat(rng.uniform(-1, 1, 9), 12)[: mel.shape[1]].astype(np.float32)
        write_arrays(tmp_path / "data" / "clips" / f"{entry.id}.npz", landmarks, confidence, 0 * mel + noise)
    assert group_offsets(tmp_path / "data", entries, Config().mel) == {"made": 0.0}


def test_a_group_that_says_nothing_is_not_shifted(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> None:
    entries = make_data(tmp_path / "data", [("a", "train", 90)], lag_s=0.08)
    path = tmp_path / "data" / "clips" / "0.npz"
    landmarks, confidence, mel = read_arrays(tmp_path / "data", "0")
    write_arrays(path, landmarks, confidence, np.full_like(mel, -1))
    assert group_offsets(tmp_path / "data", entries, Config().mel) == {"made": 0.0}
    still = landmarks[:1] + np.random.default_rng(0).uniform(-0.004, 0.004, landmarks.shape)  # storage is no finer
    write_arrays(path, still.astype(np.float32), confidence, mel)
    assert group_offsets(tmp_path / "data", entries, Config().mel) == {"made": 0.0}


def test_a_slice_beyond_the_sound_is_silence() -> None:
    mel = np.arange(10, dtype=np.float32)[None]
    assert slice_mel(mel, -2, 3)[0].tolist() == [-1, -1, 0, 1, 2]
    assert slice_mel(mel, 8, 12)[0].tolist() == [8, 9, -1, -1]
    assert slice_mel(mel, 20, 22)[0].tolist() == [-1, -1]


class Silent:
    """An audio encoder that predicts mouths which never move."""

    def read_track(self, mel: np.ndarray, device: object) -> np.ndarray:
        return np.zeros((mel.shape[1], 8), np.float32)


def judged_as(monkeypatch: pytest.MonkeyPatch, *verdicts: SourceOffset) -> None:
    """What the audio encoder says of one file after another."""
    said = iter(verdicts)
    monkeypatch.setattr("lipdub.data.prepare._load_encoder", lambda name: Silent())
    monkeypatch.setattr("lipdub.data.prepare.source_offset", lambda curves: next(said) if curves else UNSURE)


UNSURE = SourceOffset(0.0, certain=False, foreign=False)


@pytest.mark.parametrize("kept", [False, True])
def test_a_file_is_shifted_where_its_offset_is_sure(
    backend: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    for name in ("anna", "ben"):
        film(tmp_path / "source" / name / "a.mkv", 1.0)
    judged_as(monkeypatch, SourceOffset(0.08, certain=True, foreign=False), UNSURE)
    asked = options(tmp_path / "source", tmp_path / "data", audio_encoder="audio", correct_offset=not kept)
    summary = prepare(asked, Config(), lambda line: None)
    plain = options(tmp_path / "source", tmp_path / "plain", correct_offset=False)
    prepare(plain, Config(), lambda line: None)
    entries = {entry.speaker: entry for entry in read_manifest(tmp_path / "data")[0]}
    if kept:  # --keep-offset: nothing is judged
        assert not any(entry.sure for entry in entries.values())
        return
    assert (summary["offset_sure"], summary["offset_shifted"]) == (1, 1)
    assert (entries["anna"].sure, entries["anna"].offset_s) == (True, pytest.approx(0.08))
    assert not entries["ben"].sure
    assert stored_offset(tmp_path / "data", entries["anna"].id) == pytest.approx(0.08)
    found, whole = (read_arrays(tmp_path / folder, entries["anna"].id)[2] for folder in ("data", "plain"))
    change = round(0.08 * 80)
    np.testing.assert_array_equal(found[:, change:], whole[:, :-change])  # the sound comes later
    again = prepare(asked, Config(), lambda line: None)
    assert again == summary


def test_files_in_which_somebody_else_is_heard_are_dropped_and_counted(
    backend: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anna", "ben", "cora"):
        film(tmp_path / "source" / name / "a.mkv", 1.0)
    own = SourceOffset(0.0, certain=True, foreign=False)
    judged_as(monkeypatch, own, SourceOffset(0.0, certain=False, foreign=True), own)
    lines: list[str] = []
    summary = prepare(options(tmp_path / "source", tmp_path / "data", audio_encoder="audio"), Config(), lines.append)
    assert summary["dropped"] == {"the audio matches the mouth at no offset: another person is speaking": 1}
    assert [entry.speaker for entry in read_manifest(tmp_path / "data")[0]] == ["anna", "cora"]
    assert len(list((tmp_path / "data" / "clips").iterdir())) == 4
    assert summary["offset_shifted"] == 0
