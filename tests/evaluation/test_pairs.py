from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lipdub.data.store import ClipEntry, write_manifest
from lipdub.errors import InputError
from lipdub.evaluation.pairs import Clip, clips_of_split, draw_pairs, find_clips

ALL = ("own", "other", "speaker")
CLIPS = [Clip(Path(name), name, name[0]) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_clips_are_found_with_their_speakers(tmp_path: Path) -> None:
    folder = touch(tmp_path, "b/2.mp4", "a/1.MKV", "alone.mov", "a/notes.txt")
    found = find_clips(folder)
    assert [(clip.name, clip.speaker) for clip in found] == [("a/1.MKV", "a"), ("alone.mov", "alone"), ("b/2.mp4", "b")]
    found = find_clips(folder, {"corpus/b/2.mp4": "ann", "alone.mov": "ann"})
    assert [clip.speaker for clip in found] == ["a", "ann", "ann"]
    with pytest.raises(InputError, match="no video"):
        find_clips(tmp_path / "nowhere")


def test_pairs_are_what_their_pairing_says() -> None:
    pairs, without = draw_pairs(CLIPS, ALL, seed=0)
    assert without == {"own": 0, "other": 1, "speaker": 0}  # c has one clip
    assert [pair.picture.name for pair in pairs if pair.pairing == "own"] == [clip.name for clip in CLIPS]
    for pair in pairs:
        same = pair.picture.speaker == pair.sound.speaker
        assert (pair.pairing == "own") == (pair.picture == pair.sound)
        assert same == (pair.pairing != "speaker")
        assert pair.foreign is not None and pair.foreign not in (pair.picture, pair.sound)


def test_the_seed_decides() -> None:
    pairs, _ = draw_pairs(CLIPS, ALL, 0)
    assert draw_pairs(CLIPS, ALL, 0)[0] == pairs != draw_pairs(CLIPS, ALL, 1)[0]
    assert draw_pairs(CLIPS, ("speaker",), 0)[0] == [pair for pair in pairs if pair.pairing == "speaker"]


def test_a_limit_draws_pictures_and_leaves_every_sound() -> None:
    pairs, _ = draw_pairs(CLIPS, ("own", "speaker"), 0, limit=2)
    assert len(pairs) == 4 and len({pair.picture for pair in pairs}) == 2
    assert {pair.picture for pair in pairs[:2]} == {pair.picture for pair in pairs[2:]}


def test_two_clips_leave_no_third() -> None:
    pairs, _ = draw_pairs(CLIPS[:2], ("other",), 0)
    assert [pair.foreign for pair in pairs] == [None, None]
    with pytest.raises(ValueError, match="nosuch"):
        draw_pairs(CLIPS, ("nosuch",), 0)


def test_a_split_names_its_source_files(tmp_path: Path) -> None:
    footage, data = touch(tmp_path / "footage", "a/1.mp4", "b/2.mp4", "c/3.mp4"), tmp_path / "data"
    data.mkdir()

    def entry(source: str, split: str, part: int = 0) -> ClipEntry:
        name = f"{source}-{part}"
        return ClipEntry(id=name, speaker=f"{source[0]}!", group="g", split=split, frames=9, source=source, start_s=0.0)

    entries = [
        entry("b/2.mp4", "test"),
        entry("b/2.mp4", "test", 1),
        entry("a/1.mp4", "train"),
        entry("c/3.mp4", "test"),
    ]
    write_manifest(data, entries, {})
    assert [asdict(clip) for clip in clips_of_split(footage, data, "test")] == [
        {"path": footage / "b/2.mp4", "name": "b/2.mp4", "speaker": "b!"},
        {"path": footage / "c/3.mp4", "name": "c/3.mp4", "speaker": "c!"},
    ]
    (footage / "c/3.mp4").unlink()
    with pytest.raises(InputError, match=r"c/3\.mp4"):
        clips_of_split(footage, data, "test")
    with pytest.raises(InputError, match="val"):
        clips_of_split(footage, data, "val")
