"""`lipdub train --dry-run`: settings, parameters, FLOPs and memory of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lipdub.config import Config, GeneratorConfig
from lipdub.data.store import read_manifest
from lipdub.errors import InputError
from lipdub.models.discriminator import Discriminator
from lipdub.models.expert import Expert
from lipdub.models.facenets import LANDMARK_SIDE, FaceDetector, LandmarkNet
from lipdub.models.generator import Audio, Generator, References
from lipdub.models.layers import n_parameters
from lipdub.models.occlusion import OCCLUSION_SIDE, OcclusionNet
from lipdub.training.faces import DETECTOR_CANVAS
from lipdub.training.stages import second_stage

NUMBER = 4  # bytes of a float32
SLOTS = {"expert": 4, "1": 5, "2": 5}  # float32 numbers a parameter: itself, gradient, two of Adam, the average


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds at once: an estimate that a real step exceeds by up to three quarters.

    Without libraries and the frozen judges (VGG, expert).
    """

    networks: int  # weights, gradients, optimizer, average
    step: int  # what the forward pass keeps for the backward pass
    clips: int  # of the data set, in this machine's memory

    def __str__(self) -> str:
        return (
            f"networks {self.networks / 1e9:.2f} GB, a step {self.step / 1e9:.2f} GB; clips {self.clips / 1e9:.2f} GB"
        )


def plan(stage: str, config: Config, data: Path | None = None) -> list[str]:
    """The lines of a preset with all that differs from the defaults; what the networks cost is in comments.

    The stage is a key of weights_export.STAGES; the clips of the data set are counted, if one is given.
    """
    config = second_stage(config, with_expert=False) if stage == "2" else config
    n, flops = cost(stage, config)
    lines = [f"# stage {stage}: {n:,} parameters, {flops / 1e9:.3g} GFLOP a frame"]
    if stage in SLOTS:
        lines.append(f"# memory: {memory(stage, config, data)}")
    defaults = asdict(Config())
    for section, values in asdict(config).items():
        for key, value in values.items():
            if value != defaults[section][key]:
                lines.append(f"{section}.{key} = {json.dumps(value)}")  # JSON of these types is TOML, too
    return lines


def cost(stage: str, config: Config) -> tuple[int, float]:
    """Parameters of a stage's network, and floating-point operations a frame (a product and its sum are two).

    A frame is a face of the generator with its references encoded before, a fifth of an expert's clip of five, a
    picture of the detector's training, or a face of the landmark network. Nothing is computed: shapes suffice.
    """
    with torch.device("meta"), torch.no_grad():
        network, run, frames = _network(stage, config)
        network.eval()
        with FlopCounterMode(display=False) as counter:
            run()
    return n_parameters(network), counter.get_total_flops() / frames


def memory(stage: str, config: Config, data: Path | None = None) -> Memory:
    """Bytes that training of the expert or a generator holds. Nothing is computed: shapes suffice.

    A mixed precision counts as half. Without a data set clips count nothing.
    """
    train = config.train
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        network, run, _ = _network(stage, config, train.batch_clips)
        networks = [network, Discriminator(config.discriminator)] if stage == "2" else [network]
        own = {p.untyped_storage()._cdata for each in networks for p in each.parameters()}
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = run()  # what comes out holds the graph
            if stage == "2":
                faces = (train.batch_clips, train.frames, 3, *2 * [config.generator.size])
                _ = [networks[1](torch.zeros(faces)) for _ in ("real", "fake")]
    held = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    slots = sum(n_parameters(each) * slots for each, slots in zip(networks, (SLOTS[stage], 4), strict=False))
    return Memory(slots * NUMBER, held if train.precision == "no" else held // 2, _clip_bytes(data))


def _clip_bytes(data: Path | None) -> int:
    """What the stored pictures of a data set take when they are decoded; 0 where there is none."""
    try:
        entries, summary = read_manifest(data) if data is not None else ([], {"side": 0})
    except InputError:
        return 0
    return sum(entry.frames for entry in entries) * 3 * int(str(summary["side"])) ** 2


def _network(stage: str, config: Config, clips: int = 0) -> tuple[nn.Module, Callable[[], object], int]:
    """A network, a call of it, and how many frames that is; with `clips` what a step of training calls."""
    train = config.train
    if stage in ("1", "2"):
        size, generator, code = config.generator.size, Generator(config.generator), config.generator.shape_code
        frames, places = clips * train.frames or 1, clips * train.references or config.reference.count

        def encode() -> References:
            return generator.encode_references(torch.zeros(places, 3, size, size), torch.zeros(places, code))

        encoded = None if clips else encode()  # once for a whole video
        faces, audio = torch.zeros(frames, 3, size, size), _audio(frames, config.generator)
        owner = torch.ones(frames, places, dtype=torch.bool)
        return generator, lambda: generator(faces, audio, encoded or encode(), owner), frames
    if stage == "expert":
        section, expert = config.expert, Expert(config.expert)
        lower = torch.zeros(clips or 1, 3 * section.frames, section.size // 2, section.size)
        mel = torch.zeros(clips * (1 + train.negatives) or 1, 1, section.n_mels, section.mel_steps)
        return expert, lambda: (expert.embed_faces(lower), expert.embed_audio(mel)), section.frames
    if stage == "occlusion":
        crop, net = torch.zeros(1, 3, OCCLUSION_SIDE, OCCLUSION_SIDE), OcclusionNet()
        return net, lambda: net(crop, crop), 1
    network: nn.Module = FaceDetector() if stage == "detector" else LandmarkNet()
    height, width = DETECTOR_CANVAS if stage == "detector" else (LANDMARK_SIDE, LANDMARK_SIDE)
    picture: Tensor = torch.zeros(1, 3, height, width)
    return network, lambda: network(picture), 1


def _audio(count: int, config: GeneratorConfig) -> Tensor | Audio:
    """Mel windows, or mouth shapes for a generator whose audio encoder is a network of its own."""
    if config.audio_context == "window":
        return torch.zeros(count, config.n_mels, config.window)
    return Audio(torch.zeros(count, config.embedding), torch.zeros(count, config.shape_code))
