"""How much of a training step is spent on its samples: drawing, cropping and augmenting, against the whole step.

    python benchmarks/loader.py DATASET [--preset small-cpu] [--steps 12]

Samples are drawn by the process that trains, so their share is the time that a step waits for data. Processor time of
one thread, which other programs on the machine do not change; VGG and expert are left out, whose cost would only make
the share smaller.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from lipdub.config import load_config
from lipdub.training.data import ClipSet
from lipdub.training.generator import GeneratorTraining


class TimedClips(ClipSet):
    """A ClipSet that counts the seconds its samples take."""

    spent_s = 0.0

    def batch(self, *args: Any, **more: Any) -> Any:
        started = time.process_time()
        made = super().batch(*args, **more)
        self.spent_s += time.process_time() - started
        return made

    def sounds(self, *args: Any, **more: Any) -> Any:
        started = time.process_time()
        made = super().sounds(*args, **more)
        self.spent_s += time.process_time() - started
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="small-cpu")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(args.preset, ["train.sound_first=0", "train.workers=1"])
    clips, held_out = (TimedClips(args.data, split, config) for split in ("train", "val"))
    training = GeneratorTraining(config, Accelerator(mixed_precision=config.train.precision), clips, held_out)
    for step in range(args.steps + 2):
        if step == 2:  # the first ones warm up
            started, clips.spent_s = time.process_time(), 0.0
        training.update(training.losses(step), step, 0.0)
    total = time.process_time() - started
    faces = config.train.batch_clips * config.train.frames * args.steps
    print(f"{args.preset}: step {total / args.steps:.3f} s, samples {clips.spent_s / args.steps:.3f} s of it")
    print(f"wait {100 * clips.spent_s / total:.1f} %; the loader alone makes {faces / clips.spent_s:.0f} faces/s")


if __name__ == "__main__":
    main()
