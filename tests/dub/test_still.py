"""A picture as the source: its film's length, its size and turn, its motion, and where a chosen face is."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from lipdub.cli.results import show_report
from lipdub.config import Config, load_config
from lipdub.dub.demo import SAMPLE_RATE, babble, portrait_frames
from lipdub.dub.face_list import list_faces
from lipdub.dub.options import SyncOptions
from lipdub.dub.still import film_of, filmed, is_picture, read_picture
from lipdub.dub.sync import plan_sync, sync_video
from lipdub.errors import InputError, NoFaceError, SetupError
from lipdub.faces.choose import face_backend
from lipdub.media.audio import write_wav

CONFIG = Config()
GREY = np.full((60, 80, 3), 90, np.uint8)
GREY[10:20, 50:70] = (200, 30, 40)  # RGB: a mark at the upper right


def silent(code: str, text: str) -> None:
    raise AssertionError(f"{code}: {text}")


def written(path: Path, picture: np.ndarray = GREY) -> Path:
    channels = [2, 1, 0, *range(3, picture.shape[2])]
    assert cv2.imwrite(str(path), np.ascontiguousarray(picture[..., channels]))
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_wav(tmp_path / "speech.wav", babble(1.0), SAMPLE_RATE)
    return tmp_path / "speech.wav"


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp", "bmp", "tif"])
def test_pictures_of_all_kinds_are_read(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"p.{ending}")
    still = read_picture(path, CONFIG)
    picture = still.frame
    assert is_picture(path) and picture.shape == (60, 80, 3) and still.scale == 1 and not still.losses
    assert np.abs(picture[15, 60].astype(int) - GREY[15, 60]).max() < 40 and abs(int(picture[50, 10, 0]) - 90) < 4


def test_exif_turns_a_picture(tmp_path: Path) -> None:
    data = written(tmp_path / "p.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    (tmp_path / "t.jpg").write_bytes(turned)
    picture = read_picture(tmp_path / "t.jpg", CONFIG).frame
    assert picture.shape == (80, 60, 3)
    assert picture[60, 45, 0] > 150  # the upper right is the lower right now


def test_what_shines_through_is_white_and_odd_sides_are_cut(tmp_path: Path) -> None:
    clear = np.dstack([GREY, np.where(np.arange(80) < 40, 0, 255)[None].repeat(60, 0).astype(np.uint8)])
    picture = read_picture(written(tmp_path / "c.png", clear), CONFIG).frame
    assert (picture[50, 10] == 255).all() and (picture[50, 70] == 90).all()
    assert read_picture(written(tmp_path / "odd.png", GREY[:-1, :-1]), CONFIG).frame.shape == (58, 78, 3)


@pytest.mark.parametrize(
    ("size", "lines", "expected", "whole"),
    [
        ((100, 80), 50, (62, 50), 80),  # upright: its width is the shorter side
        ((80, 100), 50, (50, 62), 80),
        ((30, 400), 50, (6, 88), 225),  # 16/9 of 50 is 89; 225 is 9/16 of 400
        ((50, 88), 50, None, None),
    ],
)
def test_a_large_picture_is_scaled_down_and_the_warning_says_how_to_keep_it(
    tmp_path: Path, size: tuple[int, int], lines: int, expected: tuple[int, int] | None, whole: int | None
) -> None:
    path = written(tmp_path / "p.png", np.zeros((*size, 3), np.uint8))
    still = read_picture(path, load_config(None, [f"media.still_lines={lines}"]))
    assert still.frame.shape[:2] == (expected or size) and still.scale == pytest.approx(
        1 if expected is None else min(lines / min(size), round(lines * 16 / 9) / max(size))
    )
    if whole is None:
        assert not still.losses
    else:
        assert f"media.still_lines={whole} keeps all" in still.losses[0]
        assert not read_picture(path, load_config(None, [f"media.still_lines={whole}"])).losses
    with pytest.raises(InputError, match="still_lines=1"):
        read_picture(path, load_config(None, ["media.still_lines=1"]))


def test_what_a_video_does_not_show_of_a_picture_is_a_warning(tmp_path: Path, sound: Path) -> None:
    glass = np.dstack([GREY, np.full((60, 80), 128, np.uint8)])
    config, told = load_config(None, ["media.still_lines=30"]), []
    path = written(tmp_path / "glass.png", glass)
    with filmed(path, sound, SyncOptions(), config, lambda *warning: told.append(warning)):
        pass
    assert [code for code, _ in told] == ["quality", "quality"]
    assert "transparent" in told[0][1] and "80x60" in told[1][1] and "40x30" in told[1][1]
    opaque = written(tmp_path / "opaque.png", np.dstack([GREY, np.full((60, 80), 255, np.uint8)]))
    assert not read_picture(opaque, CONFIG).losses


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_what_shines_through_turns_with_the_picture(tmp_path: Path, orientation: int, turned: int) -> None:
    side = GREY[:60, 20:]  # a square, whose turns have one shape
    cover = np.where(np.arange(60) < 20, 0, 255)[None].repeat(60, 0).astype(np.uint8)  # clear on the left
    data = written(tmp_path / "p.png", np.dstack([side, cover])).read_bytes()
    exif = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)
    chunk = (len(exif) - 4).to_bytes(4) + exif + zlib.crc32(exif).to_bytes(4)
    (tmp_path / "p.png").write_bytes(data[:33] + chunk + data[33:])  # behind its header
    picture = read_picture(tmp_path / "p.png", CONFIG).frame
    expected = np.rot90(np.where(cover[..., None] > 0, side, 255), turned)
    assert np.array_equal(picture, expected)


def test_transparency_that_fits_no_orientation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "c.png", np.dstack([GREY, np.full(GREY.shape[:2], 128, np.uint8)]))
    decode = cv2.imdecode

    def other_colours(data: np.ndarray, flags: int) -> np.ndarray:
        return decode(data, flags) + np.uint8(flags == cv2.IMREAD_COLOR)

    monkeypatch.setattr(cv2, "imdecode", other_colours)
    with pytest.raises(InputError, match=r"transparent parts of .*c\.png") as refused:
        read_picture(path, CONFIG)
    assert "save it as a PNG without transparency" in refused.value.remedy


def test_bad_pictures_are_refused(tmp_path: Path, sound: Path) -> None:
    for name, data in (("e.png", b""), ("t.jpg", b"no picture"), ("h.heic", b"\0\0\0\x18ftypheic"), ("l.psd", b"8BPS")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name, CONFIG)
    with pytest.raises(InputError, match=r"gone\.png"):
        read_picture(tmp_path / "gone.png", CONFIG)
    with pytest.raises(InputError, match="1x1 pixels"):
        read_picture(written(tmp_path / "dot.png", GREY[:1, :1]), CONFIG)
    small = load_config(None, ["media.max_pixels=1000"])
    with pytest.raises(InputError, match="80x60"):
        read_picture(written(tmp_path / "p.png"), small)
    with (
        pytest.raises(InputError, match="is a video"),
        filmed(tmp_path / "v.mp4", sound, SyncOptions(motion="gentle"), CONFIG, silent),
    ):
        pass


def test_the_film_is_as_long_as_the_sound_and_rests_or_moves(tmp_path: Path, sound: Path) -> None:
    path = written(tmp_path / "p.png")
    with filmed(path, sound, SyncOptions(), CONFIG, silent) as (film, options):
        still = frames_of(film)
    assert len(still) == 25 and options == SyncOptions() and not film.exists()
    assert np.abs(still[0].astype(int) - GREY).mean() < 3 and np.abs(still[0].astype(int) - still[-1]).max() < 8
    with filmed(path, sound, SyncOptions(motion="gentle", face=(60.0, 15.0)), CONFIG, silent) as (film, options):
        moving = frames_of(film)
    assert np.abs(moving[0].astype(int) - moving[12]).mean() > 0.3
    x, y = options.face
    assert moving[0][round(y), round(x), 0] > 150  # the mark, where the film shows it
    with filmed(tmp_path / "v.mp4", sound, SyncOptions(), CONFIG, silent) as (same, _):
        assert same == tmp_path / "v.mp4"


def test_a_missing_extra_is_said_before_the_film_is_made(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipdub.dub.voice_isolation.find_spec", lambda name: None)
    monkeypatch.setattr("lipdub.dub.still.write_clip", None)
    options, path = SyncOptions(isolate_voice=True), written(tmp_path / "p.png")
    with pytest.raises(SetupError, match="pyrnnoise"), filmed(path, sound, options, CONFIG, silent):
        pass


def test_an_animation_is_no_picture(tmp_path: Path) -> None:
    plain = written(tmp_path / "p.png").read_bytes()
    chunk = b"iCCP" + bytes(3000)  # what a program writes before the mark of an animation
    head = plain[:33] + len(chunk[4:]).to_bytes(4, "big") + chunk + bytes(4)
    for name, data, still in (
        ("still.png", head + plain[33:], True),
        ("moving.png", head + b"\0\0\0\x08acTL" + bytes(12) + plain[33:], False),
        ("named_wrong.mp4", plain, True),
        ("film.jpg", b"\0\0\0\x18ftypisom", False),
        ("photo.heic", b"\0\0\0\x18ftypheic", True),
        ("burst.heic", b"\0\0\0\x18ftyphevc", False),
        ("moving.avif", b"\0\0\0\x18ftypavis", False),
        ("stream.mjpeg", b"\xff\xd8\xff\xe0\xff\xd9\xff\xd8\xff\xe0", False),
        ("photo_with_depth.jpg", b"\xff\xd8\xff\xe0\xff\xd9\xff\xd8\xff\xe0", True),
        ("p.jfif", b"\xff\xd8\xff\xe0", True),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_picture(tmp_path / name) is still, name
    assert is_picture(tmp_path / "gone.png") and not is_picture(tmp_path / "gone.mp4")


def test_a_gif_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    for count in (1, 2):
        with av.open(str(tmp_path / f"{count}.gif"), "w") as file:
            stream = file.add_stream("gif", rate=5)
            stream.width, stream.height, stream.pix_fmt = 80, 60, "rgb8"
            frames = [
                av.VideoFrame.from_ndarray(GREY + 40 * n, format="rgb24").reformat(format="rgb8") for n in range(count)
            ]
            for packet in [*(packet for frame in frames for packet in stream.encode(frame)), *stream.encode()]:
                file.mux(packet)
    assert is_picture(tmp_path / "1.gif") and not is_picture(tmp_path / "2.gif")
    picture = read_picture(tmp_path / "1.gif", CONFIG).frame
    assert picture.shape == (60, 80, 3) and abs(int(picture[50, 10].mean()) - 90) < 40


def test_errors_name_the_picture_and_what_to_do(
    tmp_path: Path, sound: Path, fake_backend, generator_file: Path
) -> None:
    path, options = written(tmp_path / "wall.png"), SyncOptions(device="cpu", generator=str(generator_file))
    with pytest.raises(NoFaceError, match=f"^{path}, ") as caught:
        sync_video(path, sound, tmp_path / "out.mp4", options)
    remedy = caught.value.remedy
    assert remedy.startswith("give a picture with a larger, upright face; ") and "profiles" in remedy
    assert "ffmpeg" not in remedy


@pytest.mark.parametrize(
    ("remedy", "expected"),
    [
        ("list them with `lipdub faces`", "list them with `lipdub faces`"),
        ("turn the picture first: ffmpeg -i FILE -vf transpose=1", "turn the picture upright first"),
        ("give another --start or --end", "give a picture with a larger, upright face"),
        (
            "give another --face (`lipdub faces` lists them), --start or --end; --set sync.min_far_side=-1 dubs it",
            "give a picture with a larger, upright face, or another --face: `lipdub faces PICTURE` lists them; "
            "--set sync.min_far_side=-1 dubs it",
        ),
    ],
)
def test_advice_fits_a_picture(tmp_path: Path, remedy: str, expected: str) -> None:
    path = written(tmp_path / "wall.png")
    with pytest.raises(NoFaceError, match="wall") as caught, film_of(path, 0.04, "none", CONFIG) as (film, *_):
        raise NoFaceError(f"{film}: no face", remedy)
    assert caught.value.remedy == expected


def test_the_faces_of_a_picture_are_listed(tmp_path: Path, fake_faces, monkeypatch) -> None:
    monkeypatch.setattr("lipdub.dub.face_list.face_backend", lambda name, config, device: fake_faces())
    two = np.full((120, 240, 3), 20, np.uint8)
    two[30:78, 20:68] = two[20:80, 140:200] = 230
    path = written(tmp_path / "two.png", two)
    report = list_faces(path, tmp_path / "sheet.png")
    assert report.video == str(path) and sorted(face.id for face in report.faces) == [0, 1]
    assert read_picture(tmp_path / "sheet.png", CONFIG).frame.size
    with pytest.raises(NoFaceError, match=f"^{tmp_path / 'wall.png'}"):
        list_faces(written(tmp_path / "wall.png"))


def test_a_picture_is_dubbed(tmp_path: Path, sound: Path, fake_backend, generator_file: Path) -> None:
    face = np.full((120, 160, 3), 20, np.uint8)
    face[20:76, 50:106] = 230  # the square that the fake backend takes for a face
    path = written(tmp_path / "face.png", face)
    options = SyncOptions(device="cpu", generator=str(generator_file), cache=False)
    assert plan_sync(path, sound, tmp_path / "out.mp4", options).frames == 25
    report = sync_video(path, sound, tmp_path / "out.mp4", options)
    assert (report.frames, report.dubbed) == (25, 25) and not report.warnings
    frames = frames_of(tmp_path / "out.mp4")
    assert len(frames) == 25 and frames[0].shape == (120, 160, 3)
    chosen = replace(options, face=(70.0, 40.0), motion="gentle", overwrite=True)
    assert sync_video(path, sound, tmp_path / "out.mp4", chosen).dubbed == 25
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "out"))) == ["out.mp4"]


def test_one_of_several_faces_in_a_picture(tmp_path: Path, sound: Path, fake_backend, generator_file) -> None:
    both = np.full((120, 240, 3), 20, np.uint8)
    both[30:78, 20:68] = both[20:80, 140:200] = 230  # the right one is larger
    path, left, right = written(tmp_path / "two.png", both), slice(20, 68), slice(140, 200)
    options = SyncOptions(device="cpu", generator=str(generator_file), cache=False, overwrite=True)

    def changed(**chosen: object) -> tuple[bool, bool]:
        report = sync_video(path, sound, tmp_path / "out.mp4", replace(options, **chosen))
        assert report.dubbed == report.frames == 25
        off = np.abs(frames_of(tmp_path / "out.mp4")[12].astype(int) - both).mean(2)
        return off[50:76, left].mean() > 15, off[50:76, right].mean() > 15

    assert changed() == (False, True)
    assert changed(face=(40.0, 50.0)) == (True, False)
    assert changed(face="all") == (True, True)
    assert changed(face="id:0", motion="none") in [(True, False), (False, True)]


@pytest.mark.slow
def test_a_picture_with_closed_lips_speaks(tmp_path: Path, capsys) -> None:
    write_wav(tmp_path / "speech.wav", babble(3.0), SAMPLE_RATE)
    closed = written(tmp_path / "closed.png", lips_shut(portrait_frames(0.04)[0]))
    report = sync_video(closed, tmp_path / "speech.wav", tmp_path / "talk.mp4", SyncOptions(device="cpu"))
    assert report.dubbed == report.frames == 75
    at_rest = openings([read_picture(closed, CONFIG).frame])[0]
    talking = openings(frames_of(tmp_path / "talk.mp4"))
    rest = float(np.median(talking[-10:]))  # the speech is over by then
    assert rest < at_rest + 0.01  # the lips stay shut in silence,
    assert talking.max() > rest + 0.08  # and part by a twelfth of the eyes' distance when they speak,
    assert dark_share(frames_of(tmp_path / "talk.mp4")[int(talking.argmax())]) > 0.1  # over a dark inside
    assert report.drawn_open == report.faces == 1
    show_report(report)
    assert "1 person hardly opens the mouth in the video: what shows inside is drawn" in capsys.readouterr().err


def landmarks(frames: list[np.ndarray]) -> np.ndarray:
    """Of the only face, (T, 68, 2)."""
    backend = face_backend("builtin", CONFIG.face, torch.device("cpu"))
    box = backend.detect(frames[:1])[0].boxes[:1]
    return np.concatenate([backend.landmarks([frame], box)[0] for frame in frames])


def openings(frames: list[np.ndarray]) -> np.ndarray:
    """Distance of the inner lips in eye distances."""
    points = landmarks(frames)
    eyes = np.linalg.norm(points[:, 36:42].mean(1) - points[:, 42:48].mean(1), axis=1)
    return np.linalg.norm(points[:, 62] - points[:, 66], axis=1) / eyes


def dark_share(frame: np.ndarray) -> float:
    """Share of what lies between the inner lips that is less than half as light as the lips."""
    points = landmarks([frame])[0]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    between, lips = np.zeros(grey.shape, np.uint8), np.zeros(grey.shape, np.uint8)
    cv2.fillPoly(between, [points[60:68].astype(np.int32)], 1)
    cv2.fillPoly(lips, [points[48:60].astype(np.int32)], 1)
    return float((grey[between > 0] < 0.5 * np.median(grey[lips > between])).mean())


def lips_shut(picture: np.ndarray) -> np.ndarray:
    """A face whose lips are drawn together, each by half of what is between them."""
    points = landmarks([picture])[0].astype(np.float32)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    upper, lower = points[[60, 61, 62, 63, 64]], points[[60, 67, 66, 65, 64]]
    line = [np.interp(x[0], lip[:, 0], lip[:, 1]) for lip in (upper, lower)]
    gap = np.interp(x[0], upper[:, 0], lower[:, 1] - upper[:, 1], left=0, right=0) + 1
    away = y - (line[0] + line[1])[None] / 2
    reach = 1.2 * np.ptp(upper[:, 0]) / 2
    pulled = np.sign(away) * gap[None] / 2 * np.clip(1 - np.abs(away) / reach, 0, 1)
    return cv2.remap(picture, x, (y + pulled).astype(np.float32), cv2.INTER_CUBIC)
