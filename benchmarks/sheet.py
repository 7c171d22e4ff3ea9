"""A contact sheet: rows source / dub / difference x 4, columns frames spread over the clip, the face cut out.

python benchmarks/sheet.py SOURCE DUB -o sheet.png [--frames 12] [--side 220] [--whole]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from lipdub.config import FaceConfig
from lipdub.faces.choose import builtin_backend


def frames_of(path: Path, wanted: set[int]) -> dict[int, np.ndarray]:
    with av.open(str(path)) as container:
        return {i: f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in wanted}


def count_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("dub", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="start here and take neighbouring frames")
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--side", type=int, default=220)
    parser.add_argument("--whole", action="store_true", help="whole frames instead of the face")
    args = parser.parse_args()
    total = count_of(args.source)
    step = args.step or max(1, (total - args.first) // args.frames)
    wanted = [i for i in range(args.first, total, step)][: args.frames]
    source, dub = frames_of(args.source, set(wanted)), frames_of(args.dub, set(wanted))
    backend = builtin_backend(FaceConfig(), torch.device("cpu"))
    box = None
    columns = []
    for index in wanted:
        a, b = source[index], dub[index]
        if not args.whole:
            found = backend.detect([a])[0].boxes
            if len(found):
                box = max(found, key=lambda f: (f[2] - f[0]) * (f[3] - f[1]))
            if box is not None:
                centre, half = (box[:2] + box[2:]) / 2, 0.75 * max(box[2:] - box[:2])
                x1, y1 = np.maximum(centre - half, 0).astype(int)
                x2, y2 = np.minimum(centre + half, a.shape[1::-1]).astype(int)
                a, b = a[y1:y2, x1:x2], b[y1:y2, x1:x2]
        difference = np.clip(128 + 4 * (b.astype(int) - a.astype(int)), 0, 255).astype(np.uint8)
        height = round(args.side * a.shape[0] / a.shape[1]) if args.whole else args.side
        columns.append(
            np.vstack([cv2.resize(i, (args.side, height), interpolation=cv2.INTER_AREA) for i in (a, b, difference)])
        )
    cv2.imwrite(str(args.output), cv2.cvtColor(np.hstack(columns), cv2.COLOR_RGB2BGR))
    print(f"{args.output}: frames {wanted}")


if __name__ == "__main__":
    main()
