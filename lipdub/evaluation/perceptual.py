"""Similarity of dubs to real pictures by published measures: SSIM, LPIPS, FID.

The only home of torchmetrics (extra `teachers`; FID also needs the extra `fid`). Nothing is downloaded here: weights
are files named in weights.toml, and are verified before they are read.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from lipdub.config import Config
from lipdub.errors import SetupError, WeightsError
from lipdub.evaluation.landmark_track import Geometry, LandmarkTrack
from lipdub.evaluation.table import Frechet
from lipdub.models.vgg import Lpips
from lipdub.weights import load_state, locate, sha256_of

CHUNK = 32  # faces per call of a network
EVERY = 5  # frames between two that a slow network processes; neighbours are almost equal
LPIPS_HEADS = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"  # of version 0.1, sha256
FID_FEATURES = 2048


def ssim_masked(fake: Tensor, real: Tensor, mask: Tensor) -> float:
    """Structural similarity (torchmetrics: Gaussian of sigma 1.5), averaged inside the mask; NaN without torchmetrics.

    Pictures are (N, 3, H, W), the mask is (N, 1, H, W), all in [0, 1].
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        return math.nan
    total = area = 0.0
    for a, b, m in zip(fake.split(CHUNK), real.split(CHUNK), mask.split(CHUNK), strict=True):
        _, local = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
        total, area = total + float((m * local).sum()), area + 3 * float(m.sum())
    return total / area if area else math.nan


def load_lpips(backbone: str) -> Lpips:
    """LPIPS on VGG-16: the backbone from weights.toml or a file, the heads from the installed torchmetrics, verified.

    Raises:
        SetupError: torchmetrics is not installed.
        WeightsError: the backbone is absent or no VGG-16, or torchmetrics has other heads.
    """
    try:
        from torchmetrics.functional.image import lpips
    except ImportError as error:
        raise SetupError("LPIPS needs the package torchmetrics", 'pip install "lipdub[teachers]"') from error
    heads = Path(lpips.__file__).parent / "lpips_models" / "vgg.pth"
    if not heads.is_file() or sha256_of(heads) != LPIPS_HEADS:
        raise WeightsError(f"{heads} is not version 0.1 of LPIPS", "install torchmetrics again")
    state, _ = load_state(locate(backbone))
    return Lpips(state, torch.load(heads, map_location="cpu", weights_only=True)).eval()


def load_inception(name: str) -> nn.Module:
    """The Inception network of FID: pictures (N, 3, H, W) uint8 -> (N, 2048).

    `name` is one of weights.toml, or the .safetensors file that `lipdub weights import` made of it.

    Raises:
        SetupError: torch-fidelity is not installed.
        WeightsError: absent, or not this network.
    """
    path = locate(name)
    state, _ = load_state(path)
    if find_spec("torchmetrics") is None or find_spec("torch_fidelity") is None:
        raise SetupError("FID needs torchmetrics and torch-fidelity", 'pip install "lipdub[teachers,fid]"')
    from torchmetrics.image.fid import NoTrainInceptionV3

    with tempfile.TemporaryDirectory() as folder:  # the published file is a pickle, and is not read as such here
        file = str(Path(folder) / "inception.pth")
        torch.save(state, file)
        try:
            return NoTrainInceptionV3("inception-v3-compat", [str(FID_FEATURES)], file)
        except RuntimeError as error:
            what = f"{path} is not the Inception network of FID"
            raise WeightsError(what, "lipdub weights pull inception, then weights import") from error


class _Features(nn.Module):
    """Identity in place of a network whose features are already computed."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID (arXiv 1706.08500) of two sets of features (N, E) and (M, E), N and M >= 2.

    || m - n ||^2 + tr(C + D - 2 (C D)^(1/2)),   m, n: means, C, D: covariances
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


@dataclass
class FrechetMeter:
    """Fréchet distance of all faces of each row from the real faces of the same pictures, by `load_inception`."""

    extractor: nn.Module
    config: Config
    _real: dict[Path, Tensor] = field(default_factory=dict)
    _fake: dict[tuple[str, str], list[tuple[Path, Tensor]]] = field(default_factory=dict)

    def add(self, pairing: str, row: str, video: LandmarkTrack, source: LandmarkTrack) -> None:
        """Add a video made from the picture of `source`."""
        if video.path == source.path:
            return
        if source.path not in self._real:
            self._real[source.path] = self._features(source, source)
        features = self._features(video.like(source), source)
        self._fake.setdefault((pairing, row), []).append((source.path, features))

    def distances(self) -> tuple[Frechet, ...]:
        """One distance for each row and pairing with two faces or more."""
        made = []
        for (pairing, row), features in self._fake.items():
            real, fake = (
                torch.cat([self._real[path] for path, _ in features]),
                torch.cat([each for _, each in features]),
            )
            if min(len(real), len(fake)) > 1:
                distance = frechet_distance(real, fake)
                made.append(Frechet(pairing=pairing, row=row, frames=len(fake), distance=distance))
        return tuple(made)

    @torch.no_grad()
    def _features(self, video: LandmarkTrack, source: LandmarkTrack) -> Tensor:
        faces = Geometry.of(source, self.config.face, self.config.face.size).faces(video, self.config.media)[::EVERY]
        return torch.cat([self.extractor((255 * part).round().byte()) for part in faces.split(CHUNK)])
