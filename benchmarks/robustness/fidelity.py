"""Frames, timestamps, size and streams of dubs against their sources (good: no difference).

    python -m benchmarks fidelity CLIPS_DIR -o OUT [--limit N]

Each clip is dubbed with its own sound and with the next clip's. Checked on the finished file: number of frames, every
timestamp, coded size, rotation, and that each stream of the source is there, with the dub as one more audio track
before the old ones. Exits 1 if anything differs. A line per dub goes to OUT/fidelity.jsonl.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import av

from lipdub import SyncOptions, sync
from lipdub.errors import LipdubError

SUFFIXES = {".mp4", ".mpg", ".avi", ".mkv", ".mov"}
CLOCK_S = 1e-3  # timestamps may differ by the target container's clock


def facts(path: Path) -> dict[str, object]:
    """What must not change."""
    with av.open(str(path)) as container:
        kinds = Counter(stream.type for stream in container.streams)
        stream = container.streams.video[0]
        size = (stream.codec_context.width, stream.codec_context.height)
        frames = list(container.decode(stream))
        times = [float(frame.pts * frame.time_base) for frame in frames if frame.pts is not None]
        rotation = frames[0].rotation if frames else 0
    first = min(times, default=0.0)
    return {
        "kinds": dict(kinds),
        "size": size,
        "rotation": rotation,
        "frames": len(frames),
        "times": sorted(time - first for time in times),
    }


def differences(source: dict[str, object], dub: dict[str, object]) -> list[str]:
    """What is not as it was, in words."""
    found = [key for key in ("size", "rotation", "frames") if source[key] != dub[key]]
    wanted = Counter(source["kinds"])  # type: ignore[arg-type]
    wanted["audio"] += 1
    if Counter(dub["kinds"]) != wanted:  # type: ignore[arg-type]
        found.append(f"streams {dub['kinds']}, wanted {dict(wanted)}")
    pairs = zip(source["times"], dub["times"], strict=False)  # type: ignore[call-overload]
    worst = max((abs(a - b) for a, b in pairs), default=0.0)
    if worst > CLOCK_S:
        found.append(f"timestamps off by up to {1000 * worst:.1f} ms")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0, help="at most so many clips of each folder")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    clips: list[Path] = []
    for folder in sorted({path.parent for path in args.clips.rglob("*") if path.suffix in SUFFIXES}):
        own = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        clips += own[: args.limit or len(own)]
    bad = 0
    with (args.output / "fidelity.jsonl").open("w", encoding="utf-8") as log:
        for index, clip in enumerate(clips):
            source = facts(clip)
            for sound in (clip, clips[(index + 1) % len(clips)]):
                dub = args.output / f"{clip.stem}__{sound.stem}.mp4"
                row: dict[str, object] = {"clip": str(clip.relative_to(args.clips)), "sound": sound.name}
                try:
                    report = sync(clip, sound, dub, SyncOptions(overwrite=True))
                    row |= {"dubbed": report.dubbed, "frames": report.frames, "fps": report.fps}
                    row["differences"] = differences(source, facts(dub))
                except LipdubError as error:
                    row["differences"] = [f"{type(error).__name__}: {error.what}"]
                bad += bool(row["differences"])
                log.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    print(f"{2 * len(clips)} dubs, {bad} with differences")
    return int(bad > 0)
