from __future__ import annotations

from pathlib import Path

import pytest

from lipdub.errors import InputError
from lipdub.faces.selection import Speaker, format_face, parse_face, parse_time, read_speakers

RTTM = "SPEAKER talk 1 0.50 2.00 <NA> <NA> anna <NA> <NA>\nSPEAKER talk 1 3.0 1.5 <NA> <NA> ben <NA> <NA>\n"


def test_every_way_to_name_a_face() -> None:
    assert parse_face("3.5,4@1:02") == (3.5, 4.0, 62.0)
    for text in ("largest", "all", "speaking", "id:3,7", "3.5,4", "3,4@12.5"):
        assert format_face(parse_face(text)) == text
    assert parse_face("7") == "id:7"


def test_a_photo_is_refused_with_another_way() -> None:
    with pytest.raises(InputError, match="no network that recognises a person") as caught:
        parse_face("anna.JPG")
    assert "x,y@t" in caught.value.remedy


def test_speakers_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "talk.rttm").write_text(RTTM)
    path = tmp_path / "map.toml"
    path.write_text(
        'rttm = "talk.rttm"\n'
        '[[speaker]]\nname = "anna"\nface = "id:0"\nsound = "anna.wav"\n'
        '[[speaker]]\nface = "10,20@3"\nturns = [["0:01", "0:02.5"], [0, 0.5]]\n'
    )
    assert read_speakers(path) == (
        Speaker(face="id:0", sound=tmp_path / "anna.wav", turns=((0.5, 2.5),)),
        Speaker(face=(10.0, 20.0, 3.0), turns=((0.0, 0.5), (1.0, 2.5))),
    )


def test_a_diarization_alone_looks_for_the_faces(tmp_path: Path) -> None:
    path = tmp_path / "talk.rttm"
    path.write_text(RTTM)
    assert read_speakers(path) == (Speaker(turns=((0.5, 2.5),)), Speaker(turns=((3.0, 4.5),)))
    assert read_speakers(path)[0].face == "speaking"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.toml", "x = [", "no TOML|cannot read"),
        ("m.toml", "", "must hold"),
        ("m.toml", "[[speaker]]\nvoice = 'a.wav'\n", "unknown key voice"),
        ("m.toml", "[[speaker]]\nname = 'carl'\n", "no turns of 'carl'"),
        ("m.toml", "[[speaker]]\nturns = [[2, 1]]\n", "ends before"),
        ("m.toml", "[[speaker]]\nturns = [1, 2]\n", "turns are"),
        ("m.toml", "[[speaker]]\nface = 'anybody'\n", "none of"),
        ("m.rttm", "SPEAKER talk 1 now 2 x x anna\n", "line 1: invalid RTTM"),
        ("m.rttm", "\n", "names no speaker"),
    ],
)
def test_what_cannot_be_understood_is_said(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_speakers(tmp_path / name)
    with pytest.raises(InputError, match="invalid time"):
        parse_time("soon")
