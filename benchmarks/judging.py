"""What does judging cost beside dubbing? Each clip is dubbed with its own sound, then all rows are judged.

    python benchmarks/judging.py CLIPS_DIR -o OUT --yunet YUNET.onnx --mesh face_landmarker.task [--seconds 3]

Both run in this process, one after the other: `lipdub.sync` on each clip without the cache, then `lipdub eval` of
the finished videos: rows real, real with other sound, source untouched and the dub, own sound, the bundled expert.
Prints wall clock and processor time of both; on a machine that others use, too, the processor time is what counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lipdub import SyncOptions, sync
from lipdub.config import Config
from lipdub.evaluation.evaluate import EvalOptions, evaluate
from lipdub.evaluation.pairs import draw_pairs, find_clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--yunet", required=True)
    parser.add_argument("--mesh", required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    pairs, _ = draw_pairs(find_clips(args.clips), ("own",), 0)
    dubs = args.output / "dubs"
    dubs.mkdir(parents=True, exist_ok=True)
    spent = [(time.monotonic(), time.process_time())]
    frames = 0
    for pair in pairs:
        options = SyncOptions(overwrite=True, cache=False, end_s=args.seconds)
        frames += sync(pair.picture.path, pair.picture.path, dubs / f"{pair.stem}.mp4", options).frames
    spent.append((time.monotonic(), time.process_time()))
    wanted = EvalOptions(
        clips=args.clips,
        output=args.output,
        weights=(),
        videos={"dub": dubs},
        pairings=("own",),
        yunet=args.yunet,
        mesh=args.mesh,
        seconds=args.seconds,
        overwrite=True,
    )
    report = evaluate(wanted, Config())
    spent.append((time.monotonic(), time.process_time()))
    judged = sum(line.n - line.failed for line in report.lines)
    print(f"{len(pairs)} clips, {frames} frames, {judged} videos judged, {len(report.failures)} failed")
    for name, before, after in zip(("dubbing", "judging"), spent[:-1], spent[1:], strict=True):
        wall, busy = (b - a for a, b in zip(before, after, strict=True))
        print(
            f"{name}: {wall:.1f} s, processor {busy:.1f} s; {wall / len(pairs):.2f} and {busy / len(pairs):.2f} a clip"
        )


if __name__ == "__main__":
    main()
