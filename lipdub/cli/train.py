"""`lipdub train`: the model package, trained."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lipdub.cli import console


class StageName(StrEnum):
    """What can be trained."""

    detector = "detector"
    landmarks = "landmarks"
    expert = "expert"
    one = "1"


def train(
    stage: Annotated[StageName, typer.Option(help="detector and landmarks (builtin faces), expert, or 1 (generator).")],
    data: Annotated[Path, typer.Option(help="A data set of `lipdub prepare`; for the faces, the folder of clips.")],
    run: Annotated[Path, typer.Option(help="The run's folder; the same command continues a stopped run.")],
    preset: Annotated[str, typer.Option(help="A name in lipdub/presets, or a .toml file.")] = "thesis",
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="End after this time, annealed, if steps are left.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, any number of config.py.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Faces only: what scripts/label_faces.py wrote.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help="VGG weights of the perceptual loss: vgg16, or a file. Without it the term is left out."),
    ] = None,
    expert: Annotated[
        str | None, typer.Option(help="Expert weights for stage 1. Without it the term is left out.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the finished weights here, as fp16 safetensors.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and sampling.")] = 0,
) -> None:
    """Train one network; every minute a checkpoint, every so often a validation and a picture.

    An expert whose loss stays at 0.69 has learnt nothing: check that the sound belongs to the faces (prepare shifts
    each folder once), give it larger batches (--set train.batch_clips=64) and more speakers.
    """
    from lipdub.config import load_config
    from lipdub.training.stages import RunRequest, run_stage

    overrides = [f"train.stage={stage.value!r}", *(set_ or ())]
    if minutes is not None:
        overrides.append(f"train.minutes={minutes}")
    request = RunRequest(
        stage=stage.value,
        data=data,
        run=run,
        config=load_config(preset, overrides),
        labels=labels,
        features=features,
        expert=expert,
        export=export,
        seed=seed,
    )
    run_stage(request, on_line=console.say)
    console.say(f"{run}: finished" + (f", weights in {export}" if export else ""))
