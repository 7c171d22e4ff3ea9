"""The only encode: each picture with its own timestamp, into an intermediate file that is remuxed."""

from __future__ import annotations

import errno
from collections import deque
from io import BytesIO
from pathlib import Path

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter

from lipdub.config import MediaConfig
from lipdub.errors import OutputError, ResourceError, SetupError
from lipdub.media.boxes import insert_boxes
from lipdub.media.color import colorspace_of, full_range
from lipdub.media.containers import container_of, movie_clock
from lipdub.media.encoders import FULL, HARDWARE, LIMITED, choose_encoding
from lipdub.media.probe import VideoInfo, file_url
from lipdub.threads import BackgroundWorker, ClosedOrCancelled

_LAST = 2  # pictures: a B picture is decoded behind the one that it comes before


class VideoWriter(ClosedOrCancelled):
    """Encodes pictures to an intermediate MP4 or QuickTime file with the source's size, clock, shape and colour tags.

    The encoder works in a thread of its own, for which up to `config.queue` pictures wait.

    Why QuickTime: its clock can be any fraction, so the pts of variable frame rate and of NTSC rates are kept exactly;
    with a movie clock as fine as the track's, so is a late start. It carries the display matrix and every codec we
    write.

    Args:
        path: the intermediate file; its name's ending does not matter. An open binary file, for a trial in memory.
        info: of the source's picture.
        crf: constant quality of the encoder's own scale; None: the one of `config`.
        codec: "h264", "hevc", "vp9", "av1" or "prores"; None: as the source.
        lossless: every pixel of every picture as it is given.
        output: the finished file: only codecs that its container takes come into question.
        config: quality and preset.

    Raises:
        SetupError: this PyAV lacks the encoder.
        OutputError: the encoder or the disk refuses, or see `choose_encoding`.
        ResourceError: the disk is full.
    """

    def __init__(
        self,
        path: Path | BytesIO,
        info: VideoInfo,
        *,
        crf: int | None = None,
        codec: str | None = None,
        lossless: bool = False,
        output: Path | None = None,
        config: MediaConfig | None = None,
    ) -> None:
        self._target = path
        self.path = Path("memory") if isinstance(path, BytesIO) else Path(path)
        self.video = info
        self.n_frames = 0
        self.sizes: dict[bool, list[int]] = {True: [], False: []}  # bytes of each packet; True: key frames
        self.encoding = choose_encoding(
            info,
            codec=codec,
            crf=crf,
            lossless=lossless,
            container=container_of(Path(output)) if output is not None else None,
            config=config or MediaConfig(),
        )
        self._behind = BackgroundWorker((config or MediaConfig()).queue)
        self._held: deque[av.VideoFrame] = deque()  # the newest pictures, until it is known whether they are the last
        self._scaler = VideoReformatter()
        self._last: int | None = None
        self._end = 0  # pts at which the last picture is over
        self._first: tuple[int, int] | None = None  # pts and dts of the first packet
        self._decoded = 0  # dts of the newest packet
        form = "mov" if self.encoding.encoder == "prores_ks" else "mp4"
        try:
            self._container: OutputContainer = av.open(
                path if isinstance(path, BytesIO) else file_url(self.path),
                mode="w",
                format=form,
                options=movie_clock(self.video.time_base.denominator),
            )
        except (av.error.FFmpegError, OSError) as error:
            raise refused(self.path, error) from error
        self._stream = self._add_stream()
        try:
            self._container.start_encoding()  # here, not at the first picture: refusals come before the work
        except (av.error.FFmpegError, OSError) as error:
            self._container.close()
            if self.encoding.encoder in HARDWARE:
                raise SetupError(
                    f"{self.encoding.encoder} cannot be used on this machine: {error.strerror or error}",
                    "leave out --codec, or name the codec alone, as h264, for the encoder that needs no hardware",
                ) from error
            raise refused(self.path, error) from error

    @property
    def length_s(self) -> float:
        """From the source's first picture to the end of the last one that was written."""
        return float((self._end - self.video.start_pts) * self.video.time_base)

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Encode one picture. What is refused may be raised at a later one, or by `close`.

        Args:
            picture: of the source's size, and the writer's from now on: timestamp and picture type are overwritten.
            pts: in the source's time base, larger than that of the picture before.
        """
        if self._last is not None and pts <= self._last:
            raise ValueError(f"pts must rise: {pts} after {self._last}")
        step = pts - self._last if self._last is not None else 1
        self._last = pts
        self.n_frames += 1
        self._behind.do(lambda: self._encode(picture, pts, step))

    def _encode(self, picture: av.VideoFrame, pts: int, step: int) -> None:
        picture = self._converted(picture)
        picture.pts = pts
        picture.time_base = self.video.time_base
        picture.pict_type = PictureType.NONE  # else the encoder repeats the source's I, P and B choice
        self._end = pts + (picture.duration or step)  # some formats state no durations
        self._held.append(picture)
        if len(self._held) > _LAST:
            self._send(self._held.popleft())

    def _send(self, picture: av.VideoFrame) -> None:
        try:
            self._mux(self._stream.encode(picture))
        except (av.error.FFmpegError, OSError) as error:
            raise refused(self.path, error) from error

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        try:
            try:
                self._behind.close()
                for picture in self._held:  # none of them is to be decoded behind a later one
                    picture.pict_type = PictureType.P
                    self._send(picture)
                self._mux(self._with_exact_end(self._stream.encode(None)))
            finally:
                self._container.close()
            if self.video.spatial and not isinstance(self._target, BytesIO):
                insert_boxes(self.path, self.video.spatial)
        except (av.error.FFmpegError, OSError) as error:
            raise refused(self.path, error) from error

    def cancel(self) -> None:
        """Leave the file as it is, which is of no use."""
        self._behind.cancel()
        self._container.close()

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """In the encoder's pixel format; FFmpeg's own conversion would guess matrix and range."""
        if picture.format.name == self.encoding.pix_fmt:
            return picture
        matrix = colorspace_of(self.video)
        converted = self._scaler.reformat(
            picture,
            format=self.encoding.pix_fmt,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=FULL if full_range(self.video) or picture.format.is_rgb else LIMITED,
            dst_color_range=FULL if self.encoding.color_range == FULL else LIMITED,
            interpolation=Interpolation.BICUBIC,
        )
        converted.duration = picture.duration
        return converted

    def _mux(self, packets: list[av.Packet[av.VideoStream]]) -> None:
        for packet in packets:
            if self._first is None:
                self._first = (packet.pts or 0, packet.dts or 0)
            self._decoded = packet.dts or 0
            self.sizes[packet.is_keyframe].append(packet.size)
            self._container.mux(packet)

    def _with_exact_end(self, packets: list[av.Packet[av.VideoStream]]) -> list[av.Packet[av.VideoStream]]:
        """The encoder's last packets, with decoding times by which the last picture lasts as long as it did.

        MP4 keeps lengths as steps between decoding times. They must add up to the pictures' own lengths, and the last
        one must be the last picture's, also where pictures before it have other lengths than the first ones.
        """
        if not packets:
            return packets
        last = packets[-1]
        pts, dts = last.pts or 0, last.dts or 0
        first_pts, first_dts = self._first or (packets[0].pts or 0, packets[0].dts or 0)
        end = self._end - first_pts + first_dts
        last.duration = max(1, end - dts)
        if pts == max(packet.pts or 0 for packet in packets):
            last.duration = self._end - pts
            latest = end - last.duration  # dts of the last packet
            steps, left = len(packets), latest - self._decoded
            if left > steps:
                for number, packet in enumerate(packets, start=1):
                    packet.dts = min(packet.dts or 0, self._decoded + left * number // steps)
                last.dts = latest
        return packets

    def _add_stream(self) -> av.VideoStream:
        video, encoding = self.video, self.encoding
        stream = self._container.add_stream(encoding.encoder, rate=video.average_rate)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        stream.width, stream.height = video.width, video.height
        stream.pix_fmt = encoding.pix_fmt
        stream.time_base = context.time_base = video.time_base
        context.sample_aspect_ratio = video.sar
        context.color_primaries = video.color_primaries
        context.color_trc = video.color_trc
        context.colorspace = encoding.colorspace
        context.color_range = encoding.color_range
        context.bit_rate = 0  # quality rules, not rate
        context.thread_count = 0  # as many as there are cores
        context.thread_type = "AUTO"
        context.flags |= int(Flags.frame_duration)  # the last picture lasts as long as it did
        context.field_order = video.field_order
        if video.interlaced:
            context.flags |= int(Flags.interlaced_dct | Flags.interlaced_me)
        stream.options = dict[str, object](encoding.options)
        if video.container_matrix is not None:
            stream.set_display_matrix(video.container_matrix)
        return stream


def refused(path: Path, error: Exception) -> OutputError | ResourceError:
    """What it means that an encoder or the disk refuses a file."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return ResourceError(f"the disk is full: {path.parent}", "free some space, or write to another disk")
    return OutputError(f"cannot write {path}: {error}", "check the folder and the chosen codec")
