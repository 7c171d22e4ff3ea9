"""Sounds that were written into a pipe: their headers do not state how long they are, or hold a placeholder.

FFmpeg reads WAV, AU and AIFF of that kind to their end. Of RF64, Wave64 and CAF it reads nothing, or not all: those are
read as if their headers had the length of the samples that are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Literal

_W64 = bytes.fromhex("2e91cf11a5d628db04c10000"), bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of riff, of other chunks
_UNKNOWN_LENGTHS = (0, (1 << 32) - 1)  # and all that no disk holds
_HEAD = 1 << 16  # bytes in which a header ends


def has_unknown_length(path: Path) -> bool:
    """Whether a WAV, RF64, AU or AIFF file was streamed: its header has no length, or a placeholder for one.

    Whoever writes into a pipe does not know the length in advance, and puts 0 or some very large number there. A file
    that was cut short has a length, too, but not one of more than a gigabyte with less than a tenth of it behind.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b".snd":
            return _placeholder(int.from_bytes(head[8:12], "big"), size)
        if head[:4] not in (b"RIFF", b"RF64", b"RIFX", b"FORM"):
            return False
        order: Literal["big", "little"] = "little" if head[:4] in (b"RIFF", b"RF64") else "big"
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], order)
            if chunk[:4] in (b"data", b"SSND"):
                return _placeholder(length, size)
            file.seek(length + length % 2, 1)
    return False


def _placeholder(length: int, size: int) -> bool:
    return length == 0 or (length >= 1_000_000_000 and size < length // 10)


class WithLength(FileIO):
    """A file of which some bytes read as others.

    Args:
        path: the file.
        fields: what to read in place of what is there, by position.
    """

    def __init__(self, path: Path, fields: Mapping[int, bytes]) -> None:
        super().__init__(path)
        self._fields = fields

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, `size` at most."""
        start = self.tell()
        block = bytearray(super().read(-1 if size is None else size) or b"")
        for at, value in self._fields.items():
            for number, byte in enumerate(value, start=at - start):
                if 0 <= number < len(block):
                    block[number] = byte
        return bytes(block)


def with_length(sound: Path) -> WithLength | None:
    """A sound file to be read with the length of its samples; None if its header states it.

    Raises:
        OSError: the file cannot be read.
    """
    with sound.open("rb") as file:
        fields = _lengths(file.read(_HEAD), sound.stat().st_size)
    return WithLength(sound, fields) if fields else None


def copy_with_length(sound: Path, target: Path) -> Path:
    """The file, or `target`, a copy of it whose header states its length, for programs that read it themselves."""
    if not sound.is_file() or (mended := with_length(sound)) is None:
        return sound
    with mended, target.open("wb") as file:
        shutil.copyfileobj(mended, file, _HEAD)
    return target


def _lengths(head: bytes, size: int) -> dict[int, bytes]:
    """What is to be written where, in a file of `size` bytes; nothing if its header states its length."""
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        at = _chunk(head, 12, b"data", 4, "little")
        if at and _unknown(int.from_bytes(head[28:36], "little")):
            return {20: (size - 8).to_bytes(8, "little"), 28: (size - at - 8).to_bytes(8, "little")}
    elif head[:16] == b"riff" + _W64[0]:
        at = _chunk(head, 40, b"data" + _W64[1], 8, "little")
        if at and _unknown(int.from_bytes(head[at + 16 : at + 24], "little")):
            return {16: size.to_bytes(8, "little"), at + 16: (size - at).to_bytes(8, "little")}
    elif head[:4] == b"caff":
        at = _chunk(head, 8, b"data", 8, "big")
        if at and _unknown(int.from_bytes(head[at + 4 : at + 12], "big")):
            return {at + 4: (size - at - 12).to_bytes(8, "big")}
    return {}


def _unknown(length: int) -> bool:
    return length in _UNKNOWN_LENGTHS or length >= 1 << 62


def _chunk(head: bytes, at: int, name: bytes, width: int, order: Literal["little", "big"]) -> int:
    """Where a chunk begins; 0 if it is not in `head`. A name is followed by a length of `width` bytes."""
    while at + len(name) + width <= len(head):
        if head.startswith(name, at):
            return at
        length = int.from_bytes(head[at + len(name) : at + len(name) + width], order)
        if len(name) == 16:  # Wave64 counts the chunk's head, too
            at += max(24, length + -length % 8)
        else:
            at += len(name) + width + length + (length % 2 if width == 4 else 0)
    return 0
