"""The networks of a dub and the device that they run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.config import Config, GeneratorConfig, SyncConfig
from lipdub.dub.analyze import DubPlan
from lipdub.dub.driving_audio import DrivingAudio, PredictedMouthShapes, analyze_audio, predict_mouth_shapes
from lipdub.dub.inference import GeneratorRunner, Runner
from lipdub.dub.options import SyncOptions
from lipdub.dub.precision import half_precision, pack_all, packs
from lipdub.dub.voice_isolation import isolate_voice
from lipdub.dub.wav2lip import LICENCE, Wav2LipRunner
from lipdub.errors import SetupError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.choose import face_backend, occlusion_detector
from lipdub.faces.occlusion import OcclusionDetector
from lipdub.media.audio import load_audio
from lipdub.mel import wav2lip_mel
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.models.generator import Generator
from lipdub.models.layers import for_inference
from lipdub.models.wav2lip import FACE_SIDE, Wav2Lip
from lipdub.process import shared_cores
from lipdub.weights import load_audio_encoder, load_bound


def resolve_device(name: str) -> torch.device:
    """The torch device of `--device`.

    Raises:
        SetupError: the device is not available.
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
    """Generator or Wav2Lip, by the kind of the weights, and `config` with the sizes of the network.

    Raises:
        WeightsError: absent, damaged, or of another kind.
    """
    network: Generator | Wav2Lip
    network, config = load_bound(name, ("generator", "wav2lip"), config, device)
    if isinstance(network, Wav2Lip):
        sizes = replace(GeneratorConfig(), size=FACE_SIDE)
        return network, replace(config, generator=sizes)
    for_inference(network)
    return network, config


def licence_of(network: Generator | Wav2Lip) -> str | None:
    """Terms of a network's licence that every job with it must print; None without such terms."""
    return LICENCE if isinstance(network, Wav2Lip) else None


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of one dub. The rest of a dub does not distinguish Wav2Lip from lipdub's own generator."""

    generator: Generator | Wav2Lip
    audio_encoder: TrackEncoder | None  # for generators with mouth shapes from the whole track
    detector: FaceBackend
    occlusions: OcclusionDetector | None  # without `sync.occlusion` none
    device: torch.device
    config: Config  # with the sizes of the generator's weights

    def load_driving_audio(self, path: Path, *, isolate: bool = False) -> DrivingAudio:
        """An audio file, analyzed for the generator; `isolate` removes music and noise first.

        Raises:
            InputError: the file has no readable audio.
            SetupError: `isolate` without the extra `voice`.
        """
        config = self.config
        waveform = load_audio(path, sample_rate=config.mel.sample_rate, config=config.media)
        if isolate:
            waveform = isolate_voice(waveform, config.mel.sample_rate)
        own_mel = wav2lip_mel(waveform) if isinstance(self.generator, Wav2Lip) else None
        bundled = config.sync.audio_encoder == SyncConfig().audio_encoder  # phones of others are not calibrated
        return analyze_audio(
            waveform, config.mel, config.sync, own_mel, self.audio_encoder, self.device, judge_phones=bundled
        )

    def predict_mouth_shapes(self, speech: DrivingAudio, times_s: NDArray[np.float64]) -> PredictedMouthShapes | None:
        """Mouth shapes at each time (F,); None for a generator that has none."""
        if isinstance(self.generator, Wav2Lip):
            return None
        config = self.config
        return predict_mouth_shapes(self.generator, speech, times_s, config.mel, config.sync, self.device)

    def runner(self, plan: DubPlan, voices: Sequence[DrivingAudio]) -> Runner:
        """Runner that generates the mouths of a plan; a job's `voice` is an index of `voices`."""
        if isinstance(self.generator, Wav2Lip):
            return Wav2LipRunner(self.generator, plan, voices[0], self.config, self.device)
        return GeneratorRunner(self.generator, plan, voices, self.config, self.device)


def load_networks(options: SyncOptions, config: Config) -> Networks:
    """Load the networks named by the options on their device.

    Raises:
        InputError, SetupError: a device, detector or precision that is not available.
        WeightsError: weights that are absent, damaged, or do not fit each other.
    """
    device = resolve_device(options.device)
    half_precision(config.sync.precision, device)  # raises its errors before the long work
    with shared_cores():
        generator, config = load_network(options.generator, config, device)
        detector = face_backend(options.detector, config.face, device)
        occlusions = occlusion_detector(config.generator.margin, device) if config.sync.occlusion else None
        if packs(config.sync.precision, device):
            pack_all(detector, occlusions)
        if isinstance(generator, Wav2Lip) and any(one.sound is not None for one in options.speakers):
            raise SetupError(
                "Wav2Lip supports a single driving audio",
                "leave the audio files out of --speakers, or use --model lipdub",
            )
        encoder = None
        if not isinstance(generator, Wav2Lip) and config.generator.audio_context != "window":
            # raises an error if its mel settings are not the generator's
            encoder, _ = load_audio_encoder(config.sync.audio_encoder, config, device)
    return Networks(
        generator=generator,
        audio_encoder=encoder,
        detector=detector,
        occlusions=occlusions,
        device=device,
        config=config,
    )
