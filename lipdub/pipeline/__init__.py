"""The main job: `sync_video`, what it would do (`plan_sync`), and what both report."""

from lipdub.pipeline.plan import plan_sync
from lipdub.pipeline.report import FaceSummary, SyncPlan, SyncReport
from lipdub.pipeline.sync import SyncOptions, sync_video

__all__ = ["FaceSummary", "SyncOptions", "SyncPlan", "SyncReport", "plan_sync", "sync_video"]
