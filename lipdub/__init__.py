"""Lip-sync and visual dubbing: from a video and a new speech track to the same video with matching lips.

    report = lipdub.sync("video.mp4", "dub.wav", "out.mp4", lipdub.SyncOptions(face="all"), on_event=print)

The public API is what `__all__` names: `sync`, `plan` (what it would do) and `list_faces` (who is there) with their
options and reports; `Speaker` and `read_speakers` for several voices; `Config` and `load_config` for the numbers; the
modules `events` and `errors`, whose base class is `LipdubError`. It is loaded on first use, so that `import lipdub`
does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lipdub import errors, events
from lipdub.errors import LipdubError

if TYPE_CHECKING:
    from lipdub.config import Config, load_config
    from lipdub.dub.face_list import list_faces
    from lipdub.dub.options import SyncOptions
    from lipdub.dub.report import FacesReport, FaceSummary, SyncPlan, SyncReport
    from lipdub.dub.sync import plan_sync as plan
    from lipdub.dub.sync import sync_video as sync
    from lipdub.faces.selection import Speaker, read_speakers

__version__ = "0.2.0"

__all__ = [
    "Config",
    "FaceSummary",
    "FacesReport",
    "LipdubError",
    "Speaker",
    "SyncOptions",
    "SyncPlan",
    "SyncReport",
    "__version__",
    "errors",
    "events",
    "list_faces",
    "load_config",
    "plan",
    "read_speakers",
    "sync",
]

_OTHERWISE = {"sync": "sync_video", "plan": "plan_sync"}  # here -> where it lives
_HOMES = {
    **dict.fromkeys(("Speaker", "read_speakers"), "faces.selection"),
    **dict.fromkeys(("Config", "load_config"), "config"),
    **dict.fromkeys(("sync", "plan"), "dub.sync"),
    "SyncOptions": "dub.options",
    "list_faces": "dub.face_list",
}  # else dub.report


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lipdub.{_HOMES.get(name, 'dub.report')}"), _OTHERWISE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
