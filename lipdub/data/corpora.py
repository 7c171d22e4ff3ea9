"""Readers of public corpora: which videos there are, their speakers and splits.

A corpus is added by a function here and its place in LAYOUTS. Readers use names and the corpus' own lists, and open no
videos; they yield nothing for a folder of another structure. The command line reads this module at its start.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lipdub.errors import InputError

VIDEO_SUFFIXES = {".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv"}
LRS2_LISTS = {
    "main": {"train.txt": "train", "val.txt": "val", "test.txt": "test"},
    "pretrain": {"pretrain.txt": "train"},
}
AVSPEECH_LISTS = {"avspeech_train.csv": "", "avspeech_test.csv": "test"}
AVSPEECH_ID = 11  # characters of a video's name; the segment's times follow
GRID_SPEAKER = re.compile(r"s\d{1,2}")
HDTF_CLIP = re.compile(r"(?P<video>(RD|WDA|WRA)_.+?)(_\d{1,3})?")
TIMIT_GROUPS = ("volunteers", "lipspeakers")


@dataclass(frozen=True)
class Footage:
    """One video to prepare."""

    path: Path
    speaker: str
    split: str = ""  # train | val | test as the corpus says; "" = to be split by speaker
    audio: Path | None = None  # where it is not in the video


def videos(root: Path, pattern: str = "**/*") -> list[Path]:
    """Video files below a folder whose path matches, in order."""
    return sorted(p for p in root.glob(pattern) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())


def folder(root: Path) -> Iterator[Footage]:
    """FOLDER/[SPEAKER/]NAME.mp4, or any other video format, at any depth.

    A sub-folder is a speaker, and so is a file outside of any.
    """
    for path in videos(root):
        name = path.relative_to(root).parent.as_posix()
        yield Footage(path, path.stem if name == "." else name)


def lrs2(root: Path) -> Iterator[Footage]:
    """ROOT/main/ID/00001.mp4 and ROOT/pretrain/ID/00001.mp4; a list has `ID/00001` as the first word of each line.

    LRS2-BBC has the lists train.txt, val.txt, test.txt and pretrain.txt, in ROOT or in the folder above (mvlrs_v1/ is a
    sub-folder of the archive). A speaker is an ID, which is a broadcast. Files of `main` that no list names are left
    out; `pretrain` without its list is all for training.
    """
    root = root / "mvlrs_v1" if (root / "mvlrs_v1").is_dir() else root
    for part, lists in LRS2_LISTS.items():
        splits = {name: split for file, split in lists.items() for name in _lrs2_names(root, file)}
        for path in videos(root, f"{part}/*/*"):
            name = f"{path.parent.name}/{path.stem}"
            split = splits.get(name, "" if splits or part == "main" else "train")
            if split:
                yield Footage(path, path.parent.name, split)


def _lrs2_names(root: Path, file: str) -> list[str]:
    for path in (root / file, root.parent / file):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            return [line.split()[0] for line in lines if line.strip()]
    return []


def lrs3(root: Path) -> Iterator[Footage]:
    """ROOT/{pretrain,trainval,test}/TALK/00001.mp4; a speaker is a talk.

    The test speakers of LRS3-TED are in no other part. Validation is split off by speaker.
    """
    for part, split in (("pretrain", ""), ("trainval", ""), ("test", "test")):
        for path in videos(root, f"{part}/*/*"):
            yield Footage(path, path.parent.name, split)


def grid(root: Path) -> Iterator[Footage]:
    """ROOT/s1/bbaf2n.mpg, or with folders between, as the archives unpack (s1/video/mpg_6000/bbaf2n.mpg).

    GRID has 34 speakers with a thousand short commands each, and no official split.
    """
    for path in videos(root):
        speakers = [part for part in path.relative_to(root).parts[:-1] if GRID_SPEAKER.fullmatch(part)]
        if speakers:
            yield Footage(path, speakers[0])


def lrw(root: Path) -> Iterator[Footage]:
    """ROOT/[lipread_mp4/]WORD/{train,val,test}/WORD_00001.mp4; each file counts as a speaker of its own.

    LRW has single words of British television in official splits; who speaks is not known.
    """
    root = root / "lipread_mp4" if (root / "lipread_mp4").is_dir() else root
    for split in ("train", "val", "test"):
        for path in videos(root, f"*/{split}/*"):
            yield Footage(path, path.stem, split)


def voxceleb2(root: Path) -> Iterator[Footage]:
    """ROOT/{dev,test}/mp4/id00012/VIDEO/00001.mp4, with the audio in .../aac/id00012/VIDEO/00001.m4a.

    Where that is absent the video's own audio is used. Validation is split off dev by speaker.
    """
    for part, split in (("dev", ""), ("test", "test")):
        pictures = root / part / "mp4"
        for path in videos(pictures, "id*/*/*"):
            name = path.relative_to(pictures)
            audio = root / part / "aac" / name.with_suffix(".m4a")
            yield Footage(path, name.parts[0], split, audio if audio.is_file() else None)


def avspeech(root: Path) -> Iterator[Footage]:
    """ROOT/**/VIDEOID_START_END.mp4 beside avspeech_train.csv and avspeech_test.csv (video id in the first column).

    AVSpeech is a list of segments of web videos, which each user downloads. Other names that begin with the id work as
    well. A speaker is a video; one that no list names is split by speaker.
    """
    splits = {name: split for file, split in AVSPEECH_LISTS.items() for name in _avspeech_ids(root / file)}
    for path in videos(root):
        name = path.stem[:AVSPEECH_ID]
        yield Footage(path, name, splits.get(name, ""))


def _avspeech_ids(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {row[0] for row in csv.reader(file) if row}


def hdtf(root: Path) -> Iterator[Footage]:
    """ROOT/**/RD_Radio1_000.mp4, WDA_BarackObama_000.mp4, WRA_... : a video's name, then the number of the cut.

    HDTF has no official split. WDA and WRA name people (WDA_BarackObama0, WDA_BarackObama1 are one); of RD each video
    is a speaker.
    """
    for path in videos(root):
        if match := HDTF_CLIP.fullmatch(path.stem):
            video = match["video"]
            yield Footage(path, video if video.startswith("RD") else video.rstrip("0123456789"))


def timit(root: Path) -> Iterator[Footage]:
    """ROOT/{volunteers,lipspeakers}/01M/Clips/straightcam/sa1.mp4, or without the folders between.

    The layout of TCD-TIMIT and similar corpora. The audio is a .wav of the same name beside the video, if there is one.
    The camera at 30 degrees is left out.
    """
    for group in TIMIT_GROUPS:
        for path in videos(root / group):
            name = path.relative_to(root / group)
            if len(name.parts) > 1 and "30degcam" not in name.parts:
                audio = path.with_suffix(".wav")
                yield Footage(path, f"{group}/{name.parts[0]}", audio=audio if audio.is_file() else None)


def speaker_table(path: Path) -> dict[str, str]:
    """Path -> speaker of a TSV with these two columns.

    Raises:
        InputError: no such file or columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["path"]: row["speaker"] for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not a table of path and speaker", "separate columns by tabs; the first line names them"
        ) from error


def speaker_of(name: str, table: Mapping[str, str], default: str) -> str:
    """Speaker of a file: of the first path in the table that is its name, or ends with it."""
    return next((who for path, who in table.items() if path == name or path.endswith(f"/{name}")), default)


Layout = Callable[[Path], Iterator[Footage]]  # the structure of a corpus, as its docstring says
LAYOUTS: dict[str, Layout] = {
    read.__name__: read for read in (folder, lrs2, lrs3, grid, lrw, voxceleb2, avspeech, hdtf, timit)
}
