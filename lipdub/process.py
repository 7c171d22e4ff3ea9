"""What belongs to the whole process: signals and the number of threads. Only the `lipdub` command may change them."""

from __future__ import annotations

import signal
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


def owned() -> bool:
    """Whether it is."""
    return _owned


def leave(number: int, frame: FrameType | None = None) -> None:
    """The handler: KeyboardInterrupt, or SystemExit with the usual code."""
    received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
