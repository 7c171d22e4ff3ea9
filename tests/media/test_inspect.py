from fractions import Fraction

import pytest

from lipdub.errors import InputError
from lipdub.media.disclosure import KEYS, SOURCE_TYPE, disclosure_tags, folded, marks_in, verdict
from lipdub.media.inspect import inspect_file
from lipdub.media.probe import probe

MARKS = disclosure_tags("1.2.3", "ab" * 32, "AI-dubbed")


def test_every_stream_is_listed(clip, sound, tmp_path):
    clip(
        tmp_path / "a.mp4",
        n_audio=2,
        chapters=True,
        cover=True,
        rate=Fraction(30000, 1001),
        time_base=Fraction(1, 30000),
    )
    found = inspect_file(tmp_path / "a.mp4")
    assert [stream.kind for stream in found.streams if stream.kind != "data"] == ["video", "audio", "audio", "picture"]
    video, first, second = found.streams[:3]
    assert (video.codec, video.width, video.height, video.fps) == ("h264", 64, 48, Fraction(30000, 1001))
    assert (first.codec, first.sample_rate, first.layout, first.language) == ("aac", 48000, "mono", "eng")
    assert second.language == "fra" and found.chapters == 2 and found.marks == {}
    assert str(video) == "64x48, 29.97 fps, 0.33 s, default"
    assert str(first).startswith("48000 Hz, mono, ") and "eng" in str(first)


def test_a_layout_that_only_has_a_count(sound, tmp_path):
    for channels in ("mono", "stereo", "5.1"):
        (stream,) = inspect_file(sound(tmp_path / "a.wav", layout=channels)).streams
        assert stream.layout == channels == probe(tmp_path / "a.wav").audio[0].layout


def test_what_is_no_media_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("words\n" * 100)
    with pytest.raises(InputError, match=r"a\.mp4"):
        inspect_file(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("tags", "kept", "words"),
    [
        (MARKS, KEYS, "lipdub 1.2.3 altered the lips in this file with AI."),
        ({key.upper(): value for key, value in MARKS.items()}, KEYS, "lipdub 1.2.3 altered"),  # Matroska
        ({"comment": folded(MARKS) + " | theirs"}, KEYS, "lipdub 1.2.3 altered the lips in this file with AI."),
        ({"comment": MARKS["comment"]}, ("comment", "lipdub_version"), "other marks are gone"),  # ffmpeg -c copy
        ({"comment": f"mine | {MARKS['comment']}"}, ("comment", "lipdub_version"), "lipdub 1.2.3 altered"),
        ({"digital_source_type": SOURCE_TYPE}, ("digital_source_type",), "calls itself compositeWithTrained"),
        ({"comment": "Lip movements of a bird"}, (), "No mark of lipdub: "),
        ({}, (), "No mark of lipdub: "),
    ],
)
def test_one_sentence_says_whether_lipdub_altered_it(tags, kept, words):
    marks = marks_in(tags)
    assert tuple(marks) == kept
    assert words in verdict(marks) and verdict(marks).endswith(".")
