"""Training step on any hardware, by accelerate: devices, processes, precision, accumulation, compilation.

    python -m lipdub train ...                                     one process
    accelerate launch --num-processes N -m lipdub train ...        N of them, a GPU each
    torchrun --nproc-per-node N -m -- lipdub train ...             the same

A step sums `accumulate` parts of `batch_clips` clips in each process, so that n processes take the step that one takes
with n times the parts. Batch normalisation sees the part that it is given; its running statistics are the first
process'. Where a part does not fit into memory, parts are made smaller and more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    LoggerType,
    TorchDynamoPlugin,
    broadcast_object_list,
    gather_object,
    send_to_device,
    set_seed,
)
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from lipdub.config import TrainConfig
from lipdub.errors import InputError, SetupError

Network = TypeVar("Network", bound=nn.Module)
Value = TypeVar("Value")


class Engine:
    """One process' share of a training run.

    Args:
        train: section of the configuration.
        unused: some steps use only a part of a network's parameters, which processes have to know.
        trackers: names that accelerate knows; their files go into `folder`.
        folder: of the run.

    Raises:
        InputError: a tracker that accelerate does not know.
        SetupError: one that is not installed.
    """

    def __init__(
        self, train: TrainConfig, *, unused: bool = False, trackers: tuple[str, ...] = (), folder: Path | None = None
    ) -> None:
        _check_trackers(trackers)
        self.accelerator = Accelerator(
            mixed_precision=train.precision,
            gradient_accumulation_steps=train.accumulate,
            dynamo_plugin=TorchDynamoPlugin(backend="inductor") if train.compile else None,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
            log_with=list(trackers) or None,
            project_dir=folder,
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.n_processes: int = self.accelerator.num_processes
        self.part_clips = train.batch_clips  # of one part; `shrink` changes both
        self._train = train
        self._buffers: list[tuple[Tensor, Tensor]] = []

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    @property
    def parts(self) -> int:
        """How many parts a step of one process has."""
        return int(self.accelerator.gradient_accumulation_steps)

    @property
    def stepping(self) -> bool:
        """Whether the current part is the last of its step, after which weights change."""
        return bool(self.accelerator.sync_gradients)

    def place(self, network: Network) -> Network:
        """The network on this process' device, in the run's memory format."""
        network = network.to(self.device)
        return channels_last(network) if self._train.channels_last else network

    def prepare(self, network: Network, optimizer: torch.optim.Optimizer) -> tuple[Network, torch.optim.Optimizer]:
        """A network and its optimizer as they are trained.

        Only what is returned, called as a whole, takes part in what processes share and in compilation; `network`
        itself has the same parameters, under the names that checkpoints have.
        """
        wrapped, prepared = self.accelerator.prepare(network, optimizer)
        return wrapped, prepared

    def send(self, batch: Value) -> Value:
        """A batch, a tuple of tensors, on this process' device."""
        return send_to_device(batch, self.device, non_blocking=True)

    @contextmanager
    def part(self, *networks: nn.Module) -> Iterator[None]:
        """Around losses and `descend` of one part of a step, for the networks that `prepare` gave."""
        with self.accelerator.accumulate(*networks):
            yield

    def descend(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
        """Add a part's gradient; with the last part of a step, clip its norm and step at a learning rate."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.accelerator.backward(loss)
        if self.stepping:
            self.accelerator.clip_grad_norm_(network.parameters(), self._train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    def begin(self, *networks: nn.Module) -> None:
        """Before a step: remember what its forward passes change, the statistics of batch normalisation."""
        self._buffers = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]

    @torch.no_grad()
    def abandon(self, *networks: nn.Module) -> None:
        """Forget the parts of a step that is not finished, also what `begin` remembers."""
        for network in networks:
            network.zero_grad(set_to_none=True)
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self.accelerator.step = 0

    def shrink(self) -> bool:
        """Smaller and more parts, where a step does not fit into memory.

        Returns:
            False where this cannot be: parts of one clip, or several processes, of which the others wait for the one
            that failed.
        """
        if self.part_clips == 1 or self.n_processes > 1:
            return False
        smaller = next(n for n in range(self.part_clips // 2, 0, -1) if self.part_clips % n == 0)
        self.resize(smaller)
        clear_device_cache(garbage_collection=True)
        return True

    def resize(self, part_clips: int) -> None:
        """Parts of another size, in the same number of clips a step."""
        self.accelerator.gradient_accumulation_steps = self.parts * self.part_clips // part_clips
        self.part_clips = part_clips

    def seed(self, seed: int, *, own: bool) -> None:
        """Seed every random source; `own`: differently in each process."""
        set_seed(seed, device_specific=own)

    def greatest(self, values: list[float]) -> list[float]:
        """The greatest of each value over all processes, so that they decide alike."""
        if self.n_processes == 1:
            return values
        mine = torch.tensor([values], dtype=torch.float32, device=self.device)
        together: Tensor = self.accelerator.gather(mine)
        return [float(value) for value in together.amax(0)]

    def gathered(self, value: Value) -> list[Value]:
        """The value of every process, in the order of ranks."""
        return gather_object([value])

    def of_first(self, value: Value) -> Value:
        """The first process' value, in all of them."""
        shared: list[Value] = broadcast_object_list([value])
        return shared[0]

    def random_state(self) -> dict[str, Any]:
        """This process' random sources and loss scale, for a checkpoint."""
        state: dict[str, Any] = {"torch_rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def restore_random(self, state: Mapping[str, Any]) -> None:
        """Go on from `random_state`, or what of it is there."""
        if "torch_rng" in state:
            torch.set_rng_state(state["torch_rng"].cpu())
        if "cuda_rng" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        if "scaler" in state and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _check_trackers(trackers: tuple[str, ...]) -> None:
    known = [tracker.value for tracker in LoggerType if tracker is not LoggerType.ALL]
    for tracker in trackers:
        if tracker not in known:
            raise InputError(f"no tracker {tracker!r}", f"there are: {', '.join(known)}")
        if LoggerType(tracker) not in get_available_trackers():
            raise SetupError(f"the tracker {tracker!r} is not installed", f"pip install {tracker}")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or this machine, could not give the memory that was asked for."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))


def channels_last(network: Network) -> Network:
    """The network with its convolutions in the memory format that CPUs and tensor cores are fastest with."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def averaged_copy(network: nn.Module, decay: float, device: torch.device) -> torch.optim.swa_utils.AveragedModel:
    """A copy in eval mode that follows the network: mine = decay * mine + (1 - decay) * its, buffers too."""
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    copy = torch.optim.swa_utils.AveragedModel(network, device, multi_avg_fn=average, use_buffers=True)
    return copy.eval()


def rate_at(share: float, train: TrainConfig) -> float:
    """The learning rate at `share` of the run: linear from zero, constant, linear to zero [3.7].

    The rise is for runs that begin with trained weights: Adam's first steps, whose size says nothing about the
    gradient's, undo some of what these know.
    """
    rising = share / train.warm_up if train.warm_up > 0 else 1.0
    falling = (1 - share) / train.anneal if train.anneal > 0 else 1.0
    return train.learning_rate * min(1.0, rising, max(0.0, falling))
