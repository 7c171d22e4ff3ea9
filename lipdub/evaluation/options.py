"""The options of an evaluation: the only list of them.

The signature and help of `lipdub eval` and the reference page are made from the fields with `option_field`; the command
itself writes the others, which are repeated, or depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lipdub.options import option_field, options_of

CLIPS, DUBS, MEASURES, OUTPUT, RUNTIME = "Clips", "Dubs", "Measures", "Output", "Runtime"


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of `lipdub eval`."""

    clips: Path  # folder of real clips; with `audio` the one video that was dubbed
    output: Path  # folder: clips.jsonl, and the dubs if they are kept
    audio: Path | None = None  # the speech track of that video's dubs
    weights: tuple[str, ...] = ("generator",)
    videos: Mapping[str, Path] = field(default_factory=dict)  # row -> folder of finished videos; with `audio` the file
    runs: Path | None = None  # folder of runs: those that are rows of Table 4.1 are judged, too
    pairings: tuple[str, ...] = ("own", "other", "speaker")
    speakers: Path | None = option_field(
        None,
        CLIPS,
        "TSV with the columns path and speaker. Without it a sub-folder counts as one speaker, and so does a file "
        "outside of any.",
        kind=Path,
    )
    dataset: Path | None = option_field(
        None, CLIPS, "A data set that `lipdub prepare` made from CLIPS: judge the files of its --split only.", kind=Path
    )
    split: str = option_field("test", CLIPS, "train, val, test or all; with --dataset.")
    seconds: float = option_field(
        20.0, CLIPS, "Seconds of each video that are dubbed and judged.", kind=float, minimum=1.0
    )
    limit: int | None = option_field(
        None, CLIPS, "Judge at most so many pictures, drawn by --seed.", kind=int, minimum=1
    )
    seed: int = option_field(0, CLIPS, "Seed of the pairs.", kind=int, minimum=0)
    yunet: str | None = option_field(
        None,
        MEASURES,
        "The judge's face detector: a name of `lipdub weights list` or a file (default: yunet, if it is here).",
    )
    mesh: str | None = option_field(
        None,
        MEASURES,
        "The judge's landmark network, likewise (default: face-landmarker, if it is here; else lipdub's own network, "
        "and every column that depends on it says so).",
    )
    expert: str | None = option_field(
        None,
        MEASURES,
        "Weights of the lip-sync expert, for its loss (8) and for offsets (default: the bundled one).",
    )
    features: str | None = option_field(
        None,
        MEASURES,
        "VGG weights of the perceptual metric (7): vgg16 (untested with the real file), or a file. Without them "
        "features of lipdub's landmark network are used.",
    )
    syncnet: str | None = option_field(
        None,
        MEASURES,
        "SyncNet weights, for LSE-C and LSE-D; untested with the real file. Without them both are left out.",
    )
    lpips: str | None = option_field(
        None,
        MEASURES,
        "VGG-16 weights, for LPIPS: vgg16, or a file; untested with the real file. Without them LPIPS is left out.",
    )
    identity: str | None = option_field(
        None,
        MEASURES,
        "SFace weights, for the identity: sface, or a file; untested with the real file. Without them it is left out.",
    )
    fid: str | None = option_field(
        None,
        MEASURES,
        "Inception for FID, made by `lipdub weights import`; untested with the real file. Without it FID is left out.",
    )
    html: Path | None = option_field(
        None, OUTPUT, "Write everything as one HTML page, with plots and pictures.", kind=Path
    )
    side_by_side: bool = option_field(
        False,
        OUTPUT,
        "Write OUTPUT/side-by-side/index.html: source and dubs in columns at full size, frame by frame. Some 0.3 MB "
        "for each frame and column of 720p; see --limit and --seconds.",
        kind=bool,
    )
    keep_dubs: bool = option_field(False, OUTPUT, "Keep the dubbed videos, in OUTPUT/dubs.", kind=bool)
    overwrite: bool = option_field(False, OUTPUT, "Replace existing results.", kind=bool, short="y")
    device: str = option_field("auto", RUNTIME, "auto (the fastest available), cpu, cuda, cuda:N or mps.")


OPTIONS = options_of(EvalOptions)  # by field
