"""The main job: `sync_video` and what it reports."""

from lipdub.pipeline.report import SyncReport
from lipdub.pipeline.sync import SyncOptions, sync_video

__all__ = ["SyncOptions", "SyncReport", "sync_video"]
