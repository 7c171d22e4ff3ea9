"""`lipdub train`: training of every network, with a live display on stderr.

terminal            a table that is kept up to date; lines of what happens above it
pipe, log, dumb     a line for each interval of the log
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipdub.cli import console
from lipdub.cli.arguments import Set
from lipdub.events import duration

if TYPE_CHECKING:
    from rich.table import Table

    from lipdub.config import Config
    from lipdub.training.run import TrainProgress
    from lipdub.training.stages import RunRequest


class StageName(StrEnum):
    """What can be trained."""

    detector = "detector"
    landmarks = "landmarks"
    occlusion = "occlusion"
    expert = "expert"
    phones = "phones"
    audio = "audio"
    one = "1"
    two = "2"


USUAL_PRESETS = {
    StageName.detector: "faces",
    StageName.landmarks: "faces",
    StageName.occlusion: "occlusion",
    StageName.phones: "audio",
    StageName.audio: "audio",
}


def train(
    stage: Annotated[
        StageName,
        typer.Option(
            help="detector and landmarks (builtin faces), occlusion (objects in front of them), expert, phones and "
            "audio (audio encoder), 1 (generator), 2 (the same, adversarial)."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="A data set of `lipdub prepare`, or its shards; for the face networks, the folder of clips."),
    ] = Path("dataset"),
    run: Annotated[
        Path | None,
        typer.Option(help="The run's folder, runs/STAGE if not given; the same command continues a stopped run."),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="A name in lipdub/presets, or a .toml file; of several the later ones win. Default: faces for the "
            "face networks, occlusion and audio for the networks of that name, otherwise thesis. release is untested: "
            "nobody has trained it to the end."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="End after this time, with annealing, even if steps are left.")
    ] = None,
    set_: Set = None,
    labels: Annotated[
        Path | None, typer.Option(help="Face networks only: the output of scripts/label_faces.py.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="VGG weights of the perceptual loss: vgg16 (untested with the real file), or a file. Without it the "
            "term is left out."
        ),
    ] = None,
    expert: Annotated[
        str | None, typer.Option(help="Expert weights for stages 1 and 2. Without it the term is left out.")
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option(
            help="Synthetic speech of `lipdub prepare --layout synthetic-speech`, for stages phones and audio."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights, or the folder of a run, to begin with; stage 2 begins with runs/1."),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the finished weights here, as fp16 safetensors.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and sampling.")] = 0,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            help="Also log to tensorboard, trackio, wandb, mlflow, ...; none: only to metrics.jsonl (default: "
            "tensorboard, if it is installed)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, parameters, FLOPs and memory of the run, and stop.")
    ] = False,
) -> None:
    """Train one network on a data set of `lipdub prepare`.

    It writes a checkpoint every minute, and validates and draws a picture every train.validate_every and
    train.sample_every steps.

    On several GPUs: accelerate launch --num_processes N -m lipdub train ..., or torchrun --nproc-per-node N -m --
    lipdub train ...; the batch is then that of each process. A batch that does not fit into memory is halved and
    accumulated.

    Ctrl-C or SIGTERM ends it after the current step, with a checkpoint; the same command continues it.

    An expert whose loss stays at 0.69 has learnt nothing: check that the audio belongs to the faces, give it larger
    batches (--set train.batch_clips=64) and more speakers.
    """
    from lipdub.training.plan import plan
    from lipdub.training.stages import RunRequest

    config = _config(stage, preset, minutes, set_ or [])
    if dry_run:
        for line in plan(stage.value, config, data):
            console.data(line)
        return
    run = run or Path("runs") / stage.value
    if stage is StageName.two and init is None and (first := run.parent / StageName.one.value).is_dir():
        init = str(first)
    request = RunRequest(
        stage=stage.value,
        data=data,
        run=run,
        config=config,
        labels=labels,
        features=features,
        expert=expert,
        speech=speech,
        start=init,
        export=export,
        seed=seed,
        trackers=_trackers(tracker),
    )
    _train(request)


def _config(stage: StageName, presets: list[str] | None, minutes: float | None, overrides: list[str]) -> Config:
    """The configuration of a stage: its usual preset unless others are named, then what was set by hand."""
    from lipdub.config import load_config

    settings = [f"train.stage={stage.value!r}", *overrides]
    if minutes is not None:
        settings.append(f"train.minutes={minutes}")
    return load_config(presets or [USUAL_PRESETS.get(stage, "thesis")], settings)


def _train(request: RunRequest) -> None:
    """Run a stage until it is finished or stopped by a signal, which is the exit code then."""
    from lipdub.training.stages import run_stage

    with _signals() as received, watching() as (say, show):
        finished = run_stage(request, say, stopped=lambda: bool(received), on_progress=show)
    if not finished:
        console.say(f"{request.run}: saved; the same command continues it")
        raise typer.Exit(128 + received[0])
    console.say(f"{request.run}: finished" + (f", weights in {request.export}" if request.export else ""))


def _trackers(asked: list[str] | None) -> tuple[str, ...]:
    if asked is None:
        return ("tensorboard",) if find_spec("tensorboard") else ()
    return tuple(name for name in asked if name != "none")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects the numbers of signals that ask to end, so that a step is never cut in two.

    Only the first: a second one does what it did before, which is to end at once.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        restore()


@contextmanager
def watching() -> Iterator[tuple[Callable[[str], None], Callable[[TrainProgress], None]]]:
    """Where a run tells its lines and its progress: a table in a terminal, lines elsewhere."""
    if not console.is_fancy(sys.stderr):
        yield console.say, lambda progress: console.say(line(progress))
        return
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=True, highlight=False), redirect_stdout=False, auto_refresh=False)

    def show(progress: TrainProgress) -> None:
        live.start()  # with the first progress: of several processes only one has any
        live.update(table(progress), refresh=True)

    try:
        yield lambda text: live.console.print(text, markup=False), show
    finally:
        live.stop()


def line(progress: TrainProgress) -> str:
    """Progress as one line."""
    losses = "  ".join(f"{name} {value:.4g}" for name, value in progress.losses.items())
    return f"step {_count(progress)}: {losses}  {', '.join(_pace(progress).values())}"


def table(progress: TrainProgress) -> Table:
    """Progress as a table of names and values."""
    from rich.table import Table

    drawn = Table(show_header=False)
    drawn.add_column(justify="right", style="bold")
    drawn.add_column(min_width=24)
    drawn.add_row("step", _count(progress))
    for name, text in _pace(progress).items():
        drawn.add_row(name, text)
    drawn.add_section()
    for name, value in progress.losses.items():
        drawn.add_row(name, f"{value:.4g}")
    return drawn


def _count(progress: TrainProgress) -> str:
    done = max(progress.share, progress.step / progress.steps)  # the share is that of before the last step
    return f"{progress.step:,} of {progress.steps:,} ({100 * done:.1f} %)"


def _pace(progress: TrainProgress) -> dict[str, str]:
    pace = {"speed": f"{progress.clips_per_s:.1f} clips/s", "data": f"{100 * progress.wait:.1f} % waited"}
    if progress.left_s is not None:
        pace["time"] = f"{duration(progress.left_s)} left"
    if progress.skipped:
        pace["skipped"] = f"{progress.skipped:,} steps skipped"
    return pace
