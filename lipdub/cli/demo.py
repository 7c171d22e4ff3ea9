"""`lipdub demo`: a dubbed video without any input."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lipdub.cli import console
from lipdub.cli.arguments import Device, Overwrite, Weights
from lipdub.cli.command import imports


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The dubbed clip.")] = Path("demo.mp4"),
    seconds: Annotated[float, typer.Option(min=1.0, max=60.0, help="Length of the clip.")] = 6.0,
    device: Device = "auto",
    weights: Weights = "generator",
    overwrite: Overwrite = False,
) -> None:
    """Generate a short talking clip and dub it.

    The picture is scikit-image's portrait of an astronaut, gently moving; the voice is synthetic.
    """
    with imports():
        from lipdub.dub.demo import make_demo_inputs
        from lipdub.dub.options import SyncOptions
        from lipdub.dub.sync import sync_video

    options = SyncOptions(device=device, overwrite=overwrite, generator=weights)
    with tempfile.TemporaryDirectory(prefix="lipdub-demo-") as folder:
        video, audio = make_demo_inputs(Path(folder), seconds)
        with console.progress() as on_event:
            report = sync_video(video, audio, output, options, on_event=on_event)
    console.say(f"{report.output}: {report.dubbed} of {report.frames} frames dubbed in {report.seconds:.1f} s")
    console.say("Play it: the mouth moves with each syllable and rests in the pauses.")
