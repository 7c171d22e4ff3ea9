"""Extension of a video beyond its last picture, for audio that is longer than the video.

Only the pictures' times are kept in memory: `loop` reads the file again, `bounce` also backwards in pieces of at most
`media.bounce_mib`, and `freeze` repeats the last picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.damage import copies_of
from lipdub.media.probe import Ending, VideoInfo

_MARGIN = 30  # pictures that are decoded before the first needed one: those around a key frame may be incomplete

Decode = Callable[[int | None], Iterator[av.VideoFrame]]  # all pictures, or those from about a raw pts on


@dataclass(frozen=True)
class DecodedFrame:
    """One picture of the source."""

    raw: int | None  # pts in the file
    ticks: int  # display time, in the stream's time base


class Extension:
    """Endless iterator of the pictures after the last one, each with its display time in ticks.

    Args:
        info: of the source's picture.
        ending: kind of the extension.
        last: the source's last picture, not yet dubbed.
        shown: all pictures of the source.
        decode: reads the source again.
        config: memory of `bounce`.
    """

    def __init__(
        self,
        info: VideoInfo,
        ending: Ending,
        last: av.VideoFrame,
        shown: Sequence[DecodedFrame],
        decode: Decode,
        config: MediaConfig,
    ) -> None:
        self.still = ending.extend == "freeze" or len(shown) == 1
        self._info, self._extend, self._shown, self._decode = info, ending.extend, shown, decode
        bytes_each = sum(plane.buffer_size for plane in last.planes)
        self._piece = max(1, (config.bounce_mib << 20) // max(1, bytes_each))
        self._copies = copies_of(last, info) if self.still else iter(())

    def __iter__(self) -> Iterator[tuple[av.VideoFrame, int]]:
        if self.still:
            yield from self._repeat_last()
        while True:
            if self._extend == "bounce":
                yield from self._backwards()
                yield from self._forwards(first=1)
            else:
                yield from self._forwards(first=0)

    def _repeat_last(self) -> Iterator[tuple[av.VideoFrame, int]]:
        step, end = 1 / (self._info.average_rate * self._info.time_base), 0
        for number, picture in enumerate(self._copies, start=1):
            ticks = max(1, round(number * step) - end)  # exact over all, whatever the clock
            end += ticks
            yield picture, ticks

    def _forwards(self, first: int) -> Iterator[tuple[av.VideoFrame, int]]:
        for picture, shown in zip(self._decode(None), self._shown, strict=False):
            if first > 0:
                first -= 1
                continue
            yield picture, shown.ticks

    def _backwards(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """All pictures from the last but one back to the first."""
        for stop in range(len(self._shown) - 1, 0, -self._piece):
            first = max(0, stop - self._piece)
            pictures = self._pictures_between(first, stop)
            while pictures:
                yield pictures.pop(), self._shown[first + len(pictures)].ticks

    def _pictures_between(self, first: int, stop: int) -> list[av.VideoFrame]:
        """Pictures `first` to `stop` - 1, decoded from shortly before if the file is seekable, else from its start."""
        numbers = {self._shown[number].raw: number for number in range(first, stop)}
        start = self._shown[first - _MARGIN].raw if first > _MARGIN else None
        if start is not None and None not in numbers and len(numbers) == stop - first:
            pictures = {}
            for picture in self._decode(start):
                if picture.pts in numbers:
                    pictures[numbers[picture.pts]] = picture
                if picture.pts == self._shown[stop - 1].raw:
                    break
            if len(pictures) == stop - first:
                return [pictures[number] for number in range(first, stop)]
        return self._read_from_start(first, stop)

    def _read_from_start(self, first: int, stop: int) -> list[av.VideoFrame]:
        """Pictures `first` to `stop` - 1, counted from the start of the file."""
        pictures = []
        for number, picture in enumerate(self._decode(None)):
            if number >= first:
                pictures.append(picture)
            if number == stop - 1:
                return pictures
        raise InputError(
            "the video has fewer pictures than when it was read first", "do not change the file while it is read"
        )
