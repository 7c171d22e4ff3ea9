"""Whole commands: frames a second, share of each stage, start-up, peak memory; lengths, sizes, one face and three.

    python benchmarks/jobs.py CLIP SOUND -o OUT [--seconds 10 60 600] [--sizes 640x360 1280x720] [--faces 1 3]

CLIP is scaled and looped to each length (one encode, made once), SOUND is looped by the same factor; three faces are
CLIP three times side by side, fitted into the same size. Each job is one `lipdub sync --face all` in a process of its
own, without the cache; its peak memory and processor seconds are the kernel's figures for that process and its
children, the accelerator's memory is PyTorch's. Beside other work the processor seconds are the ones to compare. The
floor is decoding and encoding the same file with the same settings and no face work, in the same run. Ready is the
time until a job looks at its first frame.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lipdub.media.mux import ffmpeg_binary
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter

CHILD = """
import atexit, resource, sys
from lipdub.cli.app import main

def tell():
    torch = sys.modules.get("torch")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    card = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    spent = sum(each.ru_utime + each.ru_stime for each in used)
    print(spent, max(each.ru_maxrss for each in used) / 2**10, card / 2**20, file=sys.stderr)

atexit.register(tell)
main(sys.argv[1:])
"""


def looped(source: Path, target: Path, seconds: float, size: str | None, faces: int = 1) -> Path:
    """`source` again and again for `seconds`, fitted into `size`; `faces` of it side by side. Sound has no size."""
    if not target.exists():
        command = [str(ffmpeg_binary()), "-v", "error", "-y", "-stream_loop", "-1", "-i", str(source)]
        command += ["-t", str(seconds)]
        if size:
            width, height = size.split("x")
            names = "".join(f"[v{number}]" for number in range(faces))
            row = f"split={faces}{names};{names}hstack={faces}," if faces > 1 else ""
            box = f"scale={width}:{height}:force_original_aspect_ratio=decrease,pad={width}:{height}:-1:-1,setsar=1"
            command += ["-filter_complex", row + box, "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-an"]
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


def job(video: Path, sound: Path, output: Path, *more: str) -> dict[str, Any]:
    """The report of one `lipdub sync`, with command_s, ready_s, processor_s, peak_mib and card_mib."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        "sync",
        str(video),
        str(sound),
        "-o",
        str(output),
        "--face",
        "all",
        "-y",
        "--json",
        *more,
    ]
    started, ready_s, report = time.monotonic(), 0.0, {}
    with subprocess.Popen([*command, "--no-cache"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        for event in map(json.loads, child.stdout):
            if event["type"] == "stage" and event["name"] == "faces":
                ready_s = time.monotonic() - started
            if event["type"] == "done":
                report = event["report"]
        told = child.stderr.read()
    if child.returncode:
        raise SystemExit(f"{video}: exit code {child.returncode}\n{told}")
    names = ("processor_s", "peak_mib", "card_mib")
    used = dict(zip(names, map(float, told.split()[-len(names) :]), strict=True))
    return report | {"command_s": time.monotonic() - started, "ready_s": ready_s} | used


def help_s() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "lipdub", "--help"], check=True, capture_output=True)
    return time.monotonic() - started


def line_of(row: dict[str, Any], floor: float | None) -> str:
    """One job as a row of the table."""
    stages = " / ".join(f"{row['stages'][name]:.1f}" for name in ("read", "faces", "dub", "write"))
    against = ("-", "-") if floor is None else (f"{floor:.1f}", f"{row['command_s'] / floor:.2f}")
    numbers = (
        f"{row['faces']} | {row['frames']} | {row['dubbed']} | {row['command_s']:.1f} | "
        f"{row['frames'] / row['command_s']:.1f} | {row['processor_s']:.1f} | {row['ready_s']:.1f} | {stages}"
    )
    return f"{numbers} | {against[0]} | {against[1]} | {row['peak_mib']:.0f} | {row['card_mib']:.0f} |"


HEAD = (
    "| seconds | size | tracks | frames | dubbed | command s | fps | processor s | ready s "
    "| read / faces / dub / write s | floor s | ratio | peak MiB | accelerator MiB |\n" + "|---" * 14 + "|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("sound", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 600.0])
    parser.add_argument("--sizes", nargs="+", default=["1280x720"])
    parser.add_argument("--faces", type=int, nargs="+", default=[1])
    parser.add_argument("--no-floor", action="store_true")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print(f"lipdub --help: {min(help_s() for _ in range(3)):.2f} s\n\n{HEAD}", flush=True)
    for seconds, size, faces in itertools.product(args.seconds, args.sizes, args.faces):
        name = f"{seconds:.0f}-{size}-{faces}"
        video = looped(args.clip, args.output / f"picture-{name}.mp4", seconds, size, faces)
        sound = looped(args.sound, args.output / f"sound-{seconds:.0f}.wav", seconds, None)
        row = job(video, sound, args.output / f"dub-{name}.mp4")
        floor = None if args.no_floor else floor_s(video, args.output / "floor.mp4")
        print(f"| {seconds:.0f} | {size} | {line_of(row, floor)}", flush=True)


if __name__ == "__main__":
    main()
