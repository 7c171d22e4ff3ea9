"""What was never run against the real files says so where it is chosen."""

from __future__ import annotations

import re

import pytest
import typer

from lipdub.cli.app import app
from lipdub.cli.command import commands_of, long_options
from lipdub.config import PRESETS

UNTESTED = {  # command -> options; take one out when it was run against the real thing, and say so in the docs
    "eval": {"weights": "Wav2Lip", "features": "vgg16", "syncnet": "", "lpips": "", "identity": "", "fid": ""},
    "train": {"preset": "release", "features": "vgg16"},
    "prepare": {"layout": "corpora"},
    "sync": {"model": "wav2lip", "detector": "face-alignment"},
    "faces": {"detector": "face-alignment"},
}


@pytest.mark.parametrize(("command", "option"), [(name, option) for name, of in UNTESTED.items() for option in of])
def test_the_help_of_an_option_says_untested(command: str, option: str) -> None:
    text = long_options(commands_of(typer.main.get_command(app))[command])[option].help
    assert re.search(rf"{UNTESTED[command][option]}.*untested", text), text


def test_the_preset_that_nobody_trained_says_so() -> None:
    head = (PRESETS / "release.toml").read_text(encoding="utf-8").partition("\n\n")[0]
    assert "Untested" in head
