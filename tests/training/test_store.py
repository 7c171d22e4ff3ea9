from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipdub.data.store import (
    ClipEntry,
    read_arrays,
    read_clip,
    read_manifest,
    stored_offset,
    write_arrays,
    write_manifest,
)
from lipdub.errors import InputError

ENTRY = ClipEntry(id="a", speaker="s", group="g", split="train", frames=20, source="a.mp4", start_s=0.0)


@pytest.fixture
def data(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> tuple[Path, ClipEntry]:
    """A data set of one clip."""
    folder = tmp_path / "data"
    return folder, make_data(folder, [("anna", "train", 20)])[0]


def test_arrays_come_back_as_exactly_as_promised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(0, 128, (7, 68, 2)).astype(np.float32)
    confidence = rng.uniform(0, 1, 7).astype(np.float32)
    mel = rng.uniform(-1, 1, (80, 23)).astype(np.float32)
    (tmp_path / "clips").mkdir()
    write_arrays(tmp_path / "clips" / "a.npz", landmarks, confidence, mel, 0.08)
    points, sure, heard = read_arrays(tmp_path, "a")
    assert np.abs(points - landmarks).max() <= 1 / 256
    assert np.abs(sure - confidence).max() <= 1 / 255
    assert np.abs(heard - mel).max() <= 1 / 127
    assert {points.dtype, sure.dtype, heard.dtype} == {np.dtype(np.float32)}
    assert stored_offset(tmp_path, "a") == 0.08
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["a.npz"]


def test_values_beyond_the_range_are_clipped(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    landmarks = np.full((1, 68, 2), -3.0, np.float32)
    write_arrays(tmp_path / "clips" / "a.npz", landmarks, np.ones(1, np.float32), np.full((80, 1), 1.4, np.float32))
    points, _, mel = read_arrays(tmp_path, "a")
    assert points.max() == 0
    assert mel.min() == 1.0


def test_a_clip_has_its_frames_in_rgb(data: tuple[Path, ClipEntry]) -> None:
    folder, entry = data
    arrays = read_clip(folder, entry)
    assert arrays.frames.shape == (20, 48, 48, 3)
    assert (len(arrays.landmarks), arrays.mel.shape) == (20, (80, 65))
    assert arrays.frames[:, 5, 5] == pytest.approx(np.array([[230, 30, 40]] * 20), abs=12)


def test_a_damaged_picture_file_is_an_input_error(data: tuple[Path, ClipEntry]) -> None:
    folder, entry = data
    path = folder / "clips" / f"{entry.id}.mp4"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="ends after 0 of 20 frames") as raised:
        read_clip(folder, entry)
    assert "lipdub prepare" in raised.value.remedy


def test_a_clip_shorter_than_its_entry_is_an_input_error(data: tuple[Path, ClipEntry]) -> None:
    folder, entry = data
    with pytest.raises(InputError, match="20 of 21"):
        read_clip(folder, replace(entry, frames=21))


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_missing_or_damaged_arrays_are_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "clips").mkdir()
    if content is not None:
        (tmp_path / "clips" / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz"):
        read_arrays(tmp_path, "a")


def test_the_manifest_comes_back_by_split(tmp_path: Path) -> None:
    entries = [ENTRY, replace(ENTRY, id="b", split="val", offset_s=0.04)]
    write_manifest(tmp_path, entries, {"margin": 1.25})
    assert read_manifest(tmp_path) == (entries, {"margin": 1.25})
    assert read_manifest(tmp_path, "val")[0] == entries[1:]
    with pytest.raises(InputError, match="'test'"):
        read_manifest(tmp_path, "test")


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="not a prepared data set") as raised:
            read_manifest(folder)
        assert "lipdub prepare" in raised.value.remedy


@pytest.mark.parametrize("line", ["{", json.dumps({"id": "a"}), json.dumps({"colour": "red"})])
def test_a_damaged_manifest_is_an_input_error(tmp_path: Path, line: str) -> None:
    write_manifest(tmp_path, [ENTRY], {})
    (tmp_path / "clips.jsonl").write_text(line)
    with pytest.raises(InputError, match="manifest"):
        read_manifest(tmp_path)


def test_threads_read_one_after_another(data: tuple[Path, ClipEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 fails now and then where two of them parse the header of an array."""
    folder, entry = data
    inside, most = [0], [0]
    load = np.load

    @contextmanager
    def watched(file: Any) -> Iterator[Any]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        with load(file) as data:
            yield data
        inside[0] -= 1

    monkeypatch.setattr(np, "load", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_arrays(folder, entry.id), range(12)))
    assert most == [1]
