"""Speed of generator, batches and training on a device, over its own peak (good: near 100 % busy).

    python -m benchmarks accelerator [--device cuda] [--seconds 3] [--batches 1 16 64] [--presets release]
    python -m benchmarks accelerator --clip CLIP --sound SOUND -o OUT              whole commands, too
    python -m benchmarks accelerator --device cpu --seconds 0.5 --batches 2 --presets debug      a dry run

Peak: the best of products of large matrices in the same precision, in this run; float32 is TF32 where the card has
it. FLOP are counted by PyTorch, a product and its sum as two. A CPU, which other work may share, is timed by its own
time over its threads. Busy: the device's own time over the clock's, by PyTorch's profiler. Samples are random: what
they show does not matter here. Training is stage 1 with a VGG-16 of random weights, from a data set made for it: steps
of one batch that is there, then the loop with its loader, by the clock.

The generator and training need torch, NumPy, OpenCV, scikit-learn, safetensors and accelerate; painting needs what
`lipdub sync` does, PyAV first of all, and where that is missing it is skipped and said so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lipdub.config import Config, load_config
from lipdub.faces.crop import TEMPLATE
from lipdub.models.generator import Audio, Generator, joined
from lipdub.models.layers import for_inference, mask_lower_half
from lipdub.models.vgg import VGG16_LAYERS, WIDTHS, Vgg16
from lipdub.models.warp import Cells, compose_part, sharpen_weights, suppress_references_outside_mouth
from lipdub.weights import load_audio_encoder, load_generator

HALVES = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE, MARGIN, FRAMES, CLIPS = 128, 1.25, 60, 4  # of the made data set
COUNT = 4  # references of a person
WARM_UP = 3  # steps of training before those that count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--precisions", nargs="+", choices=HALVES, default=list(HALVES))
    parser.add_argument("--detail", type=int, default=3, help="D / S of the faces that are put together")
    parser.add_argument("--compile", action="store_true", help="the generator by torch.compile")
    parser.add_argument("--presets", nargs="*", default=["release"], help="what is trained")
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--data", type=Path, help="a prepared data set to train on, in place of a made one")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--sound", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions already are
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{device}, {name}, PyTorch {torch.__version__}\n")
    with torch.inference_mode():
        generate(args, device)
        put_together(args, device)
        paint(args, device)
    for preset in args.presets:
        train(args, preset, device)
    whole_commands(args)


def table(*columns: str) -> None:
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")


def row(*cells: object) -> None:
    print(
        "| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def now(device: torch.device) -> float:
    """Seconds of the clock, or of a CPU's own time over its threads."""
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else time.perf_counter()


def rate(call: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Calls a second, after two that do not count."""
    for _ in range(2):
        call()
    wait_for(device)
    started, count = now(device), 0
    while now(device) - started < seconds:
        call()
        count += 1
    wait_for(device)
    return count / (now(device) - started)


def busy(call: Callable[[], object], device: torch.device, times: int = 5) -> float:
    """Share of the time in which the device computes, in percent."""
    wait_for(device)
    started, used = time.perf_counter(), now(device)
    if device.type != "cuda":
        for _ in range(times):
            call()
        return 100 * (now(device) - used) / (time.perf_counter() - started)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = time.perf_counter()
        for _ in range(times):
            call()
        wait_for(device)
        passed = time.perf_counter() - started
    return 100 * sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / passed


@contextmanager
def memory(device: torch.device) -> Iterator[Callable[[], str]]:
    """Most MiB of an accelerator that were held since the block began."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield lambda: f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}" if device.type == "cuda" else "-"


def flops(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@cache
def peak(precision: str, device: torch.device, seconds: float) -> float:
    """FLOP a second of a product of two square matrices, the best of five tries."""
    side = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=HALVES[precision]) for _ in range(2))
    return 2 * side**3 * max(rate(lambda: a @ b, seconds / 5, device) for _ in range(5))


@contextmanager
def precisely(precision: str, device: torch.device) -> Iterator[None]:
    half = HALVES[precision]
    with torch.autocast(device.type, half, enabled=half is not None):
        yield


def drawing(generator: Generator, count: int, device: torch.device) -> Callable[[], Any]:
    """A call that draws `count` faces of one person, as `lipdub sync` does."""
    size, own = generator.config.size, generator.config.own_frame
    faces, shapes = (
        torch.rand(COUNT + count, 3, size, size, device=device),
        torch.zeros(COUNT + count, 8, device=device),
    )
    kept = generator.encode_references(faces[:COUNT], shapes[:COUNT])
    owner = torch.cat([torch.ones(count, COUNT, dtype=torch.bool), torch.eye(count, dtype=torch.bool)], 1)
    sound = Audio(torch.zeros(count, generator.config.embedding, device=device), shapes[COUNT:])

    def call() -> Any:
        references = joined([kept, generator.encode_references(faces[COUNT:], shapes[COUNT:])]) if own else kept
        return generator.draw(mask_lower_half(faces[COUNT:]), sound, references, owner if own else owner[:, :COUNT])

    return call


def generate(args: argparse.Namespace, device: torch.device) -> None:
    generator = load_generator("generator", Config(), device)[0]
    for_inference(generator)
    print(f"The generator alone, {COUNT} references{', compiled' if args.compile else ''}:\n")
    table("precision", "peak TFLOP/s", "batch", "faces/s", "GFLOP a face", "TFLOP/s", "of peak, %", "busy, %", "MiB")
    for precision in args.precisions:
        best = peak(precision, device, args.seconds)
        for count in args.batches:
            call = drawing(generator, count, device)
            work = flops(call)
            call = torch.compile(call) if args.compile else call
            with memory(device) as held, precisely(precision, device):
                speed = rate(call, args.seconds, device)
                blend_weights = (100 * speed * work / best, busy(call, device))
                row(
                    precision,
                    best / 1e12,
                    count,
                    speed * count,
                    work / count / 1e9,
                    speed * work / 1e12,
                    *blend_weights,
                    held(),
                )


def put_together(args: argparse.Namespace, device: torch.device) -> None:
    generator, config = load_generator("generator", Config(), device)
    for_inference(generator)
    side = args.detail * config.generator.size
    print(f"\nPut together at {side} x {side}:\n")
    table("batch", "faces/s", "busy, %", "MiB")
    for count in args.batches:
        drawn = drawing(generator, count, device)()
        pictures = torch.rand(COUNT + count * config.generator.own_frame, 3, side, side, device=device)
        whole = Cells(*(slice(0, length) for length in drawn.warp.flow.shape[-2:]))

        def call(drawn: Any = drawn, pictures: torch.Tensor = pictures, whole: Cells = whole) -> object:
            warp = (
                suppress_references_outside_mouth(drawn.warp, COUNT, 0.0) if config.generator.own_frame else drawn.warp
            )
            return compose_part(sharpen_weights(warp, config.sync.blend_power), pictures, whole)

        with memory(device) as held:
            row(count, rate(call, args.seconds, device) * count, busy(call, device), held())


def paint(args: argparse.Namespace, device: torch.device) -> None:
    """Whole batches by the painter of `lipdub sync`, from pictures in memory to pictures in memory."""
    print("\nPainted, from crops in memory to faces in memory:\n")
    try:
        from lipdub.dub.inference import GeneratorRunner
        from lipdub.dub.networks import load_network
    except ModuleNotFoundError as error:
        print(f"skipped: {error.name} is not here")
        return
    count = max(args.batches)
    analysis, speech, faces = a_job(args.detail, count)
    shown = "levels from the CPU's float32, most / mean"
    table("precision", "put together", "batch", "faces/s", "busy, %", "waits of a batch", "MiB", shown)
    settings = Config().sync

    def runner(precision: str, device: torch.device, together: bool) -> GeneratorRunner:
        network, config = load_network("generator", Config(), device)
        config = replace(config, sync=replace(settings, precision=precision, batch_size=count))
        return GeneratorRunner(network, analysis, [speech], config, device, together=together)

    plain = runner("no", torch.device("cpu"), False).run(faces)
    for precision in args.precisions:
        for together in (False, True):
            mine = runner(precision, device, together)
            call = partial(mine.run, faces)
            apart = np.stack([np.abs(a.face - b.face) for a, b in zip(plain, call(), strict=True) if a and b])
            with memory(device) as held:
                speed = rate(call, args.seconds, device) * count
                blend_weights, away = busy(call, device), f"{apart.max():.2f} / {apart.mean():.3f}"
                how = "in one go" if together else "one by one"
                row(precision, how, count, speed, blend_weights, n_waits(call, device), held(), away)


def a_job(detail: int, count: int) -> tuple[Any, Any, list[Any]]:
    """An analysis with one face, a sound, and `count` targets; pictures are coarse noise."""
    from lipdub.dub.analyze import DubPlan, FaceJob
    from lipdub.dub.driving_audio import analyze_audio
    from lipdub.dub.inference import FaceCrop
    from lipdub.faces.references import Selection
    from lipdub.faces.tracker import Track

    config, rng = load_generator("generator", Config())[1], np.random.default_rng(0)
    side = detail * config.generator.size
    coarse = rng.integers(60, 200, (COUNT + count, 8, 8, 3), np.uint8)
    crops = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in coarse])
    landmarks = np.repeat((TEMPLATE * config.generator.size)[None], count, 0).astype(np.float32)
    shapes = rng.normal(0, 0.5, (max(count, COUNT), 8)).astype(np.float32)
    chosen = Selection(
        crops[:COUNT],
        np.zeros((COUNT, 68, 2), np.float32),
        shapes[:COUNT],
        np.arange(COUNT),
        np.arange(COUNT),
        shapes[0],
    )
    track = Track(0, 0, 0, landmarks, np.full(count, 0.9, np.float32))
    views = np.tile(np.arange(COUNT), (count, 1))
    job = FaceJob(
        track, np.zeros((count, 2, 3)), np.ones(count, np.float32), {0: chosen}, shapes[:count], views, detail
    )
    waveform = rng.normal(0, 0.1, 16000 + 640 * count).astype(np.float32)
    encoder = load_audio_encoder(config.sync.audio_encoder, config)[0]
    speech = analyze_audio(waveform, config.mel, config.sync, encoder=encoder)
    targets = [FaceCrop(n, 0, n, picture) for n, picture in enumerate(crops[COUNT:])]
    return DubPlan((np.arange(count) + 0.5) / 25, [job], {}), speech, targets


def n_waits(call: Callable[[], object], device: torch.device) -> str:
    """How often a call makes this program wait for the card, beside where it says that it does."""
    if device.type != "cuda":
        return "-"
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return str(sum("synchroniz" in str(each.message) for each in seen))


def made_data(folder: Path) -> Path:
    """A small data set: coarse noise, faces that do not move, a hum."""
    from lipdub.data.store import RATE, ClipEntry, write_arrays, write_manifest

    rng, entries = np.random.default_rng(0), []
    (folder / "clips").mkdir()
    landmarks = np.repeat((((TEMPLATE - 0.5) / MARGIN + 0.5) * SIDE)[None], FRAMES, 0).astype(np.float32)
    for number in range(CLIPS):
        path = folder / "clips" / f"{number}.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (SIDE, SIDE))
        for _ in range(FRAMES):
            coarse = rng.integers(60, 200, (8, 8, 3), np.uint8)
            writer.write(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
        writer.release()
        mel = rng.uniform(-1, 0, (80, round(80 * FRAMES / RATE) + 1)).astype(np.float32)
        jitter = rng.normal(0, 0.5, landmarks.shape).astype(np.float32)
        write_arrays(path.with_suffix(".npz"), landmarks + jitter, np.ones(FRAMES, np.float32), mel)
        shown = {"speaker": str(number), "group": "made", "frames": FRAMES, "source": "", "start_s": 0.0}
        entries.append(ClipEntry(id=str(number), split="train" if number else "val", **shown))
    write_manifest(folder, entries, {"margin": MARGIN, "side": SIDE})
    return folder


def random_vgg() -> Vgg16:
    state, inputs = {}, 3
    for name, index in VGG16_LAYERS.items():
        outputs = WIDTHS[int(name[4]) - 1]
        state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5)
        state[f"features.{index}.bias"] = torch.zeros(outputs)
        inputs = outputs
    return Vgg16(state)


def train(args: argparse.Namespace, preset: str, device: torch.device) -> None:
    """Stage 1 for some steps: samples a second against what the counted work would take at the device's peak."""
    from lipdub.training.data import ClipSet
    from lipdub.training.engine import Engine
    from lipdub.training.generator import GeneratorTraining

    settings = ["train.stage='1'", "train.audio_only_steps=0", "train.log_every=1", "train.validate_every=1000000"]
    config = load_config(preset, settings)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or made_data(Path(folder))
        clips = [ClipSet(data, split, config) for split in ("train", "val")]
        training = GeneratorTraining(config, Engine(config.train), *clips, features=random_vgg())
        sample = training.engine.send(training.sample(0, 0))

        def step() -> None:
            training.update(training.losses(sample, 0), 0.0)

        work = flops(step)
        with memory(device) as held:
            alone = rate(step, args.seconds, device) * config.train.batch_clips
            together, wait = steps_of(training, config, args.steps)
            most = held()
    count, precision = config.train.batch_clips, config.train.precision
    bound = peak(precision, device, args.seconds) / work * count
    size = f"{count} clips of {config.train.frames} frames a step"
    print(f"\nTraining, preset {preset}, {size}, {args.steps} steps in the loop:\n")
    table(
        "precision", "clips/s", "TFLOP a step", "bound, clips/s", "of the bound, %", "loop, clips/s", "wait, %", "MiB"
    )
    row(precision, alone, work / 1e12, bound, 100 * alone / bound, together, 100 * wait, most)


def steps_of(training: Any, config: Config, steps: int) -> tuple[float, float]:
    """Clips a second of some steps of a stage's training, and the share of them that waits for samples."""
    from lipdub.training.loop import train_steps
    from lipdub.training.run import Run, TrainProgress

    seen: list[TrainProgress] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), config, lambda line: None, on_progress=seen.append)
        asked = iter(range(steps + WARM_UP + 1))
        train_steps(training, run, config.train, stopped=lambda: next(asked) == steps + WARM_UP)
    seconds = [config.train.batch_clips / progress.clips_per_s for progress in seen[WARM_UP:]]
    waited = sum(each * progress.wait for each, progress in zip(seconds, seen[WARM_UP:], strict=True))
    return config.train.batch_clips * len(seconds) / sum(seconds), waited / sum(seconds)


def whole_commands(args: argparse.Namespace) -> None:
    """`lipdub sync` at 1080p against decoding and encoding alone, and how busy NVIDIA's tool says the card is."""
    print("\nWhole commands at 1920x1080, 20 s:\n")
    if args.clip is None or args.sound is None or args.output is None:
        print("skipped: give --clip, --sound and -o")
        return
    try:
        from benchmarks.speed.speed import HEAD, SIZES, dub, floor_s, line_of, looped
    except ModuleNotFoundError as error:
        print(f"skipped: {error.name} is not here")
        return
    args.output.mkdir(parents=True, exist_ok=True)
    video = looped(args.clip, args.output / "video.mp4", 20, SIZES["1080p"])
    audio = looped(args.sound, args.output / "audio.wav", 20)
    with utilisation() as used:
        report = dub(video, audio, args.output / "dub.mp4", "--device", args.device)
    print(f"{HEAD}\n{line_of('1080p_20s', 1, report, floor_s(video, args.output / 'floor.mp4'))}")
    print(f"\nutilisation of the card while the command ran: {used()}")


@contextmanager
def utilisation() -> Iterator[Callable[[], str]]:
    """What nvidia-smi says twice a second, as a mean, once the block has ended."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500"]
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        yield lambda: "unknown, there is no nvidia-smi"
        return
    told: list[str] = []
    try:
        yield lambda: f"{np.mean([float(line) for line in told]):.0f} %"
    finally:
        child.terminate()
        told += [line for line in child.communicate()[0].split() if line.isdigit()]
