"""Time of `lipdub sync` over decoding and encoding alone, and its peak memory (good: 2.2 or less at 720p, 1 GiB).

    python -m benchmarks speed VIDEO AUDIO -o OUT [--jobs 720p@60 1080p@60 4k@60 720p@600] [--runs 5] [--record]

VIDEO is scaled and looped to each job's size and seconds (one encode, made once), AUDIO is looped alike. A job is run
`--runs` times; each time first the floor, which decodes and encodes the same file with the same settings and does
nothing to its faces, then `lipdub sync --face all --no-cache` in a process of its own, so that a machine that slows
down slows both. The ratio of the two is the figure to compare; its median is printed with the least and the most.
Processor seconds and peak memory are the kernel's for the command and its children, an accelerator's memory is
PyTorch's; ready is the time until the first frame is looked at. `--record` writes benchmarks/results/speed.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.results import record
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter
from lipdub.weights import locate, sha256_of

SIZES = {"360p": "640x360", "720p": "1280x720", "1080p": "1920x1080", "4k": "3840x2160"}
WEIGHTS = ("generator", "audio", "faces-detector", "faces-landmarks", "occlusion")
MEASURED = {  # key -> what it is called, unit, digits
    "ratio": ("time over that of decoding and encoding alone", "", 2),
    "fps": ("frames a second", "fps", 1),
    "peak": ("peak memory", "MiB", 0),
}
CHILD = """
import atexit, resource, sys
from lipdub.cli.app import main

def report():
    torch = sys.modules.get("torch")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    card = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    spent = sum(each.ru_utime + each.ru_stime for each in used)
    print(spent, max(each.ru_maxrss for each in used) / 2**10, card / 2**20, file=sys.stderr)

atexit.register(report)
main(sys.argv[1:])
"""


class Job(NamedTuple):
    """A film to dub."""

    size: str  # a key of SIZES
    seconds: float

    @classmethod
    def parse(cls, word: str) -> Job:
        """`SIZE@SECONDS`."""
        size, _, seconds = word.partition("@")
        if size not in SIZES:
            raise argparse.ArgumentTypeError(f"{word!r}: want SIZE@SECONDS with a size of {', '.join(SIZES)}")
        return cls(size, float(seconds))

    @property
    def key(self) -> str:
        """Its part of a result's key."""
        return f"{self.size}_{self.seconds:g}s"


def looped(source: Path, target: Path, seconds: float, size: str | None = None) -> Path:
    """`source` repeated for `seconds`; a video is fitted into `size`, WIDTHxHEIGHT. An existing `target` is reused."""
    if not target.exists():
        partial = target.with_name(f"partial-{target.name}")
        command = [str(ffmpeg_binary()), "-v", "error", "-y", "-stream_loop", "-1", "-i", str(source)]
        command += ["-t", str(seconds)]
        if size:
            box = size.replace("x", ":")
            fitted = f"scale={box}:force_original_aspect_ratio=decrease,pad={box}:-1:-1,setsar=1"
            command += ["-vf", fitted, "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-an"]
        subprocess.run([*command, str(partial)], check=True)
        partial.replace(target)
    return target


def floor_s(video: Path, scratch: Path) -> float:
    """Seconds that decoding and encoding alone take."""
    started = time.monotonic()
    info = require_video(probe(video))
    with VideoReader(video, info) as reader, VideoWriter(scratch, info) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    scratch.unlink()
    return time.monotonic() - started


def dub(video: Path, audio: Path, output: Path, *more: str) -> dict[str, Any]:
    """The report of one `lipdub sync`, with command_s, ready_s, processor_s, peak_mib and card_mib."""
    command = [sys.executable, "-c", CHILD, "sync", str(video), str(audio), "-o", str(output)]
    command += ["--face", "all", "--no-cache", "-y", "--json", *more]
    started, ready_s, report = time.monotonic(), 0.0, {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        for event in map(json.loads, child.stdout):
            if event["type"] == "stage" and event["name"] == "faces":
                ready_s = time.monotonic() - started
            if event["type"] == "done":
                report = event["report"]
        errors = child.stderr.read()
    if child.returncode:
        raise SystemExit(f"{video}: exit code {child.returncode}\n{errors}")
    names = ("processor_s", "peak_mib", "card_mib")
    used = dict(zip(names, map(float, errors.split()[-len(names) :]), strict=True))
    return report | {"command_s": time.monotonic() - started, "ready_s": ready_s} | used


HEAD = (
    "| job | run | dubbed | command s | floor s | ratio | fps | processor s | ready s "
    "| read / faces / dub / write s | peak MiB | accelerator MiB |\n" + "|---" * 12 + "|"
)


def line_of(name: str, run: int, row: dict[str, Any], floor: float) -> str:
    """One run as a row of the table."""
    stages = " / ".join(f"{row['stages'][name]:.1f}" for name in ("read", "faces", "dub", "write"))
    return (
        f"| {name} | {run} | {row['dubbed']} of {row['frames']} | {row['command_s']:.1f} | {floor:.1f} "
        f"| {row['command_s'] / floor:.2f} | {row['frames'] / row['command_s']:.1f} | {row['processor_s']:.1f} "
        f"| {row['ready_s']:.1f} | {stages} | {row['peak_mib']:.0f} | {row['card_mib']:.0f} |"
    )


def measure(job: Job, args: argparse.Namespace) -> dict[str, list[float]]:
    """Every run of a job: values by the keys of MEASURED."""
    video = looped(args.video, args.output / f"video-{job.key}.mp4", job.seconds, SIZES[job.size])
    audio = looped(args.audio, args.output / f"audio-{job.seconds:g}s.wav", job.seconds)
    values: dict[str, list[float]] = {key: [] for key in MEASURED}
    for run in range(1, args.runs + 1):
        floor = floor_s(video, args.output / "floor.mp4")
        row = dub(video, audio, args.output / f"dub-{job.key}.mp4")
        found = (row["command_s"] / floor, row["frames"] / row["command_s"], row["peak_mib"])
        for key, value in zip(MEASURED, found, strict=True):
            values[key].append(value)
        print(line_of(job.key, run, row, floor), flush=True)
    return values


def results_of(found: dict[Job, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Values for `record`: of each job the medians, with the least and the most as interval.

    `growth_SIZE` is the longest job's peak memory over that of the shortest, at a size that has two lengths.
    """
    made: list[dict[str, Any]] = []
    for job, values in found.items():
        for key, (metric, unit, digits) in MEASURED.items():
            of, runs = values[key], len(values[key])
            value = {"key": f"{key}_{job.key}", "metric": f"{job.size}, {job.seconds:g} s: {metric}"}
            value |= {"value": median(of), "interval": [min(of), max(of)], "n": runs, "digits": digits}
            made.append(value | ({"unit": unit} if unit else {}))
    for size in dict.fromkeys(job.size for job in found):
        same = sorted(job for job in found if job.size == size)
        if len(same) > 1:
            short, long = same[0], same[-1]
            growth = median(found[long]["peak"]) / median(found[short]["peak"])
            metric = f"{size}: peak memory of {long.seconds:g} s over that of {short.seconds:g} s"
            made.append({"key": f"growth_{size}", "metric": metric, "value": growth})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--jobs", type=Job.parse, nargs="+", default=[Job("720p", 60.0)], metavar="SIZE@SECONDS")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/speed.json")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print(HEAD, flush=True)
    found = {job: measure(job, args) for job in args.jobs}
    print()
    for job, values in found.items():
        of = values["ratio"]
        spread = f"{min(of):.2f} to {max(of):.2f} in {len(of)} runs"
        print(f"{job.key}: {median(of):.2f} times the floor ({spread}), {median(values['fps']):.1f} fps")
    if args.record:
        weights = ", ".join(f"{name} {sha256_of(locate(name))[:8]}" for name in WEIGHTS)
        print(
            record(
                "speed", results_of(found), title="Speed and memory: median [least, most] of the runs", weights=weights
            )
        )
