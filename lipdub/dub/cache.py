"""Disk cache of face tracks: the next dub of the same video starts with pass 2.

An entry is one .npz without pickles under `platformdirs`' cache folder, named by a sum over all that pass 1 depends on:
the bytes of the video, the face networks, the settings, the range, and this version of lipdub. A dub with an entry is
the same file, byte for byte, as one without. The entries that were not used for longest go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path

from lipdub import __version__
from lipdub.config import Config
from lipdub.dub.analyze import FaceTracks
from lipdub.dub.precision import packs
from lipdub.faces.references import ReferenceStore, Selection
from lipdub.faces.tracker import Track
from lipdub.media.probe import Ending
from lipdub.weights import sha256_of

LAYOUT = 5  # of an entry; another one is another key
ABANDONED_S = 3600.0  # of an entry that is being written; that takes seconds
STALE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what a damaged entry raises


@dataclass(frozen=True, kw_only=True)
class FaceTracksRequest:
    """What face tracks depend on, beside the settings and this version."""

    video: Path
    detector: str  # face networks with their sums; see faces.choose.detector_identity
    device: str  # kind: cpu, cuda, mps
    ending: Ending | None = None
    start_s: float | None = None
    end_s: float | None = None
    numbered: bool = False

    def key(self, config: Config) -> str:
        """Hexadecimal cache key; equal for requests with the same result."""
        values = {
            "layout": LAYOUT,
            "lipdub": __version__,
            "video": sha256_of(self.video),
            "suffix": self.video.suffix.lower(),  # FFmpeg may choose its reader by it
            "detector": self.detector,
            "device": self.device,
            "packed": packs(config.sync.precision, torch.device(self.device)),
            "range": [self.start_s, self.end_s, self.numbered and self.start_s is not None],
            "ending": None if self.ending is None else asdict(self.ending),
            "face": asdict(config.face),
            "reference": asdict(config.reference),
            "crop": [
                config.generator.size,
                config.generator.margin,
                config.sync.detail if config.generator.warp else 1,
            ],
            "views": config.sync.references_per_cluster,
            "occlusion": config.sync.occlusion,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:40]


class AnalysisCache:
    """A folder of entries, by default lipdub's own; the oldest go where all together are larger than `max_mib`."""

    def __init__(self, folder: Path | None = None, max_mib: int = 1024) -> None:
        self.folder = folder or user_cache_path("lipdub") / "analysis"
        self._max_bytes = max_mib << 20

    def recall(self, key: str, on_damage: Callable[[Path], None] = lambda path: None) -> FaceTracks | None:
        """The entry of a key; None if there is none. A damaged entry is removed and reported."""
        path = self._path(key)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                tracks = _unpacked(arrays)
            os.utime(path)
        except FileNotFoundError:
            return None
        except STALE:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            on_damage(path)
            return None
        return tracks

    def keep(self, key: str, tracks: FaceTracks) -> bool:
        """Write an entry and remove old ones; False if it cannot be written, which is no error."""
        temporary = self.folder / f".{key}.{os.getpid()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                _write(file, tracks)
            temporary.replace(self._path(key))
            self._make_room()
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True

    def entries(self) -> dict[Path, int]:
        """Files and their sizes in bytes, last used first."""
        dated = []
        for path in self.folder.glob("*.npz"):
            with contextlib.suppress(FileNotFoundError):  # another run may have made room
                status = path.stat()
                dated.append((status.st_mtime_ns, path, status.st_size))
        return {path: size for _, path, size in sorted(dated, reverse=True)}

    def clear(self) -> int:
        """Remove all entries and leftovers of killed runs; returns the freed bytes."""
        freed = self._sweep(0.0)
        for path, size in self.entries().items():
            path.unlink(missing_ok=True)
            freed += size
        return freed

    def _sweep(self, older_s: float) -> int:
        """Remove unfinished entries that have not been written to for `older_s`; returns their bytes."""
        freed = 0
        for path in self.folder.glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):  # its run may have finished it
                status = path.stat()
                if time.time() - status.st_mtime >= older_s:
                    path.unlink()
                    freed += status.st_size
        return freed

    def _make_room(self) -> None:
        self._sweep(ABANDONED_S)
        total = 0
        for path, size in self.entries().items():
            total += size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _write(file: BinaryIO, tracks: FaceTracks) -> None:
    """Write as `np.savez` does, but one array at a time, so that not all are in memory."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as entry:
        for name, array in _packed(tracks):
            with entry.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _packed(faces: FaceTracks) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "starts_s", faces.starts_s
    yield "times_s", faces.times_s
    yield "in_range", faces.in_range
    yield "shots", np.array(faces.shots, np.int64)
    yield "turned_s", np.array([] if faces.turned_s is None else [faces.turned_s], np.float64)
    rows = [(t.id, t.person, t.shot, t.first, t.opens_shot, t.closes_shot, faces.detail[t.id]) for t in faces.tracks]
    yield "tracks", np.array(rows, np.int64).reshape(-1, 7)
    for n, track in enumerate(faces.tracks):
        yield f"{n}.track.landmarks", track.landmarks
        yield f"{n}.track.confidence", track.confidence
        chosen = faces.references[track.id]
        for field in fields(Selection):
            yield f"{n}.references.{field.name}", getattr(chosen, field.name)


def _unpacked(arrays: Mapping[str, NDArray[Any]]) -> FaceTracks:
    tracks, references, detail = [], ReferenceStore(), {}
    for n, row in enumerate(arrays["tracks"].tolist()):
        name, person, shot, first, opens, closes, finer = row
        landmarks, confidence = arrays[f"{n}.track.landmarks"], arrays[f"{n}.track.confidence"]
        returns = None if person == name else person
        tracks.append(Track(name, shot, first, landmarks, confidence, bool(opens), bool(closes), returns))
        chosen = Selection(**{f.name: arrays[f"{n}.references.{f.name}"] for f in fields(Selection)})
        references.keep(name, chosen)
        detail[name] = finer
    return FaceTracks(
        arrays["starts_s"],
        arrays["times_s"],
        arrays["in_range"],
        tracks,
        references,
        detail,
        arrays["shots"].tolist(),
        next(iter(arrays["turned_s"].tolist()), None),
    )
