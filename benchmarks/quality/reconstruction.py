"""Clips dubbed with their own audio, by kind of footage (good: sharpness 0.8 to 1.2 of the real, PSNR 26 dB).

    lipdub eval CLIPS -o JUDGED --pairing own
    python -m benchmarks reconstruction JUDGED/clips.jsonl... -o OUT
        [--clips CLIPS --silence NAME... --yunet YUNET.onnx --mesh face_landmarker.task]

The kind of a clip is the folder that it lies in. LMD is in pixels of a 96-pixel face, vL and skin (the change from
frame to frame of the skin round the lips) over the real clip's own. Values per clip go to OUT/reconstruction.csv.

`--silence` dubs these clips with ten seconds of silence and prints what is left of the mouth's movement: the standard
deviation of its opening over that of the same person's speech, by the landmark judge of `lipdub eval`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.arguments import add_judge, add_output, judge_of, parser_of
from lipdub import SyncOptions, sync
from lipdub.config import MediaConfig
from lipdub.evaluation.landmark_track import MeshLandmarkTracker, track_landmarks
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
    "skin": ("skin over real", 2),
    "articulation": ("articulation", 2),
    "expert_real": ("expert loss, real", 2),
    "expert": ("ours", 2),
    "expert_other": ("other sound", 2),
}


def rows_of(paths: list[Path], row: str) -> dict[str, dict[str, float]]:
    """Clip -> what was measured of its dub, beside the real clip and a wrong one."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for path in paths:
        for verdict in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if verdict["pairing"] == "own" and not verdict["error"]:
                values = {key: value for key, value in verdict["values"].items() if value is not None}
                found.setdefault(verdict["picture"], {})[verdict["row"]] = values
    made = {}
    for clip, of in found.items():
        if row not in of:
            continue
        dub, real, other = of[row], of["real"], of.get("real, other sound", {})
        made[clip] = {
            "r": dub["opening_r"],
            "z": dub["opening_z"],
            "lmd_px": EYES * dub["lmd"] / 100,
            "psnr": dub["psnr"],
            "sharpness": dub["sharpness"] / real["sharpness"],
            "skin": dub["jitter"] / real["jitter"],
            "articulation": dub["articulation"],
        }
        losses = {"expert_real": real, "expert": dub, "expert_other": other}
        made[clip] |= {key: values["expert"] for key, values in losses.items() if "expert" in values}
    return made


def kind_of(clip: str) -> str:
    return PurePosixPath(clip).parent.name or "."


def shown(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    found = interval(values)
    text = f"{found.mean:.{digits}f}"
    return text if len(values) < 3 else f"{text} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def silence(clips: Path, names: list[str], judge: MeshLandmarkTracker, output: Path) -> None:
    """Print the movement under silence of each clip."""
    quiet = output / "silence.wav"
    write_wav(quiet, np.zeros(round(16_000 * SILENCE_S), np.float32), 16_000)
    print("\n| clip | opening, silence / speech | standard deviation, silence / speech | share |\n|---|---|---|---|")
    blend_weights = []
    for name in names:
        dub = output / f"{PurePosixPath(name).stem}-silence.mp4"
        sync(clips / name, quiet, dub, SyncOptions(overwrite=True, end_s=SILENCE_S))
        still, speech = (
            track_landmarks(path, judge, SILENCE_S, MediaConfig()).openings for path in (dub, clips / name)
        )
        blend_weights.append(float(still.std() / speech.std()))
        levels = f"{still.mean():.3f} / {speech.mean():.3f} | {still.std():.4f} / {speech.std():.4f}"
        print(f"| {name} | {levels} | {blend_weights[-1]:.2f} |", flush=True)
    print(f"| **mean** | | | {shown(blend_weights, 2)} |")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("judged", type=Path, nargs="+")
    add_output(parser)
    parser.add_argument("--row", default="generator")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--silence", nargs="+", default=[])
    add_judge(parser, required=False)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = rows_of(args.judged, args.row)
    with (args.output / "reconstruction.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", *HEADS])
        writer.writerows(
            [clip, *(f"{row[key]:.4g}" if key in row else "" for key in HEADS)] for clip, row in rows.items()
        )
    print("| footage | clips | " + " | ".join(head for head, _ in HEADS.values()) + " |")
    print("|---" * (len(HEADS) + 2) + "|")
    for kind in [*dict.fromkeys(map(kind_of, rows)), None]:
        mine = [row for clip, row in rows.items() if kind in (None, kind_of(clip))]
        cells = [shown([row[key] for row in mine if key in row], digits) for key, (_, digits) in HEADS.items()]
        print(f"| {kind or 'all'} | {len(mine)} | {' | '.join(cells)} |")
    if args.silence:
        silence(args.clips, args.silence, judge_of(args), args.output)
