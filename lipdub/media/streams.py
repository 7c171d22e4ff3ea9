"""What becomes of each stream, decided before the long work: measured by its packets, tried in its new container."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.clocks import Clock
from lipdub.media.containers import MOST_CHANNELS, MOST_HZ, Container, Item, container_of, encoder_options, planned
from lipdub.media.ffmpeg import reading, run
from lipdub.media.probe import (
    UNKNOWN,
    AudioInfo,
    codec_of,
    file_url,
    is_timeline,
    kind_of,
    measured,
    open_input,
    probe,
    read_clocks,
)

_TRIAL_S = 10.0  # of each stream that is tried; what begins later is only opened
_MOVED_S = 0.02  # by which no sound may be moved: half a picture
_DROP_REMEDY = "get the file again; where only its old sound is damaged, leave that out with --original-audio drop"


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """The streams of an output beside its picture."""

    dub: AudioInfo  # as long as its packets are
    dub_encoder: str  # "copy", or what FFmpeg is to make of it
    items: tuple[Item, ...]  # of the source
    losses: tuple[str, ...]  # what cannot go along, or not as it was: one sentence each
    clocks: dict[int, Clock]  # of the source's streams, by index


def plan_streams(
    source: Path,
    dub: Path,
    output: Path,
    *,
    keep_audio: bool = True,
    config: MediaConfig | None = None,
    clocks: dict[int, Clock] | None = None,
) -> StreamPlan:
    """Decide about every stream of the source and the dub's; each is written for a few seconds and read back.

    Args:
        source: the video.
        dub: the new speech track.
        output: its ending chooses the container; nothing is written there.
        keep_audio: whether the old sound goes along.
        config: which ffmpeg, and the bit rate of lossy audio.
        clocks: of the source, if they were read already.

    Raises:
        OutputError: unknown container, or the dub fits into it in no way.
        InputError: a stream that goes along is damaged, the dub has no sound, a file cannot be read.
        SetupError: no ffmpeg.
    """
    config, container = config or MediaConfig(), container_of(output)
    clocks = read_clocks(source) if clocks is None else clocks
    dub_info = probe(dub)
    if not dub_info.audio:
        raise InputError(f"{dub} has no audio stream (it has: {', '.join(dub_info.streams)})", "give a file with sound")
    packets = read_clocks(dub)
    if dub_info.audio[0].index not in packets:
        raise InputError(f"{dub}: the sound has no samples", "give a file with sound in it")
    dub_audio = measured(dub_info, packets).audio[0]
    items, losses = planned(source, container, keep_audio=keep_audio)
    if not container.marks:
        losses.append(no_marks(output))
    kept: list[Item] = []
    for item in items:
        clock = clocks.get(item.index)
        if lost := _why_left_out(item, clock):
            losses.append(f"{_name(item)} {lost}: it is left out")
            continue
        if clock is not None and clock.damaged_s is not None:
            raise InputError(
                f"{source} is damaged: {_name(item)} is incomplete at {clock.damaged_s:.3f} s", _DROP_REMEDY
            )
        if clock is not None and item.kind == "audio":
            item, changes = _sound_of(item, clock, container, source)
            losses += changes
        kept.append(item)
    trial = _Trial(source, dub, dub_audio, output, config, clocks)
    if trial.encoder == "copy" and _needs_silence(packets[dub_audio.index], dub_audio.codec, container):
        trial.encoder = _encoder_of(dub_audio.codec, container)
    tried = [item for item in kept if item.kind != "attachment" and item.encoder != "attach"]
    fits = bool(tried) and trial.fits(tried)  # all at once with the dub, as a rule
    encoder = trial.encoder if fits else trial.encoder_of_dub()
    losses += _lost_of_dub(dub_audio, encoder)
    if tried and not fits and not trial.fits(tried):
        for item in tried:
            fitting = next((each for each in _alternatives(item, container) if trial.fits([each])), None)
            if fitting is None:
                losses.append(f"{_name(item)} cannot be written into {container.muxer}: it is left out")
            elif fitting.encoder != item.encoder:
                losses.append(
                    f"{_name(item)} cannot be copied into {container.muxer}: it is written as {fitting.encoder}"
                )
            kept[kept.index(item)] = fitting if fitting is not None else replace(item, encoder="")
    kept = [item for item in kept if item.encoder]
    return StreamPlan(dub=dub_audio, dub_encoder=encoder, items=tuple(kept), losses=tuple(losses), clocks=clocks)


def _sound_of(item: Item, clock: Clock, container: Container, source: Path) -> tuple[Item, list[str]]:
    """A kept sound as its times allow it to be written, and what is said of that."""
    losses: list[str] = []
    planned_encoder, item = item.encoder, _without_hidden(item, clock, container, source)
    if item.encoder != planned_encoder:
        losses.append(f"{_name(item)} was cut without encoding it anew; it is now, as {item.encoder}")
    if item.encoder == "copy" and _needs_silence(clock, item.codec, container):
        item = replace(item, encoder=_encoder_of(item.codec, container), filters="")
        losses.append(f"{_name(item)} begins late or has gaps: {container.muxer} gets silence there")
    if clock.repeats and item.encoder == "copy":
        losses.append(f"{clock.repeats} packets of {_name(item)} repeat an earlier time: each is moved on a tick")
    return item, losses


def _why_left_out(item: Item, clock: Clock | None) -> str:
    """What is wrong with a stream that cannot go along; "" if nothing is."""
    if clock is None and item.kind in ("audio", "subtitle", "data", "unknown"):
        return "is empty"
    if item.sound is not None and not item.sound.channels:  # its decoder does not open; a copy may move all times
        return "has a damaged header"
    return ""


def _lost_of_dub(dub: AudioInfo, encoder: str) -> list[str]:
    """What of the dub's sound an encoder cannot hold."""
    max_hz = MOST_HZ.get(encoder)
    if max_hz is None:
        return []
    lost = [f"{dub.channels} channels become {MOST_CHANNELS}"] * (dub.channels > MOST_CHANNELS)
    lost += [f"{dub.sample_rate} Hz become {max_hz}"] * (dub.sample_rate > max_hz)
    return [f"of the audio, {' and '.join(lost)} in {encoder}; .mov and .mkv keep them"] if lost else []


def no_marks(output: Path) -> str:
    """What is said of a container that cannot say that AI altered the video."""
    return f"{output.suffix} has no place for the marks that AI altered it; .mkv and .mp4 have"


def _name(item: Item) -> str:
    """A stream of the source, as messages call it."""
    return f"{item.kind} stream {item.index} ({item.codec})"


def _without_hidden(item: Item, clock: Clock, container: Container, source: Path) -> Item:
    """A copy without the packets that an edit list hides; QuickTime hides those before time 0 again."""
    if item.encoder != "copy" or not clock.hidden:
        return item
    drops = [f"between(n\\,{first}\\,{last})" for first, last in clock.hidden if first > 0]
    first, last = clock.hidden[0]
    if first == 0 and last > 0 and not container.is_mov:  # more than an encoder's priming: what was cut off
        if container.muxer in ("matroska", "webm"):  # all of it would be noted as the codec's delay, and cut off
            return replace(item, encoder=container.lossless or container.fallback, filters="")
        with open_input(source) as opened:
            zero = 0.0 if "mov" in opened.format.name else (opened.start_time or 0) / av.time_base
        drops.append(f"lt(pts*tb\\,{zero - 1e-4:.6f})")
    if not drops:
        return item
    return replace(item, filters=",".join(filter(None, [item.filters, f"noise=drop={'+'.join(drops)}"])))


def _needs_silence(clock: Clock, codec: str, container: Container) -> bool:
    """Whether a sound would be played too early in a container that does not keep its late start or its gaps."""
    late = clock.start_s > _MOVED_S and not container.stamps
    return late or (clock.leap_s > _MOVED_S and not container.keeps_gaps(codec))


def _encoder_of(codec: str, container: Container) -> str:
    """The encoder of a sound that could be copied, but for its times."""
    return codec if codec.startswith("pcm_") else container.fallback


def _alternatives(item: Item, container: Container) -> list[Item]:
    """A stream as it was planned, then in other codecs, those first that lose nothing."""
    if item.kind == "audio":
        integer = item.sound is not None and item.sound.integer
        encoders = [*[container.lossless] * (integer and container.lossless != ""), container.fallback]
        return [item, *(replace(item, encoder=each, filters="") for each in encoders)]
    if item.kind == "subtitle" and container.text and item.encoder != container.text:
        return [item, replace(item, encoder=container.text)]
    return [item]


class _Trial:
    """Writes a few seconds of streams into a container of the output's kind and reads them back."""

    def __init__(
        self, source: Path, dub: Path, dub_audio: AudioInfo, output: Path, config: MediaConfig, clocks: dict[int, Clock]
    ) -> None:
        self._source, self._dub, self._config, self._clocks = source, dub, config, clocks
        self._container, self._dub_audio = container_of(output), dub_audio
        self._dub_start_s = 0.0  # in what was written last
        self.encoder = self._container.audio_encoder(dub_audio.codec)  # of the dub; as it is meant to be, at first

    def encoder_of_dub(self) -> str:
        """How the dub gets into the container: as it is meant to be, else in a way that works.

        Raises:
            OutputError: there is none.
            InputError: nothing was read, whatever the encoder.
        """
        first_error: OutputError | None = None
        lossless = [self._container.lossless] if self._container.lossless else []
        for encoder in dict.fromkeys((self.encoder, *lossless, self._container.fallback)):
            self.encoder = encoder
            try:
                if self._write([]):
                    return encoder
            except OutputError as error:
                first_error = first_error or error
        if first_error is not None:
            raise first_error
        what = f"{self._dub} has no audio that can be read in its first {_TRIAL_S:g} s"
        raise InputError(what, "check that it is not empty, get it again, or convert it to WAV first")

    def fits(self, items: Sequence[Item]) -> bool:
        """Whether FFmpeg writes these streams, and what it wrote is what was there."""
        try:
            made = self._write(items)
        except (OutputError, InputError):
            return False
        within = [item for item in items if self._start_s(item) < _TRIAL_S]
        if len(within) < len(items):  # one that begins late may not be there
            return bool(made)
        return len(made) > len(items) and all(map(_is_as_planned, items, made[1:])) and not self._moves_dub()

    def _moves_dub(self) -> bool:
        """Whether the streams written last move the dub, as in Matroska the delay that a damaged header states."""
        if (start_s := self._dub_start_s) <= _MOVED_S:
            return False
        self._write([])
        return abs(start_s - self._dub_start_s) > _MOVED_S

    def _start_s(self, item: Item) -> float:
        """When a stream begins on the timeline of the source; 0 where it has no packets."""
        clock = self._clocks.get(item.index)
        return 0.0 if clock is None else clock.start_s

    def _write(self, items: Sequence[Item]) -> list[tuple[str, str]]:
        """Kind and codec of what was written: the dub, then `items`."""
        words = [word for path in (self._dub, self._source) for word in ("-t", str(_TRIAL_S), *reading(path))]
        words += ["-map", "0:a:0", "-c:0", self.encoder, "-map_metadata", "-1", "-map_chapters", "-1"]
        sounds = [(0, self.encoder, self._dub_audio)]
        for number, item in enumerate(items, start=1):
            words += ["-map", f"1:{item.index}", f"-c:{number}", item.encoder]
            words += [f"-disposition:{number}", item.disposition]
            sounds += [(number, item.encoder, item.sound)] if item.sound is not None else []
        for number, encoder, info in sounds:
            for key, value in encoder_options(encoder, info, self._config, number).items():
                words += [f"-{key}", value]
        with tempfile.TemporaryDirectory(prefix="lipdub-") as folder:
            path = Path(folder) / "trial"
            run([*words, "-f", self._container.muxer, file_url(path)], self._config)
            try:
                with av.open(str(path), metadata_errors="replace") as made:
                    dub = made.streams[0]
                    start_s = float((dub.start_time or 0) * (dub.time_base or 0))
                    self._dub_start_s = start_s if is_timeline(made.format.name) else 0.0
                    return [(kind_of(stream), codec_of(stream)) for stream in made.streams]
            except av.FFmpegError:  # nothing came through: FFmpeg wrote an empty file
                return []


def _is_as_planned(item: Item, made: tuple[str, str]) -> bool:
    """Whether a stream of this kind and codec is what `item` was to become."""
    kind, codec = made
    if kind != item.kind and {kind, item.kind} != {"data", UNKNOWN}:
        return False
    return codec != UNKNOWN and (item.encoder != "copy" or codec == item.codec)
