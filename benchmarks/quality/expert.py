"""How well a lip-sync expert tells right from wrong audio on unseen clips (good: accuracy 0.85).

    python -m benchmarks expert DATASET [--expert expert.safetensors] [--split train] [--rounds 20] [--record]

DATASET is what `lipdub prepare` made of footage of other speakers than the expert was trained on. Every clip is judged
with its own sound and with one from another time of it, 5 frames away or more, in every round. `--record`
writes benchmarks/results/expert.json; its intervals are over clips.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import parser_of
from benchmarks.results import record
from lipdub.config import Config
from lipdub.evaluation.table import interval
from lipdub.training.data import ClipSet
from lipdub.training.expert import expert_batch
from lipdub.weights import load_expert, locate, sha256_of

METRICS = {
    "accuracy": "right against wrong sound of the same clip, accuracy",
    "above": "right sound scores above a wrong one, share",
}
BINS = np.linspace(0, 1, 6)  # of d, for the calibration


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--expert", default="expert")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    expert, config = load_expert(args.expert, Config())
    clips = ClipSet(args.dataset, args.split, config, seed=0)
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    chosen = list(clips.clips)
    shares: list[tuple[float, float]] = []  # of each clip: accuracy, and how often the right sound scores above
    for clip in chosen:
        clips.clips, clips.weights = [clip], np.ones(1)
        batch = expert_batch(clips, config, args.rounds, 1, augment=False)
        with torch.inference_mode():
            right, wrong = (expert(batch.faces, batch.mel[:, heard]) for heard in (0, 1))
        groups[clip.entry.group] += zip(right.tolist(), wrong.tolist(), strict=True)
        hits = torch.cat([right > 0.5, wrong <= 0.5])
        shares.append((float(hits.float().mean()), float((right > wrong).float().mean())))
    groups["all"] = [pair for pairs in list(groups.values()) for pair in pairs]
    for group, pairs in groups.items():
        right, wrong = np.array(pairs).T
        accuracy = ((right > 0.5).mean() + (wrong <= 0.5).mean()) / 2
        loss = -(np.log(np.clip(right, 1e-6, 1)).mean() + np.log(np.clip(1 - wrong, 1e-6, 1)).mean()) / 2
        print(
            f"{group:16} {len(pairs):6d} pairs  accuracy {accuracy:.3f}  loss {loss:.3f}  "
            f"right above its wrong one {(right > wrong).mean():.3f}  d {right.mean():.2f} / {wrong.mean():.2f}"
        )
    right, wrong = np.array(groups["all"]).T
    for low, high in itertools.pairwise(BINS):
        hits, misses = (int(((d > low) & (d <= high)).sum()) for d in (right, wrong))
        if hits + misses:
            print(f"d in ({low:.1f}, {high:.1f}]: {hits + misses:6d} judged, {hits / (hits + misses):.2f} in sync")
    if args.record:
        means = dict(zip(METRICS, map(interval, np.array(shares).T), strict=True))
        values = [
            {"key": k, "metric": METRICS[k], "value": m.mean, "interval": [m.low, m.high], "n": m.n}
            for k, m in means.items()
        ]
        weights = f"{args.expert} {sha256_of(locate(args.expert))[:8]}"
        print(record("expert", values, title="The bundled expert", weights=weights))
