"""`lipdub doctor`: checks of the installation."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from lipdub.cli import console, settings
from lipdub.cli.command import files_of
from lipdub.errors import SetupError

STATUSES = {"ok": "OK", "warning": "warning", "problem": "problem"}


def doctor(
    ctx: typer.Context,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: a check each, then the counts.")
    ] = False,
) -> None:
    """Check the installation; include the output in bug reports.

    Each line is OK, a warning, or a problem. Exit code 0, or 6 with a problem.
    """
    from lipdub.doctor import examine

    config = settings.config_of(files_of(ctx), ()).media

    counts = Counter(dict.fromkeys(STATUSES, 0))
    with console.progress(json_lines=json_, quiet=True):
        for check in examine(config):
            counts[check.status] += 1
            if json_:
                console.data(console.json_line(check, type="check"))
                continue
            console.data(f"{STATUSES[check.status]:8} {check.name:12} {check.text}")
            if check.remedy:
                console.data(f"{'':21} {check.remedy}")
        n_problems = counts["problem"]
        if n_problems:
            raise SetupError(f"{n_problems} problem{'s' if n_problems > 1 else ''}", "what to do is said with each")
        if json_:
            console.data(console.json_line({"report": counts}, type="done"))
