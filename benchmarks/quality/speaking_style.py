"""Movement of real mouths over the predicted one (good: the median is TYPICAL of lipdub/dub/speaking_style.py).

    python -m benchmarks speaking_style CLIPS [--weights NAME]... [--seconds 8]

The mouth of the longest track of each clip is read by the builtin landmark network, its sound by each generator; both
are smoothed and measured as `lipdub sync` does. The ratio of the two movements is printed for each kind of footage,
the folder of its clips: mean, and at the end the median of all. Clips in which nothing moves or is heard are left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import parser_of
from lipdub.config import Config
from lipdub.data.corpora import videos
from lipdub.dub.analyze import track_faces
from lipdub.dub.driving_audio import analyze_audio, predict_mouth_shapes
from lipdub.dub.speaking_style import MIN_HEARD, frame_rate_of, measure_style, smooth_shapes
from lipdub.errors import LipdubError
from lipdub.faces.choose import face_backend
from lipdub.faces.mouth_shape import OPENINGS, shape_code
from lipdub.media.audio import load_audio
from lipdub.media.source import open_source
from lipdub.weights import load_audio_encoder, load_generator


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--weights", action="append", help="default: the bundled generator")
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    config, cpu = Config(), torch.device("cpu")
    names = args.weights or ["generator"]
    generators = [load_generator(name, config)[0] for name in names]
    encoder = load_audio_encoder(config.sync.audio_encoder, config)[0]  # of the generators that have none
    backend = face_backend("builtin", config.face, cpu)
    found: dict[str, list[tuple[float, ...]]] = defaultdict(
        list
    )  # kind -> seen, posture seen; of each: predicted, posture
    for path in videos(args.clips):
        try:
            seen = track_faces(open_source(path, config.media), backend, config, end_s=args.seconds)
            waveform = load_audio(path)
            by_track = analyze_audio(waveform, config.mel, config.sync, encoder=encoder)
        except LipdubError as error:
            print(f"{path}: {error.what}", flush=True)
            continue
        if not seen.tracks:
            continue
        longest, rate = max(seen.tracks, key=lambda track: len(track.landmarks)), frame_rate_of(seen.times_s)
        mouth = measure_style([smooth_shapes(shape_code(longest.landmarks), rate, config.sync.smooth_s)], rate)
        values = [mouth.movement, float(mouth.posture[OPENINGS].mean())]
        for generator in generators:
            windows = generator.config.audio_context == "window"
            speech = replace(by_track, shapes=None) if windows else by_track
            heard = predict_mouth_shapes(generator, speech, seen.times_s, config.mel, config.sync, cpu)
            assert heard is not None  # a shape code
            values += [heard.style.movement, float(heard.style.posture[OPENINGS].mean())]
        if min(values[0], *values[2::2]) > MIN_HEARD:
            found[path.parent.name].append(tuple(values))
    for number, name in enumerate(names):
        print(f"\n{name}\n\n| footage | clips | movement seen | predicted | ratio | posture seen | predicted |")
        print("|---" * 7 + "|")
        column, ratios = 2 + 2 * number, []
        for kind, rows in found.items():
            table = np.array(rows)
            ratio = table[:, 0] / table[:, column]
            ratios += ratio.tolist()
            cells = [table[:, 0], table[:, column], ratio, table[:, 1], table[:, column + 1]]
            print(f"| {kind} | {len(rows)} | " + " | ".join(f"{cell.mean():.2f}" for cell in cells) + " |")
        print(f"| median of all | {len(ratios)} | | | {np.median(ratios):.2f} | | |")
