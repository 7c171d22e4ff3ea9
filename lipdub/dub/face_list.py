"""The faces of a video, as listed by `lipdub faces` and selected by `--face id:N`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipdub.config import Config, FaceConfig
from lipdub.dub.analyze import FaceJob, FaceTracks, track_faces, usable_rows
from lipdub.dub.networks import resolve_device
from lipdub.dub.precision import pack_all, packs
from lipdub.dub.report import FacesReport, FaceSummary
from lipdub.dub.still import film_of, is_picture
from lipdub.errors import NoFaceError
from lipdub.events import Done, Event, Reporter
from lipdub.faces.backend import Frame
from lipdub.faces.choose import face_backend
from lipdub.faces.contact_sheet import contact_sheet, encode_picture
from lipdub.faces.tracker import Track
from lipdub.media.atomic import AtomicOutput
from lipdub.media.source import open_source

PICTURE_S = 1.0  # for which a picture is shown to the tracker
SIDE = 192  # pixels of a picture on the contact sheet


def list_faces(
    video: str | Path,
    sheet: str | Path | None = None,
    *,
    detector: str = "builtin",
    device: str = "auto",
    start_s: float | None = None,
    end_s: float | None = None,
    overwrite: bool = False,
    config: Config | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_pictures: Callable[[Sequence[Frame]], None] = lambda pictures: None,
) -> FacesReport:
    """Find all faces in a video; their ids are those of `SyncOptions(face="id:N")`, whatever its range.

    Args:
        video: any file with a picture that FFmpeg reads, or a picture.
        sheet: where a contact sheet goes, a .png or .jpg; None: nowhere.
        detector: builtin, face-alignment, or face-alignment:DETECTOR.
        device: auto, cpu, cuda, cuda:N or mps.
        start_s: list those who are seen from here ...
        end_s: ... to here.
        overwrite: whether an existing sheet may be replaced.
        config: numbers behind it; ids may change with the section `face`.
        on_event: receives the stage and its progress.
        on_pictures: given a picture (S, S, 3) for each row of the report.

    Raises:
        NoFaceError: nobody is in the range.
        LipdubError: one of its other kinds, see errors.py.
    """
    video, config = Path(video), _with_large_pictures(config or Config())
    with ExitStack() as stack:
        target = None
        if sheet is not None:
            encode_picture(np.zeros((1, 1, 3), np.uint8), Path(sheet).suffix)  # refuses before the long work
            target = stack.enter_context(AtomicOutput(Path(sheet), overwrite=overwrite, inputs=(video,)))
        film = stack.enter_context(film_of(video, PICTURE_S, "none", config))[0] if is_picture(video) else video
        source = open_source(film, config.media)
        where = resolve_device(device)
        backend = face_backend(detector, config.face, where)
        if packs(config.sync.precision, where):  # as in a dub: ids must be the same
            pack_all(backend)
        reporter = Reporter(on_event, ("faces",))
        with reporter.stage("faces", source.n_frames):
            faces = track_faces(
                source, backend, config, start_s=start_s, end_s=end_s, numbered=True, on_frame=reporter.progress
            )
        if not faces.tracks:
            raise NoFaceError(f"{film}: no face that can be followed", "give another --start or --end")
        summaries = summarize(faces, config.face, source.rate)
        pictures = [faces.references[track.id].crops[0] for track in faces.tracks]
        on_pictures(pictures)
        if target is not None:
            page = contact_sheet(pictures, [_caption(face) for face in summaries])
            target.temporary.write_bytes(encode_picture(page, Path(sheet or "").suffix))
    report = FacesReport(
        video=str(video),
        frames=len(faces.times_s),
        seconds=round(float(_edges(faces, source.rate)[-1]), 3),
        shots=tuple(round(float(faces.starts_s[first]), 3) for first in faces.shots),
        faces=tuple(summaries),
        sheet=None if sheet is None else str(sheet),
    )
    on_event(Done(report))
    return report


def _with_large_pictures(config: Config) -> Config:
    """Settings with one reference per track, its sharpest picture, at a size for viewing.

    Sections that affect which faces are found, and in which order, are unchanged.
    """
    look = replace(config.reference, sampling="kmeans", count=1, pool=32, closed_mouth=False, augment=False)
    return replace(config, reference=look, generator=replace(config.generator, size=SIDE, warp=False))


def _caption(face: FaceSummary) -> tuple[str, str]:
    span = f"{face.first_s:.1f}-{face.last_s:.1f} s"
    return f"id {face.id}", f"shot {face.shot}, {span}, {face.size_px:.0f} px"


def summarize(
    faces: FaceTracks, config: FaceConfig, rate: float, jobs: list[FaceJob] | None = None
) -> list[FaceSummary]:
    """Summaries of all tracks, in order of appearance, with the frames that the jobs dub.

    `rate` is in frames a second: the last frame lasts as long as the average one.
    """
    dubbed = Counter[int]()
    for job in jobs or ():
        dubbed[job.track.id] += int((job.weight > 0).sum())
    edges_s = _edges(faces, rate)
    return [_summary(track, config, edges_s, dubbed[track.id]) for track in faces.tracks]


def _edges(faces: FaceTracks, rate: float) -> NDArray[np.float64]:
    """Start of each frame and end of the last, (F + 1,)."""
    return np.append(faces.starts_s, faces.starts_s[-1] + 1 / rate)


def _summary(track: Track, config: FaceConfig, edges_s: NDArray[np.float64], dubbed: int) -> FaceSummary:
    boxes = track.boxes
    return FaceSummary(
        id=track.person,
        shot=track.shot,
        first_s=round(float(edges_s[track.frames.start]), 3),
        last_s=round(float(edges_s[track.frames.stop]), 3),
        frames=len(boxes),
        size_px=round(float((boxes[:, 2:] - boxes[:, :2]).max(1).mean()), 1),
        usable=round(float(usable_rows(track, config).mean()), 3),
        dubbed=dubbed,
    )
