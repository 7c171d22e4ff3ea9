"""Opening of a dub: files are read and checked, networks loaded. Errors are raised here, before the long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

from lipdub.config import Config, MediaConfig
from lipdub.dub.active_speaker import SpeakerScores, score_speakers
from lipdub.dub.analyze import DubPlan, FaceTracks
from lipdub.dub.driving_audio import DrivingAudio
from lipdub.dub.fit import on_new_times
from lipdub.dub.inference import Runner
from lipdub.dub.networks import Networks, licence_of, load_networks
from lipdub.dub.options import SyncOptions, adjusted
from lipdub.dub.report import Retiming
from lipdub.dub.speaking_style import UNKNOWN_STYLE
from lipdub.errors import InputError, SetupError, WeightsError
from lipdub.media.audio import audio_duration
from lipdub.media.c2pa import Signing
from lipdub.media.caption import Caption
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.language import language_code
from lipdub.media.mend import sound_on_one_clock
from lipdub.media.probe import Ending
from lipdub.media.source import Source, open_source
from lipdub.media.streams import StreamPlan, plan_streams
from lipdub.media.writer import VideoWriter
from lipdub.process import shared_cores

OTHER_LENGTH_S = 0.1  # difference of two lengths from which on it is said


@dataclass(frozen=True, kw_only=True)
class Job:
    """Inputs, networks and options of a dub, made by `open_job` before any face is tracked."""

    video: Path  # as the user named it; `source` may read a copy
    source: Source
    audio: Path  # the speech track
    audio_s: float  # its duration
    output: Path
    options: SyncOptions
    config: Config  # with options that are settings, and the sizes of the generator's weights
    streams: StreamPlan
    networks: Networks
    speech: DrivingAudio  # the speech track, or the clean voice in its place
    voices: tuple[DrivingAudio, ...]  # what drives the mouths: of each speaker, or `speech` alone
    caption: Caption | None
    signing: Signing | None
    retiming: Retiming | None = None  # of the picture to the audio's sentences
    retiming_warnings: tuple[tuple[str, str], ...] = ()

    def writer(self, file: Path | BytesIO) -> VideoWriter:
        """Encoder of the new picture; raises an error if machine or container cannot do it."""
        options = self.options
        return VideoWriter(
            file,
            self.source.video,
            crf=options.crf,
            codec=options.codec,
            lossless=options.lossless,
            output=self.output,
            config=self.config.media,
        )

    def runner(self, plan: DubPlan) -> Runner:
        """Runner that generates the mouths of a plan."""
        return self.networks.runner(plan, self.voices)

    def speaker_scores(self, faces: FaceTracks) -> SpeakerScores:
        """Scores of how well the mouth of each track matches the video's own audio.

        Raises:
            InputError: the video has no audio.
            WeightsError: the generator's weights predict no mouth shapes.
        """
        networks = self.networks
        own = networks.load_driving_audio(self.source.path)
        predicted = networks.predict_mouth_shapes(own, faces.times_s)
        if predicted is None:
            what = "--face speaking: these weights have no mouth shapes to compare mouths with"
            raise WeightsError(what, "use the bundled weights, or give --face id:N or a point")
        return score_speakers(faces.tracks, predicted.retargeted(UNKNOWN_STYLE, slice(None), 1.0), self.source.rate)

    def warnings(self, writer: VideoWriter) -> Iterator[tuple[str, str]]:
        """Code and text of each warning known before the dub."""
        yield from self.retiming_warnings
        if terms := licence_of(self.networks.generator):
            yield "licence", terms
        longer_s = self.audio_s - self.source.video.duration_s if self.options.length == "video" else 0.0
        if longer_s > OTHER_LENGTH_S:
            yield "length", f"the audio is {longer_s:.2f} s longer than the video; its end is cut"
        elif longer_s < -OTHER_LENGTH_S:
            yield "length", f"the audio is {-longer_s:.2f} s shorter than the video; the mouth then rests"
        if any(voice.silent for voice in self.voices):
            yield "speech", "the audio that drives the lips is silent: the mouth stays closed"
        elif any(voice.steady for voice in self.voices):
            steady = "the audio that drives the lips hardly varies in loudness, unlike speech"
            yield "speech", f"{steady}; check that it is the right file"
        elif any(voice.spoken is False for voice in self.voices):
            yield "speech", "the audio that drives the lips does not sound like speech; check that it is the right file"
        apart_s = abs(self.speech.duration_s - self.audio_s)
        if apart_s > OTHER_LENGTH_S:
            differ = f"the driving audio and the speech track differ by {apart_s:.2f} s in length"
            yield "drive", f"{differ}; both count from the video's start"
        yield from (("quality", loss) for loss in writer.encoding.losses)
        yield from (("stream", loss) for loss in (*self.source.repairs, *self.streams.losses))


def open_job(
    video: Path, audio: Path, output: Path, options: SyncOptions, config: Config, scratch: Callable[[str], Path]
) -> Job:
    """Read and check the files, load the networks.

    Nothing is written to `output`, whose suffix chooses the container; `scratch` gives the path of a temporary file.

    Raises:
        InputError, OutputError, SetupError, WeightsError: what cannot be used.
    """
    config = adjusted(config, options)
    (audio, drive, *sounds), notes = _whole_sounds(audio, options, config.media, scratch)
    retimed = on_new_times(open_source(video, config.media, scratch), audio, output, options, scratch)
    source, options = retimed.source, retimed.options
    keep = options.keep_original_audio
    streams = plan_streams(source.path, audio, output, keep_audio=keep, config=config.media, clocks=source.clocks)
    if options.language is not None:
        language_code(options.language)
    ffmpeg_binary(config.media)  # one that the user names is tried now
    caption = None if options.label is None else Caption(options.label, source.video, config.media)
    networks = load_networks(options, config)
    config = networks.config
    with shared_cores():
        isolate = options.isolate_voice
        speech = networks.load_driving_audio(drive, isolate=isolate)
        voices = [speech if one == drive else networks.load_driving_audio(one, isolate=isolate) for one in sounds]
        audio_s = speech.duration_s
        if options.drive_audio is not None:
            audio_s = audio_duration(audio, sample_rate=config.mel.sample_rate, config=config.media)
    return Job(
        video=video,
        source=replace(source, ending=ending_of(source, audio_s, options, streams.dub.start_s)),
        audio=audio,
        audio_s=audio_s,
        output=output,
        options=options,
        config=config,
        streams=replace(streams, losses=(*notes, *streams.losses)),
        networks=networks,
        speech=speech,
        voices=tuple(voices) or (speech,),
        caption=caption,
        signing=_signing(options, output),
        retiming=retimed.retiming,
        retiming_warnings=retimed.warnings,
    )


def _whole_sounds(
    audio: Path, options: SyncOptions, config: MediaConfig, scratch: Callable[[str], Path]
) -> tuple[list[Path], list[str]]:
    """Files to read: the speech track, what drives the lips, what drives those of each speaker; and what is said."""
    paths: dict[Path, Path] = {}
    notes: list[str] = []
    every = [audio, options.drive_audio, *(one.sound for one in options.speakers)]
    for number, sound in enumerate(every):
        if sound is not None and sound not in paths:
            paths[sound], repairs = sound_on_one_clock(sound, partial(_place, scratch, f"sound{number}"), config)
            notes += repairs
    drive = options.drive_audio or audio
    return [paths[audio], paths[drive], *(paths[one.sound or drive] for one in options.speakers)], notes


def _place(scratch: Callable[[str], Path], sound: str, name: str) -> Path:
    return scratch(f"{sound}.{name}")


def ending_of(source: Source, audio_s: float, options: SyncOptions, begins_s: float = 0.0) -> Ending | None:
    """End of the output, if it is not the video's.

    Args:
        source: the video.
        audio_s: when the speech track ends, on the video's timeline.
        options: length, extend and the selected faces.
        begins_s: when the speech track begins, on the video's timeline.

    Raises:
        InputError: the speech track lies behind the video's end; or "speaking" is selected where the output goes on
            behind the video's own audio.
    """
    ends_s = source.video.start_s + source.video.duration_s
    if options.length != "audio" and begins_s >= ends_s:
        what = f"the audio begins at {begins_s:.2f} s, where the video is over: it lasts until {ends_s:.2f} s"
        raise InputError(what, "check that it is the right file, and that its times begin at 0")
    if options.length == "video" or (options.length == "shortest" and audio_s >= ends_s):
        return None
    if audio_s - ends_s > OTHER_LENGTH_S and "speaking" in (options.face, *(one.face for one in options.speakers)):
        raise InputError(
            f"--face speaking cannot tell who speaks in the {audio_s - ends_s:.2f} s behind the video's own sound",
            "choose the face by id:N or by a point, or leave out --length audio",
        )
    return Ending(end_s=audio_s, extend=options.extend)


def _signing(options: SyncOptions, output: Path) -> Signing | None:
    """Signing of the output, if it was requested.

    Raises:
        SetupError, OutputError: see `Signing`; or one of key and certificate is missing.
    """
    if options.c2pa_cert is None and options.c2pa_key is None:
        return None
    if options.c2pa_cert is None or options.c2pa_key is None:
        raise SetupError("signing needs a key and its certificate", "give both --c2pa-cert and --c2pa-key")
    return Signing(options.c2pa_cert, options.c2pa_key, output)
