"""What belongs to the whole process: signals and the number of threads. Only the `lipdub` command may change them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

received: list[int] = []  # signals; Python drops an exception that a handler raises inside a finaliser
_owned = False


def own() -> None:
    """This process is a command of ours: signals become exceptions, and threads may be shared out.

    Every context manager on the way out of such an exception removes what it made.
    """
    global _owned
    _owned = True
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, leave)  # what ignores SIGHUP, as nohup does, goes on ignoring it


@contextmanager
def shared_cores() -> Iterator[None]:
    """Half of PyTorch's threads for the networks, at least one, and one of OpenCV's while a film is read or written.

    With all of them, networks this small and a busy encoder wait for each other: on two cores a job took as long, and a
    third more processor time; beside other work pass 1 took many times as long, and weights that are read in 0.1 s took
    more than 2 s. OpenCV's threads wait by spinning: a warp of 256 x 256 pixels took two of them 1.6 times the
    processor time of one.

    In a program that uses lipdub as a library this changes nothing: its threads are its own.
    """
    if not _owned:
        yield
        return
    import cv2  # not before a command runs
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(max(1, before[0] // 2))
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def leave(number: int, frame: FrameType | None = None) -> None:
    """The handler: KeyboardInterrupt, or SystemExit with the usual code."""
    received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
