"""Synthetic speech whose phones are known, which an audio encoder learns first.

Made by `lipdub prepare random -o OUTPUT --layout synthetic-speech`.

espeak-ng says random words, or texts of the user's, in many languages and voices; its library tells when each phone
begins. It is a program of the person who trains, loaded from the system; nothing of it is needed to dub.

    OUTPUT/speech.json          phones by number, languages, minutes, share held out
    OUTPUT/clips/<n>.npz        mel (80, M) uint8 and phones (M,) int16, one number a mel step
"""

from __future__ import annotations

import ctypes
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from lipdub.config import MelConfig
from lipdub.data.store import AGAIN
from lipdub.errors import InputError, SetupError
from lipdub.mel import log_mel

MANIFEST = "speech.json"
SILENCE, OTHER = 0, 1  # numbers of the first two phones
LANGUAGES = ("en-us", "de", "fr-fr", "es", "it", "pt-br", "pl", "nl", "sv", "tr", "cs", "id")
VARIANTS = (*(f"m{n}" for n in range(1, 8)), *(f"f{n}" for n in range(1, 6)))
RATES_WPM, PITCHES, RANGES = (110, 230), (15, 90), (20, 90)  # of espeak-ng, drawn for each utterance
WORDS = (5, 14)  # of a random utterance
MAX_PHONES = 96  # with silence and all others
HELD_OUT = 0.04  # share of the utterances to validate on
# fmt: off
ONSETS = (
    "p", "b", "m", "f", "v", "t", "d", "n", "s", "z", "l", "r", "k", "g", "h", "w", "j", "sh", "ch",
    "pl", "br", "tr", "st", "sp", "sm", "fl", "gr", "kw", "th",
)
VOWELS = ("a", "e", "i", "o", "u", "oo", "ee", "ai", "ou", "oi", "au", "ea")
CODAS = ("", "", "", "m", "n", "p", "t", "s", "l", "r", "k", "f", "b", "v")
# fmt: on
# What lips do, by the first letter of a phone in IPA; what is not listed leaves them as they are.
LIP_CLASSES = {
    "bilabial": "pbmɓ",
    "labiodental": "fvɱʋ",  # noqa: RUF001
    "rounded": "uoɔʊwyøœɥɒɵ",
    "spread": "ieɪɛj",  # noqa: RUF001
    "open": "aɑæɐʌ",  # noqa: RUF001
}
_RETRIEVE, _PHONEME_EVENTS, _IPA, _UTF8, _PHONEME, _END = 1, 1, 2, 1, 7, 0  # of espeak-ng's speak_lib.h


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("id", _Id),
    )


PhoneClip = tuple[NDArray[np.float32], NDArray[np.int64]]  # mel (80, M) and a phone's number at each of its steps


@dataclass(frozen=True)
class Utterance:
    """What espeak-ng said."""

    waveform: NDArray[np.float32]  # (n,) in [-1, 1], at `rate`
    rate: int  # Hz
    phones: list[tuple[int, str]]  # first sample and IPA of each


class Espeak:
    """The system's espeak-ng library.

    Raises:
        SetupError: it is not installed, or does not start.
    """

    def __init__(self) -> None:
        name = find_library("espeak-ng")
        if name is None:
            raise SetupError(
                "synthetic speech needs espeak-ng, which is not installed",
                "install it (Debian: apt-get install espeak-ng; macOS: brew install espeak-ng)",
            )
        self._library = ctypes.CDLL(name)
        self._rate = int(self._library.espeak_Initialize(_RETRIEVE, 0, None, _PHONEME_EVENTS | _IPA))
        if self._rate <= 0:
            raise SetupError("espeak-ng does not start", "install its data, too (Debian: espeak-ng-data)")
        self._samples: list[NDArray[np.int16]] = []
        self._phones: list[tuple[int, str]] = []
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = signature(self._collect)  # kept: the library holds a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, rate_wpm: int, pitch: int, pitch_range: int) -> Utterance | None:
        """Speak a text; None where the voice is not there or nothing is said.

        The voice is a language of espeak-ng, with or without "+variant"; pitch and its range are 0 to 100.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        for parameter, value in ((1, rate_wpm), (3, pitch), (4, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._samples, self._phones = [], []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._samples or not self._phones:
            return None
        waveform = (np.concatenate(self._samples) / 32768).astype(np.float32)
        return Utterance(waveform, self._rate, self._phones)

    def _collect(self, samples: object, count: int, events: Sequence[_Event]) -> int:
        if samples and count:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        place = 0
        while events[place].type != _END:
            if events[place].type == _PHONEME:
                self._phones.append((events[place].sample, events[place].id.string.decode("utf-8", "ignore")))
            place += 1
        return 0


def random_text(rng: np.random.Generator) -> str:
    """Words that no language has, which every language of Latin letters can read."""
    words = []
    for _ in range(rng.integers(*WORDS)):
        syllables = [
            rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
        ]
        words.append("".join(syllables) + rng.choice(("", "", "", ",")))
    return " ".join(words) + "."


def texts_of(source: Path) -> list[tuple[str, str]]:
    """Language and sentence of each line `language<TAB>sentence` of a UTF-8 file.

    Raises:
        InputError: no such file, or a line without a tab.
    """
    try:
        lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {source}: {error}", "give a UTF-8 text file, or the word random") from error
    pairs = [tuple(line.split("\t", 1)) for line in lines]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{source} is no list of texts", "write a language, a tab and a sentence on each line")
    return [(language.strip(), text.strip()) for language, text in pairs]


def prepare_speech(
    source: Path, output: Path, minutes: float, mel: MelConfig, seed: int = 0, on_line: Callable[[str], None] = print
) -> dict[str, object]:
    """Write `minutes` of synthetic speech, pauses included, with its phones to a folder; returns what was written.

    `source` is a file of texts (`texts_of`), or the path "random". Clips of an earlier call are replaced.

    Raises:
        SetupError: no espeak-ng.
        InputError: bad texts, or none that a voice could say.
    """
    texts = None if str(source) == "random" else texts_of(source)
    espeak, rng = Espeak(), np.random.default_rng(seed)
    (output / "clips").mkdir(parents=True, exist_ok=True)
    made: list[tuple[NDArray[np.float32], list[tuple[float, str]]]] = []
    languages: Counter[str] = Counter()
    seconds, silent = 0.0, 0
    while seconds < 60 * minutes:
        if texts is None:
            language, text = str(rng.choice(LANGUAGES)), random_text(rng)
        else:
            language, text = texts[int(rng.integers(len(texts)))]
        voice = f"{language}+{rng.choice(VARIANTS)}"
        utterance = espeak.say(text, voice, *(int(rng.integers(*span)) for span in (RATES_WPM, PITCHES, RANGES)))
        if utterance is None:
            silent += 1
            if silent > 50 + len(made):
                raise InputError("espeak-ng could speak hardly any of the texts", "give languages that it has")
            continue
        waveform = resample_poly(utterance.waveform, mel.sample_rate, utterance.rate).astype(np.float32)
        made.append((log_mel(waveform, mel), [(first / utterance.rate, phone) for first, phone in utterance.phones]))
        seconds += len(waveform) / mel.sample_rate
        languages[language] += 1
        if len(made) % 200 == 0:
            on_line(f"{seconds / 60:.0f} of {minutes:g} minutes")
    names = _phone_inventory([phone for _, phones in made for _, phone in phones])
    steps = mel.sample_rate / mel.hop
    for number, (spectrum, phones) in enumerate(made):
        labels = _labels(phones, spectrum.shape[1], steps, names)
        levels = np.clip(np.round((spectrum + 1) * 127.5), 0, 255).astype(np.uint8)
        np.savez_compressed(output / "clips" / f"{number:05d}.npz", mel=levels, phones=labels)
    summary: dict[str, object] = {
        "phones": names,
        "utterances": len(made),
        "minutes": round(seconds / 60, 1),
        "languages": dict(languages),
        "held_out": HELD_OUT,
    }
    (output / MANIFEST).write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    return {key: value for key, value in summary.items() if key != "phones"} | {"phones": len(names)}


def read_speech(folder: Path, held_out: bool) -> Iterator[PhoneClip]:
    """Mel (80, M) and phone numbers (M,) of each utterance to train on, or to validate on.

    Raises:
        InputError: no such folder, or a damaged file.
    """
    summary = speech_summary(folder)
    count, share = int(str(summary["utterances"])), float(str(summary["held_out"]))
    last = count - max(1, round(share * count))
    for number in range(last, count) if held_out else range(last):
        try:
            with np.load(folder / "clips" / f"{number:05d}.npz") as data:
                yield np.asarray(data["mel"] / 127.5 - 1, np.float32), data["phones"].astype(np.int64)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"cannot read utterance {number} of {folder}: {error}", AGAIN) from error


def speech_summary(folder: Path) -> dict[str, object]:
    """What `prepare_speech` wrote.

    Raises:
        InputError: no such folder.
    """
    try:
        summary: dict[str, object] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"{folder} is no synthetic speech"
        raise InputError(what, f"lipdub prepare random -o {folder} --layout synthetic-speech") from error
    return summary


def phone_names(folder: Path) -> list[str]:
    """The phones of a folder in IPA, by number; raises as `speech_summary` does."""
    names = speech_summary(folder)["phones"]
    assert isinstance(names, list)
    return [str(name) for name in names]


def lip_classes(names: Sequence[str]) -> NDArray[np.int64]:
    """(P,) for each phone the place of its class in LIP_CLASSES, or -1."""
    places = {letter: number for number, letters in enumerate(LIP_CLASSES.values()) for letter in letters}
    return np.array([places.get(name[:1], -1) for name in names])


def _phone_inventory(phones: Sequence[str]) -> list[str]:
    """Silence, other, then the commonest phones."""
    common = Counter(_plain(phone) for phone in phones)
    common.pop("", None)
    return ["", "other", *(name for name, _ in common.most_common(MAX_PHONES - 2))]


def _plain(phone: str) -> str:
    """IPA without length and stress; empty for a pause."""
    return phone.strip("ːˑˈˌ_:! ").rstrip("ːˑ")


def _labels(phones: Sequence[tuple[float, str]], length: int, steps: float, names: Sequence[str]) -> NDArray[np.int16]:
    """The phone number at each of `length` mel steps."""
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.full(length, SILENCE, np.int16)
    for first_s, phone in phones:  # in order: each runs until the next
        labels[max(0, round(first_s * steps)) :] = numbers.get(_plain(phone), OTHER)
    return labels
