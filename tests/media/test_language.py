import pytest

from lipdub.errors import InputError
from lipdub.media.language import code_in, language_code


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        *(("uk", "ukr"), ("UK", "ukr"), ("uk-UA", "ukr"), ("pt_BR", "por"), ("zh-Hans-CN", "zho"), ("ukr", "ukr")),
        *(
            ("ger", "deu"),
            ("fre", "fra"),
            ("deu", "deu"),
            ("yue", "yue"),
            (" en ", "eng"),
            ("no", "nor"),
            ("und", "und"),
        ),
    ],
)
def test_tags_become_three_letters(tag, code):
    assert language_code(tag) == code


@pytest.mark.parametrize("tag", ["", "xx", "english", "u", "uk-", "-uk", "uk UA", "12", "укр", "uk-toolongpart"])
def test_other_words_are_refused(tag):
    with pytest.raises(InputError, match="invalid language tag"):
        language_code(tag)


@pytest.mark.parametrize(
    ("muxer", "code", "spelt"),
    [
        *(("mp4", "deu", "deu"), ("mpegts", "fra", "fra"), ("matroska", "deu", "ger"), ("webm", "fra", "fre")),
        *(("mov", "deu", "ger"), ("mov", "fra", "fra"), ("mov", "ukr", "ukr"), ("matroska", "ukr", "ukr")),
    ],
)
def test_containers_spell_them_in_their_own_way(muxer, code, spelt):
    assert code_in(muxer, code) == spelt


@pytest.mark.parametrize(("old", "code"), [("iw", "heb"), ("jw", "jav"), ("in", "ind"), ("ji", "yid")])
def test_codes_that_were_replaced_are_understood(old, code):
    assert language_code(old) == code
