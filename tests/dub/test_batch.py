from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lipdub.config import Config
from lipdub.dub.batch import (
    BatchItem,
    BatchReport,
    BatchResult,
    dub_item,
    failure,
    one_by_one,
    read_state,
    run_batch,
)
from lipdub.dub.sync import SyncOptions
from lipdub.errors import BatchError, InputError, OutputError
from lipdub.events import Done, Event, Progress, Stage, Warning_


def items(folder: Path, count: int) -> list[BatchItem]:
    return [
        BatchItem(video=folder / f"{n}.mp4", audio=folder / "a.wav", output=folder / f"out{n}.mp4")
        for n in range(count)
    ]


class Worker:
    """Writes the output; fails on the items that it is told to."""

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.bad, self.did = set(bad), []

    def __call__(self, item: BatchItem) -> BatchResult:
        number = int(item.video.stem)
        self.did.append(number)
        if number in self.bad:
            return failure(item, 4, "no face", "look", 0.1)
        item.output.write_text(str(number))
        return BatchResult(key=item.key, status="done", frames=10, dubbed=9)


def test_all_is_done_once_and_told(tmp_path: Path) -> None:
    events: list[Event] = []
    work, state = Worker(), tmp_path / "state.jsonl"
    report = run_batch(items(tmp_path, 4), state, work=work, on_event=events.append)
    assert work.did == [0, 1, 2, 3]
    assert (report.items, report.done, report.before, report.failed) == (4, 4, 0, 0)
    assert [event.done for event in events if isinstance(event, Progress)] == [0, 1, 2, 3, 4]
    assert isinstance(events[-1], Done) and events[-1].report == report
    again = run_batch(items(tmp_path, 4), state, work=work)
    assert work.did == [0, 1, 2, 3]
    assert (again.done, again.before) == (0, 4)
    (tmp_path / "out2.mp4").unlink()  # gone since: made again
    assert run_batch(items(tmp_path, 4), state, work=work).done == 1
    assert work.did == [0, 1, 2, 3, 2]


def test_a_failure_stops_nobody_and_stays_until_it_is_tried_again(tmp_path: Path) -> None:
    events: list[Event] = []
    work, state = Worker(bad=[1]), tmp_path / "state.jsonl"
    with pytest.raises(BatchError, match="1 of 3 dubs failed"):
        run_batch(items(tmp_path, 3), state, work=work, on_event=events.append)
    report: BatchReport = next(event.report for event in events if isinstance(event, Done))
    assert [(result.status, result.code) for result in report.results] == [("done", 0), ("failed", 4), ("done", 0)]
    assert ["no face" in event.message for event in events if isinstance(event, Warning_)] == [True]
    events.clear()
    with pytest.raises(BatchError):
        run_batch(items(tmp_path, 3), state, work=work, on_event=events.append)
    assert work.did == [0, 1, 2]
    assert ["no face" in event.message for event in events if isinstance(event, Warning_)] == [True]  # named again
    assert isinstance(events[0], Stage) and events[0].before == 3
    work.bad.clear()
    assert run_batch(items(tmp_path, 3), state, work=work, retry_failed=True).done == 1
    assert work.did == [0, 1, 2, 1]
    assert run_batch(items(tmp_path, 3), state, work=work).before == 3


def test_a_batch_that_was_stopped_goes_on(tmp_path: Path) -> None:
    state, work = tmp_path / "state.jsonl", Worker()

    def stopped(left: Sequence[BatchItem], work: Worker):
        yield from one_by_one(left[:2], work)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(items(tmp_path, 5), state, executor=stopped, work=work)
    with state.open("ab") as file:
        file.write(b'{"key": "cut sho')  # the machine died while it wrote
    report = run_batch(items(tmp_path, 5), state, work=work)
    assert work.did == [0, 1, 2, 3, 4]
    assert (report.done, report.before) == (3, 2)
    assert len(read_state(state)) == 5


def test_outputs_that_exist_are_refused_left_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "out1.mp4").write_text("precious")
    work = Worker()
    with pytest.raises(OutputError, match=r"out1\.mp4 exists already"):
        run_batch(items(tmp_path, 3), tmp_path / "a.jsonl", work=work)
    assert work.did == [] and not (tmp_path / "a.jsonl").exists()
    report = run_batch(items(tmp_path, 3), tmp_path / "b.jsonl", work=work, skip_existing=True)
    assert (report.done, report.skipped, work.did) == (2, 1, [0, 2])
    assert (tmp_path / "out1.mp4").read_text() == "precious"
    assert run_batch(items(tmp_path, 3), tmp_path / "c.jsonl", work=Worker(), overwrite=True).done == 3
    assert (tmp_path / "out1.mp4").read_text() == "1"


def test_two_items_with_one_output_are_refused(tmp_path: Path) -> None:
    first, second = items(tmp_path, 2)
    with pytest.raises(InputError, match="several items have the output"):
        run_batch([first, replace(second, output=first.output)], tmp_path / "state.jsonl", work=Worker())
    (tmp_path / "linked").symlink_to(tmp_path)
    for same in (
        tmp_path / "linked" / first.output.name,
        tmp_path / "linked" / ".." / tmp_path.name / first.output.name,
    ):
        with pytest.raises(InputError, match="several items have the output"):
            run_batch([first, replace(second, output=same)], tmp_path / "state.jsonl", work=Worker())


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_output_replaces_what_the_batch_reads(tmp_path: Path, overwrite: bool) -> None:
    first, second = items(tmp_path, 2)
    second.video.write_text("precious")
    work = Worker()
    for output in (second.video, tmp_path / "link.mp4"):  # by its name, and through a link
        if output != second.video:
            output.symlink_to(second.video)
        with pytest.raises(OutputError, match="the batch reads it") as caught:
            run_batch([replace(first, output=output), second], tmp_path / "s.jsonl", work=work, overwrite=overwrite)
        assert "-y" not in caught.value.remedy
    assert work.did == [] and second.video.read_text() == "precious"
    second.video.unlink()  # an output that the next item reads is a chain, and is made first
    chained = run_batch([replace(first, output=second.video), second], tmp_path / "s.jsonl", work=work)
    assert chained.done == 2 and work.did == [0, 1]


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    state.write_text("something\nelse\n")
    with pytest.raises(InputError, match="line 1: invalid batch result"):
        run_batch(items(tmp_path, 1), state, work=Worker())
    assert state.read_text() == "something\nelse\n"


def test_an_item_is_dubbed_as_sync_dubs_it(dub, generator_file: Path, face_clip, speech, tmp_path: Path) -> None:
    video, audio = face_clip(lambda number: [(50 + number, 30, 60)]), speech()
    report = dub(video, audio, config=Config(), crf=None)
    options = SyncOptions(generator=str(generator_file), device="cpu")
    item = BatchItem(video=video, audio=audio, output=tmp_path / "mine.mp4", options=options)
    result = dub_item(item)
    assert (result.status, result.code, result.frames, result.dubbed) == ("done", 0, report.frames, report.dubbed)
    assert item.output.read_bytes() == dub.output.read_bytes()
    result = dub_item(replace(item, audio=tmp_path / "none.wav"))
    assert (result.status, result.code) == ("failed", 3) and "none.wav" in result.what


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), 8), (RuntimeError("CUDA error: out of memory"), 8), (RuntimeError("7"), 0)]
)
def test_memory_that_runs_out_fails_the_item_alone(monkeypatch, tmp_path: Path, error: Exception, code: int) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("lipdub.dub.batch.sync_video", full)
    if not code:  # a bug stays one
        with pytest.raises(RuntimeError):
            dub_item(items(tmp_path, 1)[0])
        return
    result = dub_item(items(tmp_path, 1)[0])
    assert (result.status, result.code, result.what) == ("failed", code, "out of memory")


def test_the_state_holds_a_line_for_each_result(tmp_path: Path) -> None:
    state = tmp_path / "below" / "state.jsonl"
    run_batch(items(tmp_path, 2), state, work=Worker())
    lines = [json.loads(line) for line in state.read_text().splitlines()]
    assert [(line["key"], line["status"]) for line in lines] == [
        (str(tmp_path / f"out{n}.mp4"), "done") for n in range(2)
    ]
