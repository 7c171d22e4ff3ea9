"""Run `lipdub sync` as a child process and follow its JSON lines.

    python json_events.py VIDEO SPEECH OUTPUT

Each line of stdout is one event (docs/events.md); readers ignore types and keys that they do not know. The exit code
is the child's. Ctrl-C is passed on: lipdub then removes what it wrote.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys


def main(video: str, speech: str, output: str) -> int:
    """Print a line for each stage and the outcome; the child's exit code."""
    command = [sys.executable, "-m", "lipdub", "sync", video, speech, "-o", output, "-y", "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event["type"] == "stage":
            print(f"{event['name']} ({event['index']} of {event['count']})")
        elif event["type"] == "warning":
            print(f"warning: {event['message']}")
        elif event["type"] == "done":
            print(f"{event['report']['dubbed']} of {event['report']['frames']} frames dubbed")
        elif event["type"] == "error":
            print(f"failed with code {event['code']}: {event['what']}; {event['remedy']}")
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 4 else __doc__)
