from __future__ import annotations

import json
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import MelConfig
from lipdub.errors import InputError, SetupError
from lipdub.training import synthetic_speech as module
from lipdub.training.synthetic_speech import (
    LIP_CLASSES,
    OTHER,
    SILENCE,
    lip_classes,
    phone_names,
    prepare_speech,
    random_text,
    read_speech,
    texts_of,
)

MEL = MelConfig()


def test_random_text_is_words_in_latin_letters() -> None:
    text = random_text(np.random.default_rng(0))
    assert text.endswith(".") and 5 <= len(text.split()) <= 14
    assert text.replace(" ", "").replace(",", "").replace(".", "").isascii()
    assert text != random_text(np.random.default_rng(1))


def test_texts_are_a_language_and_a_sentence_a_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.tsv"
    file.write_text("de\tGuten Morgen.\n\npl\tDzień dobry.\n", encoding="utf-8")
    assert texts_of(file) == [("de", "Guten Morgen."), ("pl", "Dzień dobry.")]


@pytest.mark.parametrize("content", ["", "no tab here\n"])
def test_other_texts_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "texts.tsv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="no list of texts"):
        texts_of(file)
    with pytest.raises(InputError, match="cannot read"):
        texts_of(tmp_path / "absent.tsv")


def test_lips_are_classed_by_a_phones_first_letter() -> None:
    classes = list(LIP_CLASSES)
    told = [classes[k] if k >= 0 else None for k in lip_classes(["", "other", "p", "m", "f", "u", "i", "a", "t", "oʊ"])]
    assert told[2:] == ["bilabial", "bilabial", "labiodental", "rounded", "spread", "open", None, "rounded"]
    assert told[0] is None


def test_each_phone_lasts_until_the_next() -> None:
    names = ["", "other", "p", "a"]
    labels = module._labels([(0.1, "p"), (0.2, "a\u02d0"), (0.3, "q"), (0.4, "_")], 40, 80.0, names)
    assert labels.tolist() == [SILENCE] * 8 + [2] * 8 + [3] * 8 + [OTHER] * 8 + [SILENCE] * 8


def test_without_espeak_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_library", lambda name: None)
    with pytest.raises(SetupError, match="espeak-ng") as caught:
        prepare_speech(Path("random"), tmp_path / "out", 1.0, MEL)
    assert "apt-get install espeak-ng" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_what_is_no_synthetic_speech_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no synthetic speech") as caught:
        phone_names(tmp_path)
    assert "--layout synthetic-speech" in caught.value.remedy


@pytest.mark.skipif(find_library("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_says_texts_with_their_phones(tmp_path: Path) -> None:
    texts = tmp_path / "texts.tsv"
    texts.write_text("en-us\tMama puts the papaya on a map. And again, Papa.\n", encoding="utf-8")
    summary = prepare_speech(texts, tmp_path / "out", 0.1, MEL, on_line=lambda line: None)
    assert float(str(summary["minutes"])) >= 0.1
    names = phone_names(tmp_path / "out")
    assert {"m", "p"} <= set(names)
    clips = [*read_speech(tmp_path / "out", held_out=False), *read_speech(tmp_path / "out", held_out=True)]
    assert len(clips) == json.loads((tmp_path / "out" / "speech.json").read_text(encoding="utf-8"))["utterances"]
    mel, phones = clips[0]
    assert mel.shape == (80, len(phones))
    loud = mel.mean(0)
    assert np.median(loud[phones > OTHER]) > np.median(loud[phones == SILENCE]) + 0.3  # labels lie where the sound is
