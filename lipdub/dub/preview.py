"""`--preview`: the job on a few seconds of the video, cut losslessly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lipdub.config import MediaConfig
from lipdub.dub.options import SyncOptions
from lipdub.errors import InputError
from lipdub.faces.selection import Face, Speaker, ids_of
from lipdub.media.excerpt import cut_sound, cut_video
from lipdub.media.probe import measured, probe, read_clocks, require_video


@contextmanager
def excerpt(
    video: Path, audio: Path, options: SyncOptions, seconds: float, config: MediaConfig | None = None
) -> Iterator[tuple[Path, Path, SyncOptions]]:
    """Excerpt of a job of so many seconds, from `options.start_s` on, else around the middle of what is dubbed.

    Yields:
        Video, speech track and options of the excerpt, on its own timeline.

    Raises:
        InputError: a file cannot be read or is over before, or a face is selected by its id in the whole video.
    """
    for face in (options.face, *(one.face for one in options.speakers)):
        if ids_of(face):
            raise InputError(f"--preview cannot use {face}: face ids are numbered over the whole video", "give x,y@t")
    if options.fit is not None:
        what = "--preview cannot be combined with --fit, whose times are those of the whole video"
        raise InputError(what, "dub a part of it: --start, --end")
    length_s = require_video(measured(probe(video), read_clocks(video))).duration_s
    sounds = measured(probe(audio), read_clocks(audio)).audio
    audio_s = sounds[0].end_s if sounds else length_s  # one without sound is refused later
    dubbed_s = min(length_s, audio_s)
    start_s = options.start_s if options.start_s is not None else max(0.0, (dubbed_s - seconds) / 2)
    for path, end_s in ((video, length_s), (audio, audio_s)):
        if start_s >= end_s:
            raise InputError(f"{path} is over at {end_s:.2f} s", "check --start")
    seconds = min(seconds, (options.end_s or length_s) - start_s)
    if seconds <= 0:
        raise InputError(
            f"nothing is left between {start_s:.2f} s and {options.end_s:.2f} s", "check --start and --end"
        )
    with TemporaryDirectory(prefix="lipdub-") as name:
        folder = Path(name)
        cut_video(video, folder / "video.mkv", start_s, seconds, config)
        cut_sound(audio, folder / "dub.wav", start_s, seconds, config)

        def cut_audio(sound: Path | None, name: str) -> Path | None:
            if sound is None:
                return None
            cut_sound(sound, folder / name, start_s, seconds, config)
            return folder / name

        speakers = tuple(
            _shift_speaker(replace(one, sound=cut_audio(one.sound, f"speaker{number}.wav")), start_s)
            for number, one in enumerate(options.speakers)
        )
        drive = cut_audio(options.drive_audio, "drive.wav")
        moved = replace(options, drive_audio=drive, face=_shift_face(options.face, start_s), speakers=speakers)
        moved = replace(moved, start_s=None, end_s=None)
        moved = replace(moved, length="video", c2pa_cert=None, c2pa_key=None)  # an excerpt is for viewing only
        yield folder / "video.mkv", folder / "dub.wav", moved


def _shift_speaker(one: Speaker, start_s: float) -> Speaker:
    """A speaker on the excerpt's timeline. Turns outside are kept, since no turns would mean always."""
    turns = tuple((a - start_s, b - start_s) for a, b in one.turns)
    return replace(one, face=_shift_face(one.face, start_s), turns=turns)


def _shift_face(face: Face, start_s: float) -> Face:
    return (*face[:2], face[2] - start_s) if isinstance(face, tuple) and len(face) == 3 else face
