"""HEIF written here box by box: one image, tiles, turns, mirrors and masks; and files that are damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.errors import InputError
from lipdub.media.heif import read_heif

COLORS = np.array([[(200, 40, 40), (40, 170, 40), (40, 60, 200)], [(220, 220, 220), (30, 30, 30), (200, 190, 40)]])
SIDE = 64  # pixels of a tile


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def full(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def coded(folder: Path, picture: np.ndarray) -> tuple[bytes, bytes]:
    """Set-up (hvcC) and data of a picture (H, W, 3) in HEVC."""
    path = folder / "tile.mp4"
    with av.open(str(path), "w") as file:
        options = {"crf": "4", "x265-params": "log-level=none:bframes=0"}
        stream = file.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            file.mux(packet)
    with av.open(str(path)) as file:
        data = b"".join(bytes(packet) for packet in file.demux(video=0))
        return file.streams.video[0].codec_context.extradata, data


def write_heif(
    path: Path,
    pictures: list[np.ndarray],
    *,
    grid: tuple[int, int, int, int] | None = None,  # rows, columns, width, height
    mask: np.ndarray | None = None,
    turns: tuple[bytes, ...] = (),
    shown: tuple[int, int] | None = None,
) -> Path:
    """A picture of one image, or of a grid of them; the primary item is the last before the mask."""
    tiles = [coded(path.parent, picture) for picture in pictures + ([] if mask is None else [mask])]
    kinds = [b"hvc1"] * len(pictures) + [b"grid"] * (grid is not None) + [b"hvc1"] * (mask is not None)
    primary = len(pictures) + (grid is not None)
    properties, links = [], []

    def own(*boxes: bytes) -> None:
        properties.extend(boxes)
        numbers = bytes(range(len(properties) - len(boxes) + 1, len(properties) + 1))
        links.append(struct.pack(">HB", len(links) + 1, len(boxes)) + numbers)

    last = tiles[len(pictures) :]
    for tile, picture in zip(tiles, pictures, strict=False):
        size = full(b"ispe", struct.pack(">2I", picture.shape[1], picture.shape[0]))
        own(box(b"hvcC", tile[0]), size, *(turns if grid is None else ()))
    if grid is not None:
        own(full(b"ispe", struct.pack(">2I", *(shown or grid[2:]))), *turns)
    if mask is not None:
        size = full(b"ispe", struct.pack(">2I", mask.shape[1], mask.shape[0]))
        own(box(b"hvcC", last[0][0]), size, full(b"auxC", b"urn:mpeg:hevc:2015:auxid:1\0"))
    ids = range(1, len(kinds) + 1)
    entries = [full(b"infe", struct.pack(">2H", n, 0), kinds[n - 1], b"\0", version=2) for n in ids]
    references = []
    if grid is not None:
        numbers = range(1, len(pictures) + 1)
        references.append(box(b"dimg", struct.pack(f">2H{len(pictures)}H", primary, len(pictures), *numbers)))
    if mask is not None:
        references.append(box(b"auxl", struct.pack(">3H", primary + 1, 1, primary)))
    layout = b"" if grid is None else struct.pack(">4B2H", 0, 0, grid[0] - 1, grid[1] - 1, *grid[2:])

    def head(start: int) -> bytes:
        places, data = [], iter(tiles)
        for n in ids:
            in_idat = kinds[n - 1] == b"grid"
            length = len(layout) if in_idat else len(next_data := next(data)[1])
            places.append(struct.pack(">4H2I", n, in_idat, 0, 1, 0 if in_idat else start, length))
            start += 0 if in_idat else len(next_data)
        return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", primary)),
            full(b"iloc", struct.pack(">BBH", 0x44, 0, len(ids)), *places, version=1),
            full(b"iinf", struct.pack(">H", len(ids)), *entries),
            full(b"iref", *references),
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", struct.pack(">I", len(links)), *links)),
            box(b"idat", layout),
        )

    index = head(0)
    path.write_bytes(head(len(index) + 8) + box(b"mdat", *(data for _, data in tiles)))
    return path


def mosaic() -> list[np.ndarray]:
    return [np.broadcast_to(color, (SIDE, SIDE, 3)).astype(np.uint8) for row in COLORS for color in row]


def centres(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The colour amid each tile."""
    y, x = SIDE // 2 + SIDE * np.arange(rows), SIDE // 2 + SIDE * np.arange(columns)
    return picture[y[:, None], x[None]].astype(int)


def test_tiles_are_put_together_in_their_order_and_cropped(tmp_path: Path) -> None:
    picture = read_heif(write_heif(tmp_path / "p.heic", mosaic(), grid=(2, 3, 180, 120)), 1 << 20)
    assert picture.shape == (120, 180, 3) and picture.dtype == np.uint8
    assert np.abs(centres(picture, 2, 3) - COLORS).max() <= 6


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((), COLORS),
        ((box(b"irot", b"\x01"),), np.rot90(COLORS, 1)),
        ((box(b"irot", b"\x03"),), np.rot90(COLORS, -1)),
        ((box(b"imir", b"\x00"),), COLORS[::-1]),
        ((box(b"imir", b"\x01"),), COLORS[:, ::-1]),
        ((box(b"irot", b"\x01"), box(b"imir", b"\x01")), np.rot90(COLORS, 1)[:, ::-1]),
    ],
)
def test_a_picture_is_turned_and_mirrored(tmp_path: Path, turns: tuple[bytes, ...], expected: np.ndarray) -> None:
    for grid in ((2, 3, 3 * SIDE, 2 * SIDE), None):
        tiles = mosaic() if grid else [COLORS.astype(np.uint8).repeat(SIDE, 0).repeat(SIDE, 1)]
        picture = read_heif(write_heif(tmp_path / "p.heic", tiles, grid=grid, turns=turns), 1 << 20)
        assert picture.shape[:2] == (SIDE * expected.shape[0], SIDE * expected.shape[1])
        assert np.abs(centres(picture, *expected.shape[:2]) - expected).max() <= 6


def test_what_a_mask_hides_is_white(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE, 3), np.uint8)
    mask[:, SIDE // 2 :] = 255
    picture = read_heif(write_heif(tmp_path / "p.heic", mosaic()[:1], mask=mask), 1 << 20)
    assert picture[:, : SIDE // 2 - 4].min() >= 250
    assert np.abs(picture[:, SIDE // 2 + 4 :].astype(int) - COLORS[0, 0]).max() <= 8


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = write_heif(tmp_path / "p.heic", mosaic(), grid=(2, 3, 180, 120))
    whole = path.read_bytes()
    with pytest.raises(InputError, match=r"180x120 pixels, the limit is 100"):
        read_heif(path, 100)
    for damaged in (whole[:200], whole[:-400], whole.replace(b"grid", b"iovl", 1), whole.replace(b"pitm", b"free")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"p\.heic"):
            read_heif(path, 1 << 20)
    with pytest.raises(InputError, match=r"gone\.heic"):
        read_heif(tmp_path / "gone.heic", 1 << 20)
