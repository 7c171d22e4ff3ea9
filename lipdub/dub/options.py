"""What one `sync` is told, beside its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lipdub.config import Config
from lipdub.faces.selection import Face, Speaker
from lipdub.faces.track import ids_of


@dataclass(frozen=True, kw_only=True)
class SyncOptions:
    """Everything that `lipdub sync` can be told."""

    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    batch_size: int | None = None  # faces per generator call
    drive_audio: Path | None = None  # a clean voice that moves the lips in place of the dub, which is heard
    face: Face = "largest"  # largest | all | speaking | id:N | id:N,M | (x, y) | (x, y, t_s), display pixels
    speakers: tuple[Speaker, ...] = ()  # whom to dub with which sound, and when; goes before `face`
    start_s: float | None = None  # dub only from here ...
    end_s: float | None = None  # ... to here; the rest passes through
    overwrite: bool = False
    detector: str = "builtin"  # builtin | face-alignment
    generator: str = "generator"  # a name in weights.toml or a path
    strength: float | None = None  # gain on the mouth's movement
    keep_original_audio: bool = True
    language: str | None = None  # of the dub: uk, uk-UA, ukr; None: what its own file says
    length: str = "video"  # how long the film is: video | audio | shortest
    extend: str = "freeze"  # what is seen where it is longer than the video: freeze | bounce | loop
    label: str | None = None  # a caption in every picture's corner
    c2pa_cert: Path | None = None  # signs the output with Content Credentials: the certificate chain ...
    c2pa_key: Path | None = None  # ... and its private key, both PEM
    crf: int | None = None  # quality of the one encode, lower is better
    codec: str | None = None  # h264, ..., or a hardware encoder's name; default follows the source
    lossless: bool = False  # the encode loses nothing of a picture
    preset: str | None = None  # of x264 and x265: slower is smaller
    cache: bool = True  # whether what pass 1 finds is kept for, and taken from, other runs
    feather: float | None = None  # softness of the new mouth's edge, as a share of the face
    compare: Path | None = None  # an .mp4 with source and dub side by side
    overlay: Path | None = None  # an .mp4 with boxes, landmarks and masks drawn in

    @property
    def audio_files(self) -> tuple[Path, ...]:
        """Files that are read beside the video and the dub."""
        drive = () if self.drive_audio is None else (self.drive_audio,)
        return drive + tuple(one.sound for one in self.speakers if one.sound is not None)

    @property
    def numbered(self) -> bool:
        """Whether faces are chosen by number, so that all that lies before the range counts, too."""
        return any(ids_of(face) for face in (self.face, *(speaker.face for speaker in self.speakers)))


def adjusted(config: Config, options: SyncOptions) -> Config:
    """`config` with those options that are numbers of it."""
    sync, media = config.sync, config.media
    if options.preset is not None:
        media = replace(media, preset=options.preset)
    if options.batch_size is not None:
        sync = replace(sync, batch_size=options.batch_size)
    if options.strength is not None:
        sync = replace(sync, strength=options.strength)
    if options.feather is not None:
        sync = replace(sync, feather=options.feather)
    return replace(config, sync=sync, media=media)
