from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub import __version__
from lipdub.cli import app as app_module
from lipdub.errors import InputError, LipdubError, WeightsError

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "cv2", "av", "librosa", "numpy", "scipy", "sklearn", "rich", "huggingface_hub", "face_alignment"}
runner = CliRunner()


def lipdub(*args: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; `code` runs before it."""
    program = f"import sys\nfrom lipdub.cli import app\n{code}\nsys.exit(app.main())"
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", program, *args]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


def failing(error: str) -> str:
    """Code that adds a command `fail`, which raises `error`."""
    return f"from lipdub.errors import *\n@app.app.command()\ndef fail():\n    {error}\n"


@pytest.fixture
def broken_command(monkeypatch: pytest.MonkeyPatch):
    """Add a command `fail` to the application for one test."""

    def add(error: BaseException) -> None:
        def fail() -> None:
            raise error

        commands = [*app_module.app.registered_commands]
        monkeypatch.setattr(app_module.app, "registered_commands", commands)
        app_module.app.command()(fail)

    return add


def test_help_imports_nothing_heavy() -> None:
    code = "import sys\nfrom lipdub.cli import app\ntry:\n    app.main(['--help'])\nfinally:\n    print(*sys.modules)"
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, modules = done.stdout.rsplit("\n", 2)[:2]
    assert "Usage: lipdub [OPTIONS] COMMAND" in text
    assert not HEAVY & {name.partition(".")[0] for name in modules.split()}


def test_every_command_has_help() -> None:
    names = [command.name or command.callback.__name__ for command in app_module.app.registered_commands]
    for name in [*names, "weights"]:
        result = runner.invoke(app_module.app, [name, "--help"])
        assert result.exit_code == 0
        assert f"Usage: lipdub {name}" in result.stdout


def test_version() -> None:
    result = runner.invoke(app_module.app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"lipdub {__version__}\n")


def test_python_dash_m() -> None:
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lipdub", "--version"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"lipdub {__version__}\n")


@pytest.mark.parametrize("args", [["nosuch"], ["--nosuch"], ["weights", "path"], ["weights", "list", "--nosuch"]])
def test_wrong_usage_is_exit_code_2(args: list[str]) -> None:
    result = runner.invoke(app_module.app, args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("kind", LipdubError.__subclasses__())
def test_each_error_has_its_exit_code_and_two_lines(broken_command, kind: type[LipdubError]) -> None:
    broken_command(kind("no audio in\n a.mp4", "give one\nwith sound"))
    result = runner.invoke(app_module.app, ["fail"])
    assert result.exit_code == kind.exit_code
    assert (result.stdout, result.stderr) == ("", "error: no audio in a.mp4\n  give one with sound\n")


def test_debug_adds_the_traceback(broken_command, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_command(InputError("no audio", "give one with sound"))
    assert "Traceback" in runner.invoke(app_module.app, ["--debug", "fail"]).stderr
    assert "Traceback" not in runner.invoke(app_module.app, ["fail"]).stderr
    monkeypatch.setenv("LIPDUB_DEBUG", "1")
    result = runner.invoke(app_module.app, ["fail"])
    assert "Traceback" in result.stderr and result.exit_code == 3


def test_interrupts_are_exit_code_130(broken_command) -> None:
    broken_command(KeyboardInterrupt())
    result = runner.invoke(app_module.app, ["fail"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")])
def test_memory_that_runs_out_is_no_bug(broken_command, error: Exception) -> None:
    broken_command(error)
    result = runner.invoke(app_module.app, ["fail"])
    assert (result.exit_code, result.stderr.splitlines()[0]) == (8, "error: out of memory")


def test_a_bug_asks_for_a_report() -> None:
    done = lipdub("fail", code=failing("raise ValueError('7 is not 8')"))
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first == "error: unexpected ValueError: 7 is not 8"
    assert "bug" in second and "--debug" in second


@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_shows_where_a_bug_is(how: str) -> None:
    args, variables = (["--debug"], {}) if how == "option" else ([], {"LIPDUB_DEBUG": "1"})
    done = lipdub(*args, "fail", code=failing("raise ValueError('7 is not 8')"), **variables)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and done.stderr.rstrip().endswith("ValueError: 7 is not 8")


def test_a_pipe_of_ours_that_breaks_is_not_silent() -> None:
    done = lipdub("fail", code=failing("raise BrokenPipeError(32, 'Broken pipe')"))
    assert done.returncode == 1
    assert "the other end of a pipe is gone" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_clean_up_first(number: signal.Signals, code: int) -> None:
    body = "import time\n    try:\n        app.console.data('ready')\n        time.sleep(30)\n    finally:\n"
    program = (
        f"import sys\nfrom lipdub.cli import app\n{failing(body + '        app.console.data(1)')}\nsys.exit(app.main())"
    )
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, "fail"]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (code, "1\n")
    assert "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_leaves_is_no_error() -> None:
    program = f"import sys\nfrom lipdub.cli import app\n{failing('[app.console.data(i) for i in range(99999)]')}"
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{program}\nsys.exit(app.main())", "fail"]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == "0\n"
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(20) == 141


def test_an_ascii_terminal_can_print_everything() -> None:
    done = lipdub("--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii()
    done = lipdub("fail", code=failing("raise InputError('no file ü.mp4', 'give ä.mp4')"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (3, "error: no file \\xfc.mp4\n  give \\xe4.mp4\n")
    done = lipdub("fail", code=failing("app.console.data('ü\\udc80.mp4')"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "\\xfc\\udc80.mp4\n")


def test_weights_list_has_a_line_per_entry() -> None:
    from lipdub.weights import manifest

    lines = runner.invoke(app_module.app, ["weights", "list"]).stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "HERE", "SIZE", "COMMERCIAL", "LICENCE"]
    assert [line.split()[0] for line in lines[1:]] == list(manifest())
    entries = [
        json.loads(line) for line in runner.invoke(app_module.app, ["weights", "list", "--json"]).stdout.splitlines()
    ]
    assert [entry["name"] for entry in entries] == list(manifest())
    assert next(entry for entry in entries if entry["name"] == "vgg16")["path"] is None


def test_weights_path_prints_the_path_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"x")
    result = runner.invoke(app_module.app, ["weights", "path", str(path)])
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")


@pytest.mark.parametrize("command", ["path", "pull", "verify"])
def test_absent_weights_are_exit_code_7(command: str) -> None:
    result = runner.invoke(app_module.app, ["weights", command, "vgg16"])
    assert (result.exit_code, result.stdout) == (WeightsError.exit_code, "")
    assert "vgg16" in result.stderr and "LIPDUB_WEIGHTS" in result.stderr


def test_a_wrong_name_stops_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("lipdub.weights.pull", lambda name, progress: fetched.append(name))
    result = runner.invoke(app_module.app, ["weights", "pull", "yunet", "nosuch"])
    assert (result.exit_code, fetched) == (7, [])
    assert "nosuch" in result.stderr


def test_pull_warns_of_non_commercial_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipdub.weights.pull", lambda name, progress: Path("/somewhere") / name)
    result = runner.invoke(app_module.app, ["weights", "pull", "yunet", "s3fd"])
    assert (result.exit_code, result.stdout) == (0, "/somewhere/yunet\n/somewhere/s3fd\n")
    assert result.stderr.startswith("s3fd: not for commercial use")


def test_verify_looks_at_everything_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPDUB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("lipdub.weights.BUNDLED", tmp_path / "none")
    (tmp_path / "anchors.npy").write_bytes(b"not it")
    (tmp_path / "blazeface.pth").write_bytes(b"nor this")
    result = runner.invoke(app_module.app, ["weights", "verify"])
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr.splitlines()[-2] == "error: 2 not as in weights.toml: blazeface, blazeface-anchors"


def test_import_names_its_output_after_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lipdub.weights_import import Imported

    asked: list[Path] = []

    def fake(source: Path, target: Path, *, kind: str, overwrite: bool) -> Imported:
        asked.append(target)
        return Imported(target=target, kind=kind, tensors=1, parameters=2)

    monkeypatch.setattr("lipdub.weights_import.import_weights", fake)
    for name in ("a.pth", "b.v1.pth.tar"):
        result = runner.invoke(app_module.app, ["weights", "import", str(tmp_path / name)])
        assert result.exit_code == 0
    assert [path.name for path in asked] == ["a.safetensors", "b.v1.safetensors"]


def test_the_page_without_its_extra_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "lipdub.ui.page", raising=False)
    done = runner.invoke(app_module.app, ["ui", "--no-browser"])
    assert done.exit_code == 6
    assert "lipdub ui needs Gradio" in done.stderr and 'pip install "lipdub[ui]"' in done.stderr
