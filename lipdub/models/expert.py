"""The lip-sync expert [3.3]: whether five mouths and a mel window match.

faces (N, 3 T_v, S/2, S)          lower halves of T_v = 5 frames, 48 x 96
  stem 7x7, stride (1, 2)         (N, 32, 48, 48)
  4 x (stride 2, 2 residual)      (N, 64, 24, 24) ... (N, 512, 3, 3)
  flatten, linear, LN, ReLU       (N, 512)
mel (N, 1, 80, 16)                the T_a = 16 steps of those frames
  audio encoder, LN, ReLU         (N, 512)

With a context of c steps (not in the thesis) the mel is (N, 1, 80, 16 + 2 c), since what is said before and after
shapes a mouth, too: layers of the audio encoder read it, and the middle 16 of their features are embedded.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.config import AudioConfig, ExpertConfig
from lipdub.models.audio_encoder import TrackLayers
from lipdub.models.layers import AudioEncoder, ConvBlock

EPSILON = 1e-8  # (3): least norm that is divided by
FACE_BLOCKS = 2  # residual blocks per scale of the face encoder
AUDIO_BLOCKS = 7  # residual blocks of the audio encoder, spread over its scales


def lower_halves(faces: Tensor) -> Tensor:
    """Clips (B, T, 3, S, S) -> (B, 3 T, S / 2, S): lower halves, frame after frame along the channels [3.3]."""
    return faces[..., faces.shape[-2] // 2 :, :].flatten(1, 2)


class Expert(nn.Module):
    """Two encoders whose normalised, non-negative embeddings are compared by their cosine.

    Thesis: ReLU on the embeddings. Here a LayerNorm precedes it, because a network whose embedding falls to all zeros
    has d = 0 and no gradient for good; normalised, about half of the values are always positive.

    Args:
        config: sizes.

    Raises:
        ValueError: odd face size.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        if config.size % 2:
            raise ValueError(f"face size must be even, got {config.size}")
        self.config = config
        inputs = config.widths[0]
        layers: list[nn.Module] = [ConvBlock(3 * config.frames, inputs, kernel=7, stride=(1, 2))]
        rows = columns = config.size // 2
        for width in config.widths[1:]:
            layers.append(ConvBlock(inputs, width, stride=2))
            layers.extend(ConvBlock(width, width, residual=True) for _ in range(FACE_BLOCKS))
            rows, columns, inputs = (rows - 1) // 2 + 1, (columns - 1) // 2 + 1, width
        self.faces = nn.Sequential(*layers)
        self.embed = nn.Linear(inputs * rows * columns, config.embedding)
        self.audio = (
            ContextEncoder(config)
            if config.context
            else AudioEncoder(config.n_mels, config.window, config.audio_widths, AUDIO_BLOCKS, config.embedding)
        )
        self.face_norm = nn.LayerNorm(config.embedding)
        self.audio_norm = nn.LayerNorm(config.embedding)

    def embed_faces(self, lower: Tensor) -> Tensor:
        """Lower halves (N, 3 T_v, S/2, S) in [0, 1], from `lower_halves` -> (N, E), non-negative, norm 1.

        Raises:
            ValueError: another shape.
        """
        wanted = (3 * self.config.frames, self.config.size // 2, self.config.size)
        if lower.ndim != 4 or lower.shape[1:] != wanted:
            raise ValueError(f"lower halves must be (N, {', '.join(map(str, wanted))}), got {tuple(lower.shape)}")
        x = self.embed(self.faces(lower - 0.5).flatten(1))
        return F.normalize(F.relu(self.face_norm(x)), dim=1, eps=EPSILON)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Mel windows (N, 1, n_mels, T_a + 2 c), or without the channel axis -> (N, E), non-negative, norm 1."""
        x = self.audio(mel[:, 0] if mel.ndim == 4 else mel)
        return F.normalize(F.relu(self.audio_norm(x)), dim=1, eps=EPSILON)

    def forward(self, lower: Tensor, mel: Tensor) -> Tensor:
        """Probability that faces and sound are in sync.

            d = a v / max(||a||_2 ||v||_2, eps)        (thesis eq. 3, checked)

        Args:
            lower: (N, 3 T_v, S/2, S) in [0, 1].
            mel: (N, 1, n_mels, T_a + 2 c).

        Returns:
            (N,) in [0, 1]: ReLU made both embeddings non-negative.
        """
        return (self.embed_faces(lower) * self.embed_audio(mel)).sum(1).clamp(max=1.0)  # rounding may exceed 1


class ContextEncoder(nn.Module):
    """Mel windows with their context (N, n_mels, T_a + 2 c) -> (N, E), by layers that may have learnt phones before."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        audio = AudioConfig()
        self.layers = TrackLayers(audio, config.n_mels)
        self.middle = slice(config.context, config.context + config.window)
        self.embed = nn.Linear(audio.width * config.window, config.embedding)

    def forward(self, mel: Tensor) -> Tensor:
        """See the class."""
        return self.embed(self.layers.features(mel)[..., self.middle].flatten(1))
