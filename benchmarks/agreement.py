"""Does the dubbed mouth follow the new sound? Measured by MediaPipe's mesh, not by anything of ours.

    python benchmarks/agreement.py CLIPS_DIR -o OUT --yunet YUNET.onnx --mesh face_landmarker.task [--own]

A pair is a picture clip and a sound clip (a line `picture<TAB>sound`, paths below CLIPS_DIR). The picture is dubbed
with the sound of the other clip by `lipdub.sync`; then inner-lip opening over the distance of the outer eye corners is
read off the dub, off the sound clip's own video and off the untouched picture, each frame. r, z and the movement are
`agreement` and `articulation` of lipdub/metrics/__init__.py.

    follows    dub against the sound's own video: should be high
    replaced   dub against the mouth that was replaced: should be near 0

`--own` dubs each picture with its own sound instead, `--pairs FILE` takes other pairs than those below, `--set` changes
config.py. Per-pair values go to OUT/agreement.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import av
import cv2
import numpy as np

from lipdub import SyncOptions, sync
from lipdub.config import load_config
from lipdub.evaluation.table import interval
from lipdub.evaluation.teachers import FaceMesh, YuNet, opening
from lipdub.metrics import agreement, articulation

PAIRS = """
grid/brbk7n.mpg grid/lbax4n.mpg
grid/lbax4n.mpg grid/swiz3n.mpg
grid/lwbsza.mpg grid/sbia1a.mpg
grid/pwij3p.mpg grid/sbwe5n.mpg
grid/sbia1a.mpg grid/brbk7n.mpg
grid/sbwe5n.mpg grid/pwij3p.mpg
grid/swiz3n.mpg grid/lwbsza.mpg
grid/lbbc2a.mpg grid/lrwp9a.mpg
grid/lrwp9a.mpg studio/demo1_video.mp4
grid/id2_vcd_swwp2s.mpg in-the-wild/noisy_restaurant.mp4
studio/demo1_video.mp4 in-the-wild/speech.mp4
studio/demo3_video.mp4 studio/demo1_video.mp4
in-the-wild/dinet_test19.mp4 studio/demo1_video.mp4
in-the-wild/noisy_restaurant.mp4 studio/demo3_video.mp4
cued-french/video10.mp4 grid/brbk7n.mpg
selfie/englishvideo.mp4 in-the-wild/noisy_restaurant.mp4
"""


class Curves:
    """Mouth opening against time of whole videos."""

    def __init__(self, yunet: Path, mesh: Path) -> None:
        self._detector, self._mesh = YuNet(yunet), FaceMesh(mesh)

    def read(self, path: Path, end_s: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,) and openings (T,); frames without a face are interpolated."""
        times, values = [], []
        points = None
        with av.open(str(path)) as container:
            for picture in container.decode(video=0):
                if picture.time is not None and picture.time > end_s:
                    break
                frame = picture.to_ndarray(format="rgb24")
                if points is None:
                    found = self._detector.detect(frame)
                    if len(found):
                        best = int(np.argmax(found[:, 2] * found[:, 3]))
                        points, presence = self._mesh.from_box(frame, found[best])
                else:
                    points, presence = self._mesh.follow(frame, points)
                if points is not None and presence < 0.5:
                    points = None
                times.append(picture.time or 0.0)
                values.append(np.nan if points is None else opening(points))
        curve, at = np.array(values), np.array(times)
        known = np.isfinite(curve)
        return at - at[0], np.interp(at, at[known], curve[known]) if known.any() else np.zeros(len(at))


def shown(values: list[float]) -> str:
    """Mean and 95 % bootstrap interval."""
    found = interval(values)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--mesh", type=Path, required=True)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--weights", default="generator")
    parser.add_argument("--strength", type=float)
    parser.add_argument("--set", action="append", default=[], help="section.key=value of config.py")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    pairs = [line.split() for line in (args.pairs.read_text() if args.pairs else PAIRS).splitlines() if line.strip()]
    curves = Curves(args.yunet, args.mesh)
    cache: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
    rows = []
    for picture_name, sound_name in pairs:
        picture = args.clips / picture_name
        sound = picture if args.own else args.clips / sound_name
        dub = args.output / f"{picture.stem}__{sound.stem}.mp4"
        options = SyncOptions(overwrite=True, generator=args.weights, strength=args.strength)
        sync(picture, sound, dub, options, config=load_config(None, args.set))
        for path in (picture, sound):
            if path not in cache:
                cache[path] = curves.read(path)
        times, made = curves.read(dub)
        sound_times, spoken = cache[sound]
        picture_times, replaced = cache[picture]
        count = int(np.searchsorted(times, min(times[-1], sound_times[-1])))
        row: dict[str, object] = {"picture": picture_name, "sound": sound_name, "frames": count}
        reference = np.interp(times[:count], sound_times, spoken)
        row["opening_r"], row["opening_z"] = agreement(made[:count], reference)
        old = np.interp(times[:count], picture_times, replaced)
        row["replaced_r"], row["replaced_z"] = agreement(made[:count], old)
        row["movement"] = articulation(made[:count], reference)
        rows.append(row)
        print(" ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
    (args.output / "agreement.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for key in ("opening_r", "opening_z", "replaced_r", "replaced_z", "movement"):
        print(f"{key}: {shown([float(row[key]) for row in rows])}  (n = {len(rows)})")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
