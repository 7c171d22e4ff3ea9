"""Exit codes of lipdub for thousands of damaged files (good: none fails, all codes are documented ones).

    python -m benchmarks mutants -o OUT [--count 10000] [--seed 0] [--workers 1] [--only KIND:NUMBER]

Every mutant is read by a child of its own, with limits on memory and time. A run passes when each ends with an exit
code of errors.py (never 1, never a signal), within 30 s of the processor's time (a child that waits for ten minutes is
ended), and leaves nothing but a finished output behind. A line per
mutant goes to OUT/outcomes.jsonl; those that fail lie beside it. A mutant is made again from its kind, its number and
the seed. On one core, since a library that sees several starts threads, which do not survive a fork; several workers
may share it. The same command goes on where a stopped run was. Exits 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from lipdub import weights
from lipdub.cli.app import main as lipdub
from lipdub.config import load_config
from lipdub.dub import networks
from lipdub.errors import LipdubError
from lipdub.faces.backend import Boxes, Detections, Frame, Landmarks
from lipdub.faces.crop import TEMPLATE
from lipdub.media.audio import write_wav
from lipdub.models.generator import Generator
from lipdub.weights import config_json, save_state

SHARES = {"mp4": 0.35, "mkv": 0.3, "wav": 0.15, "safetensors": 0.12, "toml": 0.08}
CODES = {0} | {kind.exit_code for kind in LipdubError.__subclasses__()}
LOG = "outcomes.jsonl"
LIMIT_S, WAIT_S = 30.0, 600.0  # of the processor, with all programs that it runs; of the clock on the wall
MEMORY = 2 << 30  # bytes of address space beyond what the parent has mapped
FACE = (20, 4, 76, 60)  # box of the one face that is "found" in every picture


PLAN = ("--stage", "1", "--data", "data", "--run", "run", "--dry-run")  # of training, which reads a preset


class OneFace:
    """A face backend that always sees the same face, so that damaged pictures go the whole way."""

    name = "one"

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return [Detections(np.array([FACE], np.float32), np.ones(1, np.float32)) for _ in frames]

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
        points = boxes[:, None, :2] + TEMPLATE.astype(np.float32) * sides
        return points, np.full(len(boxes), 0.9, np.float32)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a mutant."""

    kind: str
    number: int
    seed: int
    command: str
    code: int  # exit code; negative: the signal that ended it
    seconds: float  # of the processor
    left: tuple[str, ...]  # files that should not be there
    words: str  # the last lines that it printed

    @property
    def passed(self) -> bool:
        """Whether all promises were kept."""
        return self.code in CODES and self.seconds <= LIMIT_S and not self.left


def make_originals(folder: Path) -> dict[str, Path]:
    """The whole files, by kind."""
    wave = 0.3 * np.sin(np.arange(6400) / 9.0).astype(np.float32)
    write_wav(folder / "dub.wav", wave, 16_000)
    config = load_config("debug", ["generator.shape_code=8"])
    torch.manual_seed(0)
    metadata = {"kind": "generator", "config": config_json(config, "generator", "mel")}
    save_state(folder / "net.safetensors", Generator(config.generator).state_dict(), metadata)
    shutil.copy(weights.MANIFEST, folder / "list.toml")
    _write_clip(folder / "clip.mp4", wave, "aac")
    _write_clip(folder / "clip.mkv", wave, "pcm_s16le")
    names = ("clip.mp4", "clip.mkv", "dub.wav", "net.safetensors", "list.toml")
    return {name.rpartition(".")[2]: folder / name for name in names}


def _write_clip(path: Path, wave: np.ndarray, codec: str) -> None:
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "A title"
        video = container.add_stream("libx264", rate=Fraction(25))
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "20", "g": "4"}
        sound = container.add_stream(codec, rate=16_000, layout="mono")
        container.set_chapters(
            [{"id": 0, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        )
        y, x = np.mgrid[0:64, 0:96]
        for number in range(6):
            picture = np.stack([x * 2 + 3 * number, y * 3, x + y + 5 * number], -1) % 256
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(video.encode())
        for start in range(0, len(wave), 1024):
            block = (wave[None, start : start + 1024] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip some bytes, zero a run of them, or cut the end off. Half of the damage is in the first or last kilobyte,
    where headers and indexes are."""
    changed = np.frombuffer(data, np.uint8).copy()
    how = rng.choice(["flip", "hole", "cut"], p=[0.65, 0.1, 0.25])
    if how == "cut":
        return data[: int(rng.integers(0, len(data)))]
    low, high = 0, len(data)
    if rng.random() < 0.5 and len(data) > 2048:
        low, high = ((0, 1024), (len(data) - 1024, len(data)))[int(rng.integers(2))]
    if how == "hole":
        start = int(rng.integers(low, high))
        changed[start : start + int(rng.integers(1, 64))] = 0
    else:
        places = rng.integers(low, high, int(rng.choice([1, 2, 4, 16])))
        changed[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
    return changed.tobytes()


def command_line(kind: str, number: int, mutant: Path, originals: dict[str, Path], output: Path) -> list[str]:
    """What a mutant is given to."""
    video, audio, network = originals["mp4"], originals["wav"], originals["safetensors"]
    if kind == "toml":
        return ["weights", "list"] if number % 4 else ["train", *PLAN, "--preset", str(mutant)]
    if kind in ("mp4", "mkv"):
        if number % 4 == 0:
            return ["inspect", str(mutant)]
        video, audio = (video, mutant) if number % 4 == 1 else (mutant, audio)
    audio = mutant if kind == "wav" else audio
    network = mutant if kind == "safetensors" else network
    words = ["sync", video, audio, "-o", output, "--weights", network, "--device", "cpu"]
    if number % 9:  # what lies over the one face does not depend on the damage, and costs as much as all the rest
        words += ["--set", "sync.occlusion=false"]
    return [str(word) for word in (*words, "--set", "media.preset=ultrafast")]


def try_one(kind: str, number: int, seed: int, originals: dict[str, Path], place: Path) -> tuple[Outcome, Path]:
    """Make a mutant in the empty folder `place` and give it to lipdub in a child; also where the mutant lies."""
    rng = np.random.default_rng([seed, sorted(SHARES).index(kind), number])
    output, temporary, log = place / "out", place / "tmp", place / "log"
    output.mkdir()
    temporary.mkdir()
    mutant = place / f"mutant.{kind}"
    mutant.write_bytes(mutate(originals[kind].read_bytes(), rng))
    target = output / f"made{('.mp4', '.mkv')[number % 2]}"
    argv = command_line(kind, number, mutant, originals, target)
    child = os.fork()
    if child == 0:
        _child(argv, mutant, temporary, log)
    code, seconds = _wait(child, time.monotonic() + WAIT_S)
    allowed = {target} if code == 0 else set()
    there = {*output.iterdir(), *temporary.iterdir()}
    left = sorted(str(each.relative_to(place)) for each in there - allowed)
    words = log.read_text(encoding="utf-8", errors="replace")[-1500:]
    outcome = Outcome(
        kind=kind,
        number=number,
        seed=seed,
        command=argv[0],
        code=code,
        seconds=round(seconds, 3),
        left=tuple(left),
        words=words,
    )
    return outcome, mutant


def exit_code(argv: list[str]) -> int:
    """Run one command line here."""
    try:
        return lipdub(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _child(argv: list[str], mutant: Path, temporary: Path, log: Path) -> None:
    """Never returns."""
    code = 1
    try:
        handle = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (round(LIMIT_S) + 1,) * 2)
        if mutant.suffix == ".toml":
            weights.MANIFEST = mutant
        code = exit_code(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, until: float) -> tuple[int, float]:
    """Exit code of a child, or minus the signal that ended it, and the seconds of the processor that it took."""
    done, status, used = os.wait4(child, os.WNOHANG)
    while not done:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.004)
        done, status, used = os.wait4(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def run(share: Sequence[tuple[str, int]], seed: int, originals: dict[str, Path], output: Path) -> None:
    """Try each of a share of the mutants."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        whole = command_line("", 0, Path(), originals, Path(folder) / "whole.mp4")
        for argv in ([*whole, "--quiet"], ["train", *PLAN]):  # what a first job loads is not loaded in each child
            if code := exit_code(argv):
                sys.exit(f"{argv[0]} with whole files: exit code {code}")
        for kind, number in share:
            place = Path(tempfile.mkdtemp(dir=folder))
            outcome, mutant = try_one(kind, number, seed, originals, place)
            if not outcome.passed:
                shutil.copy(mutant, output / f"{kind}-{number}.{kind}")
            shutil.rmtree(place)
            with (output / LOG).open("a", encoding="utf-8") as log:  # several workers may append
                log.write(json.dumps(asdict(outcome)) + "\n")


def in_parallel(job: Callable[[int], None], workers: int) -> None:
    """Run job(0) .. job(workers - 1), each in a process of its own."""
    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            job(worker)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def read_log(path: Path, seed: int) -> list[Outcome]:
    """What was found with this seed so far."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [Outcome(**(record | {"left": tuple(record["left"])})) for record in records if record["seed"] == seed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", help="one mutant, as KIND:NUMBER")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # libraries that see several cores start threads ...
    torch.set_num_threads(1)  # ... and threads do not survive a fork
    cv2.setNumThreads(1)
    networks.face_backend = lambda name, config, device: OneFace()
    counts = {kind: round(args.count * share) for kind, share in SHARES.items()}
    plan = [(kind, number) for kind, count in counts.items() for number in range(count)]
    plan.sort(key=lambda each: each[1] / counts[each[0]])  # all kinds from the beginning
    if args.only:
        kind, _, number = args.only.partition(":")
        plan = [(kind, int(number))]
    originals = make_originals(args.output)
    log = args.output / LOG
    done = {(each.kind, each.number) for each in read_log(log, args.seed)} if not args.only else set()
    left = [each for each in plan if each not in done]
    started = time.monotonic()
    in_parallel(lambda i: run(left[i :: args.workers], args.seed, originals, args.output), args.workers)
    outcomes = [each for each in read_log(log, args.seed) if (each.kind, each.number) in set(plan)]
    n_failed = sum(not outcome.passed for outcome in outcomes)
    codes = {kind: dict(sorted(Counter(o.code for o in outcomes if o.kind == kind).items())) for kind in SHARES}
    for kind, counts in codes.items():
        print(kind, "  ".join(f"exit {code}: {n}" for code, n in counts.items()), sep="\t")
    seconds, longest = time.monotonic() - started, max((outcome.seconds for outcome in outcomes), default=0.0)
    print(
        f"{len(outcomes)} mutants (seed {args.seed}), {n_failed} failed, {seconds:.0f} s, the longest {longest:.1f} s"
    )
    if args.only:
        print(outcomes[-1].words)
    return int(n_failed > 0 or len(outcomes) != len(plan))
