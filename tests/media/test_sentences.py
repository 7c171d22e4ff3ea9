"""Times of sentences, of each kind of file that tells them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lipdub.errors import InputError
from lipdub.media.sentences import Sentence, read_sentences

SRT = "1\n00:00:00,500 --> 00:00:02,000\nHello.\n\n2\n00:00:02,400 --> 00:00:03,000\nBye.\n"
DUB = "\ufeff1\r\n00:00:00,500 --> 00:00:02,500\r\nHallo.\r\n\r\n2\r\n00:00:03,000 --> 00:00:03,800\r\nTschüss.\r\n"
SAME = (Sentence((0.5, 2.0), (0.5, 2.5)), Sentence((2.4, 3.0), (3.0, 3.8)))


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding, newline="")
    return path


@pytest.mark.parametrize(
    "rows",
    [
        [{"source": [0.5, 2], "target": [0.5, 2.5]}, {"source": [2.4, 3.0], "target": [3.0, 3.8]}],
        {
            "segments": [
                {"source": ["0:02.4", "3"], "target": ["00:00:03,000", "00:00:03.800"]},
                {"source": ["0.5", "00:00:02,000"], "target": [0.5, 2.5], "text": "Hello."},
            ]
        },
        [  # KrillinAI's dubbing_plan.json
            {"index": 1, "original_start": 0.5, "original_end": 2.0, "new_start": 0.5, "new_end": 2.5},
            {"index": 2, "original_start": 2.4, "original_end": 3.0, "new_start": 3.0, "new_end": 3.8},
        ],
    ],
    ids=["seconds", "timecodes", "krillinai"],
)
def test_json_tells_both_times_of_a_sentence(tmp_path: Path, rows) -> None:
    assert read_sentences(written(tmp_path / "fit.json", json.dumps(rows))) == SAME


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_two_subtitle_files_do_too(tmp_path: Path, encoding: str) -> None:
    source = written(tmp_path / "en.srt", SRT)
    dub = written(tmp_path / "de.srt", DUB.removeprefix("\ufeff") if encoding == "utf-16" else DUB, encoding)
    assert read_sentences(dub, source) == SAME
    text = "WEBVTT\n\n00:00.500 --> 00:02.500 align:start\nHallo.\n\n00:03.000 --> 00:03.800\nTschüss.\n"
    assert read_sentences(written(tmp_path / "de.vtt", text), source) == SAME


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", "[", "not JSON"),
        ("a.json", "{}", "no list of sentences"),
        ("a.json", "[]", "no sentence"),
        ("a.json", '[{"source": [0, 1]}]', "sentence 1: no source and target times"),
        ("a.json", '[{"source": [0, 1], "target": [2, 1]}]', "ends before it begins"),
        ("a.json", '[{"source": [0, 1], "target": ["x", 1]}]', "'x' is not a time"),
        ("a.json", '[{"source": [0, 1], "target": [true, 1]}]', "True is not a time"),
        ("a.json", '[{"source": [0, NaN], "target": [0, 1]}]', "ends before it begins"),
        ("a.json", '[{"source": [0, 1, 2], "target": [0, 1]}]', "is not [start, end]"),
        (
            "a.json",
            '[{"source": [0, 1], "target": [4, 5]}, {"source": [2, 3], "target": [1, 2]}]',
            "the sentences at 0.00 s and 2.00 s of the video change places",
        ),
        ("a.srt", SRT, "has only the times of the dub"),
        ("a.json", '[{"start": 0, "end": 1}]', "has only the times of the dub"),
        ("dub.json", '{"segments": [{"start": 0, "end": 1}]}', "has only the times of the dub"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(tmp_path: Path, name: str, text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read_sentences(written(tmp_path / name, text))
    assert what in caught.value.what and caught.value.remedy


def test_subtitles_must_correspond(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one.srt", SRT[: SRT.index("2\n00:")]), written(tmp_path / "two.srt", SRT)
    with pytest.raises(InputError, match=r"1 sentences, .*two\.srt has 2"):
        read_sentences(two, one)
    with pytest.raises(InputError, match="holds no cue"):
        read_sentences(two, written(tmp_path / "empty.srt", "nothing"))
    with pytest.raises(InputError, match="cannot open"):
        read_sentences(two, tmp_path / "absent.srt")
    with pytest.raises(InputError, match="both times"):
        read_sentences(written(tmp_path / "a.json", '[{"source": [0, 1], "target": [0, 1]}]'), one)


ASS = """[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,a note, of the editor
Dialogue: 0,0:00:00.50,0:00:02.50,Default,,0,0,0,,Hallo, 0:00:05.00
Dialogue: 0,0:00:03.00,0:00:03.80,Default,,0,0,0,,Tschüss.
"""
VTT = """WEBVTT

NOTE 00:00:00.000 --> 00:00:09.000 is no cue

first
00:00.500 --> 00:02.500 align:start line:0
<v Bob>Hallo.

00:03.000 --> 00:03.800
Tschüss.
"""
TTML = """<?xml version="1.0" encoding="UTF-8"?><tt xmlns="http://www.w3.org/ns/ttml"><body begin="0s" end="9s"><div>
<p begin="00:00:00.500" end="2500ms">Hallo.</p><p begin="3s" dur="0.8s">Tschüss.</p></div></body></tt>"""
WHISPER = {"text": "Hallo. Tschüss.", "segments": [{"start": 0.5, "end": 2.5, "words": []}, {"start": 3.0, "end": 3.8}]}
VIDEOTRANS = [
    {"line": 1, "start_time": 500, "end_time": 2500, "startraw": "00:00:00,500", "endraw": "00:00:02,500"},
    {"line": 2, "start_time": 3000, "end_time": 3800, "startraw": "00:00:03,000", "endraw": "00:00:03,800"},
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("de.ass", ASS),
        ("de.ssa", ASS.replace("Dialogue: 0", "Dialogue: Marked=0")),
        ("de.vtt", VTT),
        ("de.ttml", TTML),
        ("de.xml", TTML.replace('<?xml version="1.0" encoding="UTF-8"?>', "")),
        ("de.json", json.dumps(WHISPER)),
        ("de.txt", json.dumps(WHISPER["segments"])),
        ("de.json", json.dumps(VIDEOTRANS)),
    ],
)
def test_cues_of_other_formats(tmp_path: Path, name: str, text: str) -> None:
    dub = written(tmp_path / name, text)
    assert read_sentences(dub, written(tmp_path / "en.srt", SRT)) == SAME
    same = read_sentences(dub, dub)
    assert [each.source for each in same] == [each.target for each in SAME] and same[0].source == same[0].target


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<tt><p begin='1s'", "not TTML"),
        ("<tt><p begin='1f' end='2f'/></tt>", "cue 1: '1f' is not a time"),
        ('[{"text": "Hi"}]', "cue 1: no start and end"),
        ("[00:01.00]La la\n[00:02.00]la\n", "holds no cue"),
    ],
)
def test_damaged_cues_are_refused(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read_sentences(written(tmp_path / "dub.srt", SRT), written(tmp_path / "cues.txt", text))
    assert what in caught.value.what and caught.value.remedy
