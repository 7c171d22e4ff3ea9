"""How well a lip-sync expert tells right from wrong audio on unseen clips (good: accuracy 0.85).

    python -m benchmarks expert DATASET [--expert expert.safetensors] [--split train] [--rounds 40]
        [--calibration DATASET] [--record]

DATASET is what `lipdub prepare` made of footage of other speakers than the expert was trained on. Every clip is judged
with its own sound and with one from another time of it, 5 frames away or more, in every round: by one window of five
frames, and by the mean over the windows that begin within SECOND frames, as `lipdub eval` takes it over a whole video.
The limit between right and wrong is d = 1/2. With `--calibration`, that of a second is also set by logistic regression
on the speakers that training held out, split "val" of that data set: mouths that move little have a low d. "Above" is
how often the right sound scores above the wrong one. `--record` writes benchmarks/results/expert.json; its intervals
are over clips.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.arguments import parser_of
from benchmarks.results import mean_of, names_with_sums, record
from lipdub.config import Config
from lipdub.data.store import RATE
from lipdub.mel import mel_windows
from lipdub.models.expert import Expert, lower_halves
from lipdub.training.data import Clip, ClipSet
from lipdub.weights import load_expert

SECOND = 21  # windows of five frames within a second
METRIC = "right against wrong sound of the same clip, by one window, accuracy"
CALIBRATED = "by the mean over a second, at the limit of speakers held out from training, accuracy"
HALF = 0.5  # d that parts right from wrong sounds
BINS = np.linspace(0, 1, 6)  # of d, for the calibration
FAR = 5  # frames between right and wrong sound, at least
CHUNK = 32  # windows in one call


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--expert", default="expert")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    expert, config = load_expert(args.expert, Config())
    judged = judge(expert, ClipSet(args.dataset, args.split, config, seed=0), config, args.rounds)
    print("| footage | clips | accuracy | above | accuracy over a second | above |\n|---|---|---|---|---|---|")
    for group in sorted(judged[1], key=lambda name: (name == "all", name)):
        cells = [f"{np.mean(share):.3f}" for count in judged for share in shares(judged[count][group])]
        print(f"| {group} | {len(judged[1][group])} | {' | '.join(cells)} |")
    right, wrong = np.concatenate(judged[1]["all"], 1)
    for low, high in itertools.pairwise(BINS):
        hits, misses = (int(((d > low) & (d <= high)).sum()) for d in (right, wrong))
        if hits + misses:
            print(f"d in ({low:.1f}, {high:.1f}]: {hits + misses:6d} judged, {hits / (hits + misses):.2f} in sync")
    values = [mean_of("accuracy", METRIC, shares(judged[1]["all"])[0])]
    if args.calibration is not None:
        held_out = judge(expert, ClipSet(args.calibration, "val", config, seed=0), config, args.rounds)[SECOND]["all"]
        limit = limit_of(held_out)
        values.append(mean_of("accuracy_calibrated", CALIBRATED, shares(judged[SECOND]["all"], limit)[0]))
        print(f"over a second, limit {limit:.3f} of {len(held_out)} clips held out: accuracy {values[-1]['value']:.3f}")
    if args.record:
        print(record("expert", values, title="The bundled expert", weights=names_with_sums(args.expert)))


Pairs = NDArray[np.floating]  # (2, rounds): d of right sounds, and of wrong ones


def judge(expert: Expert, clips: ClipSet, config: Config, rounds: int) -> dict[int, dict[str, list[Pairs]]]:
    """Pairs of all clips, by how many windows are averaged and by footage, with "all"."""
    rng = np.random.default_rng(0)
    judged: dict[int, dict[str, list[Pairs]]] = {count: defaultdict(list) for count in (1, SECOND)}
    for clip in clips.clips:
        similarity = similarities(expert, clips, clip, config)
        for count, groups in judged.items():
            pairs = drawn_pairs(similarity, count, rounds, rng)
            if pairs is not None:
                groups[clip.entry.group].append(pairs)
                groups["all"].append(pairs)
    return judged


def limit_of(clips: list[Pairs]) -> float:
    """The d at which a sound is as probably right as wrong, by logistic regression."""
    right, wrong = np.concatenate(clips, 1)
    fitted = LogisticRegression(C=1e6).fit(
        np.concatenate([right, wrong])[:, None], np.repeat([1, 0], [len(right), len(wrong)])
    )
    return float(-fitted.intercept_[0] / fitted.coef_[0, 0])


@torch.inference_mode()
def similarities(expert: Expert, clips: ClipSet, clip: Clip, config: Config) -> NDArray[np.float32]:
    """d of every window of faces (rows) with the sound of every window, (n, n)."""
    frames = config.expert.frames
    faces = torch.from_numpy(clips.faces(clip, 0, len(clip.frames), config.expert.size, augment=False))
    windows = faces.unfold(0, frames, 1).movedim(-1, 1)  # (n, T, 3, S, S)
    centres_s = (np.arange(len(windows)) + frames / 2) / RATE
    mel = torch.from_numpy(mel_windows(clip.mel, centres_s, config.mel, width=config.expert.mel_steps))
    seen = torch.cat([expert.embed_faces(lower_halves(part)) for part in windows.split(CHUNK)])
    heard = torch.cat([expert.embed_audio(part) for part in mel.split(CHUNK)])
    d: NDArray[np.float32] = (seen @ heard.T).clamp(max=1).numpy()
    return d


def drawn_pairs(similarity: NDArray[np.float32], count: int, rounds: int, rng: np.random.Generator) -> Pairs | None:
    """Means over `count` windows with their own sound and with another; None for a clip that is too short."""
    starts = np.arange(len(similarity) - count + 1)
    if len(starts) <= 2 * FAR:
        return None
    along = np.arange(count)
    pairs = []
    for seen in rng.choice(starts, rounds):
        other = rng.choice(starts[np.abs(starts - seen) >= FAR])
        pairs.append([similarity[seen + along, heard + along].mean() for heard in (seen, other)])
    return np.array(pairs).T


def shares(clips: list[Pairs], limit: float = HALF) -> tuple[list[float], list[float]]:
    """Of each clip: accuracy at a limit of d, and how often the right sound scores above the wrong one."""
    accuracy = [float(((right > limit).mean() + (wrong <= limit).mean()) / 2) for right, wrong in clips]
    return accuracy, [float((right > wrong).mean()) for right, wrong in clips]
