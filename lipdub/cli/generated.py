"""Options of a command made from the fields of a class, which is their only list."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from typer.models import ArgumentInfo

from lipdub.dub.options import SyncOptions, options_from
from lipdub.options import Option, OptionError

Function = TypeVar("Function", bound=Callable[..., None])


def with_options(options: Iterable[Option]) -> Callable[[Function], Function]:
    """A command whose `**written` becomes one parameter for each option, behind arguments and required options."""

    def decorate(function: Function) -> Function:
        written = inspect.signature(function, eval_str=True)
        own = [p for p in written.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        first = [p for p in own if _comes_first(p)]
        others = [p for p in own if p not in first]
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*first, *map(_parameter, options), *others]]
        function.__signature__ = written.replace(parameters=keyword)  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: p.annotation for p in keyword} | {"return": None}
        return function

    return decorate


def plain(written: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a command with the text of each choice."""
    return {key: value.value if isinstance(value, StrEnum) else value for key, value in written.items()}


def options_of(written: Mapping[str, Any]) -> SyncOptions:
    """Options from the parameters of a command; usage error where a value is not taken."""
    try:
        return options_from(plain(written))
    except OptionError as error:
        raise typer.BadParameter(error.message, param_hint=f"--{error.option}") from error


def _comes_first(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is an argument or required."""
    infos = getattr(parameter.annotation, "__metadata__", ())
    return parameter.default is inspect.Parameter.empty or any(isinstance(info, ArgumentInfo) for info in infos)


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = StrEnum(option.key, {word: word for word in option.choices}) if option.choices else option.kind
    names = [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]
    default = (False if option.kind is bool else None) if option.default in (None, "") else option.default
    if default is None:
        kind = kind | None
    elif option.choices:
        default = kind(default)
    info = typer.Option(*names, help=option.help, min=option.minimum, max=option.maximum, rich_help_panel=option.panel)
    return inspect.Parameter(
        option.key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )
