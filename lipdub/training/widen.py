"""A generator of a larger crop that begins with what one of a smaller crop has learnt.

Both crops have the same centre and show the face at the same size, so that convolutions carry over as they are. What
depends on the size are the layers between the coarsest features and the embeddings: the smaller crop's cells lie in the
middle of the larger one's. New cells start without a say in an embedding, and are drawn as their neighbours are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lipdub.config import GeneratorConfig
from lipdub.errors import InputError
from lipdub.models.generator import Generator


def widened(start: Generator, config: GeneratorConfig) -> Generator:
    """A generator of `config` with the weights of `start`; what `start` does not have keeps its random weights.

    Raises:
        InputError: the crops show the face at different sizes, or their cells do not line up.
    """
    old = start.config
    steps = 1 << (len(old.widths) - 1)
    rim, odd = divmod(config.size - old.size, 2 * steps)  # cells on each side
    if old.widths != config.widths or odd or old.size * config.margin != config.size * old.margin:
        raise InputError(
            f"weights of a crop of {old.size} pixels and margin {old.margin:g} cannot grow to {config.size} and "
            f"{config.margin:g}",
            f"size over margin must stay {old.size / old.margin:g}, with the same widths, {2 * steps} pixels at a time",
        )
    network = Generator(config)
    state = network.state_dict()
    for name, value in start.state_dict().items():
        if name in ("identity_encoder.embed.weight", "reference_encoder.embed.weight"):
            cells = value.unflatten(1, (old.widths[-1], old.size // steps, old.size // steps))
            value = F.pad(cells, (rim,) * 4).flatten(1)
        elif name.endswith("decoder.start.weight") or name.endswith("decoder.start.bias"):
            value = _start(value, old, steps, rim)
        elif name.startswith("warp_head.out"):
            scale = torch.ones(3)
            scale[:2] = old.margin / config.margin  # fields are in crop sides
            value = value * scale.view(-1, *[1] * (value.ndim - 1))
        if name in state and state[name].shape == value.shape:
            state[name] = value
    network.load_state_dict(state)
    return network


def refreshed(start: Generator, parts: Sequence[str]) -> Generator:
    """The same generator with random weights in its `parts`, as "face_head".

    Raises:
        InputError: it has no such part.
    """
    network = Generator(start.config)
    for part in parts:
        if not any(name.startswith(f"{part}.") for name, _ in network.named_parameters()):
            known = ", ".join(name for name, _ in network.named_children())
            raise InputError(f"train.fresh names {part!r}, which the generator does not have", f"its parts: {known}")
    kept = {
        name: value
        for name, value in start.state_dict().items()
        if not any(name.startswith(f"{part}.") for part in parts)
    }
    network.load_state_dict(network.state_dict() | kept)
    return network


def _start(value: Tensor, old: GeneratorConfig, steps: int, rim: int) -> Tensor:
    """First cells of a decoder, (C h w, ...): more on both sides and below, above where it makes whole faces."""
    side = old.size // steps
    rows = side // 2 if old.warp else side
    cells = value.view(old.widths[-1], rows, side, -1).permute(3, 0, 1, 2)
    padded = F.pad(cells, (rim, rim, 0 if old.warp else rim, rim), mode="replicate")
    return padded.permute(1, 2, 3, 0).reshape(-1, *value.shape[1:])
