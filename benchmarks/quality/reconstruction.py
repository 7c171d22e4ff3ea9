"""Clips dubbed with their own audio, by kind of footage (good: sharpness 0.8 to 1.2 of the real, PSNR 26 dB).

    python -m benchmarks reconstruction CLIPS -o OUT --yunet YUNET.onnx --mesh face_landmarker.task
        [--kinds natural grid ...] [--seconds 8] [--limit 12] [--pairing own] [--weights NAME]
        [--silence CLIP ...] [--record]

A clip's kind is the folder that it lies in; of a kind with more than --limit clips every n-th is taken. `lipdub eval`
dubs and judges them (OUT/clips.jsonl); if OUT holds its results from before, they are used. LMD is in pixels of a
96-pixel face; vL, vL within the lips, and skin (the change from frame to frame of the skin round the lips) are over the
real clip's own. Values per clip go to OUT/reconstruction.csv. With `--pairing other` each clip gets the audio of
another speaker: second contours and skin show there what one's own audio hides.

`--silence` dubs these clips with ten seconds of silence and prints what is left of the mouth's movement: the standard
deviation of its opening over that of the same person's speech (good: 0.1 at most).

`--record` writes benchmarks/results/own_sound.json and own_sound.csv.
"""

from __future__ import annotations

import csv
import json
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.arguments import add_judge, add_output, judge_of, parser_of
from benchmarks.quality.hearing import clips_by_kind
from benchmarks.results import RESULTS, mean_of, names_with_sums, record
from lipdub import SyncOptions, sync
from lipdub.config import MediaConfig
from lipdub.evaluation.evaluate import FOREIGN, REAL, UNTOUCHED, VERDICTS, evaluate
from lipdub.evaluation.landmark_track import MeshLandmarkTracker, track_landmarks
from lipdub.evaluation.options import EvalOptions
from lipdub.evaluation.table import interval
from lipdub.faces.crop import TEMPLATE
from lipdub.media.audio import write_wav
from lipdub.metrics import EYE_CORNERS

EYES = 96 * float(np.linalg.norm(TEMPLATE[EYE_CORNERS[0]] - TEMPLATE[EYE_CORNERS[1]]))  # pixels of a 96-pixel face
SILENCE_S = 10.0
HEADS = {  # key -> head, decimals
    "r": ("opening r", 2),
    "z": ("z", 1),
    "lmd_px": ("LMD, px of 96", 2),
    "psnr": ("masked PSNR, dB", 1),
    "sharpness": ("vL over real", 2),
    "lip_sharpness": ("within the lips", 2),
    "skin": ("skin over real", 2),
    "articulation": ("articulation", 2),
    "second_contour": ("second contour, % of frames", 1),
    "real_second_contour": ("of the real", 1),
    "silence": ("motion in silence, %", 0),
    "real_silence": ("real", 0),
}
RECORDED = {  # key of the result -> column, kind or None for all clips
    "r": ("r", None),
    "z": ("z", None),
    "lmd": ("lmd_px", None),
    "psnr": ("psnr", None),
    "sharpness": ("sharpness", None),
    "lip_sharpness": ("lip_sharpness", None),
    "skin": ("skin", None),
    "second_contour": ("second_contour", None),
    "silence": ("silence", None),
    "r_grid": ("r", "grid"),
    "z_grid": ("z", "grid"),
    "r_natural": ("r", "natural"),
    "lmd_natural": ("lmd_px", "natural"),
    "psnr_natural": ("psnr", "natural"),
    "skin_natural": ("skin", "natural"),
}


def judge_clips(args: Namespace) -> Path:
    """The verdicts of `lipdub eval` on the chosen clips."""
    verdicts: Path = args.output / VERDICTS
    if verdicts.is_file():
        return verdicts
    chosen = args.output / "clips"
    for kind, paths in clips_by_kind(args.clips, args.limit).items():
        if args.kinds and kind not in args.kinds:
            continue
        (chosen / kind).mkdir(parents=True, exist_ok=True)
        for path in paths:
            if not (chosen / kind / path.name).exists():
                os.symlink(path.resolve(), chosen / kind / path.name)
    evaluate(
        EvalOptions(
            clips=chosen,
            output=args.output,
            weights=(args.weights,),
            pairings=(args.pairing,),
            seconds=args.seconds,
            yunet=str(args.yunet),
            mesh=str(args.mesh),
            overwrite=True,
        )
    )
    return verdicts


def measured(verdicts: Path) -> dict[str, dict[str, float]]:
    """Clip -> what was measured of its dub, beside the real clip."""
    dubs: dict[str, dict[str, float]] = {}
    real: dict[str, dict[str, float]] = {}
    source: dict[str, dict[str, float]] = {}
    for verdict in map(json.loads, verdicts.read_text(encoding="utf-8").splitlines()):
        if verdict["error"]:
            print(f"{verdict['picture']}: {verdict['error']}")
            continue
        values = {key: value for key, value in verdict["values"].items() if value is not None}
        if verdict["row"] == REAL:
            real[verdict["picture"]] = values
        elif verdict["row"] == UNTOUCHED:
            source[verdict["picture"]] = values
        elif verdict["row"] != FOREIGN:
            dubs[verdict["picture"]] = values
    return {clip: beside_the_real(dub, real.get(clip, {}), source.get(clip, {})) for clip, dub in dubs.items()}


def beside_the_real(
    dub: Mapping[str, float], real: Mapping[str, float], source: Mapping[str, float]
) -> dict[str, float]:
    """The values of HEADS, as far as known, of a dub, of the audio's own video, and of the source."""
    values = {key: dub[key] for key in ("psnr", "lip_sharpness", "articulation", "second_contour") if key in dub}
    for key, column in {"r": "opening_r", "z": "opening_z", "silence": "silence"}.items():
        if column in dub:
            values[key] = dub[column]
    for key, of in {"silence": real, "second_contour": source}.items():
        if key in of:
            values[f"real_{key}"] = of[key]
    if "lmd" in dub:
        values["lmd_px"] = EYES * dub["lmd"] / 100
    for key, column in {"sharpness": "sharpness", "skin": "jitter"}.items():
        if source.get(column) and column in dub:
            values[key] = dub[column] / source[column]
    return values


def kind_of(clip: str) -> str:
    return PurePosixPath(clip).parent.name or "."


def shown(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    found = interval(values)
    text = f"{found.mean:.{digits}f}"
    return text if len(values) < 3 else f"{text} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def silence(clips: Path, names: list[str], judge: MeshLandmarkTracker, output: Path) -> list[float]:
    """Movement under silence of each clip, over that in the person's own speech."""
    quiet = output / "silence.wav"
    write_wav(quiet, np.zeros(round(16_000 * SILENCE_S), np.float32), 16_000)
    print("\n| clip | opening, silence / speech | standard deviation, silence / speech | share |\n|---|---|---|---|")
    shares = []
    for name in names:
        dub = output / f"{PurePosixPath(name).stem}-silence.mp4"
        sync(clips / name, quiet, dub, SyncOptions(overwrite=True, end_s=SILENCE_S))
        still, speech = (
            track_landmarks(path, judge, SILENCE_S, MediaConfig()).openings for path in (dub, clips / name)
        )
        shares.append(float(still.std() / speech.std()))
        levels = f"{still.mean():.3f} / {speech.mean():.3f} | {still.std():.4f} / {speech.std():.4f}"
        print(f"| {name} | {levels} | {shares[-1]:.2f} |", flush=True)
    print(f"| **mean** | | | {shown(shares, 2)} |")
    return shares


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path)
    add_output(parser)
    add_judge(parser)
    parser.add_argument("--kinds", nargs="+", default=[])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--limit", type=int, default=12, help="most clips of a kind")
    parser.add_argument("--pairing", choices=("own", "other"), default="own")
    parser.add_argument("--weights", default="generator")
    parser.add_argument("--silence", nargs="+", default=[])
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = measured(judge_clips(args))
    table = [["clip", *HEADS]]
    table += [[clip, *(f"{row[key]:.4g}" if key in row else "" for key in HEADS)] for clip, row in rows.items()]
    for path in [args.output / "reconstruction.csv"] + [RESULTS / "own_sound.csv"] * args.record:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
    print("| footage | clips | " + " | ".join(head for head, _ in HEADS.values()) + " |")
    print("|---" * (len(HEADS) + 2) + "|")
    for kind in [*dict.fromkeys(map(kind_of, rows)), None]:
        mine = [row for clip, row in rows.items() if kind in (None, kind_of(clip))]
        cells = [shown([row[key] for row in mine if key in row], digits) for key, (_, digits) in HEADS.items()]
        print(f"| {kind or 'all'} | {len(mine)} | {' | '.join(cells)} |")
    still = silence(args.clips, args.silence, judge_of(args), args.output)
    if args.record:
        values = []
        for key, (column, kind) in RECORDED.items():
            numbers = [row[column] for clip, row in rows.items() if column in row and kind in (None, kind_of(clip))]
            if numbers:
                title, digits = HEADS[column]
                values.append(mean_of(key, f"{kind + ', ' if kind else ''}{title}", numbers, digits=digits))
        if still:
            metric = "movement of the mouth under silence over that in speech"
            values.append(mean_of("rest", metric, still, digits=2))
        weights = names_with_sums(args.weights, "audio", "faces-landmarks")
        print(record("own_sound", values, title="Dubs with their own sound", weights=weights))
