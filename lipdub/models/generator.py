"""The generator g(X, A, R) [3.4]: masked face, sound and references -> face and mouth mask.

Shapes at the default size, widths (C0 .. C5):

    identity encoder    (N, 3, 96, 96), lower half 0
      stem              (N, C0, 96, 96)
      5 scales          (N, C1, 48, 48) ... (N, C5, 3, 3)     stride 2, then residual blocks: 10 over the scales
      flatten, linear   (N, 512)
    reference encoder   (R, 3, 96, 96) -> (R, 512)            same architecture, other weights; once per identity
    audio encoder       (N, 80, 16)    -> (N, 512)            7 residual blocks on (mel, y, x)
    attention (5)       (N, R) weights -> references' embedding and features, one of each for every item
    decoder             3 x 512 -> (N, C5, 3, 3) -> ... -> (N, C0, 96, 96)
                        bilinear upsampling; features of identity and references concatenated at each scale but the
                        finest; a vector from the three embeddings added to each scale ("audio skips")
    heads               face (N, 3, 96, 96) in [0, 1];  mask (N, 1, 96, 96) logits

Attention. Equation (5) prints

    w_k = exp(-sigma(a r_k)) / sum_i exp(-sigma(a r_i)),    r^ = sum_i w_i r_i

Two things of it are settings. The sign: with the printed minus the reference *least* similar to the sound weighs most,
against the text above the equation ("choose only those reference features which are relevant"), so
`attention_sign` is +1. The sigma: a logistic function keeps the exponents inside (0, 1), so that no reference can
weigh more than e = 2.72 times another, which is hardly a choice. `attention_score="sigmoid"` is that;
"scaled", the default, is a r / sqrt(512), as in any later attention.

Shape code (not in the thesis, `shape_code` > 0). The sound is first made into a few numbers, the mouth shape, that can
be seen in landmarks; attention and decoder only get those numbers. So the sound has a short way to the lips, and a
shape can be supplied instead: the true one in training, a closed or a stronger one in sync. With `audio_context`
"track" the generator has no audio encoder at all: shapes come from models/audio_encoder.py, which is trained apart.

Warp (thesis 4.3 proposes it, `warp`). A second decoder bends each reference into place, see models/warp.py; the face is
then put together from bent references. With a shape code it also gets the reference's own shape, so that what it has
to bend is the difference of both. In training the picture above is one more candidate beside them: it takes what no
reference shows, which fields would smear the lips over, since an L1 prefers a smear to teeth that are a pixel off. A
dub does without it: it is soft, and lipdub draws what is never seen (faces/open_mouth.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.config import GeneratorConfig, LossConfig
from lipdub.models.layers import AudioEncoder, ConvBlock, PaintHead, gaussian_blur
from lipdub.models.unet import HALF_SCALE, Decoder, ImageEncoder, memory_format
from lipdub.models.warp import Warp, WarpHead, compose, enlarged, reference_indices, weight_logits

AVOIDED = -1e4  # score of another person's reference: exp(AVOIDED) is exactly 0, also in half precision
SHAPE_HIDDEN = 128  # hidden units of the two-layer network that widens a shape code
UNSEEN = -8.0  # mask logit of the upper half, which such a generator leaves as it is


@dataclass(frozen=True)
class References:
    """Encoded reference faces, of one identity or of several, one after another."""

    embeddings: Tensor  # (R, E)
    features: tuple[Tensor, ...]  # (R, C_i, S_i, S_i) for each scale i that has image skips, finest first
    pictures: Tensor | None = None  # (R, 3, S, S) in [0, 1]; only a warp needs them
    shapes: Tensor | None = None  # (R, C) mouth shapes; only a warp with a shape code needs them


@dataclass(frozen=True)
class Audio:
    """Encoded mel windows."""

    embedding: Tensor  # (N, E)
    shape: Tensor | None  # (N, C) predicted mouth shape, if the generator has a shape code


@dataclass(frozen=True)
class Drawn:
    """What the networks make of N faces, before a warp's pieces are put together."""

    face: Tensor | None  # (N, 3, S, S) in [0, 1]; None with a warp, which puts it together from the references
    mask: Tensor | None  # (N, 1, S, S) logits; None without the mask head
    shape: Tensor | None  # (N, C) mouth shape that the sound predicts; None without a shape code
    warp: Warp | None = None  # where the hidden half comes from; None without a warp
    features: Tensor | None = None  # (N, C1, S / 4, S / 2) of the first decoder, with a warp
    logits: Tensor | None = None  # (N, K, S / 4, S / 2), whose softmax are the warp's shares


@dataclass(frozen=True)
class Generated:
    """What the generator makes of N faces."""

    face: Tensor  # (N, 3, S, S) in [0, 1], before blending
    mask: Tensor | None  # (N, 1, S, S) logits; None without the mask head
    shape: Tensor | None  # (N, C) mouth shape that the sound predicts; None without a shape code
    warp: Warp | None = None  # what the face was put together from; None without a warp
    painted: Tensor | None = None  # (N, 3, S / 4, S / 2) in [0, 1], with `fine_paint` (N, 3, S / 2, S); None: no warp
    paint: Tensor | None = None  # (N, 1, S / 4, S / 2) in [0, 1], its share


class Generator(nn.Module):
    """Lip-sync generator [3.4]; see the module's text for its shapes.

    Args:
        config: every choice of Table 4.1 that concerns the network, and its sizes.

    Raises:
        ValueError: sizes that do not fit each other, or an unknown attention_score or attention_sign.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.identity_encoder = ImageEncoder(config)
        self.reference_encoder = ImageEncoder(config)
        if config.audio_context == "window":
            self.audio_encoder = AudioEncoder(
                config.n_mels,
                config.window,
                config.audio_widths,
                config.audio_blocks,
                config.embedding,
                residual=config.residual,
            )
            if config.shape_code:
                self.shape_head = nn.Sequential(nn.ReLU(), nn.Linear(config.embedding, config.shape_code))
        if config.shape_code:
            self.shape_embed = nn.Sequential(
                nn.Linear(config.shape_code, SHAPE_HIDDEN), nn.ReLU(), nn.Linear(SHAPE_HIDDEN, config.embedding)
            )
        self.decoder = Decoder(config, lower_only=config.warp)
        finest = config.widths[HALF_SCALE if config.warp else 0]
        self.face_head: nn.Module = (
            PaintHead(finest)
            if config.fine_paint
            else nn.Sequential(ConvBlock(finest, finest), nn.Conv2d(finest, 3, 1))
        )
        if config.mask_head:
            self.mask_head = nn.Sequential(ConvBlock(finest, finest // 2), nn.Conv2d(finest // 2, 1, 1))
        if config.warp:
            self.warp_decoder = Decoder(config, lower_only=True)
            self.warp_head = WarpHead(finest)
            self.paint_score = nn.Conv2d(finest, 1, 1)
            if config.shape_code:
                self.difference_embed = nn.Sequential(
                    nn.Linear(2 * config.shape_code, SHAPE_HIDDEN), nn.ReLU(), nn.Linear(SHAPE_HIDDEN, config.embedding)
                )

    def encode_references(self, references: Tensor, shapes: Tensor | None = None) -> References:
        """Encode reference faces, each alone; needed once per identity.

        Args:
            references: (R, 3, S, S) in [0, 1]; only the mouth region, upper half 0 [3.6], or with
                `whole_references` all of it.
            shapes: (R, C) their mouth shapes; needed by a warp with a shape code, else left out.

        Returns:
            Embeddings (R, E) and the features of the scales with image skips.

        Raises:
            ValueError: another shape.
        """
        self._check_faces(references, "references")
        embeddings, features = self.reference_encoder(references)
        kept = tuple(features[self.config.skip_free_scales :])
        if not self.config.warp:
            return References(embeddings, kept)
        wanted = (len(references), self.config.shape_code)
        if self.config.shape_code and (shapes is None or shapes.shape != wanted):
            raise ValueError(
                f"reference shapes must be {wanted}, got {None if shapes is None else tuple(shapes.shape)}"
            )
        return References(embeddings, kept, references, shapes if self.config.shape_code else None)

    def encode_audio(self, windows: Tensor) -> Audio:
        """Encode mel windows (N, n_mels, W).

        Raises:
            ValueError: another shape, or a generator whose mouth shapes come from an audio encoder of its own.
        """
        if self.config.audio_context != "window":
            raise ValueError("this generator takes mouth shapes of models/audio_encoder.py, not mel windows")
        embedding = self.audio_encoder(windows)
        return Audio(embedding, self.shape_head(embedding) if self.config.shape_code else None)

    def attend(self, audio: Tensor, references: References, owner: Tensor) -> Tensor:
        """Weights of the references for each item, equation (5) as in the module's text; uniform without attention.

        Args:
            audio: (N, E).
            references: R encoded references.
            owner: (N, R) bool; True where the reference belongs to the item's identity.

        Returns:
            (N, R), rows sum to 1 over own references and are 0 elsewhere; a row without any is all 0.
        """
        if not self.config.attention:
            own = owner.to(audio.dtype)
            return own / own.sum(1, keepdim=True).clamp(min=1)
        product = audio @ references.embeddings.T
        if self.config.attention_score == "sigmoid":
            scores = product.sigmoid()
        else:
            scores = product / math.sqrt(self.config.embedding)
        weights = (self.config.attention_sign * scores).masked_fill(~owner, AVOIDED).softmax(1)
        return weights * owner  # matters for rows that own nothing

    def forward(
        self,
        masked: Tensor,
        windows: Tensor | Audio | None,
        references: References,
        owner: Tensor,
        *,
        shape: Tensor | None = None,
    ) -> Generated:
        """Make N faces: `draw`, and a warp's pieces and the painted picture put together in the generator's own size.

        Args and errors are those of `draw`.
        """
        drawn = self.draw(masked, windows, references, owner, shape=shape)
        if drawn.face is not None:
            return Generated(drawn.face, drawn.mask, drawn.shape)
        assert drawn.warp is not None and drawn.features is not None and drawn.logits is not None
        assert references.pictures is not None  # encode_references
        painted = self.face_head(drawn.features).sigmoid()
        paint = (self.paint_score(drawn.features).float() - drawn.logits.logsumexp(1, keepdim=True)).sigmoid()
        below = torch.lerp(
            compose(drawn.warp, references.pictures),
            enlarged(painted, self.config.size),
            enlarged(paint, self.config.size),
        )
        face = torch.cat([masked[..., : self.config.size // 2, :].float(), below], 2)
        return Generated(face, drawn.mask, drawn.shape, drawn.warp, painted, paint)

    def draw(
        self,
        masked: Tensor,
        windows: Tensor | Audio | None,
        references: References,
        owner: Tensor,
        *,
        shape: Tensor | None = None,
    ) -> Drawn:
        """The face or, with a warp, how the references are bent: `compose` makes a face of any size of these.

        Args:
            masked: (N, 3, S, S) in [0, 1], lower half 0 (`layers.mask_lower_half`).
            windows: (N, n_mels, W) mel windows, or what `encode_audio` made of them; None where `shape` says it all.
            references: from `encode_references`, in this precision or a higher one.
            owner: (N, R) bool, on any device: which references belong to item n. From the CPU they are counted without
                waiting for an accelerator.
            shape: (N, C) mouth shapes to use instead of the predicted ones; needs `shape_code` > 0.

        Returns:
            Face, or warp and what is painted beside it in training; mask logits and predicted shape.

        Raises:
            ValueError: shapes that do not fit, or a shape without a shape code.
        """
        self._check_faces(masked, "masked faces")
        if owner.shape != (len(masked), len(references.embeddings)) or owner.dtype != torch.bool:
            wanted = (len(masked), len(references.embeddings))
            raise ValueError(f"owner must be bool {wanted}, got {owner.dtype} {tuple(owner.shape)}")
        listed = [_moved(each, masked.device) for each in reference_indices(owner)] if self.config.warp else None
        owner = _moved(owner, masked.device)
        if windows is None:
            assert shape is not None
            audio = Audio(shape.new_zeros(len(shape), self.config.embedding), None)
        else:
            audio = windows if isinstance(windows, Audio) else self.encode_audio(windows)
        voice = self._voice(audio, shape)  # (N, E)
        weights = self.attend(voice, references, owner)  # (N, R)
        identity, features = self.identity_encoder(masked)
        references = replace(references, features=tuple(given.to(identity.dtype) for given in references.features))
        skips = [
            (own, _aggregate(weights, given))
            for own, given in zip(features[self.config.skip_free_scales :], references.features, strict=True)
        ]
        x = self.decoder(torch.cat([identity, weights @ references.embeddings, voice], 1), skips)
        mask = self.mask_head(x) if self.config.mask_head else None
        if listed is None:
            return Drawn(self.face_head(x).sigmoid(), mask, audio.shape)
        code = audio.shape if shape is None else shape
        warp, logits = self._warp(identity, features, references, listed, weights, voice if code is None else code)
        if mask is not None:
            mask = F.pad(enlarged(mask, self.config.size), (0, 0, self.config.size // 2, 0), value=UNSEEN)
        return Drawn(None, mask, audio.shape, warp, x, logits)

    def _warp(
        self,
        identity: Tensor,
        features: list[Tensor],
        references: References,
        listed: Sequence[Tensor],
        weights: Tensor,
        wanted: Tensor,
    ) -> tuple[Warp, Tensor]:
        """How references are bent and mixed, as `reference_indices` lists them, and the logits of their shares.

        `wanted` is a mouth shape or voice.
        """
        indices, known = listed
        n, k = indices.shape
        item, flat = torch.arange(n, device=indices.device).repeat_interleave(k), indices.flatten()
        if references.shapes is not None:
            mouth = self.difference_embed(torch.cat([wanted[item], references.shapes[flat]], 1))
        else:
            mouth = wanted[item]
        embeddings = torch.cat([identity[item], references.embeddings[flat], mouth], 1)
        skips = [*zip(features[self.config.skip_free_scales :], references.features, strict=True)]
        flow, scores = self.warp_head(self.warp_decoder(embeddings, skips, (item, flat)))
        logits = weight_logits(scores.view(n, k, *scores.shape[2:]), weights.float().gather(1, indices), known)
        return Warp(indices, flow.view(n, k, *flow.shape[1:]), logits.softmax(1)), logits

    def _voice(self, audio: Audio, shape: Tensor | None) -> Tensor:
        """What attention and decoder get from the sound."""
        if not self.config.shape_code:
            if shape is not None:
                raise ValueError("this generator has no shape code: shape must be None")
            return audio.embedding
        code = audio.shape if shape is None else shape
        if code is None or code.shape != (len(audio.embedding), self.config.shape_code):
            got = None if code is None else tuple(code.shape)
            raise ValueError(f"shape must be {(len(audio.embedding), self.config.shape_code)}, got {got}")
        return self.shape_embed(code)

    def _check_faces(self, faces: Tensor, what: str) -> None:
        wanted = (3, self.config.size, self.config.size)
        if faces.ndim != 4 or faces.shape[1:] != wanted:
            raise ValueError(f"{what} must be (N, 3, {wanted[1]}, {wanted[2]}), got {tuple(faces.shape)}")


def joined(parts: Sequence[References]) -> References:
    """The references of several jobs, one after another."""
    if len(parts) == 1:
        return parts[0]
    features = zip(*(part.features for part in parts), strict=True)
    pictures = [part.pictures for part in parts if part.pictures is not None]
    shapes = [part.shapes for part in parts if part.shapes is not None]
    return References(
        torch.cat([part.embeddings for part in parts]),
        tuple(torch.cat(scale) for scale in features),
        torch.cat(pictures) if pictures else None,
        torch.cat(shapes) if shapes else None,
    )


def blend(generated: Generated, original: Tensor, config: LossConfig) -> Tensor:
    """Lay the generated mouth over the original frame.

        X^ = blur(sg(M)) * X^ + (1 - blur(sg(M))) * X        (thesis eq. 10, checked)

    M is the predicted mask and sg stops its gradient: a mask that could learn from this would grow holes at the lips.

    Args:
        generated: N faces and mask logits.
        original: X, (N, 3, S, S) in [0, 1], unmasked.
        config: blur_kernel and blur_sigma.

    Returns:
        (N, 3, S, S); the generated face itself where there is no mask head.

    Raises:
        ValueError: shapes that differ.
    """
    if generated.face.shape != original.shape:
        raise ValueError(f"original must be {tuple(generated.face.shape)}, got {tuple(original.shape)}")
    if generated.mask is None:
        return generated.face
    mask = gaussian_blur(generated.mask.detach().sigmoid(), config.blur_kernel, config.blur_sigma)
    return mask * generated.face + (1 - mask) * original


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor on a device, which CUDA need not wait for."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def _aggregate(weights: Tensor, features: Tensor) -> Tensor:
    """Weights (N, R) times features (R, C, H, W) -> (N, C, H, W): one matrix product, in the features' own layout."""
    n = weights.shape[0]
    if memory_format(features) is torch.channels_last:
        last = features.permute(0, 2, 3, 1)  # contiguous: flattening it copies nothing
        return (weights @ last.flatten(1)).view(n, *last.shape[1:]).permute(0, 3, 1, 2)
    return (weights @ features.flatten(1)).view(n, *features.shape[1:])


def _check(config: GeneratorConfig) -> None:
    scales = len(config.widths)
    if scales < 2 or config.size % (1 << (scales - 1)):
        raise ValueError(f"size {config.size} cannot be halved {scales - 1} times (widths {config.widths})")
    if not 0 <= config.skip_free_scales <= scales:
        raise ValueError(f"skip_free_scales must lie in [0, {scales}], got {config.skip_free_scales}")
    if config.warp and config.size >> (scales - 1) & 1:
        raise ValueError(f"a warp halves the coarsest scale: {config.size} / 2 ** {scales - 1} must be even")
    if config.audio_context not in ("window", "track"):
        raise ValueError(f"audio_context must be 'window' or 'track', got {config.audio_context!r}")
    if config.audio_context == "track" and not config.shape_code:
        raise ValueError("audio_context 'track' needs a shape_code: mouth shapes are all that comes from the track")
    if config.fine_paint and not config.warp:
        raise ValueError("fine_paint needs a warp: without one the decoder paints at full size anyway")
    if config.margin < 1:
        raise ValueError(f"margin must be at least 1, got {config.margin}")
    if config.own_frame and not config.warp:
        raise ValueError("own_frame needs a warp: to a network that paints, the old mouth is a leak")
    if config.attention_score not in ("sigmoid", "scaled"):
        raise ValueError(f"attention_score must be 'sigmoid' or 'scaled', got {config.attention_score!r}")
    if config.attention_sign not in (-1, 1):
        raise ValueError(f"attention_sign must be +1 or -1, got {config.attention_sign}")
