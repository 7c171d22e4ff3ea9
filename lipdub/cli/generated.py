"""Options of a command made from the fields of `SyncOptions`, which is their only list."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from lipdub.dub.options import OPTIONS, Option, OptionError, SyncOptions, options_from

Function = TypeVar("Function", bound=Callable[..., None])


def with_sync_options(function: Function) -> Function:
    """A command whose `**written` becomes one parameter for each option of a dub."""
    written = inspect.signature(function, eval_str=True)
    own = [p for p in written.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    made = [_parameter(option) for option in OPTIONS.values()]
    required = [p for p in own if p.default is inspect.Parameter.empty]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*required, *made, *own[len(required) :]]]
    function.__signature__ = written.replace(parameters=keyword)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in keyword} | {"return": None}
    return function


def options_of(written: Mapping[str, Any]) -> SyncOptions:
    """Options from the parameters of a command; usage error where a value is not taken."""
    plain = {key: value.value if isinstance(value, StrEnum) else value for key, value in written.items()}
    try:
        return options_from(plain)
    except OptionError as error:
        raise typer.BadParameter(error.message, param_hint=f"--{error.option}") from error


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = StrEnum(option.key, {word: word for word in option.choices}) if option.choices else option.kind
    names = [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]
    default = option.default or (False if option.kind is bool else None)
    if default is None:
        kind = kind | None
    elif option.choices:
        default = kind(default)
    info = typer.Option(*names, help=option.help, min=option.minimum, max=option.maximum, rich_help_panel=option.panel)
    return inspect.Parameter(
        option.key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )
