"""Does a dub's lower face still look like the person's? By the skin patterns of `faces/reid.py`, no network.

    lipdub eval CLIPS -o JUDGED --pairing own --keep-dubs
    python benchmarks/likeness.py JUDGED

Every fifth frame, the lower half of the aligned face, cropped in source and dub by the source's landmarks:

    dub       dub against source, the same frame
    source    source against another frame of itself, ten or more away: what talking alone changes
    others    source against the most similar clip from another kind of footage (folder), whose speakers are others
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from lipdub.config import FaceConfig
from lipdub.evaluation.table import interval
from lipdub.faces.choose import builtin_backend
from lipdub.faces.crop import crop_matrix
from lipdub.faces.reid import CELLS, SIDE, pattern

EVERY, FAR, MOST = 5, 2, 40  # frames; looks apart; looks at a clip


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i % EVERY == 0][:MOST]


def lower(face: np.ndarray) -> np.ndarray | None:
    """The part of a face's pattern that its lower half makes, of length 1."""
    found = pattern(face)
    if found is None:
        return None
    half = found.astype(np.float32)[len(found) // CELLS * (CELLS // 2) :]
    return half / np.linalg.norm(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", type=Path)
    parser.add_argument("--row", default="generator")
    args = parser.parse_args()
    backend = builtin_backend(FaceConfig(), torch.device("cpu"))
    looks: dict[str, list[np.ndarray]] = {}
    dubbed: dict[str, list[float]] = {}
    with (args.judged / "pairs.tsv").open(encoding="utf-8") as file:
        pairs = [row for row in csv.DictReader(file, delimiter="\t") if row["pairing"] == "own"]
    for pair in pairs:
        name = "/".join(Path(pair["picture"]).parts[-2:])
        looks[name], dubbed[name] = [], []
        dub = args.judged / "dubs" / args.row / pair["file"]
        for real, made in zip(frames_of(Path(pair["picture"])), frames_of(dub), strict=False):
            boxes = backend.detect([real])[0].boxes
            if not len(boxes):
                continue
            largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
            points = backend.landmarks([real], np.asarray(largest, np.float32)[None])[0][0]
            matrix = crop_matrix(points, SIDE)
            a, b = (lower(cv2.warpAffine(f, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA)) for f in (real, made))
            if a is not None and b is not None:
                looks[name].append(a)
                dubbed[name].append(float(a @ b))
    print("| clip | dub | source | others, most |\n|---|---|---|---|")
    rows = []
    for name, mine in looks.items():
        own = [float(a @ b) for i, a in enumerate(mine) for b in mine[i + FAR :]]
        kind = name.split("/")[0]
        others = [
            float(np.mean(np.stack(mine) @ np.stack(theirs).T))
            for other, theirs in looks.items()
            if theirs and other.split("/")[0] != kind
        ]
        if not (mine and own and others):
            continue
        rows.append((float(np.mean(dubbed[name])), float(np.mean(own)), max(others)))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |")
    found = [interval([row[i] for row in rows]) for i in range(3)]
    print(
        "| **mean [95 %]** | " + " | ".join(f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in found) + " |"
    )


if __name__ == "__main__":
    main()
