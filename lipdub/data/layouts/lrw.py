"""LRW: single words of British television in official splits; who speaks is not known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos


class Lrw:
    """ROOT/[lipread_mp4/]WORD/{train,val,test}/WORD_00001.mp4; each file counts as a speaker of its own."""

    def footage(self, root: Path) -> Iterator[Footage]:
        """The words, with their splits."""
        root = root / "lipread_mp4" if (root / "lipread_mp4").is_dir() else root
        for split in ("train", "val", "test"):
            for path in videos(root, f"*/{split}/*"):
                yield Footage(path, path.stem, split)
