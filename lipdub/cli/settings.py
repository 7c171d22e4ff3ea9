"""Settings files and environment variables.

    command line > LIPDUB_COMMAND_OPTION > LIPDUB_OPTION > --config > ./lipdub.toml > the user's file > default

A settings file has two tables:

    [options]            long options of any command, without the dashes     device = "cuda"
    [options.sync]       those of one command, which go first                language = "uk"
    [settings.media]     numbers of config.py, as --set takes them           preset = "slow"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lipdub.config import Config, load_config, load_tables
from lipdub.errors import InputError

PROJECT_FILE = "lipdub.toml"
FILE_VARIABLE = "LIPDUB_CONFIG"
# These variables mean something else: a folder of files, a program, a file, tracebacks, the tests' material.
TAKEN = {"LIPDUB_WEIGHTS", "LIPDUB_FFMPEG", FILE_VARIABLE, "LIPDUB_DEBUG", "LIPDUB_SHARED"}
TABLES = ("options", "settings")

Commands = Mapping[str, Sequence[str]]  # command -> its long options, without the dashes


@dataclass(frozen=True)
class OptionValue:
    """A value and where it comes from: a file or a variable."""

    value: Any
    origin: str


@dataclass(frozen=True)
class SettingsFile:
    """One file, as it was read."""

    path: Path
    options: dict[str, Any]
    settings: dict[str, dict[str, Any]]


def user_file() -> Path:
    """Where the user's own settings file would be."""
    from platformdirs import user_config_path

    return user_config_path("lipdub") / "config.toml"


def read_files(extra: Path | None, commands: Commands) -> list[SettingsFile]:
    """The user's file, the one of the current folder, and `extra` (else the one that LIPDUB_CONFIG names), if there.

    Later ones have priority. `commands` has the options that `[options]` may name.

    Raises:
        InputError: a file cannot be read, or names an option or number that does not exist; `extra` is absent.
    """
    named = os.environ.get(FILE_VARIABLE)
    last = extra if extra is not None else Path(named) if named else None
    paths = [path for path in (user_file(), Path(PROJECT_FILE)) if path.is_file()]
    return [_read(path, commands) for path in [*paths, *([last] if last is not None else [])]]


def _read(path: Path, commands: Commands) -> SettingsFile:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the settings {path}: {error}", "see `lipdub config show`") from error
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise InputError(
                f"{path}: no table {name!r} is known", "use [options], [options.COMMAND] or [settings.SECTION]"
            )
    options, settings = tables.get("options", {}), tables.get("settings", {})
    anywhere = {option for known in commands.values() for option in known}
    for name, value in options.items():
        for option in value if isinstance(value, dict) else [name]:
            known = commands.get(name, ()) if isinstance(value, dict) else anywhere
            if option not in known:
                what = f"lipdub {name} has no option --{option}" if isinstance(value, dict) else f"no option --{option}"
                raise InputError(f"{path}: {what}", f"there are: {', '.join(sorted(known or commands))}")
    try:
        load_config(None, (), settings)
    except (InputError, AttributeError) as error:
        raise InputError(f"{path}, [settings]: {error}", "see `lipdub config show --all`") from error
    return SettingsFile(path, options, settings)


def options_of(command: str, names: Iterable[str], files: Sequence[SettingsFile]) -> dict[str, OptionValue]:
    """What files and environment say of the options of one command ("sync", "weights list"), by name without dashes."""
    values: dict[str, OptionValue] = {}
    for name in names:
        for file in files:
            for table in (file.options, file.options.get(command, {})):
                if name in table and not isinstance(table[name], dict):
                    values[name] = OptionValue(table[name], str(file.path))
        for variable in (_variable(name), _variable(f"{command} {name}")):
            if variable in os.environ and variable not in TAKEN:
                values[name] = OptionValue(os.environ[variable], variable)
    return values


def _variable(words: str) -> str:
    return "LIPDUB_" + words.upper().replace("-", "_").replace(" ", "_")


class Quality(StrEnum):
    """Presets of a dub, in lipdub/presets/quality: how much time the picture is worth."""

    fast = "fast"
    balanced = "balanced"
    best = "best"

    @property
    def preset(self) -> str:
        """What `load_config` takes."""
        return f"quality/{self.value}"

    @property
    def overrides(self) -> str:
        """The settings that it changes, as --set takes them."""
        tables = load_tables(self.preset).items()
        return " ".join(f"--set {section}.{key}={value}" for section, table in tables for key, value in table.items())


def config_of(files: Sequence[SettingsFile], overrides: Iterable[str], quality: Quality | None = None) -> Config:
    """The numbers of a job: defaults <- files <- `--quality` <- `--set`.

    Raises:
        InputError: an unknown key, a wrong type.
    """
    settings: dict[str, dict[str, Any]] = {}
    for file in files:
        for section, table in file.settings.items():
            settings.setdefault(section, {}).update(table)
    if ffmpeg := os.environ.get("LIPDUB_FFMPEG"):  # goes before files, as other variables do
        settings.setdefault("media", {})["ffmpeg"] = ffmpeg
    return load_config(quality.preset if quality else None, overrides, settings)


def origin_of_number(files: Sequence[SettingsFile], section: str, name: str) -> str:
    """The file that sets a number; empty where none does."""
    return next((str(file.path) for file in reversed(files) if name in file.settings.get(section, {})), "")
