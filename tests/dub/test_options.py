"""One list of options: what is made from it, and what it refuses."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from lipdub.cli.app import app
from lipdub.cli.batch import COLUMNS
from lipdub.cli.command import commands_of, long_options
from lipdub.dub.options import OPTIONS, SyncOptions, options_from
from lipdub.errors import InputError
from lipdub.options import OptionError

COMMANDS: Any = typer.main.get_command(app)


def test_every_field_is_an_option_of_sync_with_its_help() -> None:
    params = long_options(commands_of(COMMANDS)["sync"])
    assert [item.name for item in fields(SyncOptions)] == list(OPTIONS)
    for option in OPTIONS.values():
        param = params[option.name]
        assert (param.name, param.help, param.rich_help_panel) == (option.key, option.help, option.panel)


def test_every_field_but_overwrite_is_a_column_of_batch() -> None:
    assert {option.key for option in COLUMNS.values()} == {option.key for option in OPTIONS.values()} - {"overwrite"}


def test_nothing_written_gives_the_defaults() -> None:
    defaults = {option.key: option.default for option in OPTIONS.values()}
    assert options_from({}) == options_from(defaults) == SyncOptions()


@pytest.mark.parametrize(
    ("written", "option"),
    [
        ({"start": "soon"}, "start"),
        ({"start": "0:10", "end": "10"}, "end"),
        ({"face": "somebody"}, "face"),
        ({"language": "klingon"}, "language"),
        ({"lossless": True, "crf": 20}, "crf"),
    ],
)
def test_a_wrong_value_names_its_option(written: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionError) as caught:
        options_from(written)
    assert caught.value.option == option


def test_strings_in_python_are_read_as_on_the_command_line() -> None:
    options = SyncOptions(face="640,300", start_s="1:02", fit="dub.srt", keep_original_audio="drop", strength="1.5")
    assert options == SyncOptions(
        face=(640.0, 300.0), start_s=62.0, fit=Path("dub.srt"), keep_original_audio=False, strength=1.5
    )


@pytest.mark.parametrize(
    "given",
    [
        {"on_damage": "maybe"},
        {"length": 3},
        {"strength": 9.0},
        {"crf": 99},
        {"crf": "best"},
        {"overwrite": "no"},
    ],
)
def test_python_refuses_what_the_command_line_refuses(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        SyncOptions(**given)
    (name,) = given
    assert caught.value.option in (name, OPTIONS[name].key)


@pytest.mark.parametrize("given", [{"face": "left"}, {"start_s": "soon"}, {"language": "klingon"}])
def test_python_is_told_what_to_give_instead(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given.values()))) as caught:
        SyncOptions(**given)
    assert caught.value.remedy


def test_a_text_is_read_by_the_kind_of_its_option(tmp_path: Path) -> None:
    assert OPTIONS["crf"].parsed("20", tmp_path) == 20
    assert OPTIONS["strength"].parsed("1.5", tmp_path) == 1.5
    assert [OPTIONS["cache"].parsed(text, tmp_path) for text in ("true", "No")] == [True, False]
    assert OPTIONS["compare"].parsed("a.mp4", tmp_path) == tmp_path / "a.mp4"
    for name, text in (("crf", "52"), ("crf", "1.5"), ("batch_size", "0"), ("extend", "stop"), ("lossless", "2")):
        with pytest.raises(OptionError):
            OPTIONS[name].parsed(text, tmp_path)
