"""Audio encoder over a whole track: mel spectrogram -> mouth shape and phone at every mel step (not in the thesis).

The thesis' encoder reads 200 ms around each frame. Which mouth a sound is made with depends on what comes before and
after it, and is learnt better by a network that has learnt phones first, of which there is any amount of synthetic
speech. Shapes, at the defaults:

    mel                (B, 80, M)
    input convolution  (B, 96, M)
    6 residual blocks  (B, 96, M)      dilated over time; 1.1 s of context in all
    heads              (B, 8, M) mouth shapes;  (B, 96, M) phone logits

Several such networks, members, that differ in their random start are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lipdub.config import AudioConfig
from lipdub.mel import FLOOR

# By how much the numbers of a mouth shape fall where a bilabial is heard for sure, in units of SHAPE_SCALE: openings,
# with which the lips' outer height and the chin go (faces/mouth_shape.py WITH_OPENING).
CLOSING = (0.3, 0.3, 0.3, 0.33, 0.0, 0.0, 0.36, 0.0)
CHUNK = 2048  # mel steps of a call: 26 s, whatever the track's length


@dataclass(frozen=True)
class EncodedTrack:
    """What the members make of B tracks of M mel steps."""

    shapes: Tensor  # (members, B, C, M) mouth shapes relative to a mouth at rest, in units of SHAPE_SCALE
    phones: Tensor  # (members, B, P, M) logits


class TrackEncoder(nn.Module):
    """Members side by side; see the module's text.

    Args:
        config: sizes.
        n_mels: mel bands.
        shape_code: numbers of a mouth shape C.

    Raises:
        ValueError: an even kernel, or no members.
    """

    def __init__(self, config: AudioConfig, n_mels: int = 80, shape_code: int = 8) -> None:
        super().__init__()
        if config.kernel % 2 == 0 or config.members < 1:
            raise ValueError(f"kernel must be odd and members at least 1, got {config.kernel}, {config.members}")
        self.config, self.n_mels = config, n_mels
        self.members = nn.ModuleList(_Member(config, n_mels, shape_code) for _ in range(config.members))
        # How far each phone closes the lips, in [0, 1], kept with the weights; zero until phones have been learnt.
        self.closing: Tensor
        self.register_buffer("closing", torch.zeros(config.members, config.n_phones))

    @property
    def reach(self) -> int:
        """Mel steps on either side that a step can depend on."""
        return self.config.kernel // 2 * (1 + sum(self.config.dilations))

    def forward(self, mel: Tensor) -> EncodedTrack:
        """Log-mel (B, n_mels, M) as `log_mel` scales it; beyond its ends is silence.

        Raises:
            ValueError: another shape.
        """
        if mel.ndim != 3 or mel.shape[1] != self.n_mels:
            raise ValueError(f"mel must be (B, {self.n_mels}, M), got {tuple(mel.shape)}")
        shapes, phones = zip(*(member(mel) for member in self.members), strict=True)
        return EncodedTrack(torch.stack(shapes), torch.stack(phones))

    @torch.inference_mode()
    def read_track(self, mel: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
        """Mouth shapes (M, C) of a whole track (n_mels, M), a piece at a time, which equals one call.

        Members are averaged. Their shapes, means of all mouths that fit the sound, fall by CLOSING where a phone is
        heard that closes the lips.
        """
        parts, fall = [], torch.tensor(CLOSING, device=device)[:, None]
        for encoded in self._pieces(mel, device):
            shapes = encoded.shapes.float().mean(0)[0]
            closed = (self.closing[..., None] * encoded.phones[:, 0].float().softmax(1)).sum(1).mean(0)
            parts.append((shapes - fall[: len(shapes)] * closed).T.cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def read_phones(self, mel: NDArray[np.float32], device: torch.device) -> Iterator[NDArray[np.float64]]:
        """Probabilities of the phones (members, n, P) at the next n steps of a track (n_mels, M), piece by piece.

        Number 0 is silence. What another number stands for differs from member to member.
        """
        for encoded in self._pieces(mel, device):
            yield encoded.phones[:, 0].float().softmax(1).transpose(1, 2).cpu().numpy().astype(np.float64)

    def _pieces(self, mel: NDArray[np.float32], device: torch.device) -> Iterator[EncodedTrack]:
        """A track, encoded CHUNK steps at a time with the context that they need."""
        length = mel.shape[1]
        for first in range(0, length, CHUNK):
            start, stop = max(0, first - self.reach), min(length, first + CHUNK + self.reach)
            whole = self(torch.from_numpy(np.ascontiguousarray(mel[None, :, start:stop])).to(device))
            inner = slice(first - start, first - start + CHUNK)
            yield EncodedTrack(whole.shapes[..., inner], whole.phones[..., inner])


class TrackLayers(nn.Module):
    """What a member has below its heads: log-mel (B, n_mels, M) -> features (B, config.width, M), none negative."""

    def __init__(self, config: AudioConfig, n_mels: int) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.stem = nn.Sequential(
            nn.Conv1d(n_mels, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Conv1d(width, width, 1),
            )
            for dilation in config.dilations
        )

    def features(self, mel: Tensor) -> Tensor:
        """See the class; beyond the ends of `mel` is silence."""
        x = self.stem(mel - FLOOR)
        for block in self.blocks:
            x = x + block(x)
        return F.relu(x)


class _Member(TrackLayers):
    def __init__(self, config: AudioConfig, n_mels: int, shape_code: int) -> None:
        super().__init__(config, n_mels)
        self.shape_head = nn.Conv1d(config.width, shape_code, 1)
        self.phone_head = nn.Conv1d(config.width, config.n_phones, 1)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(mel)
        return self.shape_head(features), self.phone_head(features)
