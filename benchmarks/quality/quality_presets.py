"""Cost and fidelity of `--quality fast|balanced|best` (good: sharpness and the rest's PSNR rise).

    python -m benchmarks quality_presets CLIP SOUND -o OUT [--try "--set face.detect_every=10" ...] [--record]

Each dubs CLIP with SOUND and, to be compared with the truth, with CLIP's own sound. Seconds are processor time of the
first, start-up included, so that other work on the machine counts for little. Of the dub with CLIP's own sound: PSNR of
the face's lower half, and its sharpness over the source's (1 is as sharp; variance of the Laplacian). Of the other:
size, PSNR of the upper quarter of the picture, which only the encoder changes, and what `lipdub eval FILE` says. --try
measures other options instead of the three; `--record` writes benchmarks/results/quality_presets.json.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.arguments import add_output, parser_of
from benchmarks.results import names_with_sums, record
from lipdub.config import Config
from lipdub.dub.analyze import track_faces
from lipdub.evaluation.quality import check
from lipdub.faces.choose import face_backend
from lipdub.faces.crop import crop_matrices
from lipdub.media.source import open_source

PRESETS = ("fast", "balanced", "best")
METRICS = {
    "cpu": "processor time",
    "size": "file",
    "sharpness": "sharpness of the mouth over the source's",
    "psnr": "the face's lower half under its own sound, PSNR against the source",
    "rest": "what is not dubbed, PSNR against the source",
}
SIDE = 192  # pixels of a face that is compared
LOWER = slice(SIDE // 2, SIDE)


def dub(clip: Path, sound: Path, target: Path, options: str) -> float:
    """Run the command; its processor seconds."""
    before = os.times()
    command = [sys.executable, "-m", "lipdub", "sync", str(clip), str(sound), "-o", str(target), "-q", "-y"]
    subprocess.run([*command, "--no-cache", "--device", "cpu", *shlex.split(options)], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def psnr(error: list[float]) -> float:
    return float(10 * np.log10(255**2 / max(np.mean(error), 1e-9)))


def compare(real: list[np.ndarray], made: list[np.ndarray], faces: dict[int, np.ndarray]) -> tuple[float, float, float]:
    """PSNR of the lower face, its sharpness over the source's, and PSNR of the picture's upper quarter."""
    error, top, sharp = [], [], []
    for number, (a, b) in enumerate(zip(real, made, strict=True)):
        high = slice(0, a.shape[0] // 4)
        top.append(np.square(a[high].astype(float) - b[high]).mean())
        if number in faces:
            x, y = (cv2.warpAffine(each, faces[number], (SIDE, SIDE))[LOWER] for each in (a, b))
            error.append(np.square(x.astype(float) - y).mean())
            sharp.append([cv2.Laplacian(cv2.cvtColor(each, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var() for each in (x, y)])
    source, dubbed = np.mean(sharp, 0)
    return psnr(error), float(dubbed / source), psnr(top)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("sound", type=Path)
    add_output(parser)
    parser.add_argument("--try", dest="tries", action="append", help="options of sync")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if args.record and args.tries:
        parser.error("--record is of the three presets: leave out --try")
    args.output.mkdir(parents=True, exist_ok=True)
    config = Config()
    source = open_source(args.clip, config.media)
    seen = track_faces(source, face_backend("builtin", config.face, "cpu"), config)
    faces: dict[int, np.ndarray] = {}
    for track in seen.tracks:
        times = seen.times_s[track.frames.start : track.frames.stop]
        faces |= dict(zip(track.frames, crop_matrices(track.landmarks, times, config.face, SIDE), strict=True))
    real = frames(args.clip)
    print("| options | CPU s | MB | lower face, dB | sharpness | rest, dB | agreement | jitter | seam |")
    print("|---|---|---|---|---|---|---|---|---|")
    values = []
    for options in args.tries or [f"--quality {name}" for name in PRESETS]:
        own, other = args.output / "own.mp4", args.output / "other.mp4"
        dub(args.clip, args.clip, own, options)
        seconds = dub(args.clip, args.sound, other, options)
        face, sharp, _ = compare(real, frames(own), faces)
        rest = compare(real, frames(other), faces)[2]
        parts = check(other, config, device="cpu").report.segments
        kept = [[getattr(part, name) for part in parts] for name in ("agreement", "jitter", "seam")]
        told = [f"{np.mean([v for v in each if v is not None]):.2f}" for each in kept]
        size = other.stat().st_size / 1e6
        name = options.removeprefix("--quality ")
        measured = {"cpu": seconds, "size": size, "sharpness": sharp, "psnr": face, "rest": rest}
        values += [{"key": f"{name}_{k}", "metric": f"`{name}`: {METRICS[k]}", "value": v} for k, v in measured.items()]
        cells = [options, f"{seconds:.1f}", f"{size:.2f}", f"{face:.2f}", f"{sharp:.2f}", f"{rest:.2f}", *told]
        print("| " + " | ".join(cells) + " |", flush=True)
    if args.record:
        print(record("quality_presets", values, title="fast, balanced, best", weights=names_with_sums("generator")))
