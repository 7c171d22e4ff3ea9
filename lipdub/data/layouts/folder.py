"""Any folder: a sub-folder is a speaker, and so is a file outside of any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lipdub.data.layouts.footage import Footage, videos


class Folder:
    """FOLDER/[SPEAKER/]NAME.mp4, or any other video format, as deep as one likes."""

    def footage(self, root: Path) -> Iterator[Footage]:
        """Every video below the folder."""
        for path in videos(root):
            folder = path.relative_to(root).parent.as_posix()
            yield Footage(path, path.stem if folder == "." else folder)
