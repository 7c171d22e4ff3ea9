"""`lipdub prepare`: footage -> aligned 25 fps clips with landmarks and sound, split by speaker.

Each clip is followed by the same FaceFollower and cropped by the same function as in `lipdub sync`. The sound of a
folder is shifted as a whole by the lag at which mouth opening and loudness agree best (sources do not share one).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.config import Config
from lipdub.errors import InputError, LipdubError
from lipdub.faces.align import crop_matrices, mouth_shape, transform
from lipdub.faces.follow import FaceFollower, Track
from lipdub.media.audio import load_audio
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader
from lipdub.media.view import PictureView, write_clip
from lipdub.mel import log_mel
from lipdub.training.store import RATE, ClipEntry, read_arrays, stored_offset, write_arrays, write_manifest

VIDEO_SUFFIXES = {".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv"}
LAGS_S = np.arange(-0.24, 0.2401, 0.04)  # lags that the sound offset is searched over
LARGE_SPEAKER = 0.08  # a speaker with more of all frames than this is kept for training
NATURAL_LAG_S = 0.0  # opening and loudness peak together on GRID, whose tracks are known to be in sync


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What `lipdub prepare` was asked for."""

    source: Path
    output: Path
    table: Path | None = None  # TSV with columns path and speaker
    side: int = 128  # pixels of a stored crop
    margin: float = 1.25  # stored crop over face crop
    crf: int = 18
    min_s: float = 0.8  # shorter faces are dropped
    max_s: float = 10.0  # longer faces are cut
    val_share: float = 0.06  # of the speakers
    test_share: float = 0.0
    correct_offset: bool = True
    jobs: int = 1


@dataclass(frozen=True)
class Prepared:
    """What one source file gave: stored pieces, or the reason why it gave none."""

    source: str
    entries: list[ClipEntry]
    reason: str


def speaker_table(path: Path) -> dict[str, str]:
    """Path -> speaker of a TSV with these two columns.

    Raises:
        InputError: no such file or columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["path"]: row["speaker"] for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no table with the columns path and speaker") from error


def prepare(options: PrepareOptions, config: Config, on_line: Callable[[str], None] = print) -> dict[str, object]:
    """Prepare a folder of talking faces; returns the manifest's summary. Finished files are not done again.

    Raises:
        InputError: no video below the source, or none of use.
    """
    sources = sorted(p for p in options.source.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not sources:
        raise InputError(f"no video below {options.source}")
    speakers = speaker_table(options.table) if options.table else {}
    (options.output / "clips").mkdir(parents=True, exist_ok=True)
    (options.output / "done").mkdir(exist_ok=True)
    results: list[Prepared] = []
    with ProcessPoolExecutor(options.jobs, initializer=_quiet_worker) as pool:
        jobs = ((path, options, config, speakers) for path in sources)
        for done, result in enumerate(pool.map(_prepare_one, jobs, chunksize=4), 1):
            results.append(result)
            if done % 50 == 0 or done == len(sources):
                on_line(f"{done}/{len(sources)} files, {sum(len(r.entries) for r in results)} clips")
    entries = [entry for result in results for entry in result.entries]
    if not entries:
        reasons = Counter(r.reason for r in results)
        raise InputError(f"nothing of use in {options.source}: {dict(reasons)}")
    offsets = group_offsets(options.output, entries) if options.correct_offset else {}
    entries = _split(_shift(entries, offsets, options, config), options)
    summary = _summary(options, entries, results, offsets)
    write_manifest(options.output, entries, summary)
    return summary


def _quiet_worker() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _prepare_one(job: tuple[Path, PrepareOptions, Config, dict[str, str]]) -> Prepared:
    path, options, config, speakers = job
    name = path.relative_to(options.source).as_posix()
    marker = options.output / "done" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    if marker.exists():
        data = json.loads(marker.read_text(encoding="utf-8"))
        return Prepared(name, [ClipEntry(**e) for e in data["entries"]], data["reason"])
    group = path.parent.relative_to(options.source).as_posix()
    speaker = next((s for key, s in speakers.items() if key.endswith(name)), None) or group or path.stem
    try:
        result = Prepared(name, _store_faces(path, name, group, speaker, options, config), "")
        if not result.entries:
            result = Prepared(name, [], "no face long enough")
    except LipdubError as error:
        result = Prepared(name, [], type(error).__name__)
    marker.write_text(json.dumps({"reason": result.reason, "entries": [asdict(e) for e in result.entries]}))
    return result


def _store_faces(
    path: Path, name: str, group: str, speaker: str, options: PrepareOptions, config: Config
) -> list[ClipEntry]:
    from lipdub.faces.choose import builtin_backend

    info = require_video(probe(path))
    waveform = load_audio(path)
    backend = builtin_backend(config.face, torch.device("cpu"))
    follower = FaceFollower(backend, config.face, float(info.average_rate))
    times = []
    with VideoReader(path, info) as reader:
        for frame in reader:
            follower.push(frame.index, PictureView(frame.picture, info))
            times.append(frame.time_s)
    tracks = [t for t in follower.finish() if _is_useful(t, times, options)]
    if not tracks:
        return []
    track = max(tracks, key=lambda t: len(t.landmarks) * float(np.ptp(t.landmarks, axis=1).mean()))
    mel = log_mel(waveform, config.mel)
    return _store_track(path, name, group, speaker, track, np.array(times), mel, options, config)


def _is_useful(track: Track, times: Sequence[float], options: PrepareOptions) -> bool:
    span = times[track.frames[-1]] - times[track.frames[0]]
    return span >= options.min_s and float(track.confidence.mean()) > 0.6


def _store_track(
    path: Path,
    name: str,
    group: str,
    speaker: str,
    track: Track,
    times: NDArray[np.float64],
    mel: NDArray[np.float32],
    options: PrepareOptions,
    config: Config,
) -> list[ClipEntry]:
    own = times[track.first : track.first + len(track.landmarks)]
    matrices = crop_matrices(track.landmarks, own, config.face, options.side, margin=options.margin)
    wanted_times = np.arange(own[0], own[-1] + 1e-6, 1 / RATE)
    nearest = np.abs(own[:, None] - wanted_times).argmin(0)
    info = require_video(probe(path))
    crops: dict[int, NDArray[np.uint8]] = {}
    needed = set((nearest + track.first).tolist())
    with VideoReader(path, info) as reader:
        for frame in reader:
            if frame.index in needed:
                view = PictureView(frame.picture, info)
                crops[frame.index] = view.patch(matrices[frame.index - track.first], options.side)
    longest = round(options.max_s * RATE)
    entries = []
    for piece, start in enumerate(range(0, len(nearest), longest)):
        rows = nearest[start : start + longest]
        if len(rows) < options.min_s * RATE:
            continue
        stem = f"{hashlib.sha256(name.encode()).hexdigest()[:10]}-{piece}"
        write_clip(
            options.output / "clips" / f"{stem}.mp4", [crops[int(r) + track.first] for r in rows], RATE, options.crf
        )
        landmarks = np.stack([transform(track.landmarks[r], matrices[r]) for r in rows])
        start_s = float(wanted_times[start])
        steps = config.mel.sample_rate / config.mel.hop
        first, last = round(start_s * steps), round((start_s + len(rows) / RATE) * steps) + 1
        write_arrays(
            options.output / "clips" / f"{stem}.npz", landmarks, track.confidence[rows], _slice(mel, first, last)
        )
        entries.append(
            ClipEntry(
                id=stem, speaker=speaker, group=group, split="train", frames=len(rows), source=name, start_s=start_s
            )
        )
    return entries


def _slice(mel: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
    """Columns [first, last) of a mel, silence where it has none."""
    out = np.full((mel.shape[0], last - first), -1, np.float32)
    low, high = max(first, 0), min(last, mel.shape[1])
    if high > low:
        out[:, low - first : high - first] = mel[:, low:high]
    return out


def group_offsets(folder: Path, entries: list[ClipEntry]) -> dict[str, float]:
    """The lag of each group at which mouth opening and loudness agree best, in seconds; 0 where it is unclear.

    For every clip of a group the correlation of inner-lip opening with the mean log-mel is taken at each lag; the
    lag with the highest mean over the group's clips wins, and must beat lag 0 by .02 to be believed.
    """
    curves: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for entry in entries:
        landmarks, _, mel = read_arrays(folder, entry.id)
        opening = mouth_shape(landmarks)[:, 0]
        loudness = mel.mean(0)
        steps = mel.shape[1] / (len(opening) / RATE)
        curve = []
        for lag in LAGS_S:
            at = np.clip(((np.arange(len(opening)) + 0.5) / RATE - lag) * steps, 0, mel.shape[1] - 1)
            heard = np.interp(at, np.arange(mel.shape[1]), loudness)
            varied = opening.std() > 1e-6 and heard.std() > 1e-6
            curve.append(np.corrcoef(opening, heard)[0, 1] if varied else 0.0)
        curves[entry.group].append(np.array(curve))
    offsets = {}
    for group, values in curves.items():
        mean = np.mean(values, axis=0)
        best = int(mean.argmax())
        clear = mean[best] > mean[len(LAGS_S) // 2] + 0.02
        offsets[group] = round(float(LAGS_S[best]) - NATURAL_LAG_S, 3) if clear else 0.0
    return offsets


def _shift(
    entries: list[ClipEntry], offsets: dict[str, float], options: PrepareOptions, config: Config
) -> list[ClipEntry]:
    """Move the sound of clips whose group has an offset, by rewriting their mel; done once, as each file remembers it."""
    shifted = []
    for entry in entries:
        offset = offsets.get(entry.group, 0.0)
        change = round((offset - stored_offset(options.output, entry.id)) * config.mel.sample_rate / config.mel.hop)
        if change:
            landmarks, confidence, mel = read_arrays(options.output, entry.id)
            mel = _slice(mel, -change, mel.shape[1] - change)
            write_arrays(options.output / "clips" / f"{entry.id}.npz", landmarks, confidence, mel, offset)
        shifted.append(ClipEntry(**(asdict(entry) | {"offset_s": offset})))
    return shifted


def _split(entries: list[ClipEntry], options: PrepareOptions) -> list[ClipEntry]:
    """Splits by speaker: a speaker's hash decides, so that a grown corpus keeps its splits; large ones train."""
    frames: Counter[str] = Counter()
    for entry in entries:
        frames[entry.speaker] += entry.frames
    limit = LARGE_SPEAKER * sum(frames.values()) if len(frames) > 4 else float("inf")
    speakers = sorted(frames, key=lambda s: (frames[s] > limit, hashlib.sha256(s.encode()).hexdigest()))
    n_test = round(options.test_share * len(speakers))
    n_val = max(1, round(options.val_share * len(speakers))) if len(speakers) > 1 else 0
    part = {s: "test" if i < n_test else "val" if i < n_test + n_val else "train" for i, s in enumerate(speakers)}
    return [ClipEntry(**(asdict(e) | {"split": part[e.speaker]})) for e in entries]


def _summary(
    options: PrepareOptions, entries: list[ClipEntry], results: list[Prepared], offsets: dict[str, float]
) -> dict[str, object]:
    return {
        "side": options.side,
        "margin": options.margin,
        "fps": RATE,
        "files": len(results),
        "clips": dict(Counter(e.split for e in entries)),
        "speakers": dict(Counter(part for _, part in {(e.speaker, e.split) for e in entries})),
        "minutes": round(sum(e.frames for e in entries) / RATE / 60, 2),
        "dropped": dict(Counter(r.reason for r in results if r.reason)),
        "offset_s": offsets,
    }
