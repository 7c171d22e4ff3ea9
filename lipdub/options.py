"""Options declared as fields of a dataclass, from which command lines, lists and reference pages are made.

Nothing in here imports torch, OpenCV or PyAV: the command line reads this module before it knows which command runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lipdub.errors import InputError

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class OptionError(ValueError):
    """A value that an option, named without its dashes, does not take; the message says what is taken."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option, self.message = option, message


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a field of a class of options is written: on the command line, in a list for `batch`, in a settings file."""

    help: str  # one sentence or two
    panel: str  # heading in the help
    name: str = ""  # long option without the dashes; with `_` for `-` also the column's name; the field's name if empty
    kind: type[str] | type[int] | type[float] | type[bool] | type[Path] = str  # of the written value
    default: Any = None  # the written default; None leaves the field's own
    choices: tuple[str, ...] = ()  # all words that are taken
    minimum: float | None = None
    maximum: float | None = None
    read: Callable[[Any], Any] = lambda value: value  # from the written value to the field's; raises InputError
    short: str | None = None  # letter of a short option
    column: bool = True  # whether it may differ between the items of a batch

    @property
    def key(self) -> str:
        """Name of the column of a batch, and of the parameter in Python."""
        return self.name.replace("-", "_")

    def parsed(self, text: str, folder: Path) -> Any:
        """The written value of a text in a list; paths are relative to `folder`.

        Raises:
            OptionError: not of this kind, out of bounds, or none of the choices.
        """
        if self.kind is bool:
            if text.lower() not in TRUE + FALSE:
                raise OptionError(self.key, f"invalid value {text!r}: use true or false")
            return text.lower() in TRUE
        if self.kind is Path:
            return (folder / text).absolute()
        try:
            value = self.kind(text)
        except ValueError as error:
            kind = "an integer" if self.kind is int else "a number"
            raise OptionError(self.key, f"{text!r} is not {kind}") from error
        self.check(value)
        return value

    def check(self, written: Any) -> None:
        """Raise an OptionError for a value that is none of the choices, or out of bounds."""
        if self.choices and written not in self.choices:
            raise OptionError(self.key, f"{written!r} is none of {', '.join(self.choices)}")
        low, high = self.minimum, self.maximum
        if isinstance(written, int | float) and (
            (low is not None and written < low) or (high is not None and written > high)
        ):
            bounds = f"from {low:g}" + (f" to {high:g}" if high is not None else "")
            raise OptionError(self.key, f"{written} is out of range: {bounds}")

    def of_python(self, value: Any) -> Any:
        """The field's value from one that a caller in Python gives: a string is read as on the command line.

        Raises:
            OptionError: none of the choices, out of bounds, or not of this kind.
            InputError: what `read` refuses.
        """
        if isinstance(value, str) and self.kind is bool and not self.choices:
            raise OptionError(self.key, f"invalid value {value!r}: use True or False")
        if isinstance(value, str):
            return self.read(Path(value) if self.kind is Path else self.parsed(value, Path()))
        if value is not None and not isinstance(value, bool):
            self.check(value)
        return value

    def value(self, written: Any) -> Any:
        """The field's value.

        Raises:
            OptionError: what `read` refuses.
            InputError: a file that cannot be read or is invalid.
        """
        try:
            return self.read(written)
        except InputError as error:
            if self.kind is Path:
                raise
            raise OptionError(self.name, f"{error.what}; {error.remedy}") from error


def option_field(default: Any, panel: str, help: str, *, written: Any = None, **more: Any) -> Any:
    """Dataclass field with its `Option`, whose other fields are `more`.

    The written default is that of the field where it is a text, a number or a flag.
    """
    if written is None and isinstance(default, str | bool | int | float):
        written = default
    return field(default=default, metadata={"option": Option(help=help, panel=panel, default=written, **more)})


def options_of(options: type) -> dict[str, Option]:
    """Options of a dataclass by field, without fields that are no options."""
    declared = {item.name: item.metadata["option"] for item in fields(options) if "option" in item.metadata}
    return {name: each if each.name else replace(each, name=name.replace("_", "-")) for name, each in declared.items()}


def values_of(options: Mapping[str, Option], written: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields from written values, by `Option.key`; None and the empty text leave the default.

    Raises:
        OptionError: a value that is not taken.
        InputError: a file that an option names is invalid.
    """
    return {
        name: option.value(written[option.key])
        for name, option in options.items()
        if written.get(option.key) not in (None, "")
    }
