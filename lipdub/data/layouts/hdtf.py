"""HDTF: high-resolution talking faces of web videos, cut by the corpus' own annotations; no official split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos

CLIP = re.compile(r"(?P<video>(RD|WDA|WRA)_.+?)(_\d{1,3})?")


class Hdtf:
    """ROOT/**/RD_Radio1_000.mp4, WDA_BarackObama_000.mp4, WRA_... : a video's name, then the number of the cut.

    WDA and WRA name people (WDA_BarackObama0, WDA_BarackObama1 are one); of RD each video is a speaker.
    """

    def footage(self, root: Path) -> Iterator[Footage]:
        """Files whose names are of that form."""
        for path in videos(root):
            if match := CLIP.fullmatch(path.stem):
                video = match["video"]
                yield Footage(path, video if video.startswith("RD") else video.rstrip("0123456789"))
