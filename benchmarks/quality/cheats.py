"""Which column of `lipdub eval` catches which faulty mouth (good: at least one, in bold, for each).

    python -m benchmarks cheats CLIP... -o OUT --yunet YUNET.onnx --mesh face_landmarker.task [--seconds 5]

Each clip keeps its own sound and its own picture; only what is inside the mouth mask is made anew (once something
outside of it is): a mouth that never opens, one that flaps, one that shakes, the right one at the wrong time, that of
another person, a blurred one, one with a border. "dub" is the bundled generator's, with the clip's own sound; it, the
real clip and the real clip written once more are what a cheat must be told from.

Prints a Markdown table of means. A column catches a cheat (bold) if the cheat's mean lies beyond the worst
single clip of those three rows. Values per clip go to OUT/cheats.jsonl.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.arguments import add_judge, add_output, judge_of, parser_of
from lipdub import SyncOptions, sync
from lipdub.affine import transform
from lipdub.config import Config
from lipdub.evaluation.landmark_track import Geometry, MeshLandmarkTracker, track_landmarks
from lipdub.evaluation.measure import Real, measure
from lipdub.evaluation.networks import Networks, find_expert
from lipdub.evaluation.quality import seam
from lipdub.faces.crop import mouth_mask
from lipdub.media.audio import load_audio
from lipdub.media.video import VideoReader
from lipdub.metrics.sync_offset import loudness

SIZE = 192  # of the crops in which mouths are exchanged
SOFT = 4.0  # sigma of the mask's edge, in their pixels
COLUMNS = {  # key -> head, which way is bad
    "opening_r": ("opening r", "down"),
    "opening_z": ("opening z", "down"),
    "loudness": ("opening with loudness", "down"),
    "expert": ("expert loss", "up"),
    "expert_c": ("expert confidence", "down"),
    "offset": ("\\|offset\\|, ms", "up"),
    "articulation": ("articulation", "both"),
    "range": ("opening range, %", "both"),
    "silence": ("motion in silence, %", "up"),
    "jitter": ("skin jitter, over the real one", "up"),
    "sharpness": ("vL, over the real one", "both"),
    "psnr": ("PSNR, dB", "down"),
    "lmd": ("LMD, %", "up"),
    "outside": ("change outside", "up"),
    "seam": ("seam", "up"),
}
OWN = ("real", "dub", "re-encoded")  # rows that a cheat is compared with


class Subject:
    """A real clip and its crops, in which mouths can be exchanged."""

    def __init__(self, path: Path, judge: MeshLandmarkTracker, seconds: float, config: Config) -> None:
        self.path, self.seconds, self.config = path, seconds, config
        tracked = track_landmarks(path, judge, seconds, config.media)
        sound = load_audio(path, sample_rate=config.mel.sample_rate)
        self.real = Real(sound, loudness(sound, config.mel), tracked)
        self.matrices = Geometry.of(tracked, config.face, SIZE).matrices
        with VideoReader(path, tracked.info) as reader:
            self.frames = [f.upright() for f in reader if f.time_s < seconds]
        self.crops = [cv2.warpAffine(f, m, (SIZE, SIZE)) for f, m in zip(self.frames, self.matrices, strict=True)]
        self.masks = []
        for points, matrix in zip(tracked.landmarks, self.matrices, strict=True):
            mask = cv2.GaussianBlur(mouth_mask(transform(points, matrix), SIZE), (0, 0), SOFT)
            mask[[0, -1]] = mask[:, [0, -1]] = 0
            self.masks.append(mask)

    def __len__(self) -> int:
        return len(self.frames)

    def with_mouths(self, crops: list[np.ndarray]) -> list[np.ndarray]:
        """The frames with what is inside the mask taken from other crops, one a frame."""
        made = []
        for frame, crop, mask, matrix in zip(self.frames, crops, self.masks, self.matrices, strict=True):
            back = {"dsize": frame.shape[1::-1], "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
            share = cv2.warpAffine(mask, matrix, **back)[..., None]
            new = cv2.warpAffine(crop, matrix, **back)
            made.append((frame + share * (new.astype(np.float32) - frame)).round().astype(np.uint8))
        return made


Cheat = Callable[[Subject, Subject, np.random.Generator], list[np.ndarray]]


def untouched(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """What writing the file costs by itself."""
    return one.frames


def frozen(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    closed = int(one.real.tracked.openings.argmin())
    return one.with_mouths([one.crops[closed]] * len(one))


def flapping(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """Open and shut four times a second, whatever is said."""
    openings = one.real.tracked.openings
    low, high = np.percentile(openings, [5, 90])
    wave = low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * one.real.tracked.times_s))
    return one.with_mouths([one.crops[int(np.abs(openings - aim).argmin())] for aim in wave])


def shaking(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """The right mouth, up to three of 192 pixels off, anew in each frame."""
    moves = rng.uniform(-3, 3, (len(one), 2))
    still = np.eye(2)
    return one.with_mouths(
        [
            cv2.warpAffine(crop, np.column_stack([still, move]), (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
            for crop, move in zip(one.crops, moves, strict=True)
        ]
    )


def late(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """The right mouth, 200 ms late."""
    lag = round(0.2 * float(one.real.tracked.info.average_rate))
    return one.with_mouths([one.crops[max(0, t - lag)] for t in range(len(one))])


def elsewhere(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """The person's own mouth of another time: half the clip away."""
    return one.with_mouths([one.crops[(t + len(one) // 2) % len(one)] for t in range(len(one))])


def strange(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """Another person's mouth, saying something else."""
    return one.with_mouths([other.crops[t % len(other)] for t in range(len(one))])


def blurred(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    return one.with_mouths([cv2.GaussianBlur(crop, (0, 0), 4) for crop in one.crops])


def bordered(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """The right mouth, 20 grey levels brighter up to a sharp border."""
    made = []
    for crop, points, matrix in zip(one.crops, one.real.tracked.landmarks, one.matrices, strict=True):
        inside = mouth_mask(transform(points, matrix), SIZE)[..., None]
        made.append(np.clip(crop + 20 * inside, 0, 255).astype(np.uint8))
    one_hard = [(mask > 0.02).astype(np.float32) for mask in one.masks]
    soft, one.masks = one.masks, one_hard
    try:
        return one.with_mouths(made)
    finally:
        one.masks = soft


def repainted(one: Subject, other: Subject, rng: np.random.Generator) -> list[np.ndarray]:
    """The right mouth, and the whole picture a little softer and brighter."""
    return [np.clip(cv2.GaussianBlur(frame, (0, 0), 1.5) + 4.0, 0, 255).astype(np.uint8) for frame in one.frames]


CHEATS: dict[str, Cheat] = {
    "re-encoded": untouched,
    "never opens": frozen,
    "flaps at 4 Hz": flapping,
    "shakes": shaking,
    "200 ms late": late,
    "own mouth of another time": elsewhere,
    "another person's mouth": strange,
    "blurred": blurred,
    "border of 20 levels": bordered,
    "whole picture altered": repainted,
}


def write(path: Path, frames: list[np.ndarray], rate: object) -> Path:
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "14"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def judged(
    path: Path, one: Subject, judge: MeshLandmarkTracker, config: Config, networks: Networks
) -> dict[str, float]:
    """All columns; those that only say something beside the real clip's own value are over it."""
    real = one.real.tracked
    video = real if path == one.path else track_landmarks(path, judge, one.seconds, config.media)
    values = measure(video, real, one.real, config, networks, has_truth=path != one.path)
    own = measure(real, real, one.real, config, Networks()) if path != one.path else values
    values |= {key: values[key] / own[key] for key in ("jitter", "sharpness") if key in values and key in own}
    geometry = Geometry.of(real, config.face, config.face.size)
    faces = (255 * geometry.faces(video.like(real), config.media)).round().byte().permute(0, 2, 3, 1).numpy()
    marks = [transform(p, m) for p, m in zip(video.like(real).landmarks, geometry.matrices, strict=False)]
    return values | {"seam": seam(faces, np.stack(marks[: len(faces)]))}


def table(found: dict[str, list[dict[str, float]]]) -> list[str]:
    def of(row: str, key: str) -> list[float]:
        return [values[key] for values in found[row] if key in values]

    lines = ["| | " + " | ".join(head for head, _ in COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in found:
        cells = []
        for key, (_, bad) in COLUMNS.items():
            mine = of(row, key)
            fair = [value for name in OWN for value in of(name, key)]
            mean = float(np.mean(mine)) if mine else np.nan
            caught = row not in OWN and bool(fair) and bool(mine)
            caught &= (bad != "down" and mean > max(fair, default=np.inf)) or (
                bad != "up" and mean < min(fair, default=-np.inf)
            )
            cells.append("-" if not mine else f"**{mean:.3g}**" if caught else f"{mean:.3g}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path, nargs="+", help="two or more, of different people")
    add_output(parser)
    add_judge(parser)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    expert, config = find_expert(None, Config())
    networks, judge = Networks(expert=expert), judge_of(args)
    subjects = [Subject(path, judge, args.seconds, config) for path in args.clips]
    found: dict[str, list[dict[str, float]]] = {row: [] for row in ("real", "dub", *CHEATS)}
    rng = np.random.default_rng(0)
    with (args.output / "cheats.jsonl").open("w") as file, tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(subjects):
            other = subjects[(number + 1) % len(subjects)]
            dub = Path(folder) / "dub.mp4"
            sync(one.path, one.path, dub, SyncOptions(end_s=args.seconds, overwrite=True), config=Config())
            films = {"real": one.path, "dub": dub}
            for row, cheat in CHEATS.items():
                film = args.output / f"{one.path.stem}-{row.replace(' ', '-')}.mp4"
                films[row] = write(film, cheat(one, other, rng), one.real.tracked.info.average_rate)
            for row, film in films.items():
                values = judged(film, one, judge, config, networks)
                found[row].append(values)
                file.write(json.dumps({"clip": one.path.name, "row": row} | values) + "\n")
                print(one.path.name, row, flush=True)
    print("\n".join(table(found)))
