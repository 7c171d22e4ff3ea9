"""Pictures of a video in presentation order, each with its exact timestamp, and their upright view for detection."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from lipdub.affine import Affine
from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.media.color import HLG, PQ, colorspace_of, full_range, to_sdr
from lipdub.media.damage import Damage, copies_of, joined
from lipdub.media.patch import paste_patch, read_patch
from lipdub.media.probe import Ending, VideoInfo, open_input
from lipdub.media.timeline import DecodedFrame, Extension
from lipdub.threads import prefetch

_LOCAL = threading.local()  # one scaler a thread: it caches its filters, and is not safe to share


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a video, which knows how it is shown; only what is looked at is converted.

    Matrices are (2, 3), from upright display pixels to those of a crop.
    """

    index: int  # counts from 0 over the whole file
    pts: int  # in the stream's time base
    time_s: float  # on the file's timeline: what the player shows as the position
    picture: av.VideoFrame
    info: VideoInfo  # of its stream
    in_range: bool = True  # inside [start_s, end_s)
    added: bool = False  # behind the source's end
    still: bool = False  # the picture before, shown on

    def upright(self, max_side: int | None = None) -> Frame:
        """The whole frame (H, W, 3) as it is shown, its longest side at most `max_side`; see `upright_rgb`."""
        return upright_rgb(self.picture, self.info, max_side=max_side)

    def thumbnail(self, max_side: int) -> tuple[Frame, float]:
        """The frame shrunk to `max_side`, and its scale: pixels of it per display pixel."""
        frame = self.upright(max_side)
        return frame, frame.shape[1] / self.info.display_width

    def patch(self, matrix: Affine, size: int) -> Frame:
        """The crop (size, size, 3) that a matrix cuts out; see `read_patch`."""
        return read_patch(self.picture, self.info, matrix, size)

    def paste(self, matrix: Affine, face: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
        """Blend a crop (H, W, 3) with its opacity (H, W) into the frame, in place; see `paste_patch`."""
        paste_patch(self.picture, self.info, matrix, face, alpha)


class VideoReader:
    """All pictures of a file, in presentation order; a context manager and an iterator, for one pass.

    Up to `config.queue` of them are decoded ahead, in a thread.

    With an `ending` they end earlier, within half a picture, or go on behind the source's end; the clock runs on, and
    each picture is on screen for as long as it was.

    Args:
        path: the file.
        info: what `probe` said of its picture stream.
        start_s: pictures before this time have `in_range=False`.
        end_s: likewise from this time on.
        ending: where the pictures end, if not where those of the file do.
        config: limits.
        name: what errors call the file, where `path` is a copy.

    Raises:
        InputError: on entry, a file that cannot be opened; while iterating, damage: it names the time. With
            `config.on_damage` "skip", a picture that is not whole is the one before once more, with its own time, and
            `damage` tells of it, and of those that build on it.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        ending: Ending | None = None,
        config: MediaConfig | None = None,
        name: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._name = name or self.path
        self.video = info
        self._ending = ending
        self._start = float("-inf") if start_s is None else start_s
        self._end = float("inf") if end_s is None else end_s
        self._config = config or MediaConfig()
        self._stack = ExitStack()
        self._container: InputContainer | None = None
        self._position = 0  # pts up to which pictures came out whole
        self._skips = self._config.on_damage == "skip"
        self._damage: list[Damage] = []
        self._shape_change: str | None = None

    def __enter__(self) -> Self:
        self._container = self._stack.enter_context(open_input(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container = None
        self._stack.close()

    def __iter__(self) -> Iterator[SourceFrame]:
        if self._container is None:
            raise ValueError("VideoReader is used outside its with block")
        ending = self._ending
        pictures = self._frames(self._container) if ending is None else self._until(ending, self._container)
        return self._stack.enter_context(closing(prefetch(pictures, self._config.queue)))

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What was gone over so far."""
        return joined(self._damage, 1.5 / float(self.video.average_rate))

    @property
    def shape_change(self) -> str | None:
        """Sentence about the first frame whose pixels have another shape than those before."""
        return self._shape_change

    @property
    def _step(self) -> int:
        return max(1, round(1 / (self.video.average_rate * self.video.time_base)))

    def _until(self, ending: Ending, container: InputContainer) -> Generator[SourceFrame]:
        """The pictures up to `ending`: the source's, then what is seen behind them."""
        limit = ending.end_s - 0.5 / float(self.video.average_rate)
        shown: list[DecodedFrame] = []
        held: SourceFrame | None = None
        for frame in self._frames(container):
            if held is not None:
                shown.append(DecodedFrame(held.picture.pts, frame.pts - held.pts))
                if frame.time_s >= limit:
                    yield self._trimmed(held, shown[-1].ticks, ending)
                    return
                yield held
            held = frame
        assert held is not None  # `_frames` refuses a stream without a picture
        shown.append(DecodedFrame(held.picture.pts, max(1, held.picture.duration or self._step)))
        beyond = Extension(self.video, ending, held.picture, shown, self._again, self._config)
        yield self._trimmed(held, shown[-1].ticks, ending)
        pts, index = held.pts + shown[-1].ticks, held.index + 1
        for picture, ticks in beyond:
            time_s = self._seconds(pts)
            if time_s >= limit:
                return
            yield self._trimmed(self._frame(index, pts, picture, still=beyond.still, added=True), ticks, ending)
            index, pts = index + 1, pts + ticks

    def _trimmed(self, frame: SourceFrame, ticks: int, ending: Ending) -> SourceFrame:
        """A picture that is not on screen for longer than the film, unless for a part of a usual picture's time."""
        left = round((ending.end_s - frame.time_s) / float(self.video.time_base))
        frame.picture.duration = min(ticks, max(self._step, left))
        return frame

    def _again(self, pts: int | None) -> Iterator[av.VideoFrame]:
        """All pictures of the file, or those from about `pts` on, which may be none where it cannot be sought."""
        with open_input(self.path) as container:
            stream = self._stream(container)
            if pts is None:
                yield from self._decode(container, stream)
                return
            try:
                container.seek(pts, stream=stream)
            except av.error.FFmpegError:
                return
            yield from self._decode(container, stream, whole=False)

    def _stream(self, container: InputContainer) -> av.VideoStream:
        stream = container.streams[self.video.index]
        assert isinstance(stream, av.VideoStream)
        # With threads, damage is not marked, or not always alike.
        stream.thread_type = "NONE" if self._skips else "AUTO"
        return stream

    def _frames(self, container: InputContainer) -> Generator[SourceFrame]:
        """The pictures of the source."""
        step = self._step
        index, ends = 0, self.video.start_pts
        last: int | None = None
        whole: Iterator[av.VideoFrame] | None = None  # copies of the last picture that is not marked as damaged
        n_at_key, n_noted = 0, 0
        self._position = ends
        stream, shape = self._stream(container), None
        for picture in self._decode(container, stream):
            pts = ends if picture.pts is None else picture.pts  # AVI may give none: the next regular place
            if last is not None and pts <= last:
                pts = last + 1  # two pictures of one time: as close as the clock allows, since encoders refuse equals
            if last is not None and self._skips:
                self._note_gap(ends, pts, step, self._damage[n_noted:], picture.is_corrupt)
            n_noted = len(self._damage)
            time_s, key = self._seconds(pts), picture.key_frame
            before, shape = shape, stream.codec_context.sample_aspect_ratio
            if before and shape and before != shape and self._shape_change is None:
                change = f"from {before.numerator}:{before.denominator} to {shape.numerator}:{shape.denominator}"
                self._shape_change = f"the pixel aspect changes {change} at {time_s:.3f} s; the output keeps the first"
            picture, still = self._checked(picture, pts, whole), picture.is_corrupt
            if self._skips and not still:
                whole = copies_of(picture, self.video)
                n_at_key = len(self._damage) if key else n_at_key
                if len(self._damage) > n_at_key:
                    self._damaged(time_s, "it builds on damaged frames", passed=1)
            yield self._frame(index, pts, picture, still=still)
            index, last, ends = index + 1, pts, pts + max(1, picture.duration or step)
            self._position = ends
        self._check_end(index, ends, step)

    def _note_gap(self, start: int, stop: int, step: int, damage: Sequence[Damage], damaged: bool) -> None:
        """Count the pictures that are missing between two times, if there is damage at that place.

        Args:
            start: pts at which the picture before ends.
            stop: pts of the next one.
            step: usual distance of two.
            damage: what was noted from the picture before on.
            damaged: whether the next picture is.
        """
        missing = round((stop - start) / step) - sum(each.missing for each in damage)
        if missing > 0 and (damage or damaged):
            self._damaged(
                self._seconds(start), "pictures are missing", last_s=self._seconds(stop - step), missing=missing
            )

    def _frame(
        self, index: int, pts: int, picture: av.VideoFrame, *, still: bool = False, added: bool = False
    ) -> SourceFrame:
        time_s = self._seconds(pts)
        in_range = self._start <= time_s < self._end
        return SourceFrame(index, pts, time_s, picture, self.video, in_range, added=added, still=still)

    def _seconds(self, pts: int) -> float:
        return float(pts * self.video.time_base) - self.video.origin_s

    def _decode(
        self, container: InputContainer, stream: av.VideoStream, *, whole: bool = True
    ) -> Iterator[av.VideoFrame]:
        n_packets, places = 0, deque[int | None]()
        try:
            for packet in container.demux(stream):
                n_packets += packet.size > 0
                if packet.is_corrupt and not self._skips:  # else its picture is marked
                    self._damaged(self._seconds(self._position), "a packet is incomplete")
                if packet.size:
                    places.append(packet.dts)
                for picture in self._pictures(packet):
                    if self.video.format == "avi" and places:
                        picture.pts = places.popleft()  # it only numbers its pictures; FFmpeg's guess is one too late
                    yield picture
        except (av.error.FFmpegError, ValueError) as error:
            self._damaged(self._seconds(self._position), str(error), error)
        # An MP4 lists its packets in advance; where fewer came, the file was cut short.
        if whole and "mov" in self.video.format and n_packets < len(stream.index_entries):
            missing = f"{len(stream.index_entries) - n_packets} pictures are missing at the end"
            self._damaged(self._seconds(self._position), missing)

    def _pictures(self, packet: av.Packet[av.VideoStream]) -> list[av.VideoFrame]:
        """What the decoder makes of a packet; nothing where it is damaged, and that is gone over.

        An empty one, as in Theora, says that the picture before is shown on; FFmpeg's decoders refuse it.
        """
        if not packet.size and packet.pts is not None:
            return []
        try:
            return packet.decode()
        except (av.error.InvalidDataError, av.error.PatchWelcomeError) as error:
            self._damaged(self._seconds(self._position), str(error), error, missing=1 if packet.size else 0)
            return []

    def _checked(self, picture: av.VideoFrame, pts: int, whole: Iterator[av.VideoFrame] | None) -> av.VideoFrame:
        """The picture, or, where it is damaged and that is gone over, the last whole one."""
        duration = picture.duration
        if picture.is_corrupt:
            self._damaged(self._seconds(pts), "a picture cannot be decoded whole", replaced=1)
            if whole is not None:
                picture = next(whole)
                picture.pts, picture.duration = pts, duration
        if (picture.width, picture.height) != (self.video.width, self.video.height):
            raise InputError(
                f"{self._name}: the picture's size changes at {self._seconds(pts):.3f} s from "
                f"{self.video.width}x{self.video.height} to {picture.width}x{picture.height}",
                "cut the file there, or scale it to one size first",
            )
        return picture

    def _check_end(self, n_frames: int, ends: int, step: int) -> None:
        if n_frames == 0:
            raise InputError(f"{self._name}: the video stream holds no picture", "give another file")
        start = float(self.video.start_pts * self.video.time_base)
        missing = start + self.video.duration_s - float(ends * self.video.time_base)
        slack = max(self._config.max_missing_s, 2 * float(step * self.video.time_base))
        if self.video.duration_known and missing > slack:
            self._damaged(self._seconds(ends), f"the last {missing:.1f} s of the picture are missing")

    def _damaged(
        self, time_s: float, what: str, error: Exception | None = None, *, last_s: float = 0.0, **counts: int
    ) -> None:
        """Stop here, or note it, with `counts` of Damage, up to `last_s` where that is later.

        Raises:
            InputError: where it is not gone over.
        """
        time_s = max(0.0, time_s)
        if not self._skips:
            raise InputError(
                f"{self._name} is damaged at {time_s:.3f} s: {what}",
                "go on over it with --on-damage skip, get the file again, or write what is left of it anew: "
                "ffmpeg -i FILE -c:v libx264 -crf 12 -c:a flac WHOLE.mkv",
            ) from error
        last_s = max(time_s, last_s)
        self._damage.append(Damage(first_s=round(time_s, 3), last_s=round(last_s, 3), what=what, **counts))


def upright_rgb(picture: av.VideoFrame, video: VideoInfo, *, max_side: int | None = None) -> Frame:
    """The whole picture as it is shown: square pixels, upright, R'G'B', HDR brought to SDR.

    Args:
        picture: a decoded frame.
        video: of its stream.
        max_side: longest side of the result; smaller pictures are not enlarged.

    Returns:
        (H, W, 3) uint8. With `max_side` it is scaled in each axis by W / display_width and H / display_height.
    """
    limit = max(video.display_width, video.display_height)
    scale = min(1.0, max_side / limit) if max_side is not None else 1.0
    wide = max(1, round(video.display_width * scale))
    high = max(1, round(video.display_height * scale))
    if video.rotation % 180 == 90:
        wide, high = high, wide
    scaler: VideoReformatter | None = getattr(_LOCAL, "scaler", None)
    if scaler is None:
        scaler = _LOCAL.scaler = VideoReformatter()
    small = scaler.reformat(
        picture,
        width=wide,
        height=high,
        format="rgb24",
        src_colorspace=colorspace_of(video),
        src_color_range=2 if full_range(video) else 1,
        dst_color_range=2,
        interpolation=Interpolation.AREA if scale < 1 else Interpolation.BICUBIC,
    )
    rgb: Frame = np.asarray(small.to_ndarray(), dtype=np.uint8)
    if video.color_trc in (PQ, HLG):
        curve = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
        rgb = to_sdr(curve, video.color_trc).round().astype(np.uint8)[:, 0][rgb]
    (a, b, _), (c, d, _) = video.display_matrix
    if abs(b) > abs(a):  # x of the display is y of the coded picture
        rgb, a, d = rgb.transpose(1, 0, 2), b, c
    rgb = rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(rgb)
