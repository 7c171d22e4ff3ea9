"""GRID: 34 speakers, a thousand short commands each; no official split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos

SPEAKER = re.compile(r"s\d{1,2}")


class Grid:
    """ROOT/s1/bbaf2n.mpg, or with folders between, as the archives unpack (s1/video/mpg_6000/bbaf2n.mpg)."""

    def footage(self, root: Path) -> Iterator[Footage]:
        """Videos that lie in the folder of a speaker."""
        for path in videos(root):
            folders = [part for part in path.relative_to(root).parts[:-1] if SPEAKER.fullmatch(part)]
            if folders:
                yield Footage(path, folders[0])
