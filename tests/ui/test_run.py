from __future__ import annotations

import threading

import pytest

from lipdub.errors import InputError, ResourceError
from lipdub.events import Done, OnEvent, Progress, Stage, Warning_
from lipdub.ui.run import Run


def test_a_run_tells_what_it_does_and_returns_its_report() -> None:
    go, at = threading.Event(), threading.Event()

    def work(hear: OnEvent) -> str:
        hear(Stage("dub", 3, 4, 100))
        hear(Warning_("length", "too long"))
        hear(Progress(25))
        at.set()
        go.wait(10)
        hear(Progress(50, 200))
        hear(Done("report"))
        return "report"

    run = Run(work)
    assert at.wait(10)
    status = run.status
    assert (status.state, status.stage, status.index, status.count) == ("running", "dub", 3, 4)
    assert (status.done, status.total, status.warnings) == (25, 100, ("too long",))
    assert status.left_s is not None and 0 <= status.left_s <= 3.01 * status.seconds
    go.set()
    status = run.wait(10)
    assert (status.state, status.report, status.done, status.total) == ("done", "report", 50, 200)


def test_a_run_is_cancelled_at_its_next_event_and_cleans_up() -> None:
    at, cleaned = threading.Event(), []

    def work(hear: OnEvent) -> None:
        try:
            for number in range(100_000):
                hear(Progress(number))
                at.set()
        finally:
            cleaned.append(True)

    run = Run(work)
    assert at.wait(10)
    run.cancel()
    assert run.wait(10).state == "cancelled" and cleaned == [True]


def test_a_job_whose_output_is_in_place_is_not_cancelled_any_more() -> None:
    at, go = threading.Event(), threading.Event()

    def work(hear: OnEvent) -> str:
        at.set()
        go.wait(10)
        hear(Done("report"))
        return "report"

    run = Run(work)
    assert at.wait(10)
    run.cancel()
    go.set()
    assert run.wait(10).state == "done"


@pytest.mark.parametrize(
    ("error", "kind", "what"),
    [
        (InputError("a.mp4 is empty", "get it again"), InputError, "a.mp4 is empty"),
        (MemoryError(), ResourceError, "out of memory"),
        (RuntimeError("CUDA out of memory"), ResourceError, "out of memory"),
    ],
)
def test_what_ends_a_run_is_told(error: Exception, kind: type, what: str) -> None:
    def work(hear: OnEvent) -> None:
        raise error

    status = Run(work).wait(10)
    assert status.state == "failed" and type(status.error) is kind and status.error.what == what


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_told_as_one() -> None:
    def work(hear: OnEvent) -> None:
        raise KeyError("x")

    status = Run(work).wait(10)
    assert status.error is not None and status.error.exit_code == 1 and "unexpected KeyError" in status.error.what
