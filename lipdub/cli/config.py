"""`lipdub config`: the options and settings in effect, and their origins."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from lipdub.cli import console, settings
from lipdub.cli.command import Command, commands_of, files_of, long_options
from lipdub.config import Config, load_tables, to_dict
from lipdub.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show the options and settings in effect, and where each comes from.",
)


@app.command(cls=Command)
def show(
    ctx: typer.Context,
    command: Annotated[str, typer.Argument(help="The command whose options are listed.")] = "sync",
    quality: Annotated[
        settings.Quality | None,
        typer.Option(help="Include the settings of this `sync --quality` (default: the one in files or environment)."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All settings of config.py, not only those that were changed.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line: name, value, origin.")] = False,
) -> None:
    """Print the options of COMMAND and the settings of config.py, each with the file, variable or default it is from.

    The first of these has priority: the command line, LIPDUB_COMMAND_OPTION (LIPDUB_SYNC_DEVICE), LIPDUB_OPTION,
    --config or LIPDUB_CONFIG, ./lipdub.toml, your own settings file.
    """
    files = files_of(ctx)
    options = _options(ctx, command, files)
    preset = next((value for name, value, _ in options if name == "--quality"), None)
    if quality is None and preset is not None:
        quality = settings.Quality(str(preset))
    rows = [*options, *_numbers(files, all_, quality)]
    if json_:
        for name, value, origin in rows:
            console.data(console.json_line({"name": name, "value": value, "origin": origin}, type="setting"))
        return
    console.data("settings files: " + (", ".join(str(file.path) for file in files) or "none"))
    console.data(f"yours would be: {settings.user_file()}")
    console.table(("NAME", "VALUE", "FROM"), [(name, _text(value), origin) for name, value, origin in rows])


def _options(ctx: typer.Context, command: str, files: list[settings.SettingsFile]) -> list[tuple[str, object, str]]:
    commands = commands_of(ctx.find_root().command)
    if command not in commands:
        raise InputError(f"no command {command!r}", f"there are: {', '.join(commands)}")
    params = long_options(commands[command])
    values = settings.options_of(command, params, files)
    rows: list[tuple[str, object, str]] = []
    for name, param in params.items():
        if not param.hidden and name != "help":
            option = values.get(name, settings.OptionValue(param.default, "default"))
            rows.append((f"--{name}", option.value, option.origin))
    return rows


def _numbers(
    files: list[settings.SettingsFile], all_: bool, quality: settings.Quality | None
) -> list[tuple[str, object, str]]:
    config = settings.config_of(files, (), quality)
    chosen = load_tables(quality.preset) if quality else {}
    rows: list[tuple[str, object, str]] = []
    for section in fields(Config):
        for name, value in to_dict(getattr(config, section.name)).items():
            origin = settings.origin_of_number(files, section.name, name)
            if name in chosen.get(section.name, {}):
                origin = f"--quality {quality}"
            if origin or all_:
                rows.append((f"{section.name}.{name}", value, origin or "default"))
    return rows


def _text(value: object) -> str:
    return "-" if value in (None, [], ()) else str(value).lower() if isinstance(value, bool) else str(value)
