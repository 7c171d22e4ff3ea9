"""A real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lipdub.dub.batch import BatchItem, BatchResult, one_by_one, run_batch
from lipdub.dub.demo import make_demo_inputs
from lipdub.dub.ray_executor import RayExecutor
from lipdub.dub.sync import SyncOptions
from lipdub.errors import BatchError, SetupError
from lipdub.events import Event, Progress

ray: Any = pytest.importorskip("ray")
# Ray leaves sockets and files to its own shutdown.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture
def nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster, and its second node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False)
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def numbered(folder: Path, count: int) -> list[BatchItem]:
    return [BatchItem(video=folder / f"{n}.mp4", audio=folder / "a.wav", output=folder / f"o{n}") for n in range(count)]


def slowly(item: BatchItem) -> BatchResult:
    """Leaves a note on the disk that it began, and one that it ended."""
    with item.output.with_suffix(".begun").open("a") as file:
        file.write("x")
    time.sleep(1.0)
    item.output.write_text(item.video.stem)
    return BatchResult(key=item.key, status="done")


def broken(item: BatchItem) -> BatchResult:
    if item.video.stem == "1":
        raise ZeroDivisionError("oops")
    item.output.write_text("done")
    return BatchResult(key=item.key, status="done")


def test_a_node_that_dies_costs_no_item(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    cluster, second = nodes
    killed: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 4 and not killed:
            cluster.remove_node(second, allow_graceful=False)
            killed.append(event.done)

    items = numbered(tmp_path, 12)
    report = run_batch(items, tmp_path / "state.jsonl", executor=RayExecutor(), work=slowly, on_event=watch)
    assert killed and report.done == 12 and report.failed == 0
    assert [item.output.read_text() for item in items] == [item.video.stem for item in items]
    assert len((tmp_path / "state.jsonl").read_text().splitlines()) == 12  # each counted once
    begun = [len(item.output.with_suffix(".begun").read_text()) for item in items]
    assert max(begun) <= 2 and sum(begun) <= 13  # only what the dead node had in hand was begun again


def test_a_bug_in_one_item_is_told_and_stops_nobody(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    reports: list[Any] = []
    with pytest.raises(BatchError, match="1 of 3"):
        run_batch(
            numbered(tmp_path, 3),
            tmp_path / "state.jsonl",
            executor=RayExecutor(),
            work=broken,
            on_event=lambda event: reports.append(getattr(event, "report", None)),
        )
    failed = [result for result in reports[-1].results if result.status == "failed"]
    assert [(result.code, "ZeroDivisionError: oops" in result.what) for result in failed] == [(1, True)]


def test_a_dub_that_no_node_has_room_for_is_refused(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="largest node has 1 CPUs"):
        run_batch(numbered(tmp_path, 1), tmp_path / "s.jsonl", executor=RayExecutor(cpus=4), work=slowly)
    with pytest.raises(SetupError, match="largest node has 0 GPUs"):
        run_batch(numbered(tmp_path, 1), tmp_path / "s.jsonl", executor=RayExecutor(gpus=0.5), work=slowly)


def test_thirty_dubs_over_two_nodes_are_those_done_one_by_one(
    nodes: tuple[Any, Any], tmp_path: Path, generator_file: Path, speech: Callable[..., Path]
) -> None:
    (tmp_path / "demo").mkdir()
    video, _ = make_demo_inputs(tmp_path / "demo", seconds=0.4)
    sounds = [speech(0.2 + 0.01 * n, f"{n}.wav") for n in range(30)]

    def items(folder: str) -> list[BatchItem]:
        (tmp_path / folder).mkdir()
        options = SyncOptions(generator=str(generator_file), device="cpu", cache=False)
        return [
            BatchItem(video=video, audio=sound, output=tmp_path / folder / f"{n}.mp4", options=options)
            for n, sound in enumerate(sounds)
        ]

    def sums(done: list[BatchItem]) -> list[str]:
        return [hashlib.sha256(item.output.read_bytes()).hexdigest() for item in done]

    spread, alone = items("spread"), items("alone")
    assert run_batch(spread, tmp_path / "spread.jsonl", executor=RayExecutor()).done == 30
    assert run_batch(alone, tmp_path / "alone.jsonl", executor=one_by_one).done == 30
    assert sums(spread) == sums(alone)
    assert len(set(sums(alone))) > 1
