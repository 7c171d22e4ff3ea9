"""What a finished job did, in numbers that a person or a program can check."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """The outcome of one `sync`."""

    output: str
    frames: int  # in the video, and in the output
    dubbed: int  # frames in which at least one mouth was painted
    passed: dict[str, int]  # frames left as they were, by reason
    faces: int  # tracks that were dubbed
    seconds: float  # wall clock
    fps: float  # frames over seconds
    stages: dict[str, float]  # seconds by stage
    device: str
    generator: str  # name or path of the weights
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}
