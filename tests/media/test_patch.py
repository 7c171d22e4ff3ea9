from dataclasses import replace

import av
import numpy as np
import pytest

from lipdub.errors import InputError
from lipdub.media.patch import paste_patch, read_patch
from lipdub.media.planes import components, layout
from lipdub.media.probe import probe, require_video
from lipdub.media.video import upright_rgb

YUV = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "yuvj420p", "nv12", "p010le", "yuyv422"]
FORMATS = [*YUV, "gbrp", "rgb24", "bgra", "gray"]
TURNED = np.array([[0.9, 0.2, -20.0], [-0.2, 0.9, 4.0]])


@pytest.fixture
def info(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=1, size=(160, 120))
    return require_video(probe(tmp_path / "a.mp4"))


def described(info, pix_fmt):
    wide = info if pix_fmt not in ("rgb24", "bgra", "gbrp", "gray") else replace(info, color_range=2)
    return replace(wide, pix_fmt=pix_fmt)


def snapshot(picture):
    return [np.array(component.samples) for component in components(picture)]


def soft_disc(size):
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    return np.clip((size * 0.4 - np.hypot(x, y)) / (size * 0.1), 0, 1).astype(np.float32)


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.4])
def test_a_part_of_a_crop_is_pasted_as_the_whole_is(info, frame, scale: float) -> None:
    size, matrix = 64, TURNED * scale
    face = np.full((size, size, 3), 30, np.float32)
    face[size // 2 :] = (200, 90, 40)
    alpha = np.zeros((size, size), np.float32)
    alpha[34:60, 9:51] = np.linspace(0.1, 0.9, 26, dtype=np.float32)[:, None]
    part = matrix.copy()
    part[:, 2] -= 6, 30
    described_as = described(info, "yuv444p")
    whole_of, part_of = frame("yuv444p", 160, 120), frame("yuv444p", 160, 120)
    paste_patch(whole_of, described_as, matrix, face, alpha)
    paste_patch(part_of, described_as, part, np.ascontiguousarray(face[30:62, 6:54]), alpha[30:62, 6:54])
    for a, b in zip(components(whole_of), components(part_of), strict=True):
        assert np.abs(a.samples.astype(int) - b.samples).max() <= 1


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_paste_changes_the_inside_only(info, frame, pix_fmt):
    picture, info = frame(pix_fmt, 160, 120), described(info, pix_fmt)
    before = snapshot(picture)
    size = 64
    face = np.zeros((size, size, 3), np.float32)
    face[:] = (30, 200, 90)
    alpha = soft_disc(size)
    paste_patch(picture, info, TURNED, face, alpha)
    inverse = np.linalg.inv(np.vstack([TURNED, [0, 0, 1]]))
    centre = inverse @ [size / 2, size / 2, 1]
    for component, old in zip(components(picture), before, strict=True):
        part, new = component.part, component.samples
        y, x = np.mgrid[0 : new.shape[0], 0 : new.shape[1]]
        crop_x, crop_y = np.einsum("ij,jyx->iyx", TURNED, np.stack([x * part.sub_x, y * part.sub_y, np.ones_like(x)]))
        radius = np.hypot(crop_x - (size - 1) / 2, crop_y - (size - 1) / 2)
        outside = radius > size * 0.4 + 2 * 2**0.5 * max(part.sub_x, part.sub_y)
        assert outside.any()
        np.testing.assert_array_equal(new[outside], old[outside])
        assert (new != old)[radius < size * 0.3].mean() > 0.9
    seen = read_patch(picture, info, TURNED, size)[size // 2, size // 2]
    expected = (30, 200, 90) if pix_fmt != "gray" else (round(0.299 * 30 + 0.587 * 200 + 0.114 * 90),) * 3
    np.testing.assert_allclose(seen, expected, atol=2)
    assert 0 < centre[0] < 160


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_alpha_zero_is_bit_exact(info, frame, pix_fmt):
    picture, info = frame(pix_fmt, 160, 120), described(info, pix_fmt)
    for component in components(picture):
        component.samples[:] |= 1  # in P010, a bit below the ten that count
    before = snapshot(picture)
    face = np.full((96, 96, 3), 255, np.float32)
    paste_patch(picture, info, TURNED, face, np.zeros((96, 96), np.float32))
    for new, old in zip(snapshot(picture), before, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "rgb24"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_paste_what_was_read(info, frame, pix_fmt, scale):
    picture, info = frame(pix_fmt, 160, 120), described(info, pix_fmt)
    matrix = np.array([[scale, 0, -90 * scale], [0, scale, -70 * scale]])
    size = round(40 * scale)
    first = read_patch(picture, info, matrix, size)
    before = [each.astype(int) for each in snapshot(picture)]
    paste_patch(picture, info, matrix, first.astype(np.float32), soft_disc(size))
    second = read_patch(picture, info, matrix, size)
    assert np.abs(first.astype(int) - second).max() <= 3
    steps = 2 ** (layout(info.pix_fmt).depth - 8)
    for new, old in zip(snapshot(picture), before, strict=True):
        assert np.abs(new.astype(int) - old).max() <= 3 * steps


def test_read_is_the_picture_itself_at_scale_one(info, frame):
    picture = frame("yuv444p", 160, 120)
    whole = upright_rgb(picture, info)
    matrix = np.array([[1.0, 0, -30], [0, 1.0, -20]])
    patch = read_patch(picture, info, matrix, 50)
    assert np.abs(patch.astype(int) - whole[20:70, 30:80]).max() <= 2


def test_chroma_is_read_where_it_lies(info, frame):
    """A colour edge in 4:2:0 comes out within half a pixel of the edge in luma."""
    picture = frame("yuv420p", 160, 120)
    planes = [component.samples for component in components(picture)]
    x = np.arange(160)
    planes[0][:] = 120
    planes[1][:] = 128
    planes[2][:] = np.clip(128 + (x[::2] - 80) * 2, 60, 200)  # a ramp that is 128 at luma column 80
    row = read_patch(picture, info, np.array([[1.0, 0, 0], [0, 1.0, 0]]), 120)[60]
    neutral = np.interp(0, (row[70:90, 0].astype(float) - row[70:90, 2]), np.arange(70, 90))
    assert neutral == pytest.approx(80, abs=0.3)


@pytest.mark.parametrize("factor", [2, 3, 5, 8])
def test_shrinking_averages(info, frame, factor):
    picture = frame("yuv444p", 160, 120)
    luma = components(picture)[0].samples
    luma[:] = np.where(np.indices(luma.shape).sum(0) % 2, 235, 16)  # a checkerboard: its mean is mid grey
    for component in components(picture)[1:]:
        component.samples[:] = 128
    matrix = np.array([[1 / factor, 0, -(160 - 10 * factor) / 2 / factor], [0, 1 / factor, 0.0]])
    patch = read_patch(picture, info, matrix, 10)
    assert np.abs(patch[2:8, 2:8].astype(float) - 127.5).max() < 20


def test_pasted_detail_is_averaged_when_the_face_is_small(info, frame):
    picture = frame("yuv444p", 160, 120)
    face = np.repeat(np.where(np.indices((96, 96)).sum(0) % 2, 255.0, 0.0)[..., None], 3, -1).astype(np.float32)
    matrix = np.array([[4.0, 0, -200], [0, 4.0, -160]])  # 96 pixels go into 24
    paste_patch(picture, info, matrix, face, np.ones((96, 96), np.float32))
    luma = components(picture)[0].samples[44:60, 54:70].astype(float)
    assert np.abs(luma - 125.5).max() < 12


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_pictures_are_read_upright(clip, tmp_path, rotation):
    from fractions import Fraction

    from lipdub.media.video import VideoReader

    path = tmp_path / "a.mp4"
    clip(path, rotation=rotation, sar=Fraction(3, 2), size=(160, 120), n_frames=1)
    info = require_video(probe(path))
    with VideoReader(path, info) as reader:
        picture = next(iter(reader)).picture
        whole = upright_rgb(picture, info).astype(int)
        x, y = 50, 40
        matrix = np.array([[1.0, 0, -x], [0, 1.0, -y]])
        patch = read_patch(picture, info, matrix, 60).astype(int)
        assert np.abs(patch - whole[y : y + 60, x : x + 60]).mean() < 2
        face = np.zeros((60, 60, 3), np.float32)
        face[:30, :30] = 255  # white above left, black elsewhere
        paste_patch(picture, info, matrix, face, np.ones((60, 60), np.float32))
        after = upright_rgb(picture, info)
    assert after[y + 10, x + 10].min() > 240
    assert after[y + 45, x + 45].max() < 15
    assert after[y + 10, x + 45].max() < 15
    assert np.abs(after[: y - 12].astype(int) - whole[: y - 12]).max() == 0


def test_the_decoder_keeps_its_own_picture(clip, tmp_path):
    """Later pictures are predicted from earlier ones: painting on those must not show up again."""
    path = tmp_path / "a.mp4"
    clip(path, size=(160, 120), n_frames=20, still=True, n_b=0)
    info = require_video(probe(path))
    white, full = np.full((80, 80, 3), 255, np.float32), np.ones((80, 80), np.float32)
    matrix = np.array([[1.0, 0, -40], [0, 1.0, -20]])
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"  # threads read ahead, which would hide the fault by chance
        for picture in container.decode(video=0):
            luma = components(picture)[0].samples
            assert luma[60, 80] < 200
            paste_patch(picture, info, matrix, white, full)
            assert components(picture)[0].samples[60, 80] == 235


@pytest.mark.parametrize("offset", [(-30, -30), (-140, -100), (-1000, -1000), (500, 0)])
def test_crops_over_the_edge(info, frame, offset):
    picture = frame("yuv420p", 160, 120)
    matrix = np.array([[1.0, 0, offset[0]], [0, 1.0, offset[1]]])
    before = snapshot(picture)
    patch = read_patch(picture, info, matrix, 64)
    assert patch.shape == (64, 64, 3)
    paste_patch(picture, info, matrix, np.full((64, 64, 3), 9, np.float32), np.ones((64, 64), np.float32))
    changed = [(new != old).mean() for new, old in zip(snapshot(picture), before, strict=True)]
    touches = -160 - 64 < offset[0] < 64 and -120 - 64 < offset[1] < 64
    assert (changed[0] > 0) == touches


def test_hdr_round_trip(info, frame):
    for trc in (16, 18):
        picture = frame("yuv420p10le", 160, 120)
        hdr = replace(info, pix_fmt="yuv420p10le", color_trc=trc, colorspace=9)
        matrix = np.array([[1.0, 0, -90], [0, 1.0, -70]])
        face = np.full((40, 40, 3), (180, 120, 100), np.float32)
        paste_patch(picture, hdr, matrix, face, np.ones((40, 40), np.float32))
        np.testing.assert_allclose(read_patch(picture, hdr, matrix, 40)[20, 20], (180, 120, 100), atol=2)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("colorspace", [1, 5, 9])
def test_code_values_are_those_of_the_standard(info, frame, colorspace, full):
    picture = frame("yuv444p", 160, 120)
    told = replace(info, pix_fmt="yuv444p", colorspace=colorspace, color_range=2 if full else 1)
    k_r, k_b = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[colorspace]
    red = np.zeros((40, 40, 3), np.float32)
    red[..., 0] = 255
    paste_patch(picture, told, np.array([[1.0, 0, -90], [0, 1.0, -70]]), red, np.ones((40, 40), np.float32))
    y, cb, cr = (int(c.samples[90, 110]) for c in components(picture))
    span, chroma, black = (255, 255, 0) if full else (219, 224, 16)
    assert y == round(black + span * k_r)
    assert cb == pytest.approx(128 - chroma * k_r / (2 - 2 * k_b), abs=0.51)
    assert cr == min(255, round(128 + chroma * 0.5))


def test_bad_arguments(info, frame):
    picture = frame("yuv420p", 160, 120)
    face, alpha, matrix = np.zeros((8, 8, 3), np.float32), np.ones((8, 8), np.float32), np.eye(2, 3)
    with pytest.raises(ValueError, match="finite"):
        paste_patch(picture, info, matrix, face * np.nan, alpha)
    with pytest.raises(ValueError, match="must be"):
        paste_patch(picture, info, matrix, face[:4], alpha)
    with pytest.raises(ValueError, match="affine"):
        read_patch(picture, info, np.zeros((2, 3)), 8)
    with pytest.raises(InputError, match="pal8"):
        layout("pal8")
