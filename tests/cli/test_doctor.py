from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.cli.doctor import Check, _ffmpeg
from lipdub.config import MediaConfig

FINE = [Check(name="python", text="3.11.7"), Check(name="cache", status="warning", text="full", remedy="make room")]
BAD = Check(name="ffmpeg", status="problem", text="there is none", remedy="install it")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    checks = [*FINE]

    def examine(config: MediaConfig) -> Iterator[Check]:
        yield from checks

    monkeypatch.setattr("lipdub.cli.doctor.examine", examine)
    return checks


def test_each_line_has_a_status_and_warnings_are_no_failure(found: list[Check]) -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "OK       python       3.11.7",
        "warning  cache        full",
        "                      make room",
    ]


def test_a_problem_is_exit_code_6_after_all_lines(found: list[Check]) -> None:
    found[:] = [BAD, *FINE]
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 6
    assert result.stdout.splitlines()[0] == "problem  ffmpeg       there is none" and "3.11.7" in result.stdout
    assert result.stderr.startswith("error: 1 problem\n")


def test_json_has_a_check_a_line_and_ends_with_counts_or_the_error(found: list[Check]) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["start", "check", "check", "done"]
    assert lines[1] == {"type": "check", "name": "python", "status": "ok", "text": "3.11.7", "remedy": "", "values": {}}
    assert lines[-1]["report"] == {"ok": 1, "warning": 1, "problem": 0}
    found.append(BAD)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    last = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, last["type"], last["code"]) == (6, "error", 6)


def test_this_machine_passes() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")} <= {"OK", "warning"}


def test_another_ffmpeg_is_looked_at_where_a_file_or_a_variable_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lipdub.cli.doctor.CHECKS", {"ffmpeg": _ffmpeg})
    (tmp_path / "lipdub.toml").write_text('[settings.media]\nffmpeg = "/nowhere/by-file"\n')
    by_file = CliRunner().invoke(app, ["doctor"])
    assert (by_file.exit_code, by_file.stdout.split()[:5]) == (
        6,
        ["problem", "ffmpeg", "cannot", "run", "/nowhere/by-file:"],
    )
    monkeypatch.setenv("LIPDUB_FFMPEG", "/nowhere/by-variable")
    assert "cannot run /nowhere/by-variable:" in CliRunner().invoke(app, ["doctor"]).stdout
