"""TCD-TIMIT and corpora of its form: volunteers and lipspeakers who read sentences into a straight camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos

GROUPS = ("volunteers", "lipspeakers")


class Timit:
    """ROOT/{volunteers,lipspeakers}/01M/Clips/straightcam/sa1.mp4, or without the folders between.

    The sound is a .wav of the same name beside the video, where there is one. The camera at 30 degrees is left out.
    """

    def footage(self, root: Path) -> Iterator[Footage]:
        """The straight camera's sentences."""
        for group in GROUPS:
            for path in videos(root / group):
                name = path.relative_to(root / group)
                if len(name.parts) > 1 and "30degcam" not in name.parts:
                    sound = path.with_suffix(".wav")
                    yield Footage(path, f"{group}/{name.parts[0]}", sound=sound if sound.is_file() else None)
