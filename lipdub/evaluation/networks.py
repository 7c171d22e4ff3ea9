"""The networks that judge, beside the one that finds landmarks: those that are here, and what lacks without others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from torch import nn

from lipdub.config import Config
from lipdub.evaluation.perceptual import load_inception, load_lpips
from lipdub.evaluation.quality import find_expert
from lipdub.evaluation.teachers import FaceRecognizer
from lipdub.models.expert import Expert
from lipdub.models.syncnet import SyncNet
from lipdub.models.vgg import Lpips
from lipdub.weights import load_features, load_model, locate, sha256_of

BACKBONES = {"Vgg16": "VGG-16", "Vgg19Conv31": "VGG-19 to conv3_1"}


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Networks that judge; None where none was given."""

    expert: Expert | None = None
    features: nn.Module | None = None
    syncnet: SyncNet | None = None
    lpips: Lpips | None = None
    recognizer: FaceRecognizer | None = None
    inception: nn.Module | None = None
    files: Mapping[str, str] = field(default_factory=dict)  # what it judges -> file and sum

    @property
    def backbone(self) -> str:
        """What the perceptual metric is measured with; figures of different ones cannot be compared."""
        name = type(self.features).__name__
        return "" if self.features is None else BACKBONES.get(name, name)

    def missing(self) -> list[str]:
        """What cannot be measured, each with what it takes."""
        wanted = {
            "expert loss (--expert expert)": self.expert,
            "perceptual (--features vgg16)": self.features,
            "LPIPS (--lpips vgg16)": self.lpips,
            "FID (--fid inception.safetensors)": self.inception,
            "identity (--identity sface)": self.recognizer,
            "LSE-C and LSE-D (--syncnet syncnet.safetensors)": self.syncnet,
        }
        return [name for name, network in wanted.items() if network is None]


def load_networks(
    config: Config,
    *,
    expert: str | None,
    features: str | None,
    syncnet: str | None,
    lpips: str | None,
    identity: str | None,
    fid: str | None,
) -> tuple[Networks, Config]:
    """Every network that was named, by a name in weights.toml or a file; the bundled expert where none was.

    Returns:
        The networks, and `config` with the expert's sizes.

    Raises:
        SetupError: a package is missing.
        WeightsError: one that was named cannot be had.
    """
    judge, config = find_expert(expert, config)
    found = Networks(
        expert=judge,
        features=_features(features),
        syncnet=None if syncnet is None else cast(SyncNet, load_model(syncnet, "syncnet")),
        lpips=None if lpips is None else load_lpips(lpips),
        recognizer=None if identity is None else FaceRecognizer(locate(identity)),
        inception=None if fid is None else load_inception(fid),
    )
    named = {
        "expert": (expert or "expert") if judge is not None else None,
        f"perceptual by {found.backbone}": features,
        "SyncNet": syncnet,
        "LPIPS on VGG-16": lpips,
        "identity by SFace": identity,
        "FID by Inception": fid,
    }
    files = {what: file_of(name) for what, name in named.items() if name is not None}
    return replace(found, files=files), config


def file_of(weights: str) -> str:
    """A file and the beginning of its sum."""
    path = locate(weights)
    return f"{path.name}, sha256 {sha256_of(path)[:16]}"


def _features(name: str | None) -> nn.Module | None:
    return None if name is None else load_features(name)
