"""LRS3-TED: sentences of talks; the official test speakers are nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos


class Lrs3:
    """ROOT/{pretrain,trainval,test}/TALK/00001.mp4; a speaker is a talk. Validation is split off by speaker."""

    def footage(self, root: Path) -> Iterator[Footage]:
        """The three parts, test with its split."""
        for part, split in (("pretrain", ""), ("trainval", ""), ("test", "test")):
            for path in videos(root, f"{part}/*/*"):
                yield Footage(path, path.parent.name, split)
