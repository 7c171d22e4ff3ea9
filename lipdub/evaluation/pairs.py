"""Pairs of picture and sound to judge: the clips of a folder, their speakers, and which sound a picture gets.

    own        its own sound: the real frames are known, so pictures can be compared with them
    other      another sound of the same speaker
    speaker    the sound of another speaker

The pairs depend on the clips and the seed only, and are the same for every row of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from lipdub.data import corpora
from lipdub.data.store import read_manifest
from lipdub.errors import InputError

PAIRINGS = {"own": "own sound", "other": "other sound of the speaker", "speaker": "sound of another speaker"}
GIVEN = "given"  # one video and an audio file that has no video of its own
TITLES = PAIRINGS | {GIVEN: "given audio"}


@dataclass(frozen=True)
class Clip:
    """One real video with its real sound."""

    path: Path
    name: str  # below the folder
    speaker: str


@dataclass(frozen=True)
class Pair:
    """A picture, the sound it gets, and a third clip whose real mouth belongs to neither."""

    pairing: str
    picture: Clip
    sound: Clip
    foreign: Clip | None

    @property
    def key(self) -> str:
        """Name of the pair, the same in all rows."""
        return f"{self.pairing}: {self.picture.name} <- {self.sound.name}"

    @property
    def stem(self) -> str:
        """Name of a file that shows the pair, without its ending."""
        return "__".join(
            PurePosixPath(c.name).with_suffix("").as_posix().replace("/", "-") for c in (self.picture, self.sound)
        )


def find_clips(folder: Path, speakers: Mapping[str, str] | None = None) -> list[Clip]:
    """Every video in a folder and its sub-folders, in the order of names.

    `speakers` has the speaker of a path, by its end. For other files each sub-folder is one speaker, and each file
    outside of one, as in `lipdub prepare`.

    Raises:
        InputError: no such folder, or no video in it.
    """
    clips = []
    for footage in corpora.folder(folder):
        name = footage.path.relative_to(folder).as_posix()
        clips.append(Clip(footage.path, name, corpora.speaker_of(name, speakers or {}, footage.speaker)))
    if not clips:
        raise InputError(f"no video below {folder}", f"known: {', '.join(sorted(corpora.VIDEO_SUFFIXES))}")
    return clips


def footage_of(dataset: Path) -> Path:
    """The folder that a data set was prepared from, as its manifest has it.

    Raises:
        InputError: no data set, one of an earlier version, or a folder that has gone.
    """
    _, summary = read_manifest(dataset)
    footage = Path(str(summary.get("footage", "")))
    if "footage" not in summary or not footage.is_dir():
        reason = f"{footage} has gone" if "footage" in summary else "it does not say from what"
        raise InputError(f"{dataset} was prepared from other files: {reason}", "give the folder of clips, too")
    return footage


def clips_of_split(footage: Path, dataset: Path, split: str) -> list[Clip]:
    """The source files in `footage` of one split of a prepared data set, or of all, with its speakers.

    A data set holds only faces and mel; its clips are judged in the original footage, as a user would dub it.

    Raises:
        InputError: no data set, an empty split, or a source that is not in `footage`.
    """
    entries, _ = read_manifest(dataset, None if split == "all" else split)
    speakers = {entry.source: entry.speaker for entry in entries}
    for name in sorted(speakers):
        if not (footage / name).is_file():
            raise InputError(f"{name} of {dataset} is not in {footage}", "give the folder that was prepared")
    return [Clip(footage / name, name, speakers[name]) for name in sorted(speakers)]


def draw_pairs(
    clips: Sequence[Clip], pairings: Sequence[str], seed: int, limit: int | None = None
) -> tuple[list[Pair], dict[str, int]]:
    """One pair per pairing and picture, where there is a fitting sound; of at most `limit` pictures, drawn by the seed.

    Returns:
        The pairs in the order of `pairings`, and for each pairing how many pictures found no fitting sound.

    Raises:
        ValueError: a pairing that does not exist.
    """
    unknown = set(pairings) - set(PAIRINGS)
    if unknown:
        raise ValueError(f"unknown pairings {sorted(unknown)}; there are {', '.join(PAIRINGS)}")
    pictures = list(clips)
    if limit is not None and limit < len(clips):
        pictures = [clips[i] for i in sorted(np.random.default_rng(seed).permutation(len(clips))[:limit])]
    pairs, without = [], dict.fromkeys(pairings, 0)
    for pairing in pairings:
        rng = np.random.default_rng([seed, list(PAIRINGS).index(pairing)])  # whatever other pairings are asked for
        for picture in pictures:
            sound = _draw_clip([c for c in clips if _fits(pairing, picture, c)], rng)
            if sound is None:
                without[pairing] += 1
                continue
            foreign = _draw_clip([c for c in clips if c not in (picture, sound)], rng)
            pairs.append(Pair(pairing, picture, sound, foreign))
    return pairs, without


def write_pairs(path: Path, pairs: Sequence[Pair]) -> Path:
    """Write a TSV with the columns pairing, picture, sound and file: the dubs that `--videos` expects."""
    lines = ["pairing\tpicture\tsound\tfile"]
    lines += [f"{p.pairing}\t{p.picture.path}\t{p.sound.path}\t{p.pairing}/{p.stem}.mp4" for p in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _fits(pairing: str, picture: Clip, sound: Clip) -> bool:
    if pairing == "own":
        return sound == picture
    same = sound.speaker == picture.speaker
    return sound != picture and (same if pairing == "other" else not same)


def _draw_clip(choices: Sequence[Clip], rng: np.random.Generator) -> Clip | None:
    return choices[int(rng.integers(len(choices)))] if choices else None
