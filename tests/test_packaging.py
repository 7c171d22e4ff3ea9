from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The two lines of README.md that set the project up and test it; .ci/run runs them as they are written there.
SETUP = "python -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/lipdub demo -o demo.mp4"
TEST = '.venv/bin/pip install -c constraints.txt -e ".[dev]" && scripts/check'


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("line", [SETUP, TEST])
def test_the_readme_has_the_lines_that_ci_runs(line: str) -> None:
    assert line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize("name", ["scripts/check", "scripts/bundle_weights", ".ci/run"])
def test_scripts_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_every_dependency_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins), "no ranges, no local builds"
    pinned = {re.sub(r"[._-]+", "-", pin.partition("==")[0]).lower(): pin.partition("==")[2] for pin in pins}
    lists = [project()["dependencies"], *project()["optional-dependencies"].values()]
    for requirement in [line for lines in lists for line in lines]:
        name, _, floor = re.sub(r"\[.*?\]", "", requirement).partition(">=")
        assert floor, f"{requirement} is no range"
        assert version(pinned[name]) >= version(floor), name


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_sums_of_bundled_weights_are_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bundle_weights"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_bundling_changes_only_what_it_should(tmp_path: Path) -> None:
    bundled = tmp_path / "lipdub" / "bundled"
    bundled.mkdir(parents=True)
    (bundled / "b.safetensors").write_bytes(b"abc")
    text = '# head\n[a]\nsha256 = "0"\nbytes = 7\n\n[b]\nbundled = "b.safetensors"\nsha256 = ""\nbytes = 0\n# end\n'
    (tmp_path / "weights.toml").write_text(text)
    command = [sys.executable, str(ROOT / "scripts" / "bundle_weights"), "--root", str(tmp_path)]
    assert subprocess.run([*command, "--check"], capture_output=True, timeout=60).returncode == 1
    assert (tmp_path / "weights.toml").read_text() == text
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc, FIPS 180-2
    wanted = text.replace('sha256 = ""\nbytes = 0', f'sha256 = "{digest}"\nbytes = 3')
    assert (tmp_path / "weights.toml").read_text() == wanted
    assert subprocess.run([*command, "--check"], capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend itself: no network access, no environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_wheel_holds_what_a_run_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("lipdub/weights.toml") == (ROOT / "weights.toml").read_bytes()
        manifest = tomllib.loads(archive.read("lipdub/weights.toml").decode())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {"lipdub/py.typed", "lipdub/__main__.py"} <= names
    assert {f"lipdub/presets/{path.name}" for path in (ROOT / "lipdub" / "presets").glob("*.toml")} <= names
    bundled = {f"lipdub/bundled/{entry['bundled']}" for entry in manifest.values() if "bundled" in entry}
    assert bundled <= names
    assert {name for name in names if name.endswith((".safetensors", ".pth", ".onnx", ".pt"))} == bundled
    assert not [name for name in names if name.startswith(("tests/", "scripts/", "benchmarks/"))]
    assert "License-Expression: Apache-2.0" in metadata
    assert "lipdub = lipdub.cli.app:main" in scripts


@pytest.mark.slow
def test_an_installed_wheel_finds_its_weights(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
from lipdub import weights
from lipdub.config import load_config
print(weights.MANIFEST.parent == weights.BUNDLED.parent, load_config("debug").face.size)
for entry in weights.manifest().values():
    if entry.bundled:
        weights.load_model(entry.name, entry.kind)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True 32\n"), done.stderr


@pytest.mark.parametrize("script", ["cli_reference", "error_reference"])
def test_the_pages_from_code_are_current(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, f"run scripts/{script}"


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "tutorial.html").is_file()
