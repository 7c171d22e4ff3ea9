"""Batches of dubs: run one by one or on a Ray cluster, with a state file to resume from.

An item is a video, a sound, an output and its options. Results are appended to a state file as they come, so that a
batch that was stopped, or whose machine died, goes on where it was; an item is only ever counted once. Shard i of N
takes every N-th item and has a state file of its own: machines that share nothing but a disk need no scheduler.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lipdub.config import Config
from lipdub.dub.options import SyncOptions
from lipdub.dub.sync import sync_video
from lipdub.errors import BatchError, InputError, LipdubError, OutputError, ResourceError, out_of_memory
from lipdub.events import Done, Event, Job, Progress, Stage, Warning_


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One dub of a batch."""

    video: Path
    audio: Path
    output: Path
    options: SyncOptions = field(default_factory=SyncOptions)
    config: Config = field(default_factory=Config)

    @property
    def key(self) -> str:
        """Name in the state file: the output, which no two items share."""
        return str(self.output.absolute())


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """Result of an item."""

    key: str
    status: str  # done | failed | skipped
    code: int = 0  # exit code that `lipdub sync` would have had
    what: str = ""
    remedy: str = ""
    frames: int = 0
    dubbed: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """Result of one call of `run_batch`."""

    items: int  # of the manifest, or of this shard of it
    done: int  # now
    before: int  # done by earlier calls
    skipped: int  # whose output was there already
    failed: int  # now, and before if not tried again
    seconds: float
    results: tuple[BatchResult, ...]  # one for each item, in the manifest's order


Work = Callable[[BatchItem], BatchResult]
# Yields each item when it starts and its result when it ends; an item that is restarted elsewhere is yielded again.
Executor = Callable[[Sequence[BatchItem], Work], Iterable[BatchItem | BatchResult]]


def dub_item(item: BatchItem) -> BatchResult:
    """Run one dub; errors become a result, so that the others continue."""
    started = time.monotonic()
    try:
        # What must not be replaced was refused before; a second try after a lost machine may find its own output.
        options = replace(item.options, overwrite=True)
        report = sync_video(item.video, item.audio, item.output, options, config=item.config)
    except LipdubError as error:
        return failure(item, error.exit_code, error.what, error.remedy, time.monotonic() - started)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        remedy = "fewer dubs at a time: more --cpus or --gpus for each"
        return failure(item, ResourceError.exit_code, "out of memory", remedy, time.monotonic() - started)
    return BatchResult(
        key=item.key,
        status="done",
        frames=report.frames,
        dubbed=report.dubbed,
        seconds=round(time.monotonic() - started, 2),
        warnings=report.warnings,
    )


def failure(item: BatchItem, code: int, what: str, remedy: str, seconds: float) -> BatchResult:
    """The result of an item that failed."""
    return BatchResult(key=item.key, status="failed", code=code, what=what, remedy=remedy, seconds=round(seconds, 2))


def one_by_one(items: Sequence[BatchItem], work: Work) -> Iterator[BatchItem | BatchResult]:
    """The default executor: in this process, one item after another."""
    for item in items:
        yield item
        yield work(item)


def run_batch(
    items: Sequence[BatchItem],
    state: Path,
    *,
    executor: Executor = one_by_one,
    work: Work = dub_item,
    retry_failed: bool = False,
    skip_existing: bool = False,
    overwrite: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> BatchReport:
    """Run the unfinished items of a batch.

    Args:
        items: no two with the same output.
        state: the file of results, made if needed.
        executor: runs the work: `one_by_one`, or a cluster's.
        work: what is done with an item.
        retry_failed: items that failed in an earlier call are tried again; else they stay failed.
        skip_existing: an output that is there, and that no earlier call made, is left and counted; else it is refused.
        overwrite: it is replaced.
        on_event: receives which item begins and which has ended, how many are finished, each failure as a warning, also
            of an earlier call, and the report.

    Raises:
        InputError: two items with one output, or a state file that cannot be read.
        OutputError: before anything is done: outputs that exist, or that an item reads, or whose folder cannot be made.
        BatchError: some items failed; all others are done. `on_event` has had the report.
    """
    started = time.monotonic()
    _refuse_duplicates(items)
    known = read_state(state)
    results = {item.key: known[item.key] for item in items if _is_finished(item, known.get(item.key), retry_failed)}
    before = sum(result.status == "done" for result in results.values())
    left = [item for item in items if item.key not in results]
    there = [item for item in left if item.output.exists() and item.key not in known]
    if there and skip_existing:
        results |= {item.key: BatchResult(key=item.key, status="skipped") for item in there}
        left = [item for item in left if item.key not in results]
    elif (lost := _inputs_among(there, items)) is not None:
        raise OutputError(f"{lost} would be replaced, and the batch reads it", "name another output")
    elif there and not overwrite:
        exist = f"and {len(there) - 1} more exist" if len(there) > 1 else "exists"
        raise OutputError(f"{there[0].output} {exist} already", "--skip-existing leaves them, -y replaces them")
    for folder in {item.output.parent for item in left}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {error.strerror}", "name another output") from error
    on_event(Stage("batch", 1, 1, len(items), "videos", len(results)))
    for earlier in [result for result in results.values() if result.status == "failed"]:
        on_event(_failure(earlier, ", in an earlier run"))
    on_event(Progress(len(results)))
    with _open_state(state) as write:
        for result in executor(left, work) if left else ():
            if isinstance(result, BatchItem):
                on_event(Job(result.key, "running"))
                continue
            write(result)
            results[result.key] = result
            if result.status == "failed":
                on_event(_failure(result))
            on_event(Job(result.key, result.status, result.frames, result.seconds))
            on_event(Progress(len(results)))
    report = _report(items, results, before, time.monotonic() - started)
    on_event(Done(report))
    if report.failed:
        raise BatchError(
            f"{report.failed} of {report.items} dubs failed; see {state}",
            "fix the cause, then run again with --retry-failed",
        )
    return report


def read_state(path: Path) -> dict[str, BatchResult]:
    """Last result of each item; empty without a file. A line cut short by a crash is ignored.

    Raises:
        InputError: not a state file.
    """
    if not path.exists():
        return {}
    results = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            values = json.loads(line)
            result = BatchResult(**(values | {"warnings": tuple(values.get("warnings", ()))}))
        except (ValueError, TypeError, AttributeError) as error:
            if number == len(lines) - 1:
                continue
            raise InputError(f"{path}, line {number + 1}: invalid batch result", "give another --state") from error
        results[result.key] = result
    return results


@contextmanager
def _open_state(path: Path) -> Iterator[Callable[[BatchResult], None]]:
    """Open a state file for appending; each result is on disk before the next item starts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "give another --state") from error

    def write(result: BatchResult) -> None:
        file.write(json.dumps(asdict(result)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

    with file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # without a line that a crash cut short
        yield write


def _is_finished(item: BatchItem, result: BatchResult | None, retry_failed: bool) -> bool:
    """Whether an earlier result counts; a finished dub whose file is gone is made again."""
    if result is None or result.status == "skipped":
        return False
    return item.output.exists() if result.status == "done" else not retry_failed


def _inputs_among(outputs: Sequence[BatchItem], items: Sequence[BatchItem]) -> Path | None:
    """The first output that an item reads, also through a link."""
    read = {path.resolve() for item in items for path in (item.video, item.audio, item.options.drive_audio) if path}
    return next((item.output for item in outputs if item.output.resolve() in read), None)


def _failure(result: BatchResult, when: str = "") -> Warning_:
    return Warning_("item", f"{result.key}: {result.what} (exit code {result.code}{when})")


def _refuse_duplicates(items: Sequence[BatchItem]) -> None:
    twins = [path for path, count in Counter(item.output.resolve() for item in items).items() if count > 1]
    if twins:
        more = f" and {len(twins) - 1} more" if len(twins) > 1 else ""
        raise InputError(f"several items have the output {twins[0]}{more}", "give each item an output of its own")


def _report(items: Sequence[BatchItem], results: Mapping[str, BatchResult], before: int, seconds: float) -> BatchReport:
    ordered = tuple(results[item.key] for item in items)
    count = Counter(result.status for result in ordered)
    return BatchReport(
        items=len(items),
        done=count["done"] - before,
        before=before,
        skipped=count["skipped"],
        failed=count["failed"],
        seconds=round(seconds, 2),
        results=ordered,
    )
