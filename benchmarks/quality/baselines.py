"""Mouth opening predicted from audio alone, beside two baselines (good: r above both, 0.46 on natural speech).

    python -m benchmarks baselines DATASET CLIPS -o OUT --yunet YUNET.onnx --mesh face_landmarker.task [--weights NAME]

Both learn, from the clips of DATASET (`lipdub prepare`) and the landmarks stored with them, to read the inner opening
over its mean in the clip off 400 ms of mel: a ridge regression, its penalty chosen on the validation speakers, and a
small convolutional network (the generator's own audio encoder at half its width), its step chosen there, too. Then
each clip of CLIPS: what they say of its sound against the opening that MediaPipe's mesh sees in its picture. r and z
are `metrics.agreement`. Each `--weights` adds what that generator hears, before it makes a picture of it.

Per-clip values go to OUT/baselines.csv. A line of the printed table is a kind of footage, the folder of its clips.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch import nn

from benchmarks.arguments import add_judge, add_output, judge_of, parser_of
from lipdub.config import Config, MediaConfig, MelConfig
from lipdub.data.corpora import videos
from lipdub.data.store import RATE, read_arrays, read_manifest
from lipdub.errors import LipdubError
from lipdub.evaluation.landmark_track import track_landmarks
from lipdub.evaluation.table import interval
from lipdub.faces.mouth_shape import OPENINGS, shape_code
from lipdub.media.audio import load_audio
from lipdub.mel import log_mel, mel_windows
from lipdub.metrics import agreement, pearson
from lipdub.models.layers import AudioEncoder
from lipdub.weights import load_audio_encoder, load_generator

WIDTH = 32  # mel steps, 400 ms
PENALTIES = (1e2, 1e3, 1e4, 1e5)
STEPS, BATCH, RATE_OF_LEARNING, LOOK_EVERY = 1500, 256, 1e-3, 100

Reader = Callable[[NDArray[np.float32]], NDArray[np.float64]]  # windows (N, 80, WIDTH) -> openings (N,)
TrackReader = Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float64]]  # mel, times (N,) -> openings


def examples(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Windows (N, 80, WIDTH) and openings over their clip's mean (N,), of every frame of a split."""
    windows, openings = [], []
    for entry in read_manifest(folder, split)[0]:
        landmarks, _, mel = read_arrays(folder, entry.id)
        times = (np.arange(len(landmarks)) + 0.5) / RATE
        windows.append(mel_windows(mel, times, MelConfig(), WIDTH))
        opening = shape_code(landmarks)[:, 0]
        openings.append(opening - opening.mean())
    return np.concatenate(windows), np.concatenate(openings)


def ridge(train: tuple[NDArray, NDArray], held: tuple[NDArray, NDArray]) -> Reader:  # type: ignore[type-arg]
    """The best of PENALTIES, by correlation on the held-out speakers."""
    flat = train[0].reshape(len(train[0]), -1)
    fitted = [Ridge(alpha=penalty, solver="cholesky").fit(flat, train[1]) for penalty in PENALTIES]
    scores = [pearson(one.predict(held[0].reshape(len(held[0]), -1)), held[1]) for one in fitted]
    best = fitted[int(np.argmax(scores))]
    print(f"ridge: penalty {best.alpha:g}, r {max(scores):.3f} on the held-out speakers", flush=True)
    return lambda windows: np.asarray(best.predict(windows.reshape(len(windows), -1)), np.float64)


def small_network(train: tuple[NDArray, NDArray], held: tuple[NDArray, NDArray]) -> Reader:  # type: ignore[type-arg]
    """Adam on the smooth L1 loss; the weights of the step that was best on the held-out speakers."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = nn.Sequential(AudioEncoder(80, WIDTH, (8, 16, 32, 48), 4, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(network.parameters(), RATE_OF_LEARNING)

    def read(windows: NDArray[np.float32]) -> NDArray[np.float64]:
        network.eval()
        with torch.inference_mode():
            parts = [network(part)[:, 0] for part in torch.from_numpy(windows).split(1024)]
        return torch.cat(parts).double().numpy()

    best, kept, at = -1.0, {}, 0
    for step in range(1, STEPS + 1):
        network.train()
        chosen = np.sort(rng.choice(len(train[0]), BATCH, replace=False))
        said = network(torch.from_numpy(train[0][chosen]))[:, 0]
        loss = F.smooth_l1_loss(said, torch.from_numpy(train[1][chosen]), beta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % LOOK_EVERY == 0 and (r := pearson(read(held[0]), held[1])) > best:
            best, at = r, step
            kept = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    print(f"network: step {at} of {STEPS}, r {best:.3f} on the held-out speakers", flush=True)
    return read


def by_windows(read: Reader) -> TrackReader:
    """A reader of windows as one of a whole track."""
    return lambda mel, times: read(mel_windows(mel, times, MelConfig(), WIDTH))


def predicted(name: str) -> TrackReader:
    """What a generator's audio encoder, or the bundled one, predicts: the mean of the three inner openings."""
    network, config = load_generator(name, Config())
    encoder = (
        load_audio_encoder(config.sync.audio_encoder, config)[0] if network.config.audio_context == "track" else None
    )

    def read(mel: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float64]:
        if encoder is not None:
            openings = encoder.read_track(mel, torch.device("cpu"))[:, OPENINGS].mean(1)
            columns = times * config.mel.sample_rate / config.mel.hop
            return np.interp(columns, np.arange(len(openings)), openings)
        parts = []
        with torch.inference_mode():
            windows = mel_windows(mel, times, config.mel, network.config.window)
            for part in torch.from_numpy(windows).split(256):
                shape = network.encode_audio(part).shape
                assert shape is not None  # shape_code
                parts.append(shape[:, OPENINGS].mean(1))
        return torch.cat(parts).double().numpy()

    return read


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("clips", type=Path)
    add_output(parser)
    add_judge(parser)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--weights", action="append", default=[], help="a generator whose hearing is judged, too")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    train, held = examples(args.dataset, "train"), examples(args.dataset, "val")
    readers = {"ridge": by_windows(ridge(train, held)), "network": by_windows(small_network(train, held))}
    readers |= {Path(name).stem: predicted(name) for name in args.weights}
    judge, rows = judge_of(args), []
    for path in videos(args.clips):
        try:
            seen = track_landmarks(path, judge, args.seconds, MediaConfig())
            mel = log_mel(load_audio(path), MelConfig())
        except LipdubError as error:
            print(f"{path}: {error.what}", flush=True)
            continue
        middles = seen.times_s + 0.5 / float(seen.info.average_rate)
        row: dict[str, object] = {"clip": path.relative_to(args.clips).as_posix(), "kind": path.parent.name}
        for name, read in readers.items():
            row[f"{name}_r"], row[f"{name}_z"] = agreement(read(mel, middles), seen.openings)
        rows.append(row)
    with (args.output / "baselines.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    keys = [f"{name}_{what}" for name in readers for what in "rz"]
    print("| footage | clips | " + " | ".join(key.replace("_", " ") for key in keys) + " |")
    print("|---" * (2 + len(keys)) + "|")
    for kind in [*dict.fromkeys(str(row["kind"]) for row in rows), "all"]:
        mine = [row for row in rows if kind in ("all", row["kind"])]
        found = [interval([float(row[key]) for row in mine]) for key in keys]  # type: ignore[arg-type]
        cells = [f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in found]
        print(f"| {kind} | {len(mine)} | {' | '.join(cells)} |")
