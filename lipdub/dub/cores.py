"""CPU cores, shared between the networks and FFmpeg's decoder and encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from lipdub.process import owned


@contextmanager
def shared_cores() -> Iterator[None]:
    """Half of PyTorch's threads for the networks, at least one, and one of OpenCV's while a film is read or written.

    With all of them, networks this small and a busy encoder wait for each other: on two cores a job took as long, and a
    third more processor time; beside other work pass 1 took many times as long, and weights that are read in 0.1 s took
    more than 2 s. OpenCV's threads wait by spinning: a warp of 256 x 256 pixels took two of them 1.6 times the
    processor time of one.

    In a program that uses lipdub as a library this changes nothing: its threads are its own.
    """
    if not owned():
        yield
        return
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(max(1, before[0] // 2))
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
