"""The generator of Wav2Lip (arXiv 2008.10010), to compare with; written anew from the published architecture.

Parameter names and shapes are those of the public checkpoints (36.3 M parameters), which are for research only: trained
on LRS2, commercial use prohibited.

    faces (N, 6, 96, 96)    masked face and reference, BGR in [0, 1], one after the other
      encoder               16 @ 96, 32 @ 48, 64 @ 24, 128 @ 12, 256 @ 6, 512 @ 3, 512 @ 1
    mel (N, 1, 80, 16)      its own mel in [-4, 4]
      audio encoder         (N, 512, 1, 1)
    decoder                 from the sound upwards; the encoder's features of the same scale are concatenated to each
                            block's output: 1024 @ 1, 1024 @ 3, 768 @ 6, 512 @ 12, 320 @ 24, 160 @ 48, 80 @ 96
    output                  (N, 3, 96, 96) BGR in [0, 1]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACE_SIDE = 96
N_MELS, MEL_STEPS = 80, 16
EMBEDDING = 512
FACE_SCALES = ((32, 2), (64, 3), (128, 2), (256, 2), (512, 1))  # channels, residual blocks; each halves the side
AUDIO_SCALES = ((32, 1, 2), (64, (3, 1), 2), (128, 3, 2), (256, (3, 2), 1))  # channels, stride, residual blocks
DECODER_SCALES = ((512, 2), (384, 2), (256, 2), (128, 2), (64, 2))  # from 6 x 6 on; each doubles the side


class _Block(nn.Module):
    """Convolution, batch normalisation, ReLU; `residual` adds the input before the ReLU."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, *, residual: bool = False) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_block(x)
        return F.relu(y + x if self.residual else y)


def _conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int | tuple[int, int] = 1, padding: int | None = None
) -> _Block:
    return _Block(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding))


def _residuals(channels: int, count: int) -> list[nn.Module]:
    return [_Block(nn.Conv2d(channels, channels, 3, 1, 1), residual=True) for _ in range(count)]


class Wav2Lip(nn.Module):
    """Masked face, reference and sound to a face whose lips fit the sound."""

    def __init__(self) -> None:
        super().__init__()
        faces: list[nn.Module] = [nn.Sequential(_conv(6, 16, 7))]
        channels = [16]
        for width, count in FACE_SCALES:
            faces.append(nn.Sequential(_conv(channels[-1], width, stride=2), *_residuals(width, count)))
            channels.append(width)
        faces.append(nn.Sequential(_conv(channels[-1], EMBEDDING, padding=0), _conv(EMBEDDING, EMBEDDING, 1)))
        channels.append(EMBEDDING)
        self.face_encoder_blocks = nn.ModuleList(faces)

        sound: list[nn.Module] = []
        inputs = 1
        for width, stride, count in AUDIO_SCALES:
            sound += [_conv(inputs, width, stride=stride), *_residuals(width, count)]
            inputs = width
        sound += [_conv(inputs, EMBEDDING, padding=0), _conv(EMBEDDING, EMBEDDING, 1)]
        self.audio_encoder = nn.Sequential(*sound)

        self.face_decoder_blocks = nn.ModuleList(_decoder(channels))
        self.output_block = nn.Sequential(
            _conv(DECODER_SCALES[-1][0] + channels[0], 32), nn.Conv2d(32, 3, 1), nn.Sigmoid()
        )

    def forward(self, mel: Tensor, faces: Tensor) -> Tensor:
        """Faces (N, 3, 96, 96), BGR in [0, 1].

        Args:
            mel: (N, 1, 80, 16).
            faces: (N, 6, 96, 96), BGR in [0, 1]: the face with its lower half 0, then a whole face of the same person.

        Raises:
            ValueError: another shape.
        """
        wanted = (len(mel), 6, FACE_SIDE, FACE_SIDE)
        if mel.shape[1:] != (1, N_MELS, MEL_STEPS) or faces.shape != wanted:
            raise ValueError(
                f"want mel (N, 1, 80, 16) and faces {wanted}, got {tuple(mel.shape)}, {tuple(faces.shape)}"
            )
        features = []
        x = faces
        for block in self.face_encoder_blocks:
            x = block(x)
            features.append(x)
        x = self.audio_encoder(mel)
        for block, feature in zip(self.face_decoder_blocks, reversed(features), strict=True):
            x = torch.cat([block(x), feature], 1)
        return self.output_block(x)


def _decoder(channels: list[int]) -> list[nn.Module]:
    """Blocks from 1 x 1 to 96 x 96; `channels` are the encoder's, finest first."""
    blocks: list[nn.Module] = [nn.Sequential(_conv(EMBEDDING, EMBEDDING, 1))]
    inputs = EMBEDDING + channels[-1]
    to_3 = _Block(nn.ConvTranspose2d(inputs, EMBEDDING, 3))
    blocks.append(nn.Sequential(to_3, *_residuals(EMBEDDING, 1)))
    inputs = EMBEDDING + channels[-2]
    for (width, count), skip in zip(DECODER_SCALES, reversed(channels[:-2]), strict=True):
        up = _Block(nn.ConvTranspose2d(inputs, width, 3, stride=2, padding=1, output_padding=1))
        blocks.append(nn.Sequential(up, *_residuals(width, count)))
        inputs = width + skip
    return blocks
