"""AVSpeech: a list of segments of web videos, which everybody fetches for himself."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos

LISTS = {"avspeech_train.csv": "", "avspeech_test.csv": "test"}
ID = 11  # characters of a video's name; the segment's times follow


class AvSpeech:
    """ROOT/**/VIDEOID_START_END.mp4 beside avspeech_train.csv and avspeech_test.csv (video id in the first column).

    Other names that begin with the id do as well. A speaker is a video; one that no list names is split by speaker.
    """

    def footage(self, root: Path) -> Iterator[Footage]:
        """Every video below the folder, those of the test list with their split."""
        splits = {name: split for file, split in LISTS.items() for name in _ids(root / file)}
        for path in videos(root):
            name = path.stem[:ID]
            yield Footage(path, name, splits.get(name, ""))


def _ids(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {row[0] for row in csv.reader(file) if row}
