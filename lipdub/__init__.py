"""Lip-sync dubbing: a video and a new speech track in, the same video with lips that speak it out.

The public API is `sync`, `SyncOptions`, `SyncReport` and `__version__`. It is loaded on first use, so that
`import lipdub` and the command line's help do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipdub.pipeline import SyncOptions, SyncReport
    from lipdub.pipeline import sync_video as sync

__version__ = "0.1.0"

__all__ = ["SyncOptions", "SyncReport", "__version__", "sync"]

_PUBLIC = {"sync": "sync_video", "SyncOptions": "SyncOptions", "SyncReport": "SyncReport"}  # here -> lipdub.pipeline


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("lipdub.pipeline"), _PUBLIC[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
