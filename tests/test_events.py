from __future__ import annotations

import pytest

from lipdub.events import Event, Progress, Reporter, Stage, Warning_


def test_a_reporter_tells_in_order_and_keeps_what_it_told() -> None:
    events: list[Event] = []
    reporter = Reporter(events.append, ("read", "dub"))
    with reporter.stage("read"):
        reporter.warn("length", "too long")
        reporter.progress(3)
    with reporter.stage("dub", 7):
        reporter.progress(7)
    assert events == [
        Stage("read", 1, 2, None),
        Warning_("length", "too long"),
        Progress(3, None),
        Stage("dub", 2, 2, 7),
        Progress(7, 7),
    ]
    assert reporter.warnings == ["too long"]
    assert list(reporter.stage_seconds) == ["read", "dub"]
    assert 0 <= sum(reporter.stage_seconds.values()) <= reporter.seconds + 0.001


def test_a_stage_that_fails_has_no_time() -> None:
    reporter = Reporter(lambda event: None, ("read",))
    with pytest.raises(OSError), reporter.stage("read"):
        raise OSError
    assert reporter.stage_seconds == {}
