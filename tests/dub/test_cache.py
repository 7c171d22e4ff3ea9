from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import Config, load_config
from lipdub.dub import sync as sync_module
from lipdub.dub.analyze import FaceTracks, track_faces
from lipdub.dub.cache import AnalysisCache, FaceTracksRequest
from lipdub.faces.references import Selection
from lipdub.media.source import open_source


def one(number: int) -> list[tuple[float, float, float]]:
    return [(50 + number, 30, 60)]


@pytest.fixture
def found(face_clip, fake_faces) -> FaceTracks:
    two = face_clip(lambda n: [(20 + n, 30, 50), (120, 40, 44)] if n < 8 else [(20 + n, 30, 50)], n_frames=12)
    config = load_config("debug")
    return track_faces(open_source(two, config.media), fake_faces(), config)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each time that a video is searched."""
    calls: list[int] = []
    real = sync_module.track_faces

    def counted(*args: object, **kwargs: object) -> FaceTracks:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(sync_module, "track_faces", counted)
    return calls


def same(a: FaceTracks, b: FaceTracks) -> None:
    for name in ("starts_s", "times_s", "in_range"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    assert a.shots == b.shots
    assert len(a.tracks) == len(b.tracks) > 0
    for mine, theirs in zip(a.tracks, b.tracks, strict=True):
        assert [getattr(mine, k) for k in ("id", "shot", "first", "opens_shot", "closes_shot")] == [
            getattr(theirs, k) for k in ("id", "shot", "first", "opens_shot", "closes_shot")
        ]
        assert np.array_equal(mine.landmarks, theirs.landmarks) and mine.landmarks.dtype == theirs.landmarks.dtype
        assert np.array_equal(mine.confidence, theirs.confidence)
        assert a.detail[mine.id] == b.detail[mine.id]
        for field in fields(Selection):
            x, y = (getattr(each.references[mine.id], field.name) for each in (a, b))
            assert x.dtype == y.dtype and np.array_equal(x, y), field.name


def test_what_was_kept_comes_back_whole(found: FaceTracks, tmp_path: Path) -> None:
    cache = AnalysisCache(tmp_path / "kept")
    assert cache.recall("a") is None
    assert cache.keep("a", found)
    recalled = cache.recall("a")
    assert recalled is not None
    same(found, recalled)
    assert not list((tmp_path / "kept").glob(".*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "pickle"])
def test_a_damaged_entry_is_looked_up_anew(found: FaceTracks, tmp_path: Path, damage: str) -> None:
    cache = AnalysisCache(tmp_path)
    cache.keep("a", found)
    (path,) = cache.entries()
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    elif damage == "text":
        path.write_text("no archive")
    else:
        np.savez(path, tracks=np.array([{"a": 1}], dtype=object))
    told: list[Path] = []
    assert cache.recall("a", told.append) is None
    assert (cache.entries(), told) == ({}, [path])


def test_the_entry_that_was_not_used_for_longest_goes_first(found: FaceTracks, tmp_path: Path) -> None:
    cache = AnalysisCache(tmp_path)
    for age, name in enumerate(["old", "used", "new"]):
        cache.keep(name, found)
        os.utime(tmp_path / f"{name}.npz", (1000 + age, 1000 + age))
    assert cache.recall("old") is not None  # and so becomes the newest
    size = (tmp_path / "old.npz").stat().st_size
    small = AnalysisCache(tmp_path, max_mib=1)
    small._max_bytes = 3 * size + size // 2
    small.keep("more", found)
    assert {path.stem for path in small.entries()} == {"more", "old", "new"}
    assert small.clear() == 3 * size
    assert small.entries() == {}


def test_a_folder_that_cannot_be_written_is_no_error(found: FaceTracks, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = AnalysisCache(tmp_path / "file" / "below")
    assert cache.keep("a", found) is False
    assert cache.recall("a") is None


def test_a_key_holds_all_that_pass_1_depends_on(tmp_path: Path) -> None:
    video, other, again = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4"))
    for path, data in ((video, b"film"), (other, b"another"), (again, b"film")):
        path.write_bytes(data)
    request = FaceTracksRequest(video=video, detector="builtin 1", device="cpu")
    key = request.key(Config())
    assert replace(request, video=again).key(Config()) == key
    assert replace(request, numbered=True).key(Config()) == key  # all is looked at anyway
    ranged = replace(request, start_s=1.0)
    different = [
        replace(request, video=other).key(Config()),
        replace(request, detector="builtin 2").key(Config()),
        replace(request, device="cuda").key(Config()),
        replace(request, end_s=2.0).key(Config()),
        ranged.key(Config()),
        replace(ranged, numbered=True).key(Config()),
        request.key(load_config(None, ["face.detect_every=3"])),
        request.key(load_config(None, ["reference.count=4"])),
        request.key(load_config(None, ["generator.size=128"])),
        request.key(load_config(None, ["generator.warp=true", "sync.detail=2"])),
    ]
    assert len({key, *different}) == 1 + len(different)
    assert request.key(load_config(None, ["sync.strength=1.0", "loss.l1=2.0"])) == key


def test_a_second_dub_of_a_video_does_not_search_it_and_is_the_same_file(
    dub: Callable, face_clip: Callable, speech: Callable, searches: list[int]
) -> None:
    video, first, second = face_clip(one), speech(), speech(0.3)
    plain = dub(video, second, cache=False)
    wanted = dub.output.read_bytes()
    assert (plain.cached, len(searches)) == (False, 1)
    assert not dub(video, first, overwrite=True).cached
    report = dub(video, second, overwrite=True)
    assert report.cached and len(searches) == 2
    assert dub.output.read_bytes() == wanted
    assert dub(video, second, overwrite=True, cache=False).cached is False
    assert len(searches) == 3


def test_a_run_that_was_interrupted_goes_on_behind_pass_1(
    dub: Callable, face_clip: Callable, speech: Callable, searches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    video, audio = face_clip(one), speech()

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sync_module, "render", killed)
        with pytest.raises(KeyboardInterrupt):
            dub(video, audio)
    assert dub(video, audio).cached and len(searches) == 1


def test_a_damaged_entry_is_told(dub, face_clip, speech) -> None:
    video = face_clip(lambda number: [(50, 30, 56)])
    dub(video, speech(0.4))
    (path,) = AnalysisCache().entries()
    path.write_bytes(path.read_bytes()[:-400])
    report = dub(video, speech(0.4), overwrite=True)
    assert (report.cached, len(report.warnings)) == (False, 1)
    assert "damaged" in report.warnings[0] and str(path) in report.warnings[0]
    assert dub(video, speech(0.4), overwrite=True).cached


def test_what_killed_runs_left_unfinished_is_cleared(found: FaceTracks, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    cache, left, living = AnalysisCache(folder), folder / ".a.1.part", folder / ".b.2.part"
    for path in (left, living):
        path.write_bytes(b"half an entry")
    os.utime(left, (1000, 1000))
    cache.keep("c", found)
    assert not left.exists() and living.exists()
    cache.clear()
    assert list(folder.iterdir()) == []
