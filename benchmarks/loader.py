"""How long training waits for its samples: the loader alone, against the steps of a run that takes them from it.

    python benchmarks/loader.py DATASET [--preset small-cpu] [--stage 1] [--steps 20] [--workers 0 1 2]

Wall clock, so that nothing else should run. VGG and expert are left out, whose cost would only make the share smaller.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from lipdub.config import Config, load_config
from lipdub.training.data import ClipSet
from lipdub.training.engine import Engine
from lipdub.training.expert import ExpertTraining
from lipdub.training.generator import GeneratorTraining
from lipdub.training.loader import Loader
from lipdub.training.loop import Stage, train_steps
from lipdub.training.run import Run, TrainProgress

WARM_UP = 3  # steps before those that count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="small-cpu")
    parser.add_argument("--stage", default="1", choices=("expert", "1"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    print("| preset | stage | threads | loader alone, clips/s | training, clips/s | wait |")
    print("|---|---|---|---|---|---|")
    clips = None
    for workers in args.workers:
        settings = [
            f"train.stage={args.stage!r}",
            f"train.workers={workers}",
            "train.audio_only_steps=0",
            "train.steps=1000",
        ]
        config = load_config(args.preset, [*settings, "train.log_every=1", "train.validate_every=1000000"])
        clips = clips or [ClipSet(args.data, split, config) for split in ("train", "val")]
        alone, together, wait = measure(config, args.stage, clips, args.steps)
        print(
            f"| {args.preset} | {args.stage} | {workers} | {alone:.1f} | {together:.2f} | {100 * wait:.2f} % |",
            flush=True,
        )


def measure(config: Config, stage: str, clips: list[ClipSet], steps: int) -> tuple[float, float, float]:
    """Clips a second of the loader alone and of training, and the share of a step that waits for samples."""
    kind = ExpertTraining if stage == "expert" else GeneratorTraining
    training = kind(config, Engine(config.train), *clips)
    loader = Loader(training.sample, 1, config.train.workers)
    loader.take(0, 0)
    started = time.monotonic()
    for step in range(1, steps + 1):
        loader.take(step, 0)
    alone = steps * config.train.batch_clips / (time.monotonic() - started)
    loader.close()
    return (alone, *steps_of(training, config, steps))


def steps_of(training: Stage, config: Config, steps: int) -> tuple[float, float]:
    """Clips a second of some steps of training, after the first few, and the share of them that waits for samples."""
    seen: list[TrainProgress] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), config, lambda line: None, on_progress=seen.append)
        asked = iter(range(steps + WARM_UP + 1))
        train_steps(training, run, config.train, stopped=lambda: next(asked) == steps + WARM_UP)
    seconds = [config.train.batch_clips / progress.clips_per_s for progress in seen[WARM_UP:]]
    waited = sum(each * progress.wait for each, progress in zip(seconds, seen[WARM_UP:], strict=True))
    return config.train.batch_clips * len(seconds) / sum(seconds), waited / sum(seconds)


if __name__ == "__main__":
    main()
