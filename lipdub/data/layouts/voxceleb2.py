"""VoxCeleb2: interviews of six thousand people; pictures and sound lie apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos


class VoxCeleb2:
    """ROOT/{dev,test}/mp4/id00012/VIDEO/00001.mp4, with the sound in .../aac/id00012/VIDEO/00001.m4a.

    Where that is absent the video's own sound is taken. Validation is split off dev by speaker.
    """

    def footage(self, root: Path) -> Iterator[Footage]:
        """Both parts, test with its split."""
        for part, split in (("dev", ""), ("test", "test")):
            pictures = root / part / "mp4"
            for path in videos(pictures, "id*/*/*"):
                name = path.relative_to(pictures)
                sound = root / part / "aac" / name.with_suffix(".m4a")
                yield Footage(path, name.parts[0], split, sound if sound.is_file() else None)
