"""Atomic output: temporary files beside the target, a last check, one rename."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from lipdub.errors import InputError, OutputError, ResourceError
from lipdub.media.probe import Ending, MediaInfo, is_timeline, open_input, probe, require_video
from lipdub.process import leave, received

try:
    import fcntl
except ImportError:  # Windows: what a killed run left stays where it is
    fcntl = None  # type: ignore[assignment]

_SIBLING = re.compile(r"\.(.*)\.([0-9a-f]{8})\.(part\..*)", re.DOTALL)
_NAME_BYTES = 200  # of a file name's usual 255, so that the temporary's additions fit
_MATROSKA_CLOCK = 0.001  # s; the coarsest clock of a container we write


class AtomicOutput:
    """Context manager for one output file.

    Inside the block, write to `temporary` (same folder, same ending) and to `scratch(name)` files. When the block ends
    well the temporary is synced and renamed over the target; otherwise, also by an exception that a signal raises
    (process.py), all that was made is deleted and the target is as it was. What a killed run left of the same target is
    deleted on entry: its lock is gone with it.

    Args:
        path: the target; a symbolic link is followed, not replaced.
        overwrite: whether an existing file may be replaced.
        inputs: files that the target must not be.
        others: further outputs of the same job, which it must not be either.

    Raises:
        OutputError: on entry, before anything is written: the target exists, is a folder, an input or another output,
            or its folder is missing or cannot be written. On exit: nothing was written, or another process made
            the target meanwhile.
        ResourceError: the disk is full.
    """

    def __init__(
        self, path: Path, *, overwrite: bool, inputs: Iterable[Path] = (), others: Iterable[Path] = ()
    ) -> None:
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))
        self._overwrite = overwrite
        self._inputs = tuple(Path(each) for each in inputs)
        self._others = tuple(os.path.realpath(each) for each in others)
        self._token = secrets.token_hex(4)
        self.temporary = self._sibling("part" + self._target.suffix)
        self._made: list[Path] = []
        self._lock: int | None = None  # open file of `temporary`
        self._signals = len(received)

    def __enter__(self) -> Self:
        self._check()
        self._sweep()
        try:
            self._reserve()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._leave()

    def check(self) -> None:
        """Raise the errors of entering the block, as far as they are known without writing.

        Raises:
            OutputError: see the class.
        """
        self._check()
        if not os.access(self._target.parent, os.W_OK):
            raise OutputError(f"cannot write into {self._target.parent}", "check the folder's permissions")

    def scratch(self, name: str) -> Path:
        """Path of a temporary file beside the target, always deleted at the end. `name` is a plain file name."""
        if name != os.path.basename(name) or not name:
            raise ValueError(f"not a plain file name: {name!r}")
        path = self._sibling(f"part.{name}")
        self._made.append(path)
        return path

    def _sibling(self, ending: str) -> Path:
        return self._target.parent / f".{self._stem(ending)}.{self._token}.{ending}"

    def _stem(self, ending: str) -> str:
        return os.fsdecode(os.fsencode(self._target.stem)[: _NAME_BYTES - len(os.fsencode(ending))])

    def _sweep(self) -> None:
        """Delete what runs that were killed left of this target."""
        left: dict[str, list[Path]] = {}
        for path in self._target.parent.iterdir():
            match = _SIBLING.fullmatch(path.name)
            if match is not None and match[1] == self._stem(match[3]):
                left.setdefault(match[2], []).append(path)
        for paths in left.values():
            if not any(_is_locked(path) for path in paths):
                for path in paths:
                    with suppress(OSError):  # not ours, or gone meanwhile: it does no harm
                        path.unlink()

    def _leave(self) -> None:
        """Delete what was made, and let others have the place."""
        for path in self._made:
            path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check(self) -> None:
        for each in self._inputs:
            if self._target.exists() and each.exists() and os.path.samefile(each, self._target):
                raise OutputError(f"the output {self.path} is the input {each}", "choose another output")
        if str(self._target) in self._others:
            raise OutputError(f"two outputs have the name {self.path}", "give each its own")
        if self._target.is_dir():
            raise OutputError(f"the output {self.path} is a folder", "give a file name")
        if self._target.exists() and not self._target.is_file():
            raise OutputError(f"the output {self.path} is not a regular file", "give a file name")
        if not self._target.parent.is_dir():
            raise OutputError(f"the folder {self._target.parent} does not exist", "create it first")
        if self._target.exists() and not self._overwrite:
            raise OutputError(f"the output {self.path} exists", "choose another name, or add -y to replace it")

    def _reserve(self) -> None:
        """Make the temporary: proof that the folder can be written."""
        self._made.append(self.temporary)
        try:
            self._lock = os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ResourceError(f"the disk is full: {self._target.parent}", "make room") from error
            raise OutputError(
                f"cannot write into {self._target.parent}: {error.strerror}", "check the folder's permissions"
            ) from error
        with suppress(OSError):  # a drive without locks
            _try_lock(self._lock)

    def _publish(self) -> None:
        if len(received) > self._signals:  # its exception was lost
            leave(received[-1])
        if not self.temporary.exists() or self.temporary.stat().st_size == 0:
            raise OutputError(f"nothing was written for {self.path}", "run with --debug and report it")
        if self._target.exists() and not self._overwrite:
            raise OutputError(f"{self.path} was created by another process meanwhile", "choose another name")
        try:
            _sync(self.temporary)
            os.replace(self.temporary, self._target)
            _sync(self._target.parent)
        except OSError as error:
            raise OutputError(f"cannot put {self.path} in place: {error.strerror}", "check the folder") from error


def verify(output: Path, source_info: MediaInfo, n_frames: int, ending: Ending | None = None) -> None:
    """Read the finished file as a stranger would.

    Args:
        output: the file, usually still under its temporary name.
        source_info: of the source video.
        n_frames: pictures that were encoded.
        ending: of the output, where it is not the source's.

    Raises:
        OutputError: it cannot be read, a picture is missing, the shape differs, a picture is shown half a frame or
            more off its time, or there is no sound.
    """
    source = require_video(source_info)
    try:
        info = probe(output)
        made = require_video(info)
        times = _times(output, made.index, made.origin_s)
    except InputError as error:
        raise OutputError(f"the output cannot be read back: {error.what}", "run with --debug and report it") from error
    if len(times) != n_frames:
        raise OutputError(f"the output has {len(times)} pictures, {n_frames} were written", "check the disk")
    if (made.display_width, made.display_height) != (source.display_width, source.display_height):
        raise OutputError(
            f"the output is shown with {made.display_width}x{made.display_height} pixels, the source with "
            f"{source.display_width}x{source.display_height}",
            "choose another container, such as .mkv",
        )
    if not info.audio:
        raise OutputError("the output has no sound", "choose another container for the output")
    expected = _times(source_info.path, source.index, source.origin_s)
    own_times = len(set(expected)) == len(expected) and "avi" not in (info.format, source_info.format)
    if not own_times or (ending is None and len(expected) != len(times)):
        return  # pictures without a timestamp of their own: there is nothing to hold to
    if not is_timeline(info.format) or not is_timeline(source_info.format):  # a free clock may start anywhere
        times, expected = ([each - listed[0] for each in listed] for listed in (times, expected))
    if ending is not None:  # then the first picture is where it was, and the last one begins inside
        expected, times = [expected[0], min(times[-1], ending.end_s)], [times[0], times[-1]]
    limit = max(0.5 / float(source.average_rate), _MATROSKA_CLOCK)
    worst = max((abs(a - b), b) for a, b in zip(times, expected, strict=True))
    if worst[0] >= limit:
        raise OutputError(
            f"the picture of {worst[1]:.3f} s is shown {worst[0]:.3f} s off its time", "choose another container"
        )


def _times(path: Path, index: int, origin_s: float) -> list[float]:
    """When each packet of a stream is shown, in seconds, in order; packets that are never shown are left out."""
    try:
        with open_input(path) as container:
            packets = container.demux(container.streams[index])
            return sorted(
                float(packet.pts * packet.time_base) - origin_s
                for packet in packets
                if packet.pts is not None and packet.size and not packet.is_discard
            )
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path} is damaged: {error}", "get a sound copy of it, or write it anew with FFmpeg"
        ) from error


def _try_lock(handle: int) -> bool:
    """Try to lock an open file; False if another process holds the lock, which ends with its process.

    Raises:
        OSError: there are no locks on this drive or system.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    """Whether a run holds this file; True if that is unknown."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _try_lock(handle)
    except OSError:
        return True
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives cannot sync a folder
            raise
    finally:
        os.close(handle)
