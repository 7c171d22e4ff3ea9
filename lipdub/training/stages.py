"""Training stages: from the request of `lipdub train` to a trained network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lipdub.config import Config, GeneratorConfig
from lipdub.data.store import read_manifest
from lipdub.errors import InputError, SetupError
from lipdub.faces.mouth_shape import SHAPE_NAMES
from lipdub.models.expert import Expert
from lipdub.models.generator import Generator
from lipdub.training.adversary import Adversary
from lipdub.training.audio import AudioTraining
from lipdub.training.data import ClipSet
from lipdub.training.engine import Engine
from lipdub.training.expert import ExpertTraining
from lipdub.training.faces import FaceTraining
from lipdub.training.generator import GeneratorTraining
from lipdub.training.loop import Stage, train_steps
from lipdub.training.occlusion import OcclusionTraining
from lipdub.training.run import Run, TrainProgress
from lipdub.training.widen import refreshed, widened
from lipdub.weights import (
    RUN_WEIGHTS,
    bind,
    load_audio_encoder,
    load_expert,
    load_features,
    load_generator,
    load_occlusion,
    load_state,
    locate,
)
from lipdub.weights_export import CHECKPOINT, STAGES, export, run_config

EXPERT_2, ADVERSARIAL_2 = 0.1, 0.01  # weights of stage 2 where none are set [3.7]
START = "start.safetensors"  # in a run's folder: what it began with, where that was another run


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One call of `lipdub train`."""

    stage: str  # a key of export.STAGES
    data: Path
    run: Path
    config: Config
    labels: Path | None = None
    features: str | None = None
    expert: str | None = None
    speech: Path | None = None  # synthetic speech, for stages phones and audio
    start: str | None = None  # weights, or the folder of another run of this kind, to begin with
    export: Path | None = None
    seed: int = 0
    trackers: tuple[str, ...] = ()  # of accelerate, beside metrics.jsonl: tensorboard, trackio, wandb, ...


def run_stage(
    request: RunRequest,
    on_line: Callable[[str], None] = print,
    stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> bool:
    """Train, or go on training, one stage; then export, if asked to. Nothing is created before all inputs are found.

    Before each step `stopped` is asked; once it says yes the run is saved and left, to be continued by the same call.
    `on_progress` receives how far the steps are, in place of lines about them.

    Returns:
        Whether the run is finished.

    Raises:
        LipdubError: bad data or settings, weights that are not there, losses that are not finite.
    """
    _check(request)
    by_parts = STAGES[request.stage] == "generator"  # sound first, heads without a loss
    engine = Engine(request.config.train, unused=by_parts, trackers=request.trackers, folder=request.run)
    accelerator = engine.accelerator
    on_line = on_line if engine.is_first else lambda line: None
    expert = None
    with accelerator.main_process_first():
        start, config = _start(request)
    if request.expert is not None and STAGES[request.stage] == "generator":
        expert, bound = load_expert(request.expert, config)
        config = replace(config, expert=bound.expert)
        _check_expert(config)
    config = second_stage(config, with_expert=expert is not None) if request.stage == "2" else config
    features = load_features(request.features) if request.features else None
    engine.seed(request.seed, own=False)  # every process begins with the same weights ...
    with accelerator.main_process_first():
        track = lambda values, step: accelerator.log(values, step=step)  # noqa: E731
        run = Run(request.run, config, on_line, track, on_progress, writes=engine.is_first)
    accelerator.init_trackers("lipdub")
    stage = _stage(replace(request, config=config), engine, expert, features, start, on_line)
    engine.seed(request.seed, own=True)  # ... and goes on with its own noise
    finished = train_steps(stage, run, config.train, stopped)
    accelerator.end_training()
    if not engine.is_first:
        return finished
    outputs = [request.run / RUN_WEIGHTS, *([request.export] if finished and request.export is not None else [])]
    for output in outputs:
        export(request.run / CHECKPOINT, output, STAGES[request.stage], config)
    return finished


def _stage(
    request: RunRequest,
    engine: Engine,
    expert: Expert | None,
    features: nn.Module | None,
    start: Any,
    on_line: Callable[[str], None],
) -> Stage[Any]:
    config, seed = request.config, request.seed
    if request.stage in ("detector", "landmarks"):
        assert request.labels is not None  # _check
        return FaceTraining(request.stage, request.data, request.labels, config.train, engine, seed=seed)
    if request.stage == "occlusion":
        return OcclusionTraining(request.data, config.train, engine, start=start, seed=seed)
    if STAGES[request.stage] == "audio":
        data = None if request.stage == "phones" else request.data
        return AudioTraining(config, engine, data, request.speech, start=start, seed=seed)
    clips, held_out = (ClipSet(request.data, split, config, seed) for split in ("train", "val"))
    on_line(f"{len(clips.clips)} clips to train on, {len(held_out.clips)} to validate")
    for reason, count in Counter((clips.left_out | held_out.left_out).values()).items():
        on_line(f"left out {count} {'clip' if count == 1 else 'clips'}: {reason}")
    if request.stage == "expert":
        return ExpertTraining(config, engine, clips, held_out, start=start)
    adversary = Adversary(config, engine) if request.stage == "2" else None
    return GeneratorTraining(
        config, engine, clips, held_out, features=features, expert=expert, adversary=adversary, start=start
    )


def second_stage(config: Config, *, with_expert: bool) -> Config:
    """The weights of stage 2 where the configuration sets none, and the discriminator's sizes from the generator's."""
    loss, generator = config.loss, config.generator
    return replace(
        config,
        loss=replace(
            loss,
            adversarial=loss.adversarial or ADVERSARIAL_2,
            expert=loss.expert or (EXPERT_2 if with_expert else 0.0),
        ),
        discriminator=replace(
            config.discriminator, size=generator.size, margin=generator.margin, frames=config.train.frames
        ),
    )


def _start(request: RunRequest) -> tuple[Any, Config]:
    """The network to begin with, if one was given, and the configuration with what its weights are bound to."""
    config = request.config
    if request.start is None:
        return None, config
    file = _start_file(request)
    if request.stage == "occlusion":
        return load_occlusion(file).requires_grad_(), config
    if request.stage == "expert":
        return load_expert(file, Config())[0], config
    if STAGES[request.stage] == "audio":
        return load_audio_encoder(file, config)
    generator, config = _start_generator(file, config)
    return refreshed(generator, config.train.fresh) if config.train.fresh else generator, config


def _start_generator(file: Path, config: Config) -> tuple[Generator, Config]:
    """The generator to begin with, and the configuration.

    That of the weights; or where the run's has a larger crop or another source of mouth shapes, the run's own.
    """
    metadata = load_state(file)[1]
    smaller = bind(replace(config, generator=GeneratorConfig()), metadata, str(file))
    target, trained = config.generator, smaller.generator
    if target.margin > trained.margin or (target.audio_context, trained.audio_context) == ("track", "window"):
        start, bound = load_generator(file, smaller)
        return widened(start, config.generator), replace(bound, generator=config.generator)
    return load_generator(file, config)


def _start_file(request: RunRequest) -> Path:
    """The weights to begin with; those of another run are exported into this run's folder first."""
    assert request.start is not None
    folder = Path(request.start)
    if not folder.is_dir():
        return locate(request.start)
    if not (checkpoint := folder / CHECKPOINT).is_file():
        raise InputError(f"{folder} holds no checkpoint", "give a folder that `lipdub train --stage 1` wrote")
    own = request.run / START
    if not own.is_file():
        own.parent.mkdir(parents=True, exist_ok=True)
        export(checkpoint, own, STAGES[request.stage], run_config(folder))
    return own


def _check(request: RunRequest) -> None:
    """What can be known to fail before anything is loaded or created.

    Raises:
        InputError: no labels, no data set, or settings that do not fit each other.
        SetupError: a precision that this machine does not have.
    """
    train, generator = request.config.train, request.config.generator
    if train.steps < 1:
        raise InputError(
            f"train.steps must be at least 1, got {train.steps}", "to see the settings only, use --dry-run"
        )
    if train.batch_clips < 1 or train.accumulate < 1:
        what = f"got {train.batch_clips} and {train.accumulate}"
        raise InputError(f"train.batch_clips and train.accumulate must be at least 1, {what}", "raise them")
    if train.precision not in ("no", "bf16", "fp16"):
        raise InputError(f"train.precision cannot be {train.precision!r}", "it is no, bf16 or fp16")
    if train.precision == "fp16" and not torch.cuda.is_available():
        raise SetupError("train.precision fp16 needs a GPU", "--set train.precision=bf16")
    if request.stage in ("detector", "landmarks"):
        if request.labels is None:
            raise InputError(f"stage {request.stage} needs --labels", "make them with scripts/label_faces.py")
        return
    if request.stage == "phones":
        if request.speech is None:
            raise InputError("stage phones needs --speech", "make it: lipdub prepare --layout synthetic-speech")
        return
    for split in ("train",) if request.stage == "occlusion" else ("train", "val"):
        read_manifest(request.data, split)
    if request.stage == "2" and request.start is None and not (request.run / CHECKPOINT).is_file():
        raise InputError("stage 2 goes on from stage 1", "give its run, or its weights, with --init")
    if STAGES[request.stage] == "generator" and generator.shape_code not in (0, len(SHAPE_NAMES)):
        raise InputError(f"generator.shape_code cannot be {generator.shape_code}", f"it is 0 or {len(SHAPE_NAMES)}")


def _check_expert(config: Config) -> None:
    """Check that the run's clips are such as the expert was trained on.

    Raises:
        InputError: another size of faces, or number of frames.
    """
    unit, frames = round(config.generator.size / config.generator.margin), config.train.frames
    expert = config.expert
    if (unit, frames) != (expert.size, expert.frames):
        raise InputError(
            f"the expert judges {expert.frames} faces of {expert.size} pixels, the run makes {frames} of {unit}",
            f"--set generator.size={expert.size} --set train.frames={expert.frames}, or another expert",
        )
