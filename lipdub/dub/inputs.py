"""Inputs of a dub: probed files, driving audio, device, networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from lipdub.config import Config, GeneratorConfig, SyncConfig
from lipdub.dub.analyze import Analysis
from lipdub.dub.cores import shared_cores
from lipdub.dub.driving_audio import DrivingAudio, analyze_audio
from lipdub.dub.inference import GeneratorRunner, Runner
from lipdub.dub.options import OPTIONS, SyncOptions
from lipdub.dub.precision import half_precision
from lipdub.dub.wav2lip import LICENCE, Wav2LipRunner
from lipdub.errors import InputError, SetupError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.choose import face_backend
from lipdub.media.audio import load_audio
from lipdub.media.caption import Caption
from lipdub.media.clocks import Clock
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.language import language_code
from lipdub.media.probe import Ending, MediaInfo, VideoInfo, measured, probe, require_video
from lipdub.mel import wav2lip_mel
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.models.generator import Generator
from lipdub.models.layers import for_inference
from lipdub.models.wav2lip import FACE_SIDE, Wav2Lip
from lipdub.weights import load_audio_encoder, load_bound

OTHER_LENGTH_S = 0.1  # difference of two lengths from which on it is said


def resolve_device(name: str) -> torch.device:
    """The torch device of `--device`.

    Raises:
        SetupError: the device that was asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = {"cpu": 1, "cuda": n_cuda, "mps": int(torch.backends.mps.is_available())}.get(kind, 0)
    if (colon and not number.isdecimal()) or int(number or 0) >= count:
        raise SetupError(f"device {name!r} is not available on this machine", "use --device auto or --device cpu")
    return torch.device(kind, int(number)) if colon else torch.device(kind)


@dataclass(frozen=True)
class Ear:
    """How the networks of a job hear a sound."""

    generator: Generator | Wav2Lip
    encoder: TrackEncoder | None  # of generators that take mouth shapes of a whole track
    config: Config
    device: torch.device

    def load_driving_audio(self, sound: Path) -> DrivingAudio:
        """A sound as it drives the lips."""
        config = self.config
        waveform = load_audio(sound, sample_rate=config.mel.sample_rate, config=config.media)
        own_mel = wav2lip_mel(waveform) if isinstance(self.generator, Wav2Lip) else None
        bundled = config.sync.audio_encoder == SyncConfig().audio_encoder
        return analyze_audio(
            waveform, config.mel, config.sync, own_mel, self.encoder, self.device, judge_phones=bundled
        )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of a dub."""

    source: MediaInfo  # its picture with the ending that the options ask for
    dub_s: float  # length of the sound that will be heard
    length: str  # what the film is as long as: see SyncOptions
    speech: DrivingAudio  # the dub, or the clean voice in its place, as the analysis hears it
    voices: tuple[DrivingAudio, ...]  # what drives the lips: of each speaker, or `speech` alone
    device: torch.device
    generator: Generator | Wav2Lip
    ear: Ear
    backend: FaceBackend
    config: Config  # with the sizes of the generator's weights
    label: Caption | None = None  # goes into every picture

    def runner(self, analysis: Analysis) -> Runner:
        """What paints the mouths of an analysis."""
        if isinstance(self.generator, Wav2Lip):
            return Wav2LipRunner(self.generator, analysis, self.speech, self.config, self.device)
        return GeneratorRunner(self.generator, analysis, self.voices, self.config, self.device)

    @property
    def video(self) -> VideoInfo:
        """The picture stream."""
        return require_video(self.source)

    def warnings(self) -> list[tuple[str, str]]:
        """Codes and sentences: what the licence asks to be said, and what becomes of sounds of another length."""
        said = [("licence", LICENCE)] if isinstance(self.generator, Wav2Lip) else []
        apart_s = abs(self.speech.duration_s - self.dub_s)
        longer_s = self.dub_s - self.video.duration_s if self.length == "video" else 0.0  # else it is as was asked
        if longer_s > OTHER_LENGTH_S:
            said.append(("length", f"the audio is {longer_s:.2f} s longer than the video; its end is cut"))
        elif longer_s < -OTHER_LENGTH_S:
            said.append(("length", f"the audio is {-longer_s:.2f} s shorter than the video; the mouth then rests"))
        if any(voice.silent for voice in self.voices):
            said.append(("speech", "the audio that drives the lips is silent: the mouth stays closed"))
        elif any(voice.steady for voice in self.voices):
            steady = "the audio that drives the lips hardly varies in loudness, unlike speech"
            said.append(("speech", f"{steady}; check that it is the right file"))
        elif any(voice.spoken is False for voice in self.voices):
            said.append(
                ("speech", "the audio that drives the lips does not sound like speech; check that it is the right file")
            )
        if apart_s > OTHER_LENGTH_S:
            differ = f"the driving audio and the speech track differ by {apart_s:.2f} s in length"
            said.append(("drive", f"{differ}; both count from the video's start"))
        return said


def load_network(name: str, config: Config, device: str | torch.device = "cpu") -> tuple[Generator | Wav2Lip, Config]:
    """The network that paints mouths, and `config` with the sizes of its weights: their kind decides which it is.

    Raises:
        WeightsError: absent, damaged, or of another kind.
    """
    network, config = load_bound(name, ("generator", "wav2lip"), config, device)
    if isinstance(network, Wav2Lip):
        sizes = replace(GeneratorConfig(), size=FACE_SIDE)
        return network, replace(config, generator=sizes)
    for_inference(network)
    return cast(Generator, network), config


def read_inputs(
    video: Path, audio: Path, options: SyncOptions, config: Config, clocks: dict[int, Clock] | None = None
) -> Inputs:
    """Look into both files, hear the dub, load the generator and the face backend.

    Args:
        video: the source.
        audio: the dub.
        options: of the job.
        config: numbers.
        clocks: of the source's streams, where its header does not tell how long they are.

    Raises:
        InputError, SetupError, WeightsError: a file, the device or the weights cannot be used.
    """
    if options.language is not None:
        language_code(options.language)  # refuses a wrong one before the long work
    ffmpeg_binary(config.media)  # one that was asked for is tried now
    source = measured(probe(video, config.media), clocks or {})
    info = require_video(source)
    label = None if options.label is None else Caption(options.label, info, config.media)
    device = resolve_device(options.device)
    half_precision(config.sync.precision, device)  # likewise
    with shared_cores():
        generator, config = load_network(options.generator, config, device)
        backend = face_backend(options.detector, config.face, device)
    if isinstance(generator, Wav2Lip) and any(one.sound is not None for one in options.speakers):
        raise SetupError(
            "Wav2Lip supports a single driving audio", "leave the audio files out of --speakers, or use --model lipdub"
        )
    with shared_cores():
        ear = _ear(generator, config, device)
        speech = ear.load_driving_audio(options.drive_audio or audio)
        voices = [speech if one.sound is None else ear.load_driving_audio(one.sound) for one in options.speakers]
        dub_s = (speech if options.drive_audio is None else ear.load_driving_audio(audio)).duration_s
    return Inputs(
        source=ended(source, dub_s, options),
        dub_s=dub_s,
        length=options.length,
        speech=speech,
        voices=tuple(voices) or (speech,),
        device=device,
        generator=generator,
        ear=ear,
        backend=backend,
        config=config,
        label=label,
    )


def ended(source: MediaInfo, dub_s: float, options: SyncOptions) -> MediaInfo:
    """The source, with the ending that `options.length` gives it.

    Args:
        source: as it is.
        dub_s: when the dub ends, on the film's timeline.
        options: length, extend and whom to dub.

    Raises:
        InputError: who speaks is asked for where the film goes on behind its own sound.
        ValueError: an unknown `length` or `extend`.
    """
    for name in ("length", "extend"):
        if getattr(options, name) not in OPTIONS[name].choices:
            raise ValueError(f"{name} must be one of {', '.join(OPTIONS[name].choices)}")
    video = require_video(source)
    ends_s = video.start_s + video.duration_s
    if options.length == "video" or (options.length == "shortest" and dub_s >= ends_s):
        return source
    if dub_s - ends_s > OTHER_LENGTH_S and "speaking" in (options.face, *(one.face for one in options.speakers)):
        raise InputError(
            f"--face speaking cannot tell who speaks in the {dub_s - ends_s:.2f} s behind the video's own sound",
            "choose the face by id:N or by a point, or leave out --length audio",
        )
    n_frames = None if video.frames is None else max(1, round((dub_s - video.start_s) * video.average_rate))
    return replace(source, video=replace(video, ending=Ending(end_s=dub_s, extend=options.extend), frames=n_frames))


def _ear(generator: Generator | Wav2Lip, config: Config, device: torch.device) -> Ear:
    """The audio encoder belongs to the mel settings that the generator is bound to, or is refused."""
    if isinstance(generator, Wav2Lip) or config.generator.audio_context == "window":
        return Ear(generator, None, config, device)
    encoder, _ = load_audio_encoder(config.sync.audio_encoder, config, device)
    return Ear(generator, encoder, config, device)
