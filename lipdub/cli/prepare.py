"""`lipdub prepare`: from footage to a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lipdub.cli import console
from lipdub.cli.arguments import Set
from lipdub.data.corpora import LAYOUTS

SPEECH = "synthetic-speech"  # no corpus: speech that is made
LayoutName = StrEnum("LayoutName", {name: name for name in (*LAYOUTS, SPEECH)})  # type: ignore[misc]
FOLDER = LayoutName("folder")


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder of talking-face videos, or of a corpus; see --layout.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The data set's folder; a second call continues.")],
    layout: Annotated[
        LayoutName,
        typer.Option(
            help="Structure of SOURCE; official splits of a corpus are kept. Readers of corpora are untested on the "
            "real corpora: they follow the structure that each documents. synthetic-speech: SOURCE is the word "
            "random, or a text file with a language, a tab and a sentence on each line; espeak-ng speaks them."
        ),
    ] = FOLDER,
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes of synthetic speech.")] = 90.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the words and voices of synthetic speech.")] = 0,
    speakers: Annotated[
        Path | None,
        typer.Option(
            help="TSV with the columns path and speaker. Without it the layout decides: in a folder each sub-folder is "
            "one speaker, and so is a file outside of any."
        ),
    ] = None,
    side: Annotated[int, typer.Option(min=32, help="Side in pixels of a stored crop, margin included.")] = 176,
    val_share: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of speakers to validate on.")] = 0.06,
    test_share: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of speakers to test on.")] = 0.0,
    keep_offset: Annotated[
        bool, typer.Option("--keep-offset", help="Do not shift the audio to where it matches the lips best.")
    ] = False,
    audio_encoder: Annotated[
        str,
        typer.Option(
            help="Weights that predict mouth shapes from audio: a file's audio is shifted to where they match the "
            "lips; a file in which they match nowhere is dropped. none: use loudness only."
        ),
    ] = "audio",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Processes.")] = 1,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Also pack the data set into OUTPUT/shards, as WebDataset tar shards of at most N clips: a folder to "
            "copy to other machines and to train from there.",
        ),
    ] = None,
    set_: Set = None,
) -> None:
    """Make a training data set from talking-face videos.

    The faces of SOURCE are tracked and cropped to aligned clips of 25 fps with landmarks and audio, split by speaker.
    """
    from lipdub.config import load_config
    from lipdub.data.prepare import PrepareOptions
    from lipdub.data.prepare import prepare as run
    from lipdub.data.shards import SHARDS, require_writer, write_shards
    from lipdub.training.synthetic_speech import prepare_speech

    if layout == SPEECH:
        mel = load_config(None, set_ or ()).mel
        summary = prepare_speech(source, output, minutes, mel, seed, on_line=console.say)
        console.table(("what", "count"), [(str(key), str(value)) for key, value in summary.items()])
        return
    if shards is not None:
        require_writer()
    options = PrepareOptions(
        source=source,
        output=output,
        layout=layout.value,
        table=speakers,
        side=side,
        val_share=val_share,
        test_share=test_share,
        correct_offset=not keep_offset,
        audio_encoder=None if audio_encoder == "none" else audio_encoder,
        jobs=jobs,
    )
    summary = run(options, load_config(None, set_ or ()), on_line=console.say)
    if shards is not None:
        console.say(f"{len(write_shards(output, shards))} shards in {output / SHARDS}")
    console.table(("what", "count"), [(str(key), str(value)) for key, value in summary.items()])
