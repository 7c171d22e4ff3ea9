"""Page of source and dubs in columns, frame by frame, at full size, in a folder with its pictures.

Unlike the other pages it is not one file: each frame of each column is a picture beside it. It needs no network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2

from lipdub.config import MediaConfig
from lipdub.errors import OutputError
from lipdub.evaluation.landmark_track import LandmarkTrack
from lipdub.faces.backend import Frame
from lipdub.html.page import side_by_side_page, write_page
from lipdub.media.video import upright_rgb

QUALITY = 95  # of the JPEG files, without chroma subsampling
PAGE = "index.html"


@dataclass
class Column:
    """Pictures of a pair in one row."""

    row: str
    prefix: str = ""  # of its pictures: PREFIX-00000.jpg is frame 0
    count: int = 0  # frames that it has; a dub may be shorter than its source
    size: tuple[int, int] = (0, 0)  # width and height in pixels
    error: str = ""  # why it has none


@dataclass
class SideBySide:
    """Writes the frames of judged videos into a folder, in place of those of an earlier run, then their page."""

    folder: Path
    config: MediaConfig
    _columns: dict[str, list[Column]] = field(default_factory=dict)  # by pair
    _times: dict[str, list[float]] = field(default_factory=dict)

    def add(self, pair: str, row: str, video: LandmarkTrack) -> None:
        """Write the frames of a video, at the times of its source (`LandmarkTrack.like`).

        Raises:
            InputError: the video cannot be read.
            OutputError: a picture cannot be written.
        """
        columns = self._columns.setdefault(pair, [])
        number = list(self._columns).index(pair)
        column = Column(row, f"{number}-{len(columns)}")
        self._prepare()
        for frame, places in video.frames(self.config):
            picture = upright_rgb(frame.picture, video.info)
            column.size = picture.shape[1], picture.shape[0]
            self._save(picture, [f"{column.prefix}-{place:05}.jpg" for place in places])
            column.count = places[-1] + 1
        columns.append(column)
        if column.count > len(self._times.get(pair, [])):
            self._times[pair] = [round(float(time), 3) for time in video.times_s[: column.count]]

    def fail(self, pair: str, row: str, reason: str) -> None:
        """Add a row without pictures of a pair."""
        self._columns.setdefault(pair, []).append(Column(row, error=reason))

    def write(self) -> Path:
        """Write the page of all videos added so far.

        Raises:
            OutputError: it cannot be written.
        """
        self._prepare()
        pairs = [
            {"name": pair, "times": self._times.get(pair, []), "columns": [vars(column) for column in columns]}
            for pair, columns in self._columns.items()
        ]
        write_page(self.folder / PAGE, side_by_side_page(pairs), overwrite=True)
        return self.folder / PAGE

    def _prepare(self) -> None:
        """Make the folder, free of the pictures of an earlier run."""
        if self._times:
            return
        try:
            self.folder.mkdir(exist_ok=True)
            for old in self.folder.glob("[0-9]*-[0-9]*-[0-9]*.jpg"):
                old.unlink()
        except OSError as error:
            raise OutputError(f"cannot write to {self.folder}: {error.strerror}", "choose another --output") from error

    def _save(self, picture: Frame, names: list[str]) -> None:
        settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)[1].tobytes()
        for name in names:
            try:
                (self.folder / name).write_bytes(encoded)
            except OSError as error:
                what = f"cannot write {self.folder / name}: {error.strerror}"
                raise OutputError(what, "make room, or judge fewer clips (--limit, --seconds)") from error
