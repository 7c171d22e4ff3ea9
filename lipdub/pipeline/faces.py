"""Everybody in a video, as `lipdub faces` lists them and `--face id:N` takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipdub.config import FaceConfig
from lipdub.faces.follow import Track
from lipdub.pipeline.analyze import FaceJob, Survey, usable_rows
from lipdub.pipeline.report import FaceSummary


def summarize(found: Survey, config: FaceConfig, rate: float, jobs: list[FaceJob] | None = None) -> list[FaceSummary]:
    """A summary of each track, in order of appearance.

    Args:
        found: who was seen.
        config: thresholds of what is usable.
        rate: frames a second; the last frame lasts as long as the average one.
        jobs: what was chosen to be dubbed.
    """
    dubbed = {job.track.id: int((job.weight > 0).sum()) for job in jobs or ()}
    edges_s = np.append(found.starts_s, found.starts_s[-1] + 1 / rate)
    return [_summary(track, config, edges_s, dubbed.get(track.id, 0)) for track in found.tracks]


def _summary(track: Track, config: FaceConfig, edges_s: NDArray[np.float64], dubbed: int) -> FaceSummary:
    boxes = track.boxes
    return FaceSummary(
        id=track.id,
        shot=track.shot,
        first_s=round(float(edges_s[track.frames.start]), 3),
        last_s=round(float(edges_s[track.frames.stop]), 3),
        frames=len(boxes),
        size_px=round(float((boxes[:, 2:] - boxes[:, :2]).max(1).mean()), 1),
        usable=round(float(usable_rows(track, config).mean()), 3),
        dubbed=dubbed,
    )
