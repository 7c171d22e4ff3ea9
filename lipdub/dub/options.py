"""The options of a dub: the only list of them.

The signature and help of `lipdub sync`, the columns of `lipdub batch`, the keys of settings files and the reference
page are made from the fields of `SyncOptions`. To add an option, add a field here and read it where it is used.

Nothing in here imports torch, OpenCV or PyAV: the command line reads this page before it knows which command runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lipdub.config import Config
from lipdub.faces.selection import Face, Speaker, ids_of, parse_face, parse_time, read_speakers
from lipdub.media.language import language_code
from lipdub.options import OptionError, option_field, options_of, values_of

SELECTION, GENERATION, OUTPUT, INSPECTION, RUNTIME = (
    "Face selection",
    "Generation",
    "Output",
    "Inspection",
    "Runtime",
)


def _language(tag: str) -> str:
    language_code(tag)
    return tag


@dataclass(frozen=True, kw_only=True)
class SyncOptions:
    """All options of `lipdub sync`, except its files.

    Strings are taken, too, and read as on the command line: face="640,300", start_s="1:02", fit="dub.srt".

    Raises:
        OptionError: none of an option's choices, or out of its bounds; a ValueError.
        InputError: no face, time, language or file of speakers.
    """

    drive_audio: Path | None = option_field(
        None,
        SELECTION,
        "A clean voice that drives the mouth; the output has AUDIO, for example a mix with music.",
        kind=Path,
    )
    isolate_voice: bool = option_field(
        False,
        SELECTION,
        "Suppress music and noise in the audio that drives the mouth; the output has AUDIO as it is. Needs the extra "
        "voice.",
        kind=bool,
    )
    face: Face = option_field(
        "largest",
        SELECTION,
        "Which faces to dub: largest (in each shot), all, speaking (the mouth that fits the video's own audio), x,y (a "
        "point on the face, in pixels), x,y@t (the face there at that time), id:N or id:N,M (ids from `lipdub faces`).",
        read=parse_face,
    )
    speakers: tuple[Speaker, ...] = option_field(
        (),
        SELECTION,
        "Several voices: a TOML file that assigns an audio file and turns to each face, or an RTTM diarization of "
        "AUDIO. The output has AUDIO.",
        kind=Path,
        read=read_speakers,
    )
    only_speaking: bool = option_field(
        False,
        SELECTION,
        "Leave a face unchanged while its mouth rests in the video, and the new audio is silent or another of the "
        "chosen faces speaks in the video.",
        kind=bool,
    )
    start_s: float | None = option_field(
        None, SELECTION, "Start of the dubbed range, in seconds or [h:]mm:ss.", name="start", read=parse_time
    )
    end_s: float | None = option_field(
        None, SELECTION, "End of the dubbed range; frames outside it stay unchanged.", name="end", read=parse_time
    )
    strength: float | None = option_field(
        None,
        GENERATION,
        "Gain on the mouth's movement; 1 (default) moves as far as the person does in the video.",
        kind=float,
        minimum=0.0,
        maximum=3.0,
    )
    feather: float | None = option_field(
        None,
        GENERATION,
        "Softness of the mask's edge, as a share of the face (default 0.06).",
        name="mask-feather",
        kind=float,
        minimum=0.0,
        maximum=0.3,
    )
    detector: str = option_field(
        "builtin",
        GENERATION,
        "Face detector: builtin, face-alignment (untested with its real landmark weights), or face-alignment:DETECTOR.",
    )
    generator: str = option_field(
        "generator",
        GENERATION,
        "The model's weights: a name from `lipdub weights list` or a file (default: generator).",
        name="weights",
        written="",
    )
    crf: int | None = option_field(
        None,
        OUTPUT,
        "Quality on the encoder's own scale; lower is better (default 18 for h264, 20 hevc, 24 vp9 and av1).",
        kind=int,
        minimum=0,
        maximum=51,
    )
    codec: str | None = option_field(
        None,
        OUTPUT,
        "h264, hevc, vp9, av1 or prores, or the name of a hardware encoder, such as h264_nvenc; the default is the "
        "source's codec family.",
    )
    lossless: bool = option_field(
        False, OUTPUT, "Encode without loss (h264, hevc, vp9): large files, for further editing.", kind=bool
    )
    preset: str | None = option_field(
        None,
        OUTPUT,
        "Speed of x264 and x265; slower makes smaller files (default medium).",
        choices=(*("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),),
    )
    language: str | None = option_field(
        None,
        OUTPUT,
        "Language tag of the new audio track: uk, uk-UA, ukr; the default is the tag of AUDIO.",
        read=_language,
    )
    keep_original_audio: bool = option_field(
        True,
        OUTPUT,
        "Keep the source's audio as further tracks, or drop it.",
        name="original-audio",
        written="keep",
        choices=("keep", "drop"),
        read=lambda word: word == "keep",
    )
    length: str = option_field(
        "video",
        OUTPUT,
        "Duration of the output: that of the video (longer audio is cut), that of the audio (the picture is extended "
        "or cut), the shorter of both, or that of the audio by slowing or speeding up the picture (stretch).",
        choices=("video", "audio", "shortest", "stretch"),
    )
    fit: Path | None = option_field(
        None,
        OUTPUT,
        "Slow or speed up the picture so that each sentence is shown when the dub speaks it: JSON with the times of "
        "each sentence in video and dub, or subtitles of the dub, with --fit-source.",
        kind=Path,
    )
    fit_source: Path | None = option_field(
        None,
        OUTPUT,
        "With --fit: subtitles of the video (SRT, WebVTT, ASS, TTML, Whisper's JSON), one cue for each of the dub's.",
        kind=Path,
    )
    stretch_max: float = option_field(
        1.5,
        OUTPUT,
        "With --fit and --length stretch: how many times slower or faster the picture may run.",
        kind=float,
        written=1.5,
        minimum=1.0,
        maximum=4.0,
    )
    extend: str = option_field(
        "freeze",
        OUTPUT,
        "With --length audio, the picture after the video's end: its last frame, the video backwards and forwards, or "
        "the video from the start; the mouth goes on speaking.",
        choices=("freeze", "bounce", "loop"),
    )
    motion: str = option_field(
        "none",
        OUTPUT,
        "If VIDEO is a picture (JPEG, PNG, WebP, ...), the output is as long as AUDIO; the head is still, or moves "
        "gently.",
        choices=("none", "gentle"),
    )
    on_damage: str = option_field(
        "stop",
        OUTPUT,
        "At damaged frames: stop, or skip them: show the frame before in their place, go on, and report them.",
        choices=("stop", "skip"),
    )
    label: str | None = option_field(
        None, OUTPUT, "Caption in a corner of every frame, in your own words; see --label.", name="label-text"
    )
    c2pa_cert: Path | None = option_field(
        None,
        OUTPUT,
        "Sign the output with Content Credentials (C2PA): certificate chain, PEM. Needs the extra c2pa.",
        kind=Path,
    )
    c2pa_key: Path | None = option_field(None, OUTPUT, "Private key of --c2pa-cert, PEM.", kind=Path)
    overwrite: bool = option_field(False, OUTPUT, "Replace an existing output.", kind=bool, short="y", column=False)
    compare: Path | None = option_field(
        None, INSPECTION, "Also write source and dub side by side, above the waveform, to this .mp4.", kind=Path
    )
    overlay: Path | None = option_field(
        None,
        INSPECTION,
        "Also write the dub with faces, landmarks, masks and reasons drawn in, to this .mp4.",
        name="debug-overlay",
        kind=Path,
    )
    device: str = option_field("auto", RUNTIME, "auto (the fastest available), cpu, cuda, cuda:N or mps.")
    batch_size: int | None = option_field(
        None,
        RUNTIME,
        "Faces per call of the network (default 16); halved when memory runs out.",
        kind=int,
        minimum=1,
    )
    cache: bool = option_field(
        True,
        RUNTIME,
        "Find the faces again and store nothing; see `lipdub cache`.",
        name="no-cache",
        kind=bool,
        written=False,
        read=lambda off: not off,
    )

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            object.__setattr__(self, name, option.of_python(getattr(self, name)))

    @property
    def audio_files(self) -> tuple[Path, ...]:
        """Files that are read beside the video and the speech track."""
        drive = () if self.drive_audio is None else (self.drive_audio,)
        return drive + tuple(one.sound for one in self.speakers if one.sound is not None)

    @property
    def numbered(self) -> bool:
        """Whether faces are chosen by id, which needs the faces before the range, too."""
        return any(ids_of(face) for face in (self.face, *(speaker.face for speaker in self.speakers)))


OPTIONS = options_of(SyncOptions)  # by field


def options_from(written: Mapping[str, Any]) -> SyncOptions:
    """Options from written values, by `Option.key`; None and the empty text leave the default.

    Raises:
        OptionError: a value that is not taken, or two that exclude each other.
        InputError: a file that an option names is invalid.
    """
    options = SyncOptions(**values_of(OPTIONS, written))
    if options.end_s is not None and options.end_s <= (options.start_s or 0.0):
        raise OptionError("end", f"{written['end']!r} is not after the start")
    if options.lossless and options.crf is not None:
        raise OptionError("crf", "has no effect with lossless encoding")
    return options


def adjusted(config: Config, options: SyncOptions) -> Config:
    """`config` with those options that are settings of it."""

    def chosen(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(options, name)) != OPTIONS[name].default}

    return replace(
        config,
        sync=replace(config.sync, **chosen("batch_size", "strength", "feather")),
        media=replace(config.media, **chosen("preset", "on_damage")),
    )
