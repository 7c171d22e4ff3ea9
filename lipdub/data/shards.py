"""WebDataset tar shards of a data set: a few large files to copy to other machines.

    SHARDS/manifest.json, clips.jsonl    as in the data set, see store.py
    SHARDS/<split>-000000.tar ...        of each clip <id>.json, its line of clips.jsonl, <id>.mp4 and <id>.npz

The folder is complete in itself, and any WebDataset reader can stream its shards. Training unpacks a split once, at its
start, so that samples are the same as without shards. Only writing needs the package webdataset.
"""

from __future__ import annotations

import errno
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lipdub.data.store import AGAIN, ClipEntry, read_manifest, write_manifest
from lipdub.errors import InputError, ResourceError, SetupError

SHARDS = "shards"  # folder of the data set in which they are made


def require_writer() -> None:
    """Check that shards can be written.

    Raises:
        SetupError: webdataset is not installed.
    """
    if find_spec("webdataset") is None:
        raise SetupError("shards need the package webdataset", 'pip install "lipdub[shards]"')


def write_shards(folder: Path, clips: int) -> list[Path]:
    """Pack a prepared data set into its folder `shards`, in place of earlier ones; the same clips give the same bytes.

    Args:
        folder: the data set.
        clips: at most, in a shard.

    Raises:
        SetupError: webdataset is not installed.
        InputError: no data set, or a clip of it is gone.
    """
    require_writer()
    from webdataset import ShardWriter

    entries, summary = read_manifest(folder)
    finished, part = folder / SHARDS, folder / f"{SHARDS}.part"
    if part.exists():  # of a call that was stopped
        shutil.rmtree(part)
    part.mkdir()
    place = part.absolute().as_uri().replace("%", "%%")  # a bare path might be taken for a command or an address
    for split in sorted({entry.split for entry in entries}):
        with ShardWriter(f"{place}/{split}-%06d.tar", maxcount=clips, mtime=0, verbose=0) as writer:
            for entry in entries:
                if entry.split == split:
                    writer.write({"__key__": entry.id, "json": asdict(entry)} | _clip_files(folder, entry))
    write_manifest(part, entries, summary)
    if finished.exists():
        shutil.rmtree(finished)
    part.replace(finished)
    return sorted(finished.glob("*.tar"))


def _clip_files(folder: Path, entry: ClipEntry) -> dict[str, bytes]:
    """Contents of a clip's files, by suffix."""
    try:
        return {kind: (folder / "clips" / f"{entry.id}.{kind}").read_bytes() for kind in ("mp4", "npz")}
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}", AGAIN) from error


@contextmanager
def unpacked(folder: Path, entries: Sequence[ClipEntry]) -> Iterator[Path]:
    """Folder with all clips of one split as files: the data set itself, or a temporary copy of its shards.

    Raises:
        InputError: a shard is damaged, or some are missing.
        ResourceError: no room for the copy.
    """
    if (folder / "clips").is_dir():
        yield folder
        return
    with TemporaryDirectory(prefix="lipdub-") as name:
        clips = Path(name) / "clips"
        clips.mkdir()
        for shard in sorted(folder.glob(f"{entries[0].split}-*.tar")):
            try:
                _unpack(shard, clips)
            except tarfile.TarError as error:
                raise InputError(f"cannot read {shard}: {error}", "copy it again") from error
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise ResourceError(f"no room for {shard} in {name}", "set TMPDIR to a larger disk") from error
        n_missing = sum(not (clips / f"{entry.id}.npz").is_file() for entry in entries)  # a clip's last file
        if n_missing:
            what = f"shards of {folder} lack {n_missing} of {len(entries)} clips of split {entries[0].split!r}"
            raise InputError(what, "copy all of them again")
        yield Path(name)


def _unpack(shard: Path, clips: Path) -> None:
    """Extract all files of a shard into one folder, whatever their paths."""
    with tarfile.open(shard, "r:") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                (clips / Path(member.name).name).write_bytes(content.read())
