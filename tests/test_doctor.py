from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import lipdub.cli.doctor as doctor
from lipdub.cli.doctor import Check, examine
from lipdub.config import MediaConfig
from lipdub.errors import SetupError

ROOT = Path(__file__).parents[1]


def of(name: str) -> list[Check]:
    return list(doctor.CHECKS[name](MediaConfig()))


def test_here_everything_is_found() -> None:
    checks = list(examine(MediaConfig()))
    assert [check.name for check in checks][:3] == ["lipdub", "python", "platform"]
    assert {"weights", "cache", "output disk", "temp disk", "pyav", "ffmpeg", "opencv", "torch"} <= {
        check.name for check in checks
    }
    assert not [check for check in checks if check.status == "problem"]
    assert all(check.remedy for check in checks if check.status != "ok")


def test_nothing_heavy_is_imported_before_it_is_looked_at() -> None:
    code = """
import sys
from lipdub.cli.doctor import examine
from lipdub.config import MediaConfig
for check in examine(MediaConfig()):
    print(check.name, *[name for name in ("av", "cv2", "torch", "numpy", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = [line.split() for line in done.stdout.splitlines()]
    before = next(i for i, line in enumerate(lines) if line[0] == "pyav")
    assert before >= 7 and all(set(line[1:]) <= {"disk"} for line in lines[:before])
    assert all("torch" not in line[1:] for line in lines[:-1])


def test_a_check_that_fails_is_a_line_and_the_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(config):
        raise ImportError("no module named x")
        yield

    def refused(config):
        raise SetupError("no x", "get x")
        yield

    monkeypatch.setattr(
        doctor, "CHECKS", {"a": absent, "b": refused, "c": lambda config: iter([Check(name="c", text="fine")])}
    )
    first, second, third = examine(MediaConfig())
    assert (first.status, first.text) == ("problem", "ImportError: no module named x") and "install" in first.remedy
    assert (second.status, second.text, second.remedy) == ("problem", "no x", "get x")
    assert third.status == "ok"


def test_damaged_and_absent_weights_are_problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lipdub.weights.BUNDLED", tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"one byte too few")
    found = {check.values["weights"]: check for check in of("weights")}
    assert {check.status for check in found.values()} == {"problem"}
    assert "sha256" in found["generator"].text and "not on this machine" in found["faces-detector"].text
    assert all("install lipdub again" in check.remedy for check in found.values())


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHON", (99, 0))
    (check,) = of("python")
    assert check.status == "problem" and "99.0" in check.remedy


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (check,) = of("cache")
    assert check.status == "ok" and "not made yet" in check.text
    assert not list(tmp_path.iterdir())

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lipdub.cli.doctor.tempfile.TemporaryFile", refuse)
    (check,) = of("cache")
    assert check.status == "warning" and "cannot be written" in check.text and "XDG_CACHE_HOME" in check.remedy


@pytest.mark.parametrize(("free", "statuses"), [(10**12, ["ok"] * 2), (10**9, ["warning"] * 2), (10**6, None)])
def test_a_disc_that_fills_up(monkeypatch: pytest.MonkeyPatch, free: int, statuses: list[str] | None) -> None:
    monkeypatch.setattr("lipdub.cli.doctor.shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    assert [check.status for check in of("disk")] == (statuses or ["warning", "problem"])


def test_encoders_that_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libsvtav1"})
    (check,) = of("pyav")
    assert check.status == "warning" and "lacks libsvtav1" in check.text and check.values["missing"] == ["libsvtav1"]
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    assert of("pyav")[0].status == "problem"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_another_ffmpeg_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text(
        '#!/bin/sh\necho "ffmpeg version 4.1 Copyright"\necho " A..... aac  AAC"\necho use_metadata_tags\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("LIPDUB_FFMPEG", str(script))
    (check,) = of("ffmpeg")
    assert check.status == "problem" and check.text.startswith(f"4.1, {script}; lacks ")
    assert {"libopus", "muxer=mp4 movie_timescale"} <= set(check.values["missing"])
    assert not {"aac", "muxer=mp4 use_metadata_tags"} & set(check.values["missing"])
    script = tmp_path / "silent"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("LIPDUB_FFMPEG", str(script))
    with pytest.raises(SetupError, match="exit code 3"):
        of("ffmpeg")


def test_two_packages_that_share_cv2(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"cv2": ["opencv-contrib-python", "opencv-python", "opencv-python"]}
    monkeypatch.setattr(doctor.metadata, "packages_distributions", lambda: owners)
    (check,) = of("opencv")
    assert check.status == "warning" and "pip uninstall opencv-contrib-python" in check.remedy


def test_the_devices_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card = SimpleNamespace(name="Card", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    (check,) = of("torch")
    assert check.status == "ok" and "cuda:0 Card (8 GiB)" in check.text and check.text.endswith("auto takes cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("lipdub.cli.doctor.shutil.which", lambda name: "/usr/bin/nvidia-smi")
    (check,) = of("torch")
    assert check.status == "warning" and "pytorch.org" in check.remedy
