"""`lipdub prepare`: footage -> aligned 25 fps clips with landmarks and sound, split by speaker.

Faces are tracked and cropped by the same code as in `lipdub sync`. The sound of a file is shifted to where the mouth
shapes predicted from it by the audio encoder match the video's, and files with the voice of another person are dropped.
If that is uncertain, a whole folder is shifted by the lag at which mouth opening and loudness correlate best (the lag
differs between sources).

    OUTPUT/settings.json        settings of the folder; a second call with other values is refused
    OUTPUT/done/<hash>.json     a finished source file: its clips, or why it has none
    OUTPUT/...                  the data set, see store.py
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.affine import transform
from lipdub.config import Config, keep_settings, to_dict
from lipdub.data.corpora import LAYOUTS, Footage, speaker_of, speaker_table
from lipdub.data.offset import SourceOffset, group_offsets, shift_correlations, shift_sound, slice_mel, source_offset
from lipdub.data.store import RATE, ClipEntry, write_arrays, write_manifest
from lipdub.errors import InputError, LipdubError, NoFaceError
from lipdub.faces.backend import Frame
from lipdub.faces.crop import crop_matrices
from lipdub.faces.mouth_shape import shape_code
from lipdub.faces.tracker import Track
from lipdub.media.audio import load_audio
from lipdub.media.clip import write_clip
from lipdub.media.probe import VideoInfo, probe, require_video
from lipdub.media.video import VideoReader
from lipdub.mel import log_mel
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.weights import load_audio_encoder

MIN_CONFIDENCE = 0.6  # mean over a track, below which its landmarks are too poor for training
LARGE_SPEAKER = 0.08  # a speaker with more of all frames than this is kept for training
TELL_EVERY = 50  # files between two lines


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of `lipdub prepare`."""

    source: Path
    output: Path
    layout: str = "folder"  # a key of corpora.LAYOUTS
    table: Path | None = None  # TSV with columns path and speaker
    side: int = 176  # pixels of a stored crop
    margin: float = 1.6  # stored crop over face crop
    crf: int = 18
    min_s: float = 0.8  # shorter faces are dropped
    max_s: float = 10.0  # longer faces are cut
    val_share: float = 0.06  # of the speakers
    test_share: float = 0.0
    correct_offset: bool = True
    audio_encoder: str | None = None  # weights for the offset of each file; None: loudness only
    jobs: int = 1  # processes; 1 = this one


@dataclass(frozen=True)
class Segment:
    """Rows of a track that become one clip."""

    rows: NDArray[np.int64]  # (T,) frames of the track
    start_s: float


@dataclass(frozen=True)
class Prepared:
    """Result of one source file: stored clips, or the reason why it has none."""

    source: str
    entries: list[ClipEntry]
    reason: str


def prepare(options: PrepareOptions, config: Config, on_line: Callable[[str], None] = print) -> dict[str, object]:
    """Prepare a folder of talking faces; returns the manifest's summary. Finished files are skipped.

    Raises:
        InputError: no video of the layout below the source, none of use, or an output folder of other settings.
    """
    read = LAYOUTS[options.layout]
    sources = list(read(options.source))
    if not sources:
        form = " ".join((read.__doc__ or "").split())
        raise InputError(f"no video below {options.source} that layout {options.layout} knows", f"it is: {form}")
    preparer = Preparer(options, config, speaker_table(options.table) if options.table else {})
    (options.output / "clips").mkdir(parents=True, exist_ok=True)
    (options.output / "done").mkdir(exist_ok=True)
    keep_settings(options.output / "settings.json", preparer.settings(), option="--output")
    results: list[Prepared] = []
    with _file_mapper(options.jobs) as mapping:
        for result in mapping(preparer, sources):
            results.append(result)
            if result.reason:
                on_line(f"{result.source}: dropped, {result.reason}")
            if len(results) % TELL_EVERY == 0 or len(results) == len(sources):
                on_line(f"{len(results)}/{len(sources)} files, {sum(len(r.entries) for r in results)} clips")
    entries = [entry for result in results for entry in result.entries]
    if not entries:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in Counter(r.reason for r in results).items())
        raise InputError(f"nothing of use in {options.source}: {reasons}", "give other footage, with audio")
    unsure = [entry for entry in entries if not entry.sure]
    offsets = group_offsets(options.output, unsure, config.mel) if options.correct_offset else {}
    shifted = shift_sound(options.output, unsure, offsets, config.mel)
    entries = [entry for entry in entries if entry.sure] + shifted
    official = {preparer.name(footage): footage.split for footage in sources if footage.split}
    entries = split_speakers(entries, options, official)
    summary = _summary(options, entries, results, offsets)
    write_manifest(options.output, entries, summary)
    return summary


MapFiles = Callable[[Callable[[Footage], Prepared], Iterable[Footage]], Iterable[Prepared]]


@contextmanager
def _file_mapper(jobs: int) -> Iterator[MapFiles]:
    """`map`, in this process or in several."""
    if jobs == 1:
        yield map
        return
    # A fork of a process that has used torch or OpenCV can deadlock, waiting for threads that were not copied.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_quiet_worker) as pool:
        yield lambda function, sources: pool.map(function, sources, chunksize=4)


def _quiet_worker() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@cache
def _load_encoder(name: str) -> TrackEncoder:
    """The audio encoder, once in each process."""
    return load_audio_encoder(name, Config())[0]


@dataclass(frozen=True)
class Preparer:
    """Callable that makes the clips of a source file; can be sent to another process."""

    options: PrepareOptions
    config: Config
    speakers: dict[str, str]  # path -> speaker, by the end of the path

    def settings(self) -> dict[str, dict[str, object]]:
        """Everything that the stored clips depend on."""
        kept = {key: getattr(self.options, key) for key in ("side", "margin", "crf", "min_s", "max_s")}
        sound = {"audio_encoder": self.options.audio_encoder, "correct_offset": self.options.correct_offset}
        return {"clip": kept, "mel": to_dict(self.config.mel), "face": to_dict(self.config.face), "sound": sound}

    def name(self, footage: Footage) -> str:
        """Name of a source file in the data set: its path below the source."""
        return footage.path.relative_to(self.options.source).as_posix()

    def __call__(self, footage: Footage) -> Prepared:
        """Clips of a source file, or the reason why there are none; stored in its marker file."""
        name = self.name(footage)
        digest = hashlib.sha256(name.encode()).hexdigest()
        marker = self.options.output / "done" / f"{digest[:16]}.json"
        if marker.exists():
            data = json.loads(marker.read_text(encoding="utf-8"))
            return Prepared(name, [ClipEntry(**e) for e in data["entries"]], data["reason"])
        try:
            result = Prepared(name, self._store(footage, name, digest[:10]), "")
        except LipdubError as error:
            result = Prepared(name, [], error.what.replace(str(footage.path), "the file"))
        text = json.dumps({"reason": result.reason, "entries": [asdict(e) for e in result.entries]})
        temporary = marker.with_suffix(".part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(marker)
        return result

    def _store(self, footage: Footage, name: str, stem: str) -> list[ClipEntry]:
        """Track the largest face, and write its clips."""
        options, mel_config, path = self.options, self.config.mel, footage.path
        info = require_video(probe(path))
        mel = log_mel(load_audio(footage.audio or path), mel_config)
        track, times = self._track_largest_face(path, info)
        own = times[track.first : track.first + len(track.landmarks)]
        matrices = crop_matrices(track.landmarks, own, self.config.face, options.side, margin=options.margin)
        moments = np.arange(own[0], own[-1] + 1e-6, 1 / RATE)
        rows = np.abs(own[:, None] - moments).argmin(0)  # the frame nearest to each moment
        crops = _read_crops(path, info, track.first, matrices, rows, options.side)
        longest = round(options.max_s * RATE)
        starts = range(0, len(rows), longest)
        pieces = [Segment(rows[at : at + longest], float(moments[at])) for at in starts]
        pieces = [piece for piece in pieces if len(piece.rows) >= options.min_s * RATE]  # drops a short remainder
        offset = self._offset(pieces, track, mel)
        for number, piece in enumerate(pieces):
            path = options.output / "clips" / f"{stem}-{number}.mp4"
            write_clip(path, list(islice(crops, len(piece.rows))), RATE, options.crf)
        steps, entries = mel_config.sample_rate / mel_config.hop, []
        for number, piece in enumerate(pieces):
            landmarks = np.stack([transform(track.landmarks[row], matrices[row]) for row in piece.rows])
            first = round((piece.start_s - offset.offset_s) * steps)
            sound = slice_mel(mel, first, first + round(len(piece.rows) / RATE * steps) + 1)
            path = options.output / "clips" / f"{stem}-{number}.npz"
            write_arrays(path, landmarks, track.confidence[piece.rows], sound, offset.offset_s)
            entries.append(
                ClipEntry(
                    id=path.stem,
                    speaker=speaker_of(name, self.speakers, footage.speaker),
                    group=PurePosixPath(name).parent.as_posix(),
                    split="train",
                    frames=len(piece.rows),
                    source=name,
                    start_s=piece.start_s,
                    offset_s=offset.offset_s,
                    sure=offset.certain,
                )
            )
        return entries

    def _offset(self, pieces: Sequence[Segment], track: Track, mel: NDArray[np.float32]) -> SourceOffset:
        """Offset of the sound by the audio encoder, if there is one.

        Raises:
            InputError: the voice is another person's.
        """
        options = self.options
        if options.audio_encoder is None or not options.correct_offset:
            return source_offset(())
        predicted = _load_encoder(options.audio_encoder).read_track(mel, torch.device("cpu"))
        curves = []
        for piece in pieces:
            shapes = shape_code(track.landmarks[piece.rows])
            curves.append((len(shapes), shift_correlations(predicted, shapes, piece.start_s, self.config.mel)))
        offset = source_offset(curves)
        if offset.foreign:
            raise InputError(
                "the audio matches the mouth at no offset: another person is speaking",
                "give footage in which the person on screen speaks, or --audio-encoder none",
            )
        return offset

    def _track_largest_face(self, path: Path, info: VideoInfo) -> tuple[Track, NDArray[np.float64]]:
        """Largest face whose track is long and confident enough, and the times of all frames of the file.

        Raises:
            NoFaceError: there is none.
        """
        from lipdub.faces.choose import track_video

        tracks, times = track_video(path, info, self.config, torch.device("cpu"))
        if not tracks:
            raise NoFaceError("no face", "leave it out")
        tracks = [t for t in tracks if times[t.frames[-1]] - times[t.frames[0]] >= self.options.min_s]
        if not tracks:
            raise NoFaceError("no face long enough", "leave it out")
        tracks = [t for t in tracks if float(t.confidence.mean()) > MIN_CONFIDENCE]
        if not tracks:
            raise NoFaceError("no face clear enough", "leave it out")
        track = max(tracks, key=lambda t: len(t.landmarks) * float(np.ptp(t.landmarks, axis=1).mean()))
        return track, times


def _read_crops(
    path: Path, info: VideoInfo, first: int, matrices: NDArray[np.float64], rows: NDArray[np.int64], side: int
) -> Iterator[Frame]:
    """Crop of each row (ascending, rows may repeat) of a track that begins at frame `first`."""
    times = Counter((rows + first).tolist())
    with VideoReader(path, info) as reader:
        for frame in reader:
            if count := times[frame.index]:
                crop = frame.patch(matrices[frame.index - first], side)
                yield from [crop] * count


def split_speakers(
    entries: Sequence[ClipEntry], options: PrepareOptions, official: Mapping[str, str] | None = None
) -> list[ClipEntry]:
    """Clips with splits, by the hash of the speaker, so that a growing corpus keeps its splits; large speakers train.

    Footage of a single speaker is split by source file, that of a single file by clip, so that something is held out.
    `official` has the corpus' own split of a source. It applies to all footage of these speakers; the shares of the
    options apply to the rest, except for validation and test splits that the corpus has already.
    """
    official = official or {}
    known = [(e.speaker, official[e.source]) for e in entries if e.source in official]
    held = dict(sorted(known, key=lambda pair: pair[1] != "train"))  # other splits come later and override train
    fixed = [replace(e, split=official.get(e.source, held[e.speaker])) for e in entries if e.speaker in held]
    rest = [entry for entry in entries if entry.speaker not in held]
    return fixed + _split_by_share(rest, options, {entry.split for entry in fixed}) if rest else fixed


def _split_by_share(entries: Sequence[ClipEntry], options: PrepareOptions, there: Collection[str]) -> list[ClipEntry]:
    """Clips with splits by share; a held-out split that is in `there` already gets no more."""
    unit = next((u for u in ("speaker", "source") if len({getattr(e, u) for e in entries}) > 1), "id")
    frames: Counter[str] = Counter()
    for entry in entries:
        frames[getattr(entry, unit)] += entry.frames
    limit = LARGE_SPEAKER * sum(frames.values()) if len(frames) > 4 else float("inf")
    names = sorted(frames, key=lambda n: (frames[n] > limit, hashlib.sha256(n.encode()).hexdigest()))
    n_test = 0 if "test" in there else round(options.test_share * len(names))
    n_val = max(1, round(options.val_share * len(names))) if len(names) > 1 and "val" not in there else 0
    part = {n: "test" if i < n_test else "val" if i < n_test + n_val else "train" for i, n in enumerate(names)}
    return [replace(entry, split=part[getattr(entry, unit)]) for entry in entries]


def _summary(
    options: PrepareOptions, entries: list[ClipEntry], results: list[Prepared], offsets: dict[str, float]
) -> dict[str, object]:
    return {
        "footage": str(options.source.absolute()),
        "side": options.side,
        "margin": options.margin,
        "fps": RATE,
        "files": len(results),
        "clips": dict(Counter(e.split for e in entries)),
        "speakers": dict(Counter(part for _, part in sorted({(e.speaker, e.split) for e in entries}))),
        "minutes": round(sum(e.frames for e in entries) / RATE / 60, 2),
        "dropped": dict(Counter(r.reason for r in results if r.reason)),
        "offset_s": offsets,
        "offset_sure": len({entry.source for entry in entries if entry.sure}),
        "offset_shifted": len({entry.source for entry in entries if entry.sure and entry.offset_s}),
    }
