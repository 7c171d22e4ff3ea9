"""Shards hold a whole data set, training on them is training on it, and what is damaged or missing is told."""

from __future__ import annotations

import errno
import gc
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub.config import load_config
from lipdub.data.shards import unpacked, write_shards
from lipdub.data.store import ClipEntry, read_manifest
from lipdub.errors import InputError, ResourceError
from lipdub.training.data import ClipSet
from lipdub.training.stages import RunRequest, run_stage
from lipdub.weights_export import CHECKPOINT

wds = pytest.importorskip("webdataset", reason="needs the extra shards")


@pytest.fixture
def packed(made_data: Path, tmp_path: Path) -> Path:
    """The shards of five clips to train on and two to validate, two in each; nothing else of the data set is there."""
    shutil.copytree(made_data, tmp_path / "data 100%")
    made = write_shards(tmp_path / "data 100%", clips=2)
    assert [path.name for path in made] == [*(f"train-00000{n}.tar" for n in range(3)), "val-000000.tar"]
    return (tmp_path / "data 100%" / "shards").rename(tmp_path / "copied")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves the last shard open
def test_webdataset_reads_what_was_stored(packed: Path, made_data: Path) -> None:
    entries, _ = read_manifest(made_data)
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    raw = list(wds.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in raw] == [entry.id for entry in entries]
    decoded = list(wds.WebDataset(urls, shardshuffle=False).decode())
    gc.collect()
    for entry, stored, sample in zip(entries, raw, decoded, strict=True):
        assert {key for key in stored if not key.startswith("__")} == {"json", "mp4", "npz"}
        assert stored["mp4"] == (made_data / "clips" / f"{entry.id}.mp4").read_bytes()
        assert sample["json"] == asdict(entry)
        assert sample["npz"]["landmarks"].shape == (entry.frames, 68, 2)
        with np.load(made_data / "clips" / f"{entry.id}.npz") as arrays:
            assert all(np.array_equal(arrays[name], sample["npz"][name]) for name in arrays)


def test_samples_are_those_of_the_data_set(packed: Path, made_data: Path) -> None:
    config = load_config("debug")
    for split in ("train", "val"):
        plain, carried = (ClipSet(folder, split, config, seed=3) for folder in (made_data, packed))
        first, second = (each.seeded(5, 1).batch(4, 32, 16) for each in (plain, carried))
        assert all(torch.equal(*parts) for parts in zip(first, second, strict=True))
        assert carried.left_out == plain.left_out


def test_a_run_goes_on_with_shards_bit_for_bit(
    packed: Path, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipdub.training.generator.VALIDATION_BATCHES", 1)
    config = load_config("debug", ["train.stage='1'", "train.steps=2"])

    def train(data: Path, run: str, *stops: bool) -> bool:
        asked = iter(stops)
        request = RunRequest(stage="1", data=data, run=tmp_path / run, config=config)
        return run_stage(request, lambda line: None, stopped=lambda: next(asked, False))

    assert train(made_data, "whole")
    assert not train(made_data, "parts", False, True)
    assert train(packed, "parts")
    whole, parts = (torch.load(tmp_path / run / CHECKPOINT, weights_only=True)["model"] for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_shards_are_made_anew_with_the_same_bytes(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> None:
    make_data(tmp_path, [("anna", "train", 5)] * 3)
    assert len(write_shards(tmp_path, clips=1)) == 3
    (tmp_path / "shards.part").mkdir()  # of a call that was stopped
    (one,) = write_shards(tmp_path, clips=3)
    before = one.read_bytes()
    (again,) = write_shards(tmp_path, clips=9)
    assert again.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [
        *("clips.jsonl", "manifest.json", "train-000000.tar"),
    ]
    assert not (tmp_path / "shards.part").exists()


def test_a_clip_that_is_gone_keeps_the_earlier_shards(
    make_data: Callable[..., list[ClipEntry]], tmp_path: Path
) -> None:
    make_data(tmp_path, [("anna", "train", 5)] * 2)
    (made,) = write_shards(tmp_path, clips=2)
    (tmp_path / "clips" / "1.mp4").unlink()
    with pytest.raises(InputError, match=r"1\.mp4"):
        write_shards(tmp_path, clips=2)
    assert made.is_file()


def test_a_clip_that_was_damaged_before_it_was_packed_is_left_out_and_counted(
    make_data: Callable[..., list[ClipEntry]], tmp_path: Path
) -> None:
    make_data(tmp_path, [("anna", "train", 40)] * 2)
    (tmp_path / "clips" / "0.mp4").write_bytes(b"")
    write_shards(tmp_path, clips=2)
    clips = ClipSet(tmp_path / "shards", "train", load_config("debug"))
    assert [clip.entry.id for clip in clips.clips] == ["1"]
    assert clips.left_out == {"0": f"{tmp_path / 'shards' / 'clips' / '0.mp4'} ends after 0 of 40 frames"}


@pytest.mark.parametrize("length", [0, 100, 512, 2000, 10240])
def test_a_truncated_shard_is_an_input_error(packed: Path, length: int) -> None:
    path = packed / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"train-000001|lack \d of 5 clips"):
        ClipSet(packed, "train", load_config("debug"))
    ClipSet(packed, "val", load_config("debug"))  # which is whole


def test_a_missing_shard_is_an_input_error(packed: Path) -> None:
    (packed / "train-000002.tar").unlink()
    with pytest.raises(InputError, match=r"shards of .*copied lack 1 of 5 clips of split 'train'"):
        ClipSet(packed, "train", load_config("debug"))


def test_a_shard_writes_nothing_outside_of_its_copy(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("outside")
    with tarfile.open(packed / "val-000001.tar", "w") as archive:
        archive.add(tmp_path / "evil", "../../evil.txt")
        archive.add(tmp_path, "folder", recursive=False)
    with unpacked(packed, read_manifest(packed, "val")[0]) as place:
        assert (place / "clips" / "evil.txt").read_text() == "outside"
        assert not (place.parent / "evil.txt").exists()


def test_a_full_disk_is_told(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="no room"), unpacked(packed, read_manifest(packed, "val")[0]):
        pass


def test_the_temporary_copy_is_removed(packed: Path) -> None:
    with unpacked(packed, read_manifest(packed, "val")[0]) as place:
        assert sorted(path.name for path in (place / "clips").glob("*.json")) == ["5.json", "6.json"]
        assert json.loads((place / "clips" / "5.json").read_text())["speaker"] == "dora"
    assert not place.exists()
