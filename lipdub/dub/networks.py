"""The networks of a dub and the device that they run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from numpy import float64
from numpy.typing import NDArray

from lipdub.config import Config, GeneratorConfig, SyncConfig
from lipdub.dub.analyze import DubPlan
from lipdub.dub.cores import shared_cores
from lipdub.dub.driving_audio import DrivingAudio, PredictedMouthShapes, analyze_audio, predict_mouth_shapes
from lipdub.dub.inference import GeneratorRunner, Runner
from lipdub.dub.options import SyncOptions
from lipdub.dub.precision import half_precision
from lipdub.dub.wav2lip import LICENCE, Wav2LipRunner
from lipdub.errors import SetupError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.choose import face_backend
from lipdub.media.audio import load_audio
from lipdub.mel import wav2lip_mel
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.models.generator import Generator
from lipdub.models.layers import for_inference
from lipdub.models.wav2lip import FACE_SIDE, Wav2Lip
from lipdub.weights import load_audio_encoder, load_bound


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


def load_network(name: str, config: Config, device: str | torch.device = "cpu") -> tuple[Generator | Wav2Lip, Config]:
    """The network that generates mouths, and `config` with the sizes of its weights: their kind decides which it is.

    Raises:
        WeightsError: absent, damaged, or of another kind.
    """
    network, config = load_bound(name, ("generator", "wav2lip"), config, device)
    if isinstance(network, Wav2Lip):
        sizes = replace(GeneratorConfig(), size=FACE_SIDE)
        return network, replace(config, generator=sizes)
    for_inference(network)
    return cast(Generator, network), config


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of one dub; the only place that tells Wav2Lip from lipdub's own generator."""

    generator: Generator | Wav2Lip
    audio_encoder: TrackEncoder | None  # of generators that take mouth shapes of a whole track
    detector: FaceBackend
    device: torch.device
    config: Config  # with the sizes of the generator's weights

    @property
    def licence(self) -> str | None:
        """What the licence of the weights asks to be said."""
        return LICENCE if isinstance(self.generator, Wav2Lip) else None

    def load_driving_audio(self, path: Path) -> DrivingAudio:
        """An audio file, analyzed for what the generator takes."""
        config = self.config
        waveform = load_audio(path, sample_rate=config.mel.sample_rate, config=config.media)
        own_mel = wav2lip_mel(waveform) if isinstance(self.generator, Wav2Lip) else None
        bundled = config.sync.audio_encoder == SyncConfig().audio_encoder
        return analyze_audio(
            waveform, config.mel, config.sync, own_mel, self.audio_encoder, self.device, judge_phones=bundled
        )

    def predict_mouth_shapes(self, speech: DrivingAudio, times_s: NDArray[float64]) -> PredictedMouthShapes | None:
        """Mouth shapes at each time (F,); None for a generator that has none."""
        if isinstance(self.generator, Wav2Lip):
            return None
        config = self.config
        return predict_mouth_shapes(self.generator, speech, times_s, config.mel, config.sync, self.device)

    def runner(self, plan: DubPlan, voices: Sequence[DrivingAudio]) -> Runner:
        """What generates the mouths of a plan; a job's `voice` is the number of its audio."""
        if isinstance(self.generator, Wav2Lip):
            return Wav2LipRunner(self.generator, plan, voices[0], self.config, self.device)
        return GeneratorRunner(self.generator, plan, voices, self.config, self.device)


def load_networks(options: SyncOptions, config: Config) -> Networks:
    """The networks that the options name, on their device.

    Raises:
        InputError, SetupError: a device, detector or precision that is not available.
        WeightsError: weights that are absent, damaged, or do not fit each other.
    """
    device = resolve_device(options.device)
    half_precision(config.sync.precision, device)  # refuses before the long work
    with shared_cores():
        generator, config = load_network(options.generator, config, device)
        detector = face_backend(options.detector, config.face, device)
        if isinstance(generator, Wav2Lip) and any(one.sound is not None for one in options.speakers):
            raise SetupError(
                "Wav2Lip supports a single driving audio",
                "leave the audio files out of --speakers, or use --model lipdub",
            )
        encoder = None
        if not isinstance(generator, Wav2Lip) and config.generator.audio_context != "window":
            # bound to the mel settings that the generator is bound to, or refused
            encoder, _ = load_audio_encoder(config.sync.audio_encoder, config, device)
    return Networks(generator=generator, audio_encoder=encoder, detector=detector, device=device, config=config)
