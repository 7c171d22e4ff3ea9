"""The main job: `sync_video`, what it would do (`plan_sync`), whom it would find (`list_faces`), and their reports."""

from lipdub.pipeline.faces import list_faces
from lipdub.pipeline.options import SyncOptions
from lipdub.pipeline.plan import plan_sync
from lipdub.pipeline.preview import excerpt
from lipdub.pipeline.report import FacesReport, FaceSummary, SyncPlan, SyncReport
from lipdub.pipeline.still import filmed
from lipdub.pipeline.sync import sync_video

__all__ = [
    "FaceSummary",
    "FacesReport",
    "SyncOptions",
    "SyncPlan",
    "SyncReport",
    "excerpt",
    "filmed",
    "list_faces",
    "plan_sync",
    "sync_video",
]
