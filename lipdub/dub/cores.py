"""CPU cores, shared between the networks and FFmpeg's decoder and encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lipdub.process import owned


@contextmanager
def shared_cores() -> Iterator[None]:
    """Half of PyTorch's threads for the networks while a film is read or written; at least one.

    With all of them, networks this small and a busy encoder wait for each other: on two cores a job took as long, and a
    third more processor time; beside other work pass 1 took many times as long, and weights that are read in 0.1 s took
    more than 2 s. In a program that uses lipdub as a library this changes nothing: its threads are its own.
    """
    if not owned():
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
