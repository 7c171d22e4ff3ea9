"""Share of frames that --only-speaking takes for rest, in pauses and in speech (good: most and none).

    python -m benchmarks resting CLIPS_DIR NAME...

For each clip with its speaker's own sound, frames are parted by the silence gate into speech and pauses. For shares of
the usual movement (STILL_SHARE) it prints the share of each that `resting` would leave alone if the dub were silent
throughout: of the pauses it should be high, of the speech near 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from lipdub.config import load_config
from lipdub.dub import active_speaker
from lipdub.dub.driving_audio import analyze_audio
from lipdub.dub.speaking_style import smooth_shapes
from lipdub.faces.choose import face_backend
from lipdub.faces.mouth_shape import SHAPE_SCALE, mouth_shape
from lipdub.media.audio import load_audio
from lipdub.media.source import open_source

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
SECONDS = 10.0  # of each clip
DETECT_EVERY = 5  # frames
EDGE_S = 0.3  # around a change of speech and pause, that is left out: mouths open before their sound


def own_mouth(video: Path, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float32], float]:
    """Times (T,) and mouth shapes (T, 8) of the largest face by lipdub's own landmarks, and the frame rate."""
    config = load_config()
    backend, source = face_backend("builtin", config.face, torch.device("cpu")), open_source(video, config.media)
    times, shapes, box = [], [], None
    with source.frames() as frames:
        for frame in frames:
            if frame.time_s >= seconds:
                break
            rgb = frame.upright()
            if box is None or frame.index % DETECT_EVERY == 0:
                boxes = backend.detect([rgb])[0].boxes
                box = boxes[np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))] if len(boxes) else None
            if box is None:
                continue
            landmarks, confidence = backend.landmarks([rgb], box[None])
            if confidence[0] > config.face.min_confidence:
                times.append(frame.time_s)
                shapes.append(mouth_shape(landmarks)[0])
    mouths = np.array(shapes, np.float32).reshape(-1, 8)
    return np.array(times), smooth_shapes(mouths, source.rate, config.sync.smooth_s), source.rate


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of the clips")
    parser.add_argument("names", nargs="+", help="clips below it")
    args = parser.parse_args()
    config = load_config()
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
    for name in args.names:
        times, shapes, rate = own_mouth(args.clips / name, SECONDS)
        wave = load_audio(args.clips / name, sample_rate=config.mel.sample_rate)
        audio = analyze_audio(wave[: round(SECONDS * config.mel.sample_rate)], config.mel, config.sync)
        edge = np.ones(2 * round(EDGE_S * rate) + 1)
        loud = audio.gate_at(times) > 0.5
        rows.append(
            (
                shapes / SHAPE_SCALE,
                binary_erosion(loud, edge, border_value=1),
                binary_erosion(~loud, edge, border_value=1),
                rate,
            )
        )
        print(f"{name}: {rows[-1][1].sum()} frames of speech, {rows[-1][2].sum()} of pauses", file=sys.stderr)
    print(f"{'share':>6} {'pauses':>7} {'speech':>7}")
    for share in SHARES:
        active_speaker.STILL_SHARE = share
        left = [active_speaker.resting(shapes, np.ones(len(shapes), bool), rate)[0] for shapes, _, _, rate in rows]
        shares = [
            np.concatenate([rest[part[kind]] for rest, part in zip(left, rows, strict=True)]).mean() for kind in (2, 1)
        ]
        print(f"{share:6.2f} {shares[0]:7.3f} {shares[1]:7.3f}")
    return 0
