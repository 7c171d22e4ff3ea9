"""Each layout on a miniature tree in its corpus' real structure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lipdub.cli.prepare import LayoutName
from lipdub.config import Config
from lipdub.data.corpora import LAYOUTS
from lipdub.data.prepare import PrepareOptions, prepare, split_speakers
from lipdub.data.store import ClipEntry, read_manifest
from lipdub.errors import InputError

Rows = list[tuple[str, str, str, str]]  # path, speaker, split, audio

TREES: dict[str, tuple[list[str], dict[str, str], Rows]] = {
    "folder": (
        ["anna/a.mp4", "anna/b.MOV", "ben/deep/c.mkv", "single.webm", "anna/a.wav", "notes.txt"],
        {},
        [
            ("anna/a.mp4", "anna", "", ""),
            ("anna/b.MOV", "anna", "", ""),
            ("ben/deep/c.mkv", "ben/deep", "", ""),
            ("single.webm", "single", "", ""),
        ],
    ),
    "lrs2": (
        [
            *("mvlrs_v1/main/5535415699068794046/00001.mp4", "mvlrs_v1/main/5535415699068794046/00001.txt"),
            *("mvlrs_v1/main/5535496873950688380/00004.mp4", "mvlrs_v1/main/6330311066473698535/00011.mp4"),
            *("mvlrs_v1/main/6999999999999999999/00001.mp4", "mvlrs_v1/pretrain/5535423430009926848/00013.mp4"),
        ],
        {
            "train.txt": "5535415699068794046/00001\n",
            "val.txt": "5535496873950688380/00004\n",
            "test.txt": "6330311066473698535/00011 NF\n",
            "pretrain.txt": "5535423430009926848/00013\n",
        },
        [
            ("mvlrs_v1/main/5535415699068794046/00001.mp4", "5535415699068794046", "train", ""),
            ("mvlrs_v1/main/5535496873950688380/00004.mp4", "5535496873950688380", "val", ""),
            ("mvlrs_v1/main/6330311066473698535/00011.mp4", "6330311066473698535", "test", ""),
            ("mvlrs_v1/pretrain/5535423430009926848/00013.mp4", "5535423430009926848", "train", ""),
        ],
    ),
    "lrs3": (
        ["pretrain/0Fi83BHQsMA/00002.mp4", "trainval/0af00UcTOSc/50001.mp4", "test/0Qtp2uWpaL8/00001.mp4"],
        {"test/0Qtp2uWpaL8/00001.txt": "Text: ..."},
        [
            ("pretrain/0Fi83BHQsMA/00002.mp4", "0Fi83BHQsMA", "", ""),
            ("test/0Qtp2uWpaL8/00001.mp4", "0Qtp2uWpaL8", "test", ""),
            ("trainval/0af00UcTOSc/50001.mp4", "0af00UcTOSc", "", ""),
        ],
    ),
    "grid": (
        ["s1/bbaf2n.mpg", "s34/video/mpg_6000/lbij3a.mpg", "s1/align/bbaf2n.align", "readme/x.mpg"],
        {},
        [("s1/bbaf2n.mpg", "s1", "", ""), ("s34/video/mpg_6000/lbij3a.mpg", "s34", "", "")],
    ),
    "lrw": (
        [f"lipread_mp4/ABOUT/{split}/ABOUT_0000{n}.mp4" for n, split in enumerate(("test", "train", "val"), 1)],
        {"lipread_mp4/ABOUT/train/ABOUT_00002.txt": "Duration: 0.2 seconds"},
        [
            ("lipread_mp4/ABOUT/test/ABOUT_00001.mp4", "ABOUT_00001", "test", ""),
            ("lipread_mp4/ABOUT/train/ABOUT_00002.mp4", "ABOUT_00002", "train", ""),
            ("lipread_mp4/ABOUT/val/ABOUT_00003.mp4", "ABOUT_00003", "val", ""),
        ],
    ),
    "voxceleb2": (
        [
            *("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "dev/aac/id00012/21Uxsk56VDQ/00001.m4a"),
            *("test/mp4/id00017/01dfn2spqyE/00001.mp4", "vox2_meta.csv"),
        ],
        {},
        [
            (
                *("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "id00012", ""),
                "dev/aac/id00012/21Uxsk56VDQ/00001.m4a",
            ),
            ("test/mp4/id00017/01dfn2spqyE/00001.mp4", "id00017", "test", ""),
        ],
    ),
    "avspeech": (
        ["train/-0vPmCm7Jzc_30.000_36.040.mp4", "test/xxdjfnnZZZ0_1.0_4.0.mp4", "more/abcdefghijk.mp4"],
        {
            "avspeech_train.csv": "-0vPmCm7Jzc,30.000000,36.040000,0.5,0.3\n",
            "avspeech_test.csv": "xxdjfnnZZZ0,1.0,4.0,0.4,0.2\n",
        },
        [
            ("more/abcdefghijk.mp4", "abcdefghijk", "", ""),
            ("test/xxdjfnnZZZ0_1.0_4.0.mp4", "xxdjfnnZZZ0", "test", ""),
            ("train/-0vPmCm7Jzc_30.000_36.040.mp4", "-0vPmCm7Jzc", "", ""),
        ],
    ),
    "hdtf": (
        ["RD_Radio1_000.mp4", "RD_Radio1_001.mp4", "WDA_BarackObama0_000.mp4", "WDA_BarackObama1_000.mp4", "x.mp4"],
        {},
        [
            ("RD_Radio1_000.mp4", "RD_Radio1", "", ""),
            ("RD_Radio1_001.mp4", "RD_Radio1", "", ""),
            ("WDA_BarackObama0_000.mp4", "WDA_BarackObama", "", ""),
            ("WDA_BarackObama1_000.mp4", "WDA_BarackObama", "", ""),
        ],
    ),
    "timit": (
        [
            *("volunteers/01M/Clips/straightcam/sa1.mp4", "volunteers/01M/Clips/straightcam/sa1.wav"),
            *("volunteers/01M/Clips/30degcam/sa1.mp4", "lipspeakers/Lipspkr1/Clips/straightcam/sa1.mp4"),
        ],
        {},
        [
            ("lipspeakers/Lipspkr1/Clips/straightcam/sa1.mp4", "lipspeakers/Lipspkr1", "", ""),
            (
                *("volunteers/01M/Clips/straightcam/sa1.mp4", "volunteers/01M", ""),
                "volunteers/01M/Clips/straightcam/sa1.wav",
            ),
        ],
    ),
}


def plant(root: Path, files: list[str], texts: dict[str, str]) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in texts.items():
        (root / name).write_text(text)


def found(name: str, root: Path) -> Rows:
    rows = []
    for each in LAYOUTS[name](root):
        audio = each.audio.relative_to(root).as_posix() if each.audio else ""
        rows.append((each.path.relative_to(root).as_posix(), each.speaker, each.split, audio))
    return sorted(rows)


@pytest.mark.parametrize("name", TREES)
def test_a_corpus_is_read_in_its_own_structure(name: str, tmp_path: Path) -> None:
    files, texts, rows = TREES[name]
    plant(tmp_path, files, texts)
    assert found(name, tmp_path) == rows


def test_the_command_line_knows_every_layout() -> None:
    assert [each.value for each in LayoutName] == [*LAYOUTS, "synthetic-speech"]
    assert set(LAYOUTS) == set(TREES)


def test_pretrain_of_lrs2_without_its_list_is_for_training(tmp_path: Path) -> None:
    plant(tmp_path, ["main/1/00001.mp4", "pretrain/2/00001.mp4"], {"val.txt": "1/00001\n"})
    assert [row[2] for row in found("lrs2", tmp_path)] == ["val", "train"]


@pytest.mark.parametrize("name", [name for name in TREES if name != "folder"])
def test_another_structure_is_refused_and_the_right_one_described(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match=f"layout {name}") as raised:
        prepare(PrepareOptions(source=tmp_path, output=tmp_path / "out", layout=name), Config(), lambda line: None)
    assert re.search("ROOT/.*mp", raised.value.remedy)
    assert not (tmp_path / "out").exists()


def test_official_splits_stay_and_the_rest_is_split_by_speaker() -> None:
    blank = ClipEntry(id="", speaker="", group="", split="train", frames=25, source="", start_s=0.0)
    entries = [replace(blank, id=f"{n}", speaker=f"s{n // 2}", source=f"{n}.mp4") for n in range(20)]
    official = {"0.mp4": "test", "4.mp4": "train"}
    options = PrepareOptions(source=Path(), output=Path(), val_share=0.2, test_share=0.5)
    split = {entry.source: entry.split for entry in split_speakers(entries, options, official)}
    assert (split["0.mp4"], split["4.mp4"]) == ("test", "train")
    assert split["1.mp4"] == "test"  # the same speaker is nowhere else
    assert list(split.values()).count("test") == 2  # no more are held out than the corpus does
    assert list(split.values()).count("val") == 4


def test_a_corpus_becomes_a_data_set(
    face_clip: Callable[..., Path], fake_faces: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lipdub.faces.choose.builtin_backend", lambda *_: fake_faces())
    for split in ("train", "val", "test"):
        (tmp_path / "lrw" / "ABOUT" / split).mkdir(parents=True)
        name = f"lrw/ABOUT/{split}/ABOUT_{split}.mp4"
        face_clip(lambda number: [(50, 30, 60)], name, n_frames=25, languages=["eng"])
    options = PrepareOptions(source=tmp_path / "lrw", output=tmp_path / "data", layout="lrw", side=48)
    prepare(options, Config(), lambda line: None)
    entries, _ = read_manifest(tmp_path / "data")
    assert {entry.speaker: entry.split for entry in entries} == {f"ABOUT_{s}": s for s in ("train", "val", "test")}
