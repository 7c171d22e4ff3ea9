from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.damage import Damage, damage_text, joined
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader

GOP = 10
SKIP = MediaConfig(on_damage="skip")


@pytest.fixture
def clip(tmp_path: Path):
    """Maker of 30 frames of a moving texture with a key frame every 10, and the file place of each packet."""

    def make(name: str = "a.mp4") -> tuple[Path, list[tuple[int, int]]]:
        path, texture = tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
        with av.open(str(path), "w", options={"movflags": "+faststart"} if name.endswith("mp4") else {}) as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            video.options = {"bf": "0", "g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0", "crf": "20"}
            for number in range(30):
                page = np.roll(texture, 3 * number, axis=1)
                page[::4] ^= np.uint8(number)
                container.mux(video.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
            container.mux(video.encode())
        with av.open(str(path)) as container:
            return path, [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]

    return make


def damaged(path: Path, place: tuple[int, int]) -> None:
    """Overwrite the middle of a packet."""
    data = bytearray(path.read_bytes())
    first, size = place
    for i in range(first + size // 4, first + 3 * size // 4):
        data[i] ^= 0x5A
    path.write_bytes(bytes(data))


def read(path: Path, config: MediaConfig) -> tuple[list[tuple[float, np.ndarray, bool]], tuple[Damage, ...]]:
    with VideoReader(path, require_video(probe(path)), config=config) as reader:
        return [
            (frame.time_s, frame.picture.to_ndarray(format="yuv420p"), frame.still) for frame in reader
        ], reader.damage


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_damaged_frame_is_the_one_before_once_more(clip, name: str) -> None:
    path, places = clip(name)
    before, none = read(path, SKIP)
    assert none == () and len(before) == 30
    damaged(path, places[14])
    with pytest.raises(InputError, match=r"damaged at 0\.5\d+ s") as caught:
        read(path, MediaConfig())
    assert "--on-damage skip" in caught.value.remedy
    after, found = read(path, SKIP)
    assert [time for time, _, _ in after] == [time for time, _, _ in before]
    assert [still for _, _, still in after] == [number == 14 for number in range(30)]
    same = [np.array_equal(a, b) for (_, a, _), (_, b, _) in zip(before, after, strict=True)]
    assert same[:14] == [True] * 14 and same[20:] == [True] * 10 and not any(same[14:20])
    assert np.array_equal(after[14][1], after[13][1])
    assert [(each.first_s, each.last_s, each.replaced, each.passed) for each in found] == [(0.56, 0.76, 1, 5)]
    told = (
        "damage at 0.560 s to 0.760 s (a picture cannot be decoded whole): 1 damaged frame replaced by the one before"
    )
    assert damage_text(found[0]) == f"{told}, 5 shown as decoded, which build on damaged ones"


def test_frames_that_the_decoder_refuses_are_counted(clip) -> None:
    path, places = clip("a.mp4")
    before, _ = read(path, SKIP)
    data = bytearray(path.read_bytes())
    for number in (14, 15, 24):
        data[places[number][0] : places[number][0] + 4] = b"\x7f\xff\xff\xff"  # a unit longer than the packet
    path.write_bytes(bytes(data))
    after, found = read(path, SKIP)
    assert [time for time, _, _ in after] == [time for n, (time, _, _) in enumerate(before) if n not in (14, 15, 24)]
    assert [each.missing for each in found if each.missing] == [2, 1]
    assert "2 frames are missing, and the one before stays on screen" in damage_text(found[0])
    assert sum(each.passed for each in found) == 4 + 5  # what follows them, up to the next key frame


@pytest.mark.parametrize("cut", [True, False])
def test_frames_that_are_cut_out_are_counted_where_there_is_damage(clip, cut: bool) -> None:
    """A file that is clean but has pictures far apart has no damage."""
    path, places = clip("a.mkv")
    if cut:  # from within frame 4 into frame 7
        data = path.read_bytes()
        path.write_bytes(data[: places[4][0] + 40] + data[places[7][0] + 60 :])
    else:
        whole, path = path, path.with_name("b.mkv")
        drop = "noise=drop=between(n\\,14\\,17)+between(n\\,18\\,19)"
        subprocess.run([ffmpeg_binary(), "-v", "error", "-i", whole, "-c", "copy", "-bsf:v", drop, path], check=True)
    frames, damage = read(path, SKIP)
    assert sum(each.missing for each in damage) == (30 - len(frames)) * cut
    assert 22 <= len(frames) < 30 and bool(damage) == cut
    if cut:
        assert damage[0].first_s <= 0.16 and damage[0].last_s >= 0.24
        assert f"{30 - len(frames)} frames are missing, and the one before stays on screen" in damage_text(damage[0])


def test_what_is_painted_into_a_frame_is_not_in_its_repetition(clip) -> None:
    path, places = clip()
    clean = read(path, SKIP)[0][13][1]
    damaged(path, places[14])
    with VideoReader(path, require_video(probe(path)), config=SKIP) as reader:
        for frame in reader:
            if frame.index == 14:
                assert np.array_equal(frame.picture.to_ndarray(format="yuv420p"), clean)
            frame.picture.make_writable()
            np.frombuffer(memoryview(frame.picture.planes[0]), np.uint8)[:] = 0


def test_frames_that_are_missing_at_the_end_are_reported(clip) -> None:
    path, places = clip()
    info = require_video(probe(path))
    path.write_bytes(path.read_bytes()[: places[27][0]])
    with VideoReader(path, info, config=SKIP) as reader:
        assert sum(1 for _ in reader) == 27
        assert [each.what for each in reader.damage] == ["3 pictures are missing at the end"]
        assert reader.damage[0].first_s == pytest.approx(1.08)
        assert damage_text(reader.damage[0]).endswith("(3 pictures are missing at the end): frames are missing")


def test_damage_is_joined_over_frames_in_a_row() -> None:
    rows = [Damage(first_s=t, last_s=t, what=str(t), replaced=1) for t in (0.08, 0.0, 0.04, 1.0)]
    rows.append(Damage(first_s=1.04, last_s=1.04, what="later", passed=1))
    assert joined(rows, 0.06) == (
        Damage(first_s=0.0, last_s=0.08, what="0.0", replaced=3),
        Damage(first_s=1.0, last_s=1.04, what="1.0", replaced=1, passed=1),
    )
    assert damage_text(rows[0]) == "damage at 0.080 s (0.08): 1 damaged frame replaced by the one before"
