"""From a request to the right training function: what `lipdub train` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lipdub.config import Config
from lipdub.errors import InputError, WeightsError
from lipdub.models.vgg import Vgg16, Vgg19Conv31
from lipdub.training.expert import train_expert
from lipdub.training.export import export
from lipdub.training.faces import train_faces
from lipdub.training.generator import train_generator
from lipdub.training.run import CHECKPOINT
from lipdub.weights import load_expert, load_state, locate

FACES_MINUTES = 20.0  # a face network's budget where none is given


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One call of `lipdub train`."""

    stage: str  # detector | landmarks | expert | 1
    data: Path
    run: Path
    config: Config
    labels: Path | None = None
    features: str | None = None
    expert: str | None = None
    export: Path | None = None
    seed: int = 0


def run_stage(request: RunRequest, on_line: Callable[[str], None] = print) -> None:
    """Train, or go on training, one stage; then export, if asked to.

    Raises:
        LipdubError: bad data, weights that are not there, losses that are not finite.
    """
    config = request.config
    if request.stage in ("detector", "landmarks"):
        if request.labels is None:
            raise InputError(f"stage {request.stage} needs --labels", "make them with scripts/label_faces.py")
        checkpoint = train_faces(
            request.stage,
            request.data,
            request.labels,
            request.run,
            minutes=config.train.minutes or FACES_MINUTES,
            seed=request.seed,
            on_line=on_line,
        )
        kind = f"faces-{request.stage}"
    elif request.stage == "expert":
        folder = train_expert(config, request.data, request.run, seed=request.seed, on_line=on_line)
        checkpoint, kind = folder / CHECKPOINT, "expert"
    else:
        expert = None
        if request.expert is not None:
            expert, bound = load_expert(request.expert, config)
            config = replace(config, expert=bound.expert)
        features = load_features(request.features) if request.features else None
        folder = train_generator(
            config, request.data, request.run, features=features, expert=expert, seed=request.seed, on_line=on_line
        )
        checkpoint, kind = folder / CHECKPOINT, "generator"
    if request.export is not None:
        export(checkpoint, request.export, kind, config)


def load_features(name_or_path: str) -> nn.Module:
    """The frozen backbone of the perceptual loss: VGG-16 (torchvision's layout), or VGG-19 up to conv3_1.

    Raises:
        WeightsError: absent, or neither of the two.
    """
    state, _ = load_state(locate(name_or_path))
    for network in (Vgg16, Vgg19Conv31):
        try:
            module: nn.Module = network(state)
        except WeightsError:
            continue
        return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    raise WeightsError(f"{name_or_path} holds neither VGG-16 nor VGG-19 features", "see `lipdub weights list`")
