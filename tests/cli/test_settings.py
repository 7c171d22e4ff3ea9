from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli import settings
from lipdub.cli.app import app
from lipdub.config import load_config

HERE = "[options]\ndevice = 'cpu'\n[options.sync]\ncrf = 21\n[settings.media]\npreset = 'slow'\n"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def shown(*args: str) -> dict[str, tuple[object, str]]:
    result = CliRunner().invoke(app, ["config", "show", *args, "--json"])
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {row["name"]: (row["value"], row["origin"]) for row in rows}


def test_the_nearest_word_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown()["--device"] == ("auto", "default")
    own = settings.user_file()
    own.parent.mkdir(parents=True)
    own.write_text("[options]\ndevice = 'cuda'\nlanguage = 'uk'\n[settings.media]\ncrf_h264 = 17\npreset = 'fast'\n")
    Path("lipdub.toml").write_text(HERE)
    found = shown()
    assert found["--device"] == ("cpu", "lipdub.toml") and found["--language"] == ("uk", str(own))
    assert found["--crf"] == (21, "lipdub.toml") and "--crf" not in shown("faces")
    assert found["media.preset"] == ("slow", "lipdub.toml") and found["media.crf_h264"] == (17, str(own))
    assert "media.crf_vp9" not in found and shown("--all")["media.crf_vp9"] == (24, "default")
    extra = tmp_path / "extra.toml"
    extra.write_text("[options]\ndevice = 'mps'\n")
    assert shown("--config", str(extra))["--device"] == ("mps", str(extra))
    monkeypatch.setenv("LIPDUB_CONFIG", str(extra))
    assert shown()["--device"] == ("mps", str(extra))
    monkeypatch.setenv("LIPDUB_DEVICE", "cuda:1")
    assert shown()["--device"] == ("cuda:1", "LIPDUB_DEVICE")
    monkeypatch.setenv("LIPDUB_SYNC_DEVICE", "cuda:2")
    assert shown()["--device"] == ("cuda:2", "LIPDUB_SYNC_DEVICE")
    assert shown("faces")["--device"] == ("cuda:1", "LIPDUB_DEVICE")


def test_files_variables_and_words_reach_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sync_video(video, audio, output, options, *, config, on_event) -> None:
        asked.append((options, config))
        raise settings.InputError("stop here", "go on")

    monkeypatch.setattr("lipdub.dub.sync.sync_video", sync_video)
    monkeypatch.setenv("LIPDUB_OVERWRITE", "1")
    monkeypatch.setenv("LIPDUB_SET", "face.min_face=40 sync.top=0.5")
    Path("lipdub.toml").write_text(HERE)
    result = CliRunner().invoke(app, ["sync", "v.mp4", "a.wav", "-o", "o.mp4", "--crf", "19", "--mask-feather", "0.1"])
    assert result.exit_code == 3, result.output
    ((options, config),) = asked
    assert (options.device, options.crf, options.overwrite, options.feather) == ("cpu", 19, True, 0.1)
    assert (config.media.preset, config.face.min_face, config.sync.top) == ("slow", 40.0, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[options]\nspeed = 1\n", "no option --speed"),
        ("[options.sync]\ngpu = 1\n", "lipdub sync has no option --gpu"),
        ("[settings.media]\nnosuch = 1\n", "nosuch"),
        ("[media]\ncrf = 1\n", "use [options]"),
        ("device = 'cpu'\n", "use [options]"),
        ("[options\n", "cannot read"),
    ],
)
def test_a_wrong_file_is_exit_code_3_and_named(text: str, words: str) -> None:
    Path("lipdub.toml").write_text(text)
    result = CliRunner().invoke(app, ["config", "show"])
    assert result.exit_code == 3 and words in result.stderr and "lipdub.toml" in result.stderr


def test_the_log_file_has_the_line_the_error_and_its_place(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["faces", "nosuch.mp4", "--log-file", "log.txt", "-v"])
    assert result.exit_code == 3
    text = Path("log.txt").read_text()
    assert "lipdub 0." in text and "exit code 3" in text and "Traceback" in text and "nosuch.mp4" in text
    assert "lipdub 0." in result.stderr and "Traceback" not in result.stderr
    assert not logging.getLogger("lipdub").handlers
    assert CliRunner().invoke(app, ["faces", "x.mp4", "--log-file", "no/such/folder"]).exit_code == 2


def test_a_quality_is_spelt_out_and_gives_way_to_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown("--quality", "best")["media.preset"] == ("slow", "--quality best")
    assert shown("--quality", "balanced", "--all")["media.crf_vp9"] == (24, "--quality balanced")
    assert "media.preset" not in shown()
    Path("lipdub.toml").write_text(
        "[options.sync]\nquality = 'fast'\n[settings.media]\npreset = 'slow'\ncrf_av1 = 30\n"
    )
    found = shown()
    assert found["--quality"] == ("fast", "lipdub.toml") and found["media.preset"] == ("veryfast", "--quality fast")
    assert found["media.crf_av1"] == (30, "lipdub.toml")
    asked = []

    def sync_video(video, audio, output, options, *, config, on_event) -> None:
        asked.append(config)
        raise settings.InputError("stop here", "go on")

    monkeypatch.setattr("lipdub.dub.sync.sync_video", sync_video)
    for words in ([], ["--quality", "best"], ["--quality", "best", "--set", "media.crf_h264=12"]):
        CliRunner().invoke(app, ["sync", "v.mp4", "a.wav", "-o", "o.mp4", *words])
    assert [(c.media.preset, c.media.crf_h264, c.sync.detail) for c in asked] == [
        ("veryfast", 18, 1),
        ("slow", 15, 4),
        ("slow", 12, 4),
    ]
    assert all(c.media.crf_av1 == 20 for c in asked[1:]) and asked[0].media.crf_av1 == 30


def test_balanced_is_the_default() -> None:
    assert load_config(settings.Quality.balanced.preset) == load_config()
    assert settings.Quality.fast.overrides == "--set sync.detail=1 --set media.preset=veryfast"
