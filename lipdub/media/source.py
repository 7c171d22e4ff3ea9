"""The video of a job: its file, its streams, and the timeline on which its frames are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lipdub.config import MediaConfig
from lipdub.media.clocks import Clock
from lipdub.media.mend import on_one_clock
from lipdub.media.probe import Ending, MediaInfo, VideoInfo, measured, probe, require_video
from lipdub.media.video import VideoReader


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A video that can be read, as often as needed.

    Args:
        media: what its file holds.
        config: limits, and which ffmpeg.
        clocks: when the packets of each stream are shown, by its index.
        repairs: what differs from the file that the user gave, one sentence each.
        ending: where the frames end, if not where those of the file do.
        original: the file that the user gave, where another is read.
    """

    media: MediaInfo
    config: MediaConfig
    clocks: dict[int, Clock] = field(default_factory=dict)
    repairs: tuple[str, ...] = ()
    ending: Ending | None = None
    original: Path | None = None

    @property
    def name(self) -> Path:
        """The file that the user gave, for messages."""
        return self.original or self.path

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self.media.path

    @property
    def video(self) -> VideoInfo:
        """The picture stream."""
        return require_video(self.media)

    @property
    def rate(self) -> float:
        """Frames per second, on average."""
        return float(self.video.average_rate)

    @property
    def n_frames(self) -> int | None:
        """How many frames are read; None where the file does not say."""
        video = self.video
        if self.ending is None or video.frames is None:
            return video.frames
        return max(1, round((self.ending.end_s - video.start_s) * video.average_rate))

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last one; with an ending, within half a frame."""
        return self.video.duration_s if self.ending is None else max(0.0, self.ending.end_s - self.video.start_s)

    def frames(self, start_s: float | None = None, end_s: float | None = None) -> VideoReader:
        """A context manager that iterates over all frames once; those outside of [start_s, end_s) are marked."""
        limits = {"start_s": start_s, "end_s": end_s}
        return VideoReader(self.path, self.video, **limits, ending=self.ending, config=self.config, name=self.name)


def open_source(path: Path, config: MediaConfig, scratch: Callable[[str], Path] | None = None) -> Source:
    """A video, probed.

    Args:
        path: any file with a picture that FFmpeg reads.
        config: limits, and which ffmpeg.
        scratch: the path of a temporary file, for a name. With it the packets of all streams are read, too, and a
            video whose clock goes back is read from a copy on one clock.

    Raises:
        InputError: it cannot be read, has no picture, or a clock that cannot be mended.
    """
    if scratch is None:
        media = probe(path, config)
        require_video(media)
        return Source(media=media, config=config)
    whole, clocks, repairs = on_one_clock(path, scratch, config)
    media = measured(probe(whole, config), clocks)
    require_video(media)
    return Source(media=media, config=config, clocks=clocks, repairs=tuple(repairs), original=path)
