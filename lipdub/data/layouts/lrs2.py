"""LRS2-BBC: sentences of British television, with its lists train.txt, val.txt, test.txt and pretrain.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos

LISTS = {"main": {"train.txt": "train", "val.txt": "val", "test.txt": "test"}, "pretrain": {"pretrain.txt": "train"}}


class Lrs2:
    """ROOT/main/ID/00001.mp4 and ROOT/pretrain/ID/00001.mp4; a list has `ID/00001` as the first word of each line.

    The lists lie in ROOT, or in the folder above (mvlrs_v1/ is a sub-folder of the archive). A speaker is an ID, which
    is a broadcast; files of `main` that no list names are left out, `pretrain` without its list is all for training.
    """

    def footage(self, root: Path) -> Iterator[Footage]:
        """What the lists name."""
        root = root / "mvlrs_v1" if (root / "mvlrs_v1").is_dir() else root
        for part, lists in LISTS.items():
            splits = {name: split for file, split in lists.items() for name in _names(root, file)}
            for path in videos(root, f"{part}/*/*"):
                name = f"{path.parent.name}/{path.stem}"
                split = splits.get(name, "" if splits or part == "main" else "train")
                if split:
                    yield Footage(path, path.parent.name, split)


def _names(root: Path, file: str) -> list[str]:
    for path in (root / file, root.parent / file):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            return [line.split()[0] for line in lines if line.strip()]
    return []
