"""Which ffmpeg is run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from lipdub.cli.settings import config_of
from lipdub.config import MediaConfig
from lipdub.errors import SetupError
from lipdub.media.ffmpeg import ffmpeg_binary, inspect_binary

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def test_what_lies_on_path_is_not_run(old_ffmpeg_on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("ffmpeg") == str(old_ffmpeg_on_path) and "4.2.2" in old_ffmpeg_on_path.read_text()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(old_ffmpeg_on_path))
    ours = ffmpeg_binary()
    monkeypatch.setenv("PATH", "/nowhere")
    assert ffmpeg_binary() == ours != old_ffmpeg_on_path and "imageio" in str(ours)
    assert (inspect_binary(ours).missing, inspect_binary(ours).faults) == ((), ())


def test_another_one_is_asked_for_by_a_setting_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = script(tmp_path / "other", f'exec "{ffmpeg_binary()}" "$@"')
    assert ffmpeg_binary(MediaConfig(ffmpeg=str(other))) == other
    monkeypatch.setenv("LIPDUB_FFMPEG", str(other))
    assert ffmpeg_binary() == other
    assert config_of((), ()).media.ffmpeg == str(other)
    assert config_of((), ["media.ffmpeg='x'"]).media.ffmpeg == "x"


def test_another_one_is_tried_and_refused(tmp_path: Path, old_ffmpeg_on_path: Path) -> None:
    """By what it lacks, and by what it does: a new version may copy wrongly, too."""
    with pytest.raises(SetupError, match="gives no answer"):
        ffmpeg_binary(MediaConfig(ffmpeg=str(old_ffmpeg_on_path)))
    poor = script(tmp_path / "poor", "echo ' A..... libopus  Opus'")
    with pytest.raises(SetupError, match="cannot do what lipdub needs: aac, "):
        ffmpeg_binary(MediaConfig(ffmpeg=str(poor)))
    deaf = script(  # as FFmpeg 5.1: the cut counts by another clock
        tmp_path / "deaf",
        'for each; do case "$each" in noise=drop=*) each="noise=drop=gte(pts*tb\\,0.1)";; esac',
        'set -- "$@" "$each"; shift; done',
        f'exec "{ffmpeg_binary()}" "$@"',
    )
    assert inspect_binary(deaf).missing == ()
    with pytest.raises(SetupError, match=r"does not cut a copy of \.mka in place") as caught:
        ffmpeg_binary(MediaConfig(ffmpeg=str(deaf)))
    assert caught.value.exit_code == 6 and "LIPDUB_FFMPEG" in caught.value.remedy
    with pytest.raises(SetupError, match="cannot run /nowhere/ffmpeg"):
        ffmpeg_binary(MediaConfig(ffmpeg="/nowhere/ffmpeg"))
