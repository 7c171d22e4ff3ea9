"""The main job: `sync_video`, what it would do (`plan_sync`), whom it would find (`list_faces`), and their reports."""

from lipdub.dub.face_list import list_faces
from lipdub.dub.options import SyncOptions
from lipdub.dub.plan import plan_sync
from lipdub.dub.preview import excerpt
from lipdub.dub.report import FacesReport, FaceSummary, SyncPlan, SyncReport
from lipdub.dub.sync import sync_video

__all__ = [
    "FaceSummary",
    "FacesReport",
    "SyncOptions",
    "SyncPlan",
    "SyncReport",
    "excerpt",
    "list_faces",
    "plan_sync",
    "sync_video",
]
