"""The caption that tells viewers."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.caption import CAPTION, Caption, _render_text, check_label
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader, upright_rgb


def labelled(path, text=CAPTION):
    """The first picture upright, before and after, and all planes of both."""
    info = require_video(probe(path))
    with VideoReader(path, info) as reader:
        picture = next(iter(reader)).picture
        before, raw = upright_rgb(picture, info), picture.to_ndarray()
        Caption(text, info, MediaConfig()).burn(picture)
        return before.astype(int), upright_rgb(picture, info).astype(int), raw, picture.to_ndarray()


def alike(seen, text):
    """Correlation of letters in a picture with a text in large letters."""
    drawn = _render_text(text, 60)
    larger = cv2.resize(np.ascontiguousarray(seen, np.float32), drawn.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.corrcoef(larger.ravel(), drawn.ravel())[0, 1]


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize(("pix_fmt", "sar"), [("yuv420p", 1), ("yuv422p10le", 1), ("yuv444p", 1), ("yuv420p", 2)])
def test_it_stands_upright_in_the_corner_and_nowhere_else(clip, tmp_path, pix_fmt, sar, rotation):
    path = tmp_path / "a.mov"
    clip(path, pix_fmt=pix_fmt, size=(320, 240), n_frames=1, rotation=rotation, sar=Fraction(sar))
    before, after, raw, new = labelled(path)
    height, width = after.shape[:2]
    changed = np.abs(after - before).max(2) > 3
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows[0] >= 2 and columns[0] >= 2 and rows[-1] < 0.2 * height and columns[-1] < 0.6 * width
    assert (raw != new).mean() < 0.1, "the rest is the same to the bit"
    bright = after.min(2)[: rows[-1] + 1] > 200
    letters = np.flatnonzero(bright.any(1))
    assert np.ptp(letters) + 1 >= 0.05 * min(height, width), "letters of a twentieth of the shorter side"
    inside = after[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.percentile(inside.mean(2), 25) < 0.6 * before.mean(), "on a darker ground"
    wide = np.flatnonzero(bright.any(0))
    seen = after.mean(2)[letters[0] : letters[-1] + 1, wide[0] : wide[-1] + 1]
    assert alike(seen, CAPTION) > 0.6, "it can be read"


SCRIPTS = ["Дубльовано ШІ", "AI 生成", "AI 더빙", "Doblado con IA: ¿?"]


@pytest.mark.parametrize("text", SCRIPTS)
def test_other_scripts_can_be_read(clip, tmp_path, text):
    clip(tmp_path / "a.mp4", size=(640, 480), n_frames=1)
    before, after, *_ = labelled(tmp_path / "a.mp4", text)
    bright = (after.min(2) > 200) & (after.min(2) - before.min(2) > 20)
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    seen = after.mean(2)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert alike(seen, text) > 0.6
    assert all(alike(seen, other) < 0.5 for other in SCRIPTS if other != text)
    glyphs = {_render_text(letter, 24).tobytes() for letter in set(text) - {" "}}
    assert len(glyphs) == len(set(text) - {" "}), "no letter is a stand-in for those that the font lacks"


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "a;b", "x" * 61, "हिन्दी", "مدبلج"])
def test_what_cannot_be_drawn_is_refused(text):
    with pytest.raises(InputError):
        check_label(text)


def test_words_that_do_not_fit_are_refused(clip, tmp_path):
    clip(tmp_path / "a.mp4", size=(64, 48), n_frames=1)
    with pytest.raises(InputError, match="too long for this picture"):
        Caption("a caption that is far too long", require_video(probe(tmp_path / "a.mp4")), MediaConfig())
