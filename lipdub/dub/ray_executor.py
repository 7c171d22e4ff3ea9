"""The batch executor on Ray, local or over nodes. Only home of ray (extra `batch`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lipdub.dub.batch import BatchItem, BatchResult, Work, failure
from lipdub.errors import SetupError

BUG = 1  # exit code of an item that failed in a way that is no LipdubError
LOST = 8  # exit code of an item whose machine went away as often as it was tried


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Runs each item as a Ray task; a task whose node dies is moved to another.

    Args:
        address: of a cluster ("auto", "host:port"); None starts one on this machine.
        cpus: that a dub takes; its threads, too.
        gpus: that a dub takes; a fraction shares a GPU.
        retries: of an item whose worker or node died. An item that failed by itself is not tried again: it would
            fail again.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 2

    def __call__(self, items: Sequence[BatchItem], work: Work) -> Iterator[BatchItem | BatchResult]:
        """Yield items as they start, and results as they finish.

        Raises:
            SetupError: Ray is not installed, no cluster at the address, or no node is large enough.
        """
        try:
            import ray
        except ImportError as error:
            raise SetupError("a cluster needs Ray, which is not installed", "pip install 'lipdub[batch]'") from error
        started_here = not ray.is_initialized()
        if started_here:
            try:
                ray.init(
                    address=self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SetupError(f"no Ray cluster at {self.address}: {error}", "check --address") from error
        try:
            self._check_room(ray.nodes())
            # A task says that it begins before it works.
            task = ray.remote(
                num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, num_returns="streaming"
            )(_announcing_start(work))
            waiting = {task.remote(item): item for item in items}
            while waiting:
                (stream,), _ = ray.wait(list(waiting), num_returns=1)
                answer = _next_answer(stream, waiting[stream])
                if answer is None:
                    yield waiting[stream]
                else:
                    del waiting[stream]
                    yield answer
        finally:
            if started_here:
                ray.shutdown()

    def _check_room(self, nodes: list[dict[str, dict[str, float]]]) -> None:
        """Raise an error if no node has the resources; Ray would wait forever."""
        for name, needed in (("CPU", self.cpus), ("GPU", self.gpus)):
            largest = max(
                (node.get("Resources", {}).get(name, 0.0) for node in nodes if node.get("Alive")), default=0.0
            )
            if needed > largest:
                option = f"--{name.lower()}s"
                raise SetupError(f"{option} {needed:g}: the largest node has {largest:g} {name}s", f"lower {option}")


def _announcing_start(work: Work) -> Callable[[BatchItem], Iterator[BatchResult | None]]:
    """Work that yields None when it starts, then its result."""

    def begin_and_work(item: BatchItem) -> Iterator[BatchResult | None]:
        yield None
        yield work(item)

    return begin_and_work


def _next_answer(stream: Any, item: BatchItem) -> BatchResult | None:
    """Next value of a task's stream; a failed task is not retried."""
    import ray

    try:
        return ray.get(next(stream))
    except ray.exceptions.RayTaskError as error:
        reason = f"unexpected {type(error.cause).__name__}: {error.cause}"
        return failure(item, BUG, reason, "report it with what `lipdub doctor` prints", 0.0)
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        return failure(item, LOST, f"the worker was lost: {reason}", "--retry-failed tries again", 0.0)
