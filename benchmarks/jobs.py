"""Whole commands: frames a second, share of each stage, peak memory; 1 minute against 10.

    python benchmarks/jobs.py CLIP SOUND -o OUT [--seconds 60 600] [--size 1280x720]

CLIP is scaled and looped to each length (one encode, made once), SOUND is looped by the same factor. Each job is one
`lipdub sync` in a process of its own; its peak memory is the kernel's figure for that process and its children. The
floor is decoding and encoding the same file with the same settings and no face work, in the same run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from lipdub.media.probe import probe, require_video
from lipdub.media.remux import ffmpeg_binary
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter

CHILD = """
import atexit, resource, sys
from lipdub.cli.app import main

most = lambda: max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
atexit.register(lambda: print(most(), file=sys.stderr))
main(sys.argv[1:])
"""


def looped(source: Path, target: Path, seconds: float, size: str | None) -> Path:
    if not target.exists():
        command = [
            str(ffmpeg_binary()),
            "-v",
            "error",
            "-y",
            "-stream_loop",
            "-1",
            "-i",
            str(source),
            "-t",
            str(seconds),
        ]
        if size:
            width, height = size.split("x")
            box = f"scale={width}:{height}:force_original_aspect_ratio=decrease,pad={width}:{height}:-1:-1,setsar=1"
            command += ["-vf", box, "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-an"]
        subprocess.run([*command, str(target)], check=True)
    return target


def floor_s(video: Path, scratch: Path) -> float:
    started = time.monotonic()
    info = require_video(probe(video))
    with VideoReader(video, info) as reader, VideoWriter(scratch, info) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    scratch.unlink()
    return time.monotonic() - started


def job(video: Path, sound: Path, output: Path) -> dict[str, object]:
    command = [sys.executable, "-c", CHILD, "sync", str(video), str(sound), "-o", str(output), "-y", "--json"]
    started = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.monotonic() - started
    report = next(e for e in map(json.loads, done.stdout.splitlines()) if e["type"] == "done")["report"]
    return report | {"command_s": seconds, "peak_mib": int(done.stderr.split()[-1]) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("sound", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 600.0])
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--no-floor", action="store_true")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for seconds in args.seconds:
        video = looped(args.clip, args.output / f"picture-{seconds:.0f}-{args.size}.mp4", seconds, args.size)
        sound = looped(args.sound, args.output / f"sound-{seconds:.0f}.wav", seconds, None)
        row = job(video, sound, args.output / f"dub-{seconds:.0f}.mp4")
        line = f"{seconds:.0f} s: {row['frames']} frames, {row['dubbed']} dubbed, {row['command_s']:.1f} s, "
        line += f"{row['frames'] / row['command_s']:.1f} fps, peak {row['peak_mib']:.0f} MiB, stages {row['stages']}"
        if not args.no_floor:
            least = floor_s(video, args.output / "floor.mp4")
            line += f", floor {least:.1f} s, ratio {row['command_s'] / least:.2f}"
        print(line, flush=True)
    print(f"benchmark's own peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
