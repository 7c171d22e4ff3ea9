"""Dub a video from Python.

    python python_api.py VIDEO SPEECH OUTPUT

Prints the progress of each stage, then what was done. Errors that a user can mend are `LipdubError`: they say what
happened and what to do, and carry the exit code that the command would have.
"""

from __future__ import annotations

import sys

import lipdub
from lipdub.errors import LipdubError
from lipdub.events import Event, Progress, Stage, Warning_


def show(event: Event) -> None:
    """One line for each stage, one for each warning; `Progress` comes with every frame."""
    if isinstance(event, Stage):
        print(f"stage {event.index} of {event.count}: {event.name}")
    elif isinstance(event, Progress) and event.done == event.total:
        print(f"  {event.done} frames")
    elif isinstance(event, Warning_):
        print(f"  warning ({event.code}): {event.message}")


def main(video: str, speech: str, output: str) -> int:
    """Dub everybody in the first ten seconds; the exit code."""
    options = lipdub.SyncOptions(face="all", end_s=10.0, overwrite=True)
    try:
        report = lipdub.sync(video, speech, output, options, on_event=show)
    except LipdubError as error:
        print(f"{error.what}\n{error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"{report.output}: {report.dubbed} of {report.frames} frames dubbed, faces: {report.faces}")
    for reason, count in report.passed.items():
        print(f"  {count} frames left as they were: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 4 else __doc__)
