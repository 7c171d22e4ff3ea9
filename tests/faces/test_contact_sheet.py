from __future__ import annotations

import cv2
import numpy as np
import pytest

from lipdub.errors import OutputError
from lipdub.faces.contact_sheet import contact_sheet, encode_picture

COLOURS = [(200, 30, 30), (30, 160, 60), (40, 50, 220), (250, 200, 0), (0, 200, 200)]


def pictures(count: int, side: int = 40) -> list[np.ndarray]:
    return [np.full((side, side, 3), COLOURS[number % 5], np.uint8) for number in range(count)]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (12, 5, 3)])
def test_every_picture_is_there_in_order_with_its_caption(count: int, columns: int, rows: int) -> None:
    page = contact_sheet(pictures(count), [(f"id {number}", "shot 0") for number in range(count)])
    assert page.shape == (rows * (40 + 8 + 2 * 18) + 8, columns * 48 + 8, 3) and page.dtype == np.uint8
    for number in range(count):
        row, column = divmod(number, columns)
        top, left = row * 84 + 8, column * 48 + 8
        assert (page[top : top + 40, left : left + 40] == COLOURS[number % 5]).all()
        assert page[top + 40 : top + 76, left : left + 40].min() < 120  # ink


def test_odd_sets_are_refused() -> None:
    for given, captions in [([], []), (pictures(2), [("a",)]), ([*pictures(1), *pictures(1, 20)], [("a",), ("b",)])]:
        with pytest.raises(ValueError, match="pictures of sizes"):
            contact_sheet(given, captions)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".JPEG"])
def test_pictures_are_written_with_their_own_colours(ending: str) -> None:
    data = np.frombuffer(encode_picture(pictures(1)[0], ending), np.uint8)
    read = cv2.imdecode(data, cv2.IMREAD_COLOR)
    np.testing.assert_allclose(read[20, 20, ::-1].astype(int), COLOURS[0], atol=4)


def test_other_endings_are_refused() -> None:
    for ending in (".webp", ""):
        with pytest.raises(OutputError, match="cannot write a picture"):
            encode_picture(pictures(1)[0], ending)
