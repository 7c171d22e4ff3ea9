"""Reports of a dub, of a dry run and of the faces of a video."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lipdub.media.damage import Damage


@dataclass(frozen=True, kw_only=True)
class ShotReport:
    """Frames of one shot: dubbed, and not dubbed by reason."""

    first_s: float  # when its first frame is shown
    frames: int
    dubbed: int
    passed: dict[str, int]  # frames left as they were, by reason


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive frames in which one face was dubbed, and its position, to find it in the output."""

    face: int  # number of the person
    first_s: float  # when its first frame is shown
    last_s: float  # when its last one is
    x: float  # middle of the face in one of its frames, display pixels
    y: float
    at_s: float  # when that frame is shown


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Consecutive frames in which a face is unchanged because nobody speaks, with --only-speaking."""

    face: int  # number of the person
    first_s: float  # when its first frame is shown
    last_s: float  # when its last one is
    confidence: float  # how still the mouth is there, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class FittedSentence:
    """Where --fit puts a sentence; all times are (start, end) in seconds."""

    source_s: tuple[float, float]  # in the video
    target_s: tuple[float, float]  # in the dub
    shown_s: tuple[float, float]  # in the output's picture, not beyond its end
    off_s: float  # by which the picture begins later than the dub
    end_off_s: float  # by which it ends later; negative: the dub goes on behind the sentence's picture


@dataclass(frozen=True, kw_only=True)
class Retiming:
    """How --fit or --length stretch changes the times of the picture."""

    source_s: float  # end of the video's picture
    output_s: float  # end of the output's
    slowest: float  # output over video time of the slowest piece
    fastest: float  # likewise of the fastest, which may be below 1
    sentences: tuple[FittedSentence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """Result of `sync`."""

    output: str
    frames: int  # in the output; in the video, too, unless the film was made longer or shorter
    dubbed: int  # frames in which at least one mouth was painted
    passed: dict[str, int]  # frames left as they were, by reason
    faces: int  # people that were dubbed
    seconds: float  # wall clock
    fps: float  # frames over seconds
    stages: dict[str, float]  # seconds by stage
    device: str
    generator: str  # name or path of the weights
    added: int = 0  # of `frames`, those behind the video's own end
    occluded: int = 0  # of `dubbed`: with something in front of a mouth, which stays as it is
    drawn_open: int = 0  # of `faces`: mouths that hardly open in the video, so that their insides are drawn
    cached: bool = False  # whether faces were taken from an earlier run of the same video
    shots: tuple[ShotReport, ...] = ()
    segments: tuple[Segment, ...] = ()
    rests: tuple[Rest, ...] = ()  # with --only-speaking
    damage: tuple[Damage, ...] = ()  # of the video, that --on-damage skip went over
    retiming: Retiming | None = None  # with --fit or --length stretch
    changes: tuple[str, ...] = ()  # what of the source, but for the mouths, is not as it was
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FaceSummary:
    """One person in one shot; `id` is for `--face id:N`, and the same wherever the person was recognised."""

    id: int
    shot: int  # from 0
    first_s: float  # when its first frame is shown
    last_s: float  # when its last one ends
    frames: int
    size_px: float  # mean of the landmarks' box: its larger side, in display pixels
    usable: float  # share of the frames in which it is clear and large enough to be dubbed
    dubbed: int = 0  # frames in which it would get a new mouth


@dataclass(frozen=True, kw_only=True)
class FacesReport:
    """All faces of a video."""

    video: str
    frames: int
    seconds: float  # how long it is
    shots: tuple[float, ...]  # when each begins
    faces: tuple[FaceSummary, ...]  # in order of appearance
    sheet: str | None  # path of the contact sheet


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated time and size of a job, from a trial on this machine."""

    seconds: dict[str, float]  # by stage; the last one, which copies streams, is not counted
    output_bytes: int  # of the finished file
    needed_bytes: int  # room that is taken beside the output while the job runs
    free_bytes: int  # there


@dataclass(frozen=True, kw_only=True)
class SyncPlan:
    """Plan of a `sync`: result of a dry run."""

    output: str
    frames: int  # of the output
    video_s: float
    output_s: float
    audio_s: float
    source: str  # the picture as it is: "h264 1280x720 yuv420p, 25 fps"
    encoder: str  # of the new picture
    pix_fmt: str
    container: str
    dub: str  # the new sound as it is: "pcm_s16le 44100 Hz mono"
    dub_encoder: str  # "copy", or how it is encoded
    language: str | None  # three letters; None: what the dub's own file says
    kept: tuple[str, ...]  # further streams of the source
    shots: tuple[float, ...]  # when each begins
    faces: tuple[FaceSummary, ...]  # everybody, chosen or not
    dubbed: int  # frames in which at least one mouth would be painted
    passed: dict[str, int]  # frames that would be left as they are, by reason
    device: str
    generator: str
    estimate: Estimate
    warnings: tuple[str, ...]
    retiming: Retiming | None = None  # with --fit or --length stretch
