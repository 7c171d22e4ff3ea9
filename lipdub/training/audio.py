"""Stages phones and audio: the encoder of whole tracks learns phones in synthetic speech, then mouths of real speakers.

Both stages take the same steps; what differs is which of two corpora they have. With both, phones are learnt beside
mouths, which keeps the encoder from learning its few speakers by heart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lipdub.config import Config, MelConfig
from lipdub.data.store import RATE, read_arrays, read_manifest
from lipdub.errors import InputError
from lipdub.faces.mouth_shape import OPENINGS, shape_code
from lipdub.losses import correlation_loss
from lipdub.mel import FLOOR
from lipdub.metrics import HIGH_PASS, high_pass, pearson
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.training.data import MIRRORED_SHAPE, add_noise, add_reverb, clip_weights, obscure_speech, vary_voice
from lipdub.training.engine import Engine, rate_at
from lipdub.training.loop import Stage
from lipdub.training.synthetic_speech import LIP_CLASSES, OTHER, PhoneClip, lip_classes, phone_names, read_speech

RUN_S = 3.0  # seconds of a sample
PACE = 0.08  # log of how much faster or slower a sample is heard and seen; standard deviation
WIDTH = 4  # number of the outer width in a mouth shape
CLOSES = {"bilabial": 1.0, "labiodental": 0.5}  # how far the phones of a class close the lips
SILENT = -100  # phone number of padding, which the loss leaves out
SHORTEST = 15  # frames of a clip that teaches something


@dataclass(frozen=True)
class SpokenClip:
    """A real speaker's sound and mouth."""

    speaker: str
    mel: NDArray[np.float32]  # (80, M)
    shape: NDArray[np.float32]  # (T, C), RATE a second; left and right corner averaged


class AudioBatch(NamedTuple):
    """B samples of RUN_S seconds: of real speakers with mouths, of synthetic ones with phones; either may be None."""

    mel: Tensor | None  # (B, 80, M)
    shapes: Tensor | None  # (B, L, C)
    seen: Tensor | None  # (B, L) 1 where a clip has a frame, 0 behind its end
    speech: Tensor | None  # (B, 80, M)
    phones: Tensor | None  # (B, M) int64


class AudioTraining(Stage[TrackEncoder]):
    """Audio encoder, its averaged copy, optimizer and data of one run of stage phones or audio.

    Keeps the averaged weights of the validation at which unseen speakers' mouths (or, without mouths, phones) are read
    best. It learns from a data set of `lipdub prepare`, a folder of synthetic speech, or both, and begins with `start`,
    an encoder of the same configuration, or random weights.

    Raises:
        InputError: neither corpus, a data set without a clip of use, or more phones than the encoder has places.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        data: Path | None,
        speech: Path | None,
        *,
        start: TrackEncoder | None = None,
        seed: int = 0,
    ) -> None:
        if data is None and speech is None:
            raise InputError("an audio encoder has nothing to learn from", "give --data, --speech, or both")
        self.config, self.seed = config, seed
        self.clips: list[SpokenClip] = [] if data is None else spoken_clips(data, "train")
        self.held_out: list[SpokenClip] = [] if data is None else spoken_clips(data, "val")
        lengths = np.array([len(clip.shape) for clip in self.clips], np.float64)
        speakers = [clip.speaker for clip in self.clips]
        self.weights = clip_weights(speakers, lengths, config.train.speaker_cap) if self.clips else None
        self.speech: list[PhoneClip] = [] if speech is None else list(read_speech(speech, held_out=False))
        self.held_speech: list[PhoneClip] = [] if speech is None else list(read_speech(speech, held_out=True))
        self.names: list[str] = [] if speech is None else phone_names(speech)
        if len(self.names) > config.audio.n_phones:
            raise InputError(f"{len(self.names)} phones do not fit", f"--set audio.n_phones={len(self.names)}")
        encoder = engine.place(TrackEncoder(config.audio, config.mel.n_mels, config.generator.shape_code or 8))
        if start is not None:
            encoder.load_state_dict(start.state_dict())
        if self.names:
            classes = torch.from_numpy(lip_classes(self.names))
            encoder.closing[:, : len(classes)] = sum(
                share * (classes == list(LIP_CLASSES).index(name)) for name, share in CLOSES.items()
            )
        optimizer = torch.optim.AdamW(encoder.parameters(), config.train.learning_rate, weight_decay=0.01)
        super().__init__(engine, encoder, optimizer, ema=config.train.ema, patience=config.train.patience)

    def sample(self, step: int, part: int) -> AudioBatch:
        """Random runs of both corpora, as far as they are there."""
        rng, count = np.random.default_rng((self.seed, step, part)), self.engine.part_clips
        mel = shapes = seen = speech = phones = None
        if self.clips:
            chosen = rng.choice(len(self.clips), count, p=self.weights)
            runs = [self._run(self.clips[index], rng) for index in chosen]
            mel, shapes, seen = (torch.from_numpy(np.stack(part)) for part in zip(*runs, strict=True))
            mel = _augmented(mel, rng)
        if self.speech and (self.config.loss.phones or not self.clips):
            spoken = [self._phone_run(self.speech[index], rng) for index in rng.choice(len(self.speech), count)]
            speech, phones = (torch.from_numpy(np.stack(part)) for part in zip(*spoken, strict=True))
            speech = _augmented(speech, rng)
        return AudioBatch(mel, shapes, seen, speech, phones)

    def losses(self, batch: AudioBatch, step: int) -> dict[str, Tensor]:
        """Shape, correlation and phones, whichever the batch has."""
        losses = {}
        self.wrapped.train()
        inputs = [x for x in (batch.mel, batch.speech) if x is not None]
        encoded = self.wrapped(torch.cat(inputs))  # one pass: batch normalisation sees both
        if batch.mel is not None and batch.shapes is not None and batch.seen is not None:
            predicted = at_frames(encoded.shapes[:, : len(batch.mel)], batch.shapes.shape[1], self.config.mel).float()
            true, seen = batch.shapes.expand_as(predicted), batch.seen[..., None].expand_as(predicted)
            losses["shape"] = (F.smooth_l1_loss(predicted, true, beta=0.5, reduction="none") * seen).sum() / seen.sum()
            losses["correlation"] = correlation_loss(*(_high_passed(x, seen).flatten(0, 1) for x in (predicted, true)))
        if batch.phones is not None:
            logits = encoded.phones[:, -len(batch.phones) :].float()
            true = batch.phones.expand(len(logits), *batch.phones.shape)
            losses["phones"] = F.cross_entropy(logits.flatten(0, 1), true.flatten(0, 1), ignore_index=SILENT)
        return losses

    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """A part of a step."""
        weight = self.config.loss
        factor = {"shape": weight.shape, "correlation": weight.correlation, "phones": weight.phones or 1.0}
        total = torch.stack([factor[name] * value for name, value in losses.items()]).sum()
        self.descend(total, rate_at(share, self.config.train))
        return {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Of unseen speakers r of opening and width, members averaged; of unseen utterances which phones are right."""
        encoder = self.average.eval()
        values: dict[str, float] = {}
        if self.held_out:
            pairs = [(encoder.read_track(clip.mel, self.engine.device), clip) for clip in self.held_out]
            predicted = [
                (at_frames(torch.from_numpy(shapes.T.copy()), len(clip.shape), self.config.mel).numpy(), clip.shape)
                for shapes, clip in pairs
            ]
            for name, of in (("opening", OPENINGS), ("width", slice(WIDTH, WIDTH + 1))):
                curves = [(a[:, of].mean(1), b[:, of].mean(1)) for a, b in predicted]
                values[f"val_{name}_r"] = float(np.mean([pearson(high_pass(a), high_pass(b)) for a, b in curves]))
        if self.held_speech:
            values |= self._phone_scores(encoder)
        values = self.engine.of_first(values)
        score = values.get("val_opening_r", values.get("val_phones", 0.0)) + 0.5 * values.get("val_width_r", 0.0)
        self.best.offer(score, encoder)
        return values

    def _phone_scores(self, encoder: TrackEncoder) -> dict[str, float]:
        """Share of mel steps whose phone is right, and of each class of lips the share that is heard as that class."""
        classes = np.append(lip_classes(self.names), np.full(self.config.audio.n_phones - len(self.names), -1))
        right, true, answers = [], [], []
        for mel, phones in self.held_speech:
            logits = encoder(torch.from_numpy(mel[None]).to(self.engine.device)).phones.float().mean(0)[0]
            best = logits.argmax(0).cpu().numpy()
            known = phones != OTHER
            right.append(best[known] == phones[known])
            true.append(classes[phones])
            answers.append(classes[best])
        truth, answer = np.concatenate(true), np.concatenate(answers)
        recall = {
            f"val_{name}": float((answer[truth == number] == number).mean())
            for number, name in enumerate(LIP_CLASSES)
            if (truth == number).any()
        }
        return {"val_phones": float(np.concatenate(right).mean())} | recall

    def _run(
        self, clip: SpokenClip, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """RUN_S seconds of a clip, faster or slower: mel (80, M), shapes (L, C), and (L,) which frames there are."""
        steps, length = self.config.mel.sample_rate / self.config.mel.hop, round(RUN_S * RATE)
        pace = float(np.exp(rng.normal(0, PACE)))
        start_s = rng.uniform(0, max(0.0, len(clip.shape) / RATE - RUN_S * pace))
        frames = (start_s + (np.arange(length) + 0.5) / RATE * pace) * RATE - 0.5
        shapes = np.stack([np.interp(frames, np.arange(len(clip.shape)), number) for number in clip.shape.T], 1)
        columns = start_s * steps + np.arange(round(RUN_S * steps)) * pace
        return _mel_columns(clip.mel, columns), shapes.astype(np.float32), (frames < len(clip.shape)).astype(np.float32)

    def _phone_run(self, clip: PhoneClip, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """RUN_S seconds of an utterance: mel (80, M) and phones (M,)."""
        mel, phones = clip
        length = round(RUN_S * self.config.mel.sample_rate / self.config.mel.hop)
        pace = float(np.exp(rng.normal(0, PACE)))
        columns = rng.uniform(0, max(0.0, mel.shape[1] - length * pace)) + np.arange(length) * pace
        nearest = np.rint(columns).astype(np.int64)
        inside = nearest < len(phones)
        return _mel_columns(mel, columns), np.where(inside, phones[np.minimum(nearest, len(phones) - 1)], SILENT)


def spoken_clips(folder: Path, split: str) -> list[SpokenClip]:
    """Sound and mouths of a data set's split, without its pictures.

    Raises:
        InputError: no data set, or no clip of use.
    """
    entries = [entry for entry in read_manifest(folder, split)[0] if entry.frames >= SHORTEST]
    if not entries:
        raise InputError(f"{folder} has no clip of {SHORTEST} frames in split {split!r}", "prepare longer footage")
    clips = []
    for entry in entries:
        landmarks, _, mel = read_arrays(folder, entry.id)
        shape = shape_code(landmarks)
        clips.append(SpokenClip(entry.speaker, mel, ((shape + shape[:, MIRRORED_SHAPE]) / 2).astype(np.float32)))
    return clips


def at_frames(encoded: Tensor, length: int, mel: MelConfig) -> Tensor:
    """Values (..., C, M) at mel steps -> (..., L, C) in the middle of `length` frames, RATE a second."""
    columns = (torch.arange(length, device=encoded.device) + 0.5) / RATE * mel.sample_rate / mel.hop
    low = columns.floor().long().clamp(0, encoded.shape[-1] - 1)
    high = (low + 1).clamp(max=encoded.shape[-1] - 1)
    share = (columns - low).to(encoded.dtype)
    return (encoded[..., low] * (1 - share) + encoded[..., high] * share).transpose(-1, -2)


def _mel_columns(mel: NDArray[np.float32], columns: NDArray[np.floating]) -> NDArray[np.float32]:
    """Columns (80, M) of a mel at fractional places, linear between neighbours; silence behind its end."""
    low = np.floor(columns).astype(np.int64)
    share = (columns - low).astype(np.float32)
    padded = np.pad(mel, ((0, 0), (0, 2)), constant_values=FLOOR)
    low = np.minimum(low, mel.shape[1])
    return np.asarray(padded[:, low] * (1 - share) + padded[:, low + 1] * share, np.float32)


def _augmented(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Mel (B, 80, M) as other people might have said it elsewhere."""
    runs = obscure_speech(add_reverb(mel, rng)[:, None], rng)
    return add_noise(vary_voice(runs, rng, pace=0.0), rng)[:, 0]


def _high_passed(shapes: Tensor, seen: Tensor) -> Tensor:
    """Shapes (S, B, L, C) less their moving mean over half a second of the frames that there are; 0 elsewhere."""
    return (shapes - _moving_mean(shapes * seen) / _moving_mean(seen).clamp(min=1e-3)) * seen


def _moving_mean(values: Tensor) -> Tensor:
    """Mean (S, B, L, C) over HIGH_PASS neighbours in L, fewer at the ends."""
    rows = values.transpose(-1, -2).flatten(0, 1)
    mean = F.avg_pool1d(rows, HIGH_PASS, 1, HIGH_PASS // 2, count_include_pad=False)
    return mean.unflatten(0, values.shape[:2]).transpose(-1, -2)
