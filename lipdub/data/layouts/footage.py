"""Footage: one video of a corpus with its speaker, split and audio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

VIDEO_SUFFIXES = {".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv"}


@dataclass(frozen=True)
class Footage:
    """One video to prepare."""

    path: Path
    speaker: str
    split: str = ""  # train | val | test as the corpus says; "" = to be split by speaker
    sound: Path | None = None  # where it is not in the video


class Layout(Protocol):
    """The structure of one corpus."""

    def footage(self, root: Path) -> Iterator[Footage]:
        """What there is below the corpus' folder; nothing if that is of another structure."""
        ...


def videos(root: Path, pattern: str = "**/*") -> list[Path]:
    """Video files below a folder whose path matches, in order."""
    return sorted(p for p in root.glob(pattern) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
