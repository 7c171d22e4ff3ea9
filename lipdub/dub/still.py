"""A picture as source: a video of it, as long as the speech track, with the head at rest or gently moving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.config import Config
from lipdub.dub.options import SyncOptions
from lipdub.dub.voice_isolation import check_installed
from lipdub.errors import InputError, LipdubError, NoFaceError
from lipdub.faces.backend import Frame
from lipdub.faces.selection import Face
from lipdub.media.audio import audio_duration
from lipdub.media.clip import write_clip
from lipdub.media.heif import read_heif
from lipdub.media.probe import are_jpegs, picture_kind

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
READ = frozenset({"JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "HEIF", "JPEG 2000", "PGM", "PPM"})
RATE = 25  # frames a second of the film
CRF = 10  # of the film that is dubbed: hardly distinguishable from the picture
ASPECT = 16 / 9  # of the longest film, either way up, that media.still_lines allows
UNIT = 480  # pixels of the shorter side for which the shifts of `sway` are meant
ZOOM = 1.08  # of a picture that moves: room for its borders outside of the film


@dataclass(frozen=True, kw_only=True)
class Still:
    """A picture as the video shows it."""

    frame: Frame  # (H, W, 3) RGB, even sides
    scale: float  # its pixels over those of the file
    losses: tuple[str, ...] = ()  # what of the file it does not show


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture: by its first bytes, or by its ending if it cannot be opened."""
    named = path.suffix.lower() in ENDINGS
    try:
        kind, animated = picture_kind(path)
        return bool(kind) and not animated and (named or not are_jpegs(path))
    except OSError:  # whoever reads it says why
        return named


def sway(t: float, centre: tuple[float, float], zoom: float, unit: float = 1.0) -> NDArray[np.float64]:
    """Affine of a slow sway, nod and zoom about a point.

    Args:
        t: seconds.
        centre: x, y in pixels.
        zoom: its mean.
        unit: pixels a pixel of a film of UNIT pixels stands for.

    Returns:
        (2, 3) picture -> frame.
    """
    angle = 1.6 * np.sin(2 * np.pi * t / 3.7)
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, angle, zoom + 0.03 * np.sin(2 * np.pi * t / 5.3)), np.float64)
    matrix[:, 2] += unit * 5 * np.sin(2 * np.pi * t / 2.9), unit * 4 * np.sin(2 * np.pi * t / 2.3)
    return matrix


@contextmanager
def filmed(
    video: Path, audio: Path, options: SyncOptions, config: Config, warn: Callable[[str, str], None]
) -> Iterator[tuple[Path, SyncOptions]]:
    """Source and options of a job, with a picture converted to a temporary video.

    Args:
        video: a video, which is given back as it is, or a picture.
        audio: the dub; the film lasts as long.
        options: `motion` is of the film; a point on a face is one of the picture.
        config: media and mel sections.
        warn: receives code and text of what the film does not show of a picture.

    Yields:
        The video, and the options with the point of a face where the film shows it.

    Raises:
        InputError: a file cannot be read, the dub is empty, or `motion` is set for a video.
        SetupError: the voice is to be isolated, without the extra for it.
    """
    if not is_picture(video):
        if options.motion != "none":
            raise InputError(f"--motion {options.motion} moves a picture, and {video} is a video", "leave it out")
        yield video, options
        return
    if options.fit is not None:
        raise InputError(f"{video} is a picture: it has no sentences for --fit", "leave it out")
    if options.isolate_voice:
        check_installed()  # before the film is made, which takes a while
    seconds = audio_duration(audio, sample_rate=config.mel.sample_rate, config=config.media)
    if not seconds > 0:
        raise InputError(f"{audio} is empty: a film of {video} would be, too", "give a sound")
    with film_of(video, seconds, options.motion, config) as (film, still):
        for loss in still.losses:
            warn("quality", loss)
        yield film, replace(options, face=_move_point(options.face, still, options.motion), motion="none")


@contextmanager
def film_of(path: Path, seconds: float, motion: str, config: Config) -> Iterator[tuple[Path, Still]]:
    """A film of a picture, for as long as the block runs; errors about it name the picture.

    Yields:
        The film, and the picture that it shows.

    Raises:
        InputError: the picture cannot be read.
        NoFaceError: what the block looked for is not in it.
    """
    still = read_picture(path, config)
    with TemporaryDirectory(prefix="lipdub-") as folder:
        film = Path(folder) / f"{path.stem}.mp4"
        count = int(np.ceil(seconds * RATE - 1e-6))
        write_clip(film, _frames(still.frame, count, motion), RATE, CRF, preset="veryfast")
        try:
            yield film, still
        except NoFaceError as error:
            raise NoFaceError(error.what.replace(str(film), str(path)), _remedy(error)) from error
        except LipdubError as error:
            raise type(error)(error.what.replace(str(film), str(path)), error.remedy) from error


def _remedy(error: NoFaceError) -> str:
    """The remedy of an error about the film, for its picture: without a range, and without FFmpeg."""
    first, _, rest = error.remedy.partition("; ")
    if first.startswith("turn the picture"):
        first = "turn the picture upright first"
    elif "--start" in first:
        other = ", or another --face: `lipdub faces PICTURE` lists them" if "--face" in first else ""
        first = f"give a picture with a larger, upright face{other}"
    return f"{first}; {rest}" if rest else first


def read_picture(path: Path, config: Config) -> Still:
    """A picture as viewers show it: rotated by its EXIF, on white where transparent, even sides.

    One whose shorter side is above media.still_lines, or its longer one above ASPECT times as much, is scaled down.

    Raises:
        InputError: it cannot be read, or is larger than media.max_pixels; media.still_lines is less than 2.
    """
    lines = config.media.still_lines
    if lines < 2:
        raise InputError(f"media.still_lines={lines} leaves nothing of a picture", "give 1080 or 2160, for example")
    try:
        kind, _ = picture_kind(path)
        data = np.frombuffer(path.read_bytes(), np.uint8)
        if kind == "HEIF":
            picture = read_heif(path, config.media.max_pixels)
        else:
            bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None  # oriented by its EXIF
            picture = np.zeros((0, 0, 3), np.uint8) if bgr is None else np.asarray(bgr[..., ::-1], np.uint8)
    except (OSError, cv2.error) as error:
        raise InputError(f"cannot read {path}: {error}", "give a picture, or a video") from error
    if not picture.size:
        what = f"{path} is damaged, or a kind of {kind}" if kind in READ else f"{path} is a picture ({kind or '?'})"
        raise InputError(f"{what} that lipdub does not read", "save it anew as JPEG or PNG")
    if min(picture.shape[:2]) < 2:
        raise InputError(f"{path} has {picture.shape[1]}x{picture.shape[0]} pixels", "give a picture that shows a face")
    losses = []
    if kind != "HEIF":
        opaque = picture
        picture = _on_white(picture, data, path)
        if picture is not opaque:
            losses.append(f"{path} is transparent in parts: the video shows them white")
    high, wide = picture.shape[:2]
    if high * wide > config.media.max_pixels:
        what = f"{path} has {wide}x{high} pixels, the limit is {config.media.max_pixels}"
        raise InputError(what, "make it smaller, or --set media.max_pixels=...")
    scale = min(1.0, lines / min(high, wide), round(lines * ASPECT) / max(high, wide))
    height, width = (max(2, round(side * scale) // 2 * 2) for side in (high, wide))
    if scale < 1:
        whole = max(min(high, wide), int(np.ceil(max(high, wide) / ASPECT)))
        losses.append(
            f"{path} has {wide}x{high} pixels, the video {width}x{height}: "
            f"--set media.still_lines={whole} keeps all and takes longer, 1080 is faster"
        )
        small = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        return Still(frame=small, scale=scale, losses=tuple(losses))
    return Still(frame=np.ascontiguousarray(picture[:height, :width]), scale=1.0, losses=tuple(losses))


def _on_white(picture: Frame, data: NDArray[np.uint8], path: Path) -> Frame:
    """A picture (H, W, 3), oriented by its EXIF, on white where the file with these bytes is transparent.

    Raises:
        InputError: the transparent parts cannot be located.
    """
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # its colours and opacity are not oriented
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4:
        return picture
    colours = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION))[..., ::-1]
    opacity = stored[..., 3:].astype(np.float32) / {"uint8": 255, "uint16": 65535}.get(stored.dtype.name, 1)
    if opacity.min() >= 1:
        return picture
    for mirror, turns in product((1, -1), range(4)):  # the orientation is the one that gives the picture
        if np.array_equal(np.rot90(colours[:, ::mirror], turns), picture):
            visible = np.rot90(opacity[:, ::mirror], turns)
            return np.rint(picture * visible + 255 * (1 - visible)).astype(np.uint8)
    raise InputError(f"the transparent parts of {path} cannot be read", "save it as a PNG without transparency")


def _frames(picture: Frame, count: int, motion: str) -> Iterator[Frame]:
    size = picture.shape[1], picture.shape[0]
    for index in range(count):
        if motion == "none":
            yield picture
            continue
        matrix = _sway(picture, index / RATE)
        seen = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        yield np.asarray(seen, np.uint8)


def _sway(picture: Frame, t: float) -> NDArray[np.float64]:
    height, width = picture.shape[:2]
    return sway(t, (width / 2, height / 2), ZOOM, min(height, width) / UNIT)


def _move_point(face: Face, still: Still, motion: str) -> Face:
    """A point on a face of the picture, at its position in the video."""
    if not isinstance(face, tuple):
        return face
    x, y = still.scale * face[0], still.scale * face[1]
    if motion != "none":
        x, y = _sway(still.frame, face[2] if len(face) == 3 else 0.0) @ (x, y, 1.0)
    return (float(x), float(y), *face[2:])
