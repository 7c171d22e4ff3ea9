"""docs/events.md is what `--json` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli import console
from lipdub.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
FACE = (50, 30, 56)


@pytest.fixture(scope="module")
def schema() -> dict[str, set[str]]:
    """Keys of each type, as the page lists them."""
    parts = re.split(r"^## `(\w+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        name: {"type", *re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)}
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_page_names_the_schema_of_the_code() -> None:
    assert f"describes schema {console.SCHEMA}," in PAGE.read_text(encoding="utf-8")


def test_every_event_of_real_jobs_is_described(
    schema, face_clip, speech, generator_file, fake_backend, tmp_path: Path
) -> None:
    video, nobody = face_clip(lambda number: [FACE]), face_clip(lambda number: [], "nobody.mp4")
    seen = set()
    for words in (
        [video, speech(0.2), "--strict"],
        [video, speech(0.2), "--dry-run", "-y"],
        [nobody, speech(0.2), "-y"],
    ):
        command = ["sync", *words, "-o", tmp_path / "o.mp4", "--weights", generator_file, "--device", "cpu", "--json"]
        result = CliRunner().invoke(app, [str(word) for word in command])
        events = [json.loads(line) for line in result.stdout.splitlines()]
        assert events[0]["type"] == "start"
        for event in events:
            assert set(event) == schema[event["type"]], event
        seen |= {event["type"] for event in events}
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(f"video,audio,output\n{video},{speech(0.2)},{tmp_path / 'b.mp4'}\n")
    command = ["batch", jobs, "--serial", "--weights", generator_file, "--device", "cpu", "--json"]
    for line in CliRunner().invoke(app, [str(word) for word in command]).stdout.splitlines():
        event = json.loads(line)
        assert set(event) == schema[event["type"]], event
        seen.add(event["type"])
    assert seen == set(schema)


def test_strict_is_exit_code_10_after_the_work_is_done(
    face_clip, speech, generator_file, fake_backend, tmp_path: Path
) -> None:
    output = tmp_path / "o.mp4"
    for sound, code in ((speech(0.4), 0), (speech(0.2, "short.wav"), 10)):
        command = ["sync", face_clip(lambda number: [FACE]), sound, "-o", output, "-y", "--strict"]
        command += ["--weights", generator_file, "--device", "cpu"]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert (result.exit_code, output.exists()) == (code, True), result.stderr
    assert "finished, but with 1 warning\n" in result.stderr and "0.20 s shorter" in result.stderr
