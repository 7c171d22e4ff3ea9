"""What a call of `lipdub train` would do, told without doing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lipdub.config import Config
from lipdub.models.expert import Expert
from lipdub.models.facenets import LANDMARK_SIDE, FaceDetector, LandmarkNet
from lipdub.models.generator import Generator
from lipdub.models.layers import n_parameters
from lipdub.training.faces import DETECTOR_CANVAS


def plan(stage: str, config: Config) -> list[str]:
    """The lines of a preset with all that differs from the defaults, and what the network costs as a comment."""
    n, flops = cost(stage, config)
    lines = [f"# stage {stage}: {n:,} parameters, {flops / 1e9:.3g} GFLOP a frame"]
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
    with torch.device("meta"):
        network, run, frames = _network(stage, config)
        network.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
    return n_parameters(network), counter.get_total_flops() / frames


def _network(stage: str, config: Config) -> tuple[nn.Module, Callable[[], object], int]:
    """A network, a call of it, and how many frames that is."""
    if stage in ("1", "2"):
        size, generator = config.generator.size, Generator(config.generator)
        windows = torch.zeros(1, config.generator.n_mels, config.generator.window)
        count, code = config.reference.count, config.generator.shape_code
        references = generator.encode_references(torch.zeros(count, 3, size, size), torch.zeros(count, code))
        owner = torch.ones(1, count, dtype=torch.bool)
        return generator, lambda: generator(torch.zeros(1, 3, size, size), windows, references, owner), 1
    if stage == "expert":
        section, expert = config.expert, Expert(config.expert)
        lower = torch.zeros(1, 3 * section.frames, section.size // 2, section.size)
        mel = torch.zeros(1, 1, section.n_mels, section.window)
        return expert, lambda: expert(lower, mel), section.frames
    network: nn.Module = FaceDetector() if stage == "detector" else LandmarkNet()
    height, width = DETECTOR_CANVAS if stage == "detector" else (LANDMARK_SIDE, LANDMARK_SIDE)
    picture: Tensor = torch.zeros(1, 3, height, width)
    return network, lambda: network(picture), 1
