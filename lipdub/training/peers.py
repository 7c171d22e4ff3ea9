"""Several processes that train one network together, as `torchrun` starts them.

Each draws its own samples; gradients are averaged before every step, so that n processes take the step that one would
with n times the batch (batch normalisation apart, whose statistics stay each process' own). Only the first one writes.
With a single process nothing here does anything.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

SEEDS_APART = 1_000_003  # between the seeds of two processes

Value = TypeVar("Value")


def n_processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_seed(seed: int) -> int:
    """A seed for what should differ between processes; the first one's is `seed`."""
    return seed + SEEDS_APART * rank()


def greatest(values: list[float], device: torch.device) -> list[float]:
    """The greatest of each value over all processes, so that they decide alike."""
    if n_processes() == 1:
        return values
    together = torch.tensor(values, dtype=torch.float32, device=device)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return [float(value) for value in together]


def gathered(value: Value) -> list[Value]:
    """The value of every process, in the order of ranks."""
    everyone: list[Any] = [value]
    if n_processes() > 1:
        everyone = [None] * n_processes()
        dist.all_gather_object(everyone, value)
    return everyone


def average_gradients(network: nn.Module) -> None:
    """Replace each gradient by its mean over all processes."""
    if n_processes() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= n_processes()
    for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
