from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli.app import app

runner = CliRunner()


def test_the_cache_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "lipdub" / "analysis"
    assert runner.invoke(app, ["cache", "path"]).stdout == f"{folder}\n"
    assert runner.invoke(app, ["cache", "show"]).stdout == f"0 analyses, 0.0 MB in {folder}\n"
    folder.mkdir(parents=True)
    (folder / "a.npz").write_bytes(bytes(2_500_000))
    (folder / "mine.txt").write_text("not ours")
    assert runner.invoke(app, ["cache", "show"]).stdout == f"1 analyses, 2.5 MB in {folder}\n"
    assert runner.invoke(app, ["cache", "clear"]).stdout == "2.5 MB freed\n"
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
