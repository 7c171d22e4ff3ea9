"""Kills dubs: run as a program by test_killed.py, because only a process without threads can fork.

    python killed.py FOLDER VIDEO AUDIO WEIGHTS SIGNAL N POINT...

Dubs once for reference, and counts the calls of lipdub's functions. For each POINT, dubs again over an old output and
gets SIGNAL after POINT/N of those calls; then once more, as a user would. Prints one JSON line for each point.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch

import lipdub
from lipdub.cli.app import main
from lipdub.dub import networks

OLD = b"the film of last week"
PACKAGE = str(Path(lipdub.__file__).parent)
COUNT = "calls"


class Calls:
    """Counts calls of lipdub's own functions, and sends this process a signal at one of them."""

    def __init__(self, number: int = signal.SIGKILL, at: int = sys.maxsize) -> None:
        self.n, self._number, self._at = 0, number, at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.n += 1
            if self.n == self._at:
                os.kill(os.getpid(), self._number)


def fork(argv: list[str], calls: Calls, folder: Path) -> int:
    """Run a command line in a child; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        handle = os.open(folder / "log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.setprofile(calls)
        code = main(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.setprofile(None)
        (folder / COUNT).write_text(str(calls.n))
        os._exit(code)


def fakes() -> Any:
    """The face backend of conftest.py, which is no module of a package."""
    spec = spec_from_file_location("conftest_of_lipdub", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeFaceBackend()


def run(folder: Path, video: str, audio: str, weights: str, number: int, n: int, points: list[int]) -> None:
    """See the module."""
    networks.face_backend = lambda name, config, device: fakes()
    out, temporary = folder / "out", folder / "tmp"
    out.mkdir()
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    os.environ["TMPDIR"] = str(temporary)
    target = out / "dubbed.mp4"
    argv = ["sync", video, audio, "-o", str(target), "-y", "--weights", weights, "--device", "cpu", "--preset", "fast"]

    def at(point: int, calls: Calls) -> int:
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache{point}")
        return fork(argv, calls, folder)

    with suppress(SystemExit):  # here, so that what a first dub loads is not loaded in each child
        main([*argv[:3], "-o", str(folder / "first.mp4"), *argv[5:], "-q"])
    assert at(-1, Calls()) == 0, (folder / "log").read_text()
    whole, total = target.read_bytes(), int((folder / COUNT).read_text())
    for point in points:
        target.write_bytes(OLD)
        code = at(point, Calls(number, total * point // n))
        kept = target.read_bytes()
        left = sorted(path.name for path in (*out.iterdir(), *temporary.iterdir()) if path != target)
        again = at(point, Calls())
        told = {
            "point": point,
            "code": code,
            "kept": "old" if kept == OLD else "new" if kept == whole else "broken",
            "left": left,
            "again": again,
            "same": target.read_bytes() == whole,
            "left_again": sorted(path.name for path in (*out.iterdir(), *temporary.iterdir()) if path != target),
            "log": (folder / "log").read_text()[-500:] if again else "",
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    run(Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5]), int(sys.argv[6]), [int(word) for word in sys.argv[7:]])
