from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.errors import InputError
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import measured, probe, read_clocks
from lipdub.media.retime import TimeMap, copy_retimed, fit_times
from lipdub.media.sentences import Sentence

SAME = (Sentence((0.5, 2.0), (0.5, 2.5)), Sentence((2.4, 3.0), (3.0, 3.8)))


def test_sentences_are_met_where_the_limit_allows() -> None:
    times = fit_times(SAME, 0.0, 4.0, 2.0)
    for sentence in SAME:
        assert times(sentence.source[0]) == pytest.approx(sentence.target[0], abs=1e-6)
        assert times(sentence.source[1]) == pytest.approx(sentence.target[1], abs=1e-6)
    assert times(0.0) == 0 and times(4.0) == pytest.approx(4.8)  # what follows keeps its speed
    assert times(-1.0) == -1 and times(5.0) == pytest.approx(5.8)
    assert times.speeds.tolist() == pytest.approx([1, 4 / 3, 1.25, 4 / 3, 1])


@pytest.mark.parametrize("seed", range(5))
def test_the_picture_stays_within_the_limits(seed: int) -> None:
    random = np.random.default_rng(seed)
    source, target = (np.sort(random.uniform(0.1, 60, (2, 40)), axis=1)).tolist()
    sentences = [
        Sentence((a, b), (c, d))
        for a, b, c, d in zip(source[::2], source[1::2], target[::2], target[1::2], strict=True)
    ]
    times = fit_times(sentences, 0.0, 60.0, 1.3)
    assert times.speeds.max() <= 1.3 + 1e-12 and times.speeds.min() >= 1 / 1.3 - 1e-12


def test_a_sentence_that_cannot_be_met_costs_the_least() -> None:
    late = [Sentence((1.0, 2.0), (1.0, 3.0)), Sentence((2.0, 3.0), (3.0, 4.0)), Sentence((4.0, 5.0), (5.0, 6.0))]
    times = fit_times(late, 0.0, 6.0, 1.5)
    off = [times(each.source[0]) - each.target[0] for each in late]
    # 1 s would have to last 2 s: it lasts 1.5 s; the half second is made up for by the third sentence.
    assert off == pytest.approx([0, -0.5, 0], abs=1e-6)


@pytest.mark.parametrize(("stop_s", "target_stop_s"), [(5.0, 6.3), (4.99, 6.3), (5.4, 6.82)])
def test_a_last_sentence_to_the_end_is_met_too(stop_s: float, target_stop_s: float) -> None:
    """Of one that ends behind the video, the part that there is."""
    last = [Sentence((1.0, 2.0), (1.0, 2.0)), Sentence((4.0, stop_s), (5.0, target_stop_s))]
    assert fit_times(last, 0.0, 5.0, 1.5)(5.0) == pytest.approx(6.3, abs=1e-6)


def test_a_length_is_met_too() -> None:
    assert fit_times((), 0.04, 10.04, 1.5, 12.04).output_s.tolist() == pytest.approx([0.04, 12.04])
    times = fit_times(SAME, 0.0, 4.0, 2.0, 4.5)
    assert times(4.0) == pytest.approx(4.5) and times(2.4) == pytest.approx(3.0)


def test_sentences_of_another_video_are_refused() -> None:
    with pytest.raises(InputError, match=r"begins at 2.40 s, the video ends at 2.00 s"):
        fit_times(SAME, 0.0, 2.0, 1.5)


def shown(path: Path) -> list[tuple[Fraction, int]]:
    """Times and marks of all pictures, in order."""
    with av.open(str(path)) as container:
        return [
            (frame.pts * frame.time_base, round(frame.to_ndarray(format="gray")[8:24, 8:24].mean()))
            for frame in container.decode(video=0)
        ]


def numbered(path: Path, *, rate: Fraction = Fraction(25), rotation: int = 0) -> Path:
    """A clip of 2 s with B-frames, whose pictures get brighter by 4 levels each."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width = video.height = 32
        video.pix_fmt, video.options = "yuv420p", {"crf": "1", "bf": "2", "b-adapt": "0"}
        if rotation:
            video.set_display_rotation(rotation)
        for number in range(round(2 * rate)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 + 4 * (number % 50), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


HALF = TimeMap(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.5, 2.25]))  # slow, then fast


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("a.mp4", Fraction(25)),
        ("a.mkv", Fraction(25)),
        ("a.ts", Fraction(25)),
        ("c.mov", Fraction(24000, 1001)),
    ],
)
def test_only_the_times_change(tmp_path: Path, name: str, rate: Fraction) -> None:
    video = numbered(tmp_path / name, rate=rate)
    assert copy_retimed(video, tmp_path / "retimed", HALF) == []
    before, after = shown(video), shown(tmp_path / "retimed")
    assert [mark for _, mark in after] == [mark for _, mark in before]
    zero = before[0][0] if name.endswith(".ts") else 0
    clock = 1e-4 if name.endswith(("mp4", "mov")) else 1.01e-3
    for (time, _), (was, _) in zip(after, before, strict=True):
        assert float(time) == pytest.approx(HALF(float(was - zero)), abs=clock)
    made = probe(tmp_path / "retimed").video
    assert made is not None and made.duration_s == pytest.approx(2.25, abs=0.06)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("a.mp4", "libsvtav1"),  # decoded by a library that does not encode
        ("a.ogv", "libtheora"),
        ("a.wmv", "wmv2"),  # not in Matroska
        ("a.avi", "huffyuv"),
        ("a.gif", "gif"),
        ("b.avi", "rawvideo"),  # not every pixel format of it
    ],
)
def test_any_codec_is_copied(tmp_path: Path, name: str, encoder: str) -> None:
    pixels = ("-pix_fmt", "bgr24") if encoder == "rawvideo" else ()
    argv = [ffmpeg_binary(), "-v", "error", "-i", numbered(tmp_path / "plain.mp4"), "-an", "-c:v", encoder, *pixels]
    subprocess.run([*argv, tmp_path / name], check=True)
    video, target = probe(tmp_path / name).video, tmp_path / "retimed"
    assert copy_retimed(tmp_path / name, target, HALF) == []
    before, after = read_clocks(tmp_path / name)[0], read_clocks(target)[0]
    assert after.packets == before.packets
    assert after.start_s == pytest.approx(HALF(before.start_s), abs=2e-3)
    made = measured(probe(target), read_clocks(target)).video
    assert made.codec == video.codec and made.duration_s == pytest.approx(HALF(2.0), abs=0.06)
    assert 0.5 < float(made.average_rate * made.duration_s) / before.packets < 2  # and not the clock's 1000 Hz


def test_everything_but_the_sound_goes_along(tmp_path: Path) -> None:
    plain, video = numbered(tmp_path / "plain.mp4", rotation=90), tmp_path / "all.mkv"
    words, marks = tmp_path / "a.srt", tmp_path / "c.txt"
    words.write_text("1\n00:00:00,200 --> 00:00:01,500\n<i>hello</i>\n")
    chapters = ";FFMETADATA1\ntitle=A film\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=one\n"
    chapters += "[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=two\n"
    argv = [ffmpeg_binary(), "-v", "error", "-i", plain, "-f", "lavfi", "-i", "sine=d=2", "-i", words]
    marks.write_text(chapters)
    argv += ["-i", marks, "-map", "0", "-map", "1", "-map", "2", "-map_metadata", "3"]
    argv += ["-c:v", "copy", "-c:s", "srt", "-metadata:s:s:0", "language=spa", "-attach", words]
    subprocess.run([*argv, "-metadata:s:t", "mimetype=text/plain", video], check=True)
    assert copy_retimed(video, tmp_path / "retimed", HALF) == [
        "audio stream 1 is left out: it cannot follow the new times of the picture"
    ]
    with av.open(str(tmp_path / "retimed")) as made:
        assert [stream.type for stream in made.streams] == ["video", "subtitle", "attachment"]
        assert made.metadata["title"] == "A film" and made.streams[1].language == "spa"
        assert made.streams[2].metadata["filename"] == "a.srt"
        assert [(each["start"] * each["time_base"], each["end"] * each["time_base"]) for each in made.chapters()] == [
            (0, 1.5),
            (1.5, 2.25),
        ]
        text = next(packet for packet in made.demux(made.streams[1]) if packet.size)
        assert float(text.pts * text.time_base) == pytest.approx(HALF(0.2), abs=1e-3)
        assert float(text.duration * text.time_base) == pytest.approx(HALF(1.5) - HALF(0.2), abs=2e-3)
        assert bytes(text) == b"<i>hello</i>"
    assert probe(tmp_path / "retimed").video.rotation == probe(video).video.rotation != 0
