"""The main job: `sync_video`, its dry run (`plan_sync`), the faces of a video (`list_faces`), and their reports.

The names are imported when they are first asked for (PEP 562), since the command line reads `dub.options` at its start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipdub.dub.face_list import list_faces
    from lipdub.dub.options import SyncOptions
    from lipdub.dub.preview import excerpt
    from lipdub.dub.report import FacesReport, FaceSummary, SyncPlan, SyncReport
    from lipdub.dub.still import filmed
    from lipdub.dub.sync import plan_sync, sync_video

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

_HOMES = {
    "SyncOptions": "options",
    "excerpt": "preview",
    "filmed": "still",
    "list_faces": "face_list",
    "plan_sync": "sync",
    "sync_video": "sync",
}  # else report


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lipdub.dub.{_HOMES.get(name, 'report')}"), name)
