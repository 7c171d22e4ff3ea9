"""Sound: one mono waveform on the file's own timeline for the analysis, and WAV files out."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.probe import open_input, origin, require_rate
from lipdub.media.streamed import has_unknown_length

Waveform = NDArray[np.float32]  # (n,) in [-1, 1]
_KINDS = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}  # of packed sample formats
_LOST = 0.1  # share of the channels' power that a mix must hold


def load_audio(
    path: Path, *, sample_rate: int = 16_000, stream: int = 0, config: MediaConfig | None = None
) -> Waveform:
    """Mono samples of an audio stream; sample 0 is at the file's time 0.

    Several channels are mixed by FFmpeg's usual weights; where they cancel each other, as with one turned upside down,
    the loudest is taken alone.

    A late start and gaps in the timestamps become silence; samples before time 0 are cut. Encoder priming that the file
    declares is left out.

    Args:
        path: an audio or video file.
        sample_rate: Hz of the result.
        stream: which of the file's sound streams.
        config: tolerance for gaps.

    Returns:
        (n,) float32 in [-1, 1].

    Raises:
        InputError: no such stream, no samples, NaN or infinite samples, damage (with its time).
    """
    path, gap_s = Path(path), (config or MediaConfig()).audio_gap_s
    powers: list[NDArray[np.float64]] = []
    mixed = _read(path, sample_rate, stream, gap_s, powers)
    channels = np.sum(powers, axis=0)
    if len(channels) > 1 and float(np.square(mixed, dtype=np.float64).sum()) < _LOST * float(channels.mean()):
        return _read(path, sample_rate, stream, gap_s, channel=int(channels.argmax()))
    return mixed


def audio_duration(path: Path, *, sample_rate: int = 16_000, config: MediaConfig | None = None) -> float:
    """Seconds from the file's time 0 to the end of its first audio stream, decoded as `load_audio` does.

    Raises:
        InputError: see `load_audio`.
    """
    return len(load_audio(path, sample_rate=sample_rate, config=config)) / sample_rate


def _read(
    path: Path,
    sample_rate: int,
    stream: int,
    gap_s: float,
    powers: list[NDArray[np.float64]] | None = None,
    channel: int | None = None,
) -> Waveform:
    """Samples of the mix, or of one channel; adds the sum of squares of each channel, at `sample_rate`, to `powers`."""
    with open_input(path) as container:
        source = _stream(path, container, stream)
        require_rate(path, source)
        origin_s = origin(container)
        runs: list[_Run] = []
        resampler, expected, behind_s = None, 0.0, 0.0
        shape: tuple[str, int] | None = None
        sounding: list[tuple[float, float]] = []  # from when to when there is sound, up to the last step of the clock
        for frame in _frames(path, container, source):
            time_s = expected if frame.time is None else frame.time - origin_s + behind_s
            if runs and abs(time_s - expected) > gap_s:
                sounding.append((runs[-1].start / sample_rate, expected))
                if any(first <= time_s + gap_s < end for first, end in sounding):
                    behind_s, time_s = behind_s + expected - time_s, expected  # it begins anew: sounds that were joined
            if shape not in (None, shape := (frame.layout.name, frame.sample_rate)):
                what = f"the sound becomes {shape[0]}, {shape[1]} Hz, at {time_s:.3f} s, which it was not before"
                raise InputError(f"{path}: {what}", "write it anew as one sound: ffmpeg -i FILE WHOLE.wav")
            if resampler is None or abs(time_s - expected) > gap_s:
                _flush(resampler, runs)
                layout = "mono" if channel is None else frame.layout.name
                resampler = AudioResampler(format="fltp", layout=layout, rate=sample_rate)
                runs.append(_Run(round(time_s * sample_rate), channel or 0))
            if powers is not None:
                powers.append(_powers(frame) * sample_rate / frame.sample_rate)
            try:
                runs[-1].extend(resampler.resample(frame))
            except (av.error.FFmpegError, ValueError) as error:  # a header may claim hundreds of channels
                raise _damaged(path, time_s, f"{frame.layout.name} cannot be mixed ({error})") from error
            expected = time_s + frame.samples / frame.sample_rate
        _flush(resampler, runs)
    return _assemble(path, runs, sample_rate)


def write_wav(path: Path, samples: Waveform, sample_rate: int) -> None:
    """Write 16 bit PCM.

    Args:
        path: the file, replaced if it exists.
        samples: (n,) float32 in [-1, 1]; louder is clipped.
        sample_rate: Hz.

    Raises:
        OutputError: the disk refuses.
    """
    pcm = np.rint(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2")
    try:
        with path.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setparams((1, 2, sample_rate, 0, "NONE", ""))
            file.writeframes(pcm.tobytes())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "check the folder") from error


def _stream(path: Path, container: InputContainer, number: int) -> av.AudioStream:
    streams = container.streams.audio
    if not streams:
        there = ", ".join(stream.type for stream in container.streams) or "nothing"
        raise InputError(f"{path} has no audio stream (it has: {there})", "give a file with sound")
    if not 0 <= number < len(streams):
        raise InputError(f"{path} has {len(streams)} audio streams, there is no number {number}", "they count from 0")
    return streams[number]


def _frames(path: Path, container: InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    time_s = 0.0
    streamed = has_unknown_length(path)
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt and not streamed:
                raise _damaged(path, time_s, "a packet is incomplete")
            for frame in packet.decode():
                time_s = frame.time if frame.time is not None else time_s
                yield frame
    except (av.error.FFmpegError, ValueError) as error:
        raise _damaged(path, time_s, str(error)) from error


def _damaged(path: Path, time_s: float, what: str) -> InputError:
    return InputError(
        f"{path}: the sound is damaged at {time_s:.3f} s: {what}",
        "get the file again, or keep what is whole of it with: ffmpeg -i FILE WHOLE.wav",
    )


def _powers(frame: av.AudioFrame) -> NDArray[np.float64]:
    """Sum of squares of each channel's samples, at full scale 1."""
    samples = _samples(frame)
    whole = samples.astype(np.float64)
    if samples.dtype.kind == "u":
        whole = whole - 128
    if samples.dtype.kind in "iu":
        whole /= 2 ** (8 * samples.dtype.itemsize - 1)
    return np.square(whole).sum(axis=1)


def _samples(frame: av.AudioFrame) -> NDArray[Any]:
    """The samples (c, n) of a frame of any format.

    `to_ndarray` of PyAV 18 counts nine planes where there are eight channels in planes of their own, and crashes.
    """
    count = frame.layout.nb_channels
    if not frame.format.is_planar:
        return frame.to_ndarray().reshape(-1, count).T
    kind = np.dtype(_KINDS[frame.format.packed.name])
    return np.stack([np.frombuffer(bytes(plane), kind, frame.samples) for plane in frame.planes[:count]])


class _Run:
    """Samples without a gap, which begin at sample `start` of the timeline."""

    def __init__(self, start: int, channel: int) -> None:
        self.start = start
        self._channel = channel
        self._bytes = bytearray()  # grows in place: a list of pieces would have to be copied into one

    def extend(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self._bytes += np.asarray(_samples(frame)[self._channel], dtype=np.float32).tobytes()

    @property
    def samples(self) -> Waveform:
        return np.frombuffer(self._bytes, np.float32)


def _flush(resampler: AudioResampler | None, runs: list[_Run]) -> None:
    if resampler is not None:
        runs[-1].extend(resampler.resample(None))


def _assemble(path: Path, runs: list[_Run], sample_rate: int) -> Waveform:
    """Each run at its place on the timeline."""
    n_samples = max((run.start + len(run.samples) for run in runs if len(run.samples)), default=0)
    if n_samples <= 0:
        raise InputError(f"{path}: the sound has no samples", "give a file with sound in it")
    if len(runs) == 1 and runs[0].start <= 0:
        waveform = runs[0].samples[-runs[0].start :]
    else:
        waveform = np.zeros(n_samples, dtype=np.float32)
        for run in runs:
            part, begin = run.samples[max(0, -run.start) :], max(0, run.start)
            waveform[begin : begin + len(part)] = part
    bad = np.flatnonzero(~np.isfinite(waveform))
    if bad.size:
        raise InputError(
            f"{path}: the sound is not a number (NaN or infinite) at {bad[0] / sample_rate:.3f} s",
            "export the sound again, as 16 bit or 24 bit WAV",
        )
    return np.clip(waveform, -1.0, 1.0, out=waveform)
