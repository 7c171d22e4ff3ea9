"""Settings of an output folder, stored so that a later call cannot continue with different ones."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lipdub.config import current_names
from lipdub.errors import InputError


def keep_settings(
    path: Path, settings: Mapping[str, Mapping[str, Any]], *, option: str, free: Collection[str] = ()
) -> None:
    """Write settings, by section and key, to a file in the output folder; an existing file must agree.

    Keys that the file lacks are newer than the file, and are added.

    Args:
        path: the JSON file; its folder exists.
        settings: section -> key -> value.
        option: of the command line that sets the folder, for messages.
        free: "section.key" of settings that may change.

    Raises:
        InputError: another value, or a file that cannot be read.
    """
    expected = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            old = {section: current_names(section, values) for section, values in stored.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"cannot read {path}: {error}", f"give another {option} folder") from error
        for section, values in expected.items():
            for key, value in values.items():
                was = old.get(section, {}).get(key, value)
                if was != value and f"{section}.{key}" not in free:
                    raise InputError(
                        f"{path.parent} was made with {section}.{key} = {was!r}, not {value!r}",
                        f"give the same settings to continue, or another {option} folder",
                    )
    path.write_text(json.dumps(expected, indent=1), encoding="utf-8")
