"""Networks of an evaluation, beside the landmark judge: which are available, and what cannot be measured without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from lipdub.config import Config
from lipdub.evaluation.options import EvalOptions
from lipdub.evaluation.perceptual import load_inception, load_lpips
from lipdub.evaluation.teachers import FaceRecognizer
from lipdub.models.expert import Expert
from lipdub.models.facenets import LandmarkNet
from lipdub.models.syncnet import SyncNet
from lipdub.models.vgg import Lpips
from lipdub.weights import find, load_expert, load_features, load_model, locate, manifest, sha256_of

BACKBONES = {
    "Vgg16": "VGG-16",
    "Vgg19Conv31": "VGG-19 to conv3_1",
    "LandmarkFeatures": "our landmark network",
}


class LandmarkFeatures(nn.Module):
    """Features of the bundled landmark network for the perceptual metric, used without a VGG.

    Finest first: (N, 40, S/4, S/4) and (N, 72, S/8, S/8) of images (N, 3, S, S) in [0, 1].
    """

    def __init__(self, network: LandmarkNet) -> None:
        super().__init__()
        self._quarter, self._eighth = network.quarter, network.eighth
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features at a quarter and an eighth of the resolution."""
        quarter: Tensor = self._quarter(images - 0.5)
        return quarter, self._eighth(quarter)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Networks of an evaluation; None where none was given."""

    expert: Expert | None = None
    features: nn.Module | None = None
    syncnet: SyncNet | None = None
    lpips: Lpips | None = None
    recognizer: FaceRecognizer | None = None
    inception: nn.Module | None = None
    files: Mapping[str, str] = field(default_factory=dict)  # what it measures -> file and checksum

    @property
    def backbone(self) -> str:
        """Network of the perceptual metric; figures of different ones cannot be compared."""
        name = type(self.features).__name__
        return "" if self.features is None else BACKBONES.get(name, name)

    def missing(self) -> list[str]:
        """Measures that are not available, each with the option that adds it."""
        measured = {
            "expert loss (--expert expert)": self.expert is not None,
            "perceptual by VGG (--features vgg16)": not isinstance(self.features, LandmarkFeatures | None),
            "LPIPS (--lpips vgg16)": self.lpips is not None,
            "FID (--fid inception.safetensors)": self.inception is not None,
            "identity (--identity sface)": self.recognizer is not None,
            "LSE-C and LSE-D (--syncnet syncnet.safetensors)": self.syncnet is not None,
        }
        return [name for name, here in measured.items() if not here]


def load_networks(options: EvalOptions, config: Config) -> tuple[Networks, Config]:
    """Every network that an option names, by a name in weights.toml or a file; the bundled expert and features else.

    Returns:
        The networks, and `config` with the expert's sizes.

    Raises:
        SetupError: a package is missing.
        WeightsError: one that was named cannot be had.
    """
    expert, config = find_expert(options.expert, config)
    networks = Networks(
        expert=expert,
        features=_features(options.features),
        syncnet=None if options.syncnet is None else load_model(options.syncnet, "syncnet"),
        lpips=None if options.lpips is None else load_lpips(options.lpips),
        recognizer=None if options.identity is None else FaceRecognizer(locate(options.identity)),
        inception=None if options.fid is None else load_inception(options.fid),
    )
    named = {
        "expert": None if expert is None else options.expert or "expert",
        f"perceptual by {networks.backbone}": options.features or "faces-landmarks",
        "SyncNet": options.syncnet,
        "LPIPS on VGG-16": options.lpips,
        "identity by SFace": options.identity,
        "FID by Inception": options.fid,
    }
    files = {what: file_of(name) for what, name in named.items() if name is not None}
    return replace(networks, files=files), config


def find_expert(name: str | None, config: Config) -> tuple[Expert | None, Config]:
    """The lip-sync expert, and `config` with its sizes; without a name the one of weights.toml, if available.

    Raises:
        WeightsError: the named expert is not available.
    """
    if name is None:
        entry = manifest().get("expert")
        if entry is None or find(entry) is None:
            return None, config
        name = "expert"
    return load_expert(name, config)


def file_of(weights: str) -> str:
    """Name of a weights file, and the beginning of its checksum."""
    path = locate(weights)
    return f"{path.name}, sha256 {sha256_of(path)[:16]}"


def _features(name: str | None) -> nn.Module:
    if name is None:
        return LandmarkFeatures(load_model("faces-landmarks", "faces-landmarks"))
    return load_features(name)
