"""Mouth opening and width predicted from audio alone, by footage and language (good: natural r 0.55 and 0.42).

    python -m benchmarks hearing CLIPS -o OUT --yunet YUNET.onnx --mesh face_landmarker.task [--encoder NAME] [--record]

What the audio encoder reads off each clip's sound, before any picture is made, against what MediaPipe's mesh sees in
its picture: r of `metrics.agreement`, of the inner opening and of the mouth's width. Sound and picture of footage are
up to 0.14 s apart: each half of a clip is moved by what the other half says of that (`agreement.own_offset_s`), so that
no r is the best of several. `unmoved` is r of the opening with the clip as it is. Kinds of footage are the folders of
CLIPS; of a kind with more than --limit clips every n-th is taken. Languages are those of clips.tsv's notes. Per-clip
values go to OUT/hearing.csv; `--record` writes benchmarks/results/hearing.json.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import add_judge, add_output, judge_of, parser_of
from benchmarks.quality.agreement import heard_at, own_offset_s
from benchmarks.results import mean_of, names_with_sums, record, shown
from lipdub.config import Config
from lipdub.data.corpora import videos
from lipdub.errors import LipdubError
from lipdub.evaluation.landmark_track import track_landmarks
from lipdub.faces.mouth_shape import OPENINGS, SHAPE_NAMES, mouth_shape
from lipdub.media.audio import load_audio
from lipdub.mel import log_mel
from lipdub.metrics import agreement
from lipdub.weights import load_audio_encoder

WIDTH = SHAPE_NAMES.index("outer width")
SHOWN = {"r": "opening r", "width_r": "width r", "unmoved_r": "opening r, sound not moved"}
OPENING_ONLY = {"all", "grid", "in_the_wild", "studio", "selfie"}  # their widths are among those of a language
LEFT_OUT = {"dinet_test19"}  # very probably another tool's output
LANGUAGE_OF_KIND = {"grid": "english", "arabic-news": "arabic", "cued-french": "french", "selfie": "english"}
LANGUAGE_OF_CLIP = {  # of the kind "natural", whose other clips are English
    "4b4b952110": "hindi",
    "aebc25ba77": "polish",
    "b23fa44dcb": "unknown",
}


def clips_by_kind(folder: Path, limit: int) -> dict[str, list[Path]]:
    """The clips below a folder by the folder that each lies in; of more than `limit` every n-th."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in videos(folder):
        if path.stem not in LEFT_OUT:
            kinds[path.parent.name].append(path)
    return {kind: paths[:: -(-len(paths) // limit)] for kind, paths in kinds.items()}


def language_of(path: Path) -> str | None:
    """Language of a clip, where its source says so."""
    if path.parent.name == "natural":
        return LANGUAGE_OF_CLIP.get(path.stem, "english")
    return LANGUAGE_OF_KIND.get(path.parent.name)


def _halves(count: int) -> list[tuple[slice, slice]]:
    """Both halves of `count` rows, each with the other one."""
    first, second = slice(0, count // 2), slice(count // 2, count)
    return [(first, second), (second, first)]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path)
    add_output(parser)
    add_judge(parser)
    parser.add_argument("--encoder", default="audio")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--limit", type=int, default=24, help="most clips of a kind")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    encoder, config = load_audio_encoder(args.encoder, Config())
    judge = judge_of(args)
    kinds = clips_by_kind(args.clips, args.limit)
    rows: list[tuple[str, str, str, float, float, float]] = []
    for kind, paths in kinds.items():
        for path in paths:
            try:
                track = track_landmarks(path, judge, args.seconds, config.media)
                mel = log_mel(load_audio(path), config.mel)
            except LipdubError as error:
                print(f"{path}: {error.what}", flush=True)
                continue
            shapes = encoder.read_track(mel, torch.device("cpu"))
            width = mouth_shape(track.landmarks)[:, WIDTH]
            middles_s = track.times_s + 0.5 / float(track.info.average_rate)
            found = []
            for half, other in _halves(len(width)):
                offset_s = own_offset_s(track, shapes, config.mel, other)
                heard = heard_at(shapes, middles_s - offset_s, config.mel)[half]
                opening = agreement(heard[:, OPENINGS].mean(1), track.openings[half])[0]
                found.append((opening, agreement(heard[:, WIDTH], width[half])[0]))
            unmoved = agreement(heard_at(shapes, middles_s, config.mel)[:, OPENINGS].mean(1), track.openings)[0]
            opening_r, width_r = np.mean(found, 0).tolist()
            rows.append((path.name, kind, language_of(path) or "", opening_r, width_r, unmoved))
            print(*rows[-1], flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    with (args.output / "hearing.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [("clip", "kind", "language", "opening_r", "width_r", "unmoved_r"), *rows]
        )
    groups = {kind.replace("-", "_"): [row for row in rows if row[1] == kind] for kind in kinds}
    for language in sorted({row[2] for row in rows} - {"", "unknown"}):
        spoken = [row for row in rows if row[2] == language]
        if spoken not in groups.values():  # some kinds of footage have a language of their own
            groups[language] = spoken
    values = []
    for name, group in ({"all": rows} | groups).items():
        for place, what in ((3, "r"), (4, "width_r"), (5, "unmoved_r")):
            known = [float(row[place]) for row in group if np.isfinite(row[place])]
            if not known or (what == "unmoved_r" and name != "natural") or (what == "width_r" and name in OPENING_ONLY):
                continue
            value = mean_of(f"{name}_{what}", f"{name.replace('_', ' ')}, {SHOWN[what]}", known)
            print(f"{value['metric']}: {shown(value)} (n = {value['n']})")
            values.append(value)
    if args.record:
        weights = names_with_sums(args.encoder)
        print(record("hearing", values, title="Mouths predicted from audio alone", weights=weights))
