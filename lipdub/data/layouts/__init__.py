"""Readers of public corpora: what to prepare, its speakers, its splits.

A corpus is added by a file here and a line in LAYOUTS. Readers look at names and at the corpus' own lists, never into
videos.
"""

from __future__ import annotations

from lipdub.data.layouts.avspeech import AvSpeech
from lipdub.data.layouts.folder import Folder
from lipdub.data.layouts.footage import VIDEO_SUFFIXES, Footage, Layout
from lipdub.data.layouts.grid import Grid
from lipdub.data.layouts.hdtf import Hdtf
from lipdub.data.layouts.lrs2 import Lrs2
from lipdub.data.layouts.lrs3 import Lrs3
from lipdub.data.layouts.lrw import Lrw
from lipdub.data.layouts.timit import Timit
from lipdub.data.layouts.voxceleb2 import VoxCeleb2

LAYOUTS: dict[str, Layout] = {
    "folder": Folder(),
    "lrs2": Lrs2(),
    "lrs3": Lrs3(),
    "grid": Grid(),
    "lrw": Lrw(),
    "voxceleb2": VoxCeleb2(),
    "avspeech": AvSpeech(),
    "hdtf": Hdtf(),
    "timit": Timit(),
}

__all__ = ["LAYOUTS", "VIDEO_SUFFIXES", "Footage", "Layout"]
