"""What README and docs tell people to type: it exists, it is parsed, and what can run here does."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lipdub import errors
from lipdub.cli.app import app
from lipdub.cli.batch import read_manifest
from lipdub.cli.command import commands_of, long_options
from lipdub.cli.settings import read_files
from lipdub.dub.demo import make_demo_inputs
from lipdub.faces.contact_sheet import encode_picture
from lipdub.faces.selection import read_speakers
from lipdub.media.seek import frame_at
from lipdub.weights import locate

ROOT = Path(__file__).parents[1]
COMMANDS: Any = typer.main.get_command(app)
USAGE = typer.BadParameter.__mro__[1]  # base of what a wrong command line raises
DOCS = (ROOT / "docs").resolve()
GENERATED = ROOT / "docs" / "reference" / "cli.md"  # from the commands' own help
NOTEBOOK = ROOT / "examples" / "dub.ipynb"
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page != GENERATED]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(lipdub [^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")

# Programs of others in the pages' blocks, and why they are not run here.
OTHERS = {
    "python": "README's set-up line, run by .ci/run; scripts of benchmarks/",
    ".venv/bin/pip": "README's set-up lines, run by .ci/run",
    "pip": "needs the package index",
    "docker": "needs Docker",
    "mkdocs": "a slow test of its own",
    "scripts/check": "runs this",
    "tensorboard": "the extra `train`",
    "torchrun": "several GPUs",
    "accelerate": "several GPUs",
}
# Commands of ours that do not fit: they need the network, or hours. Their lines are parsed.
NOT_RUN = {
    "weights pull": "needs the network",
    "weights verify": "wants what was pulled",
    "weights import": "wants a file of somebody else's",
    "eval": "clips to judge and, for a folder, the extra `teachers` and public weights",
    "ui": "runs until it is ended; tests/ui",
    "prepare": "wants an hour of footage; tests/cli/test_prepare.py",
}
ABSENT = {
    "wav2lip.safetensors",
    "runs/1",
    "runs/2",
    "sync.audio_encoder=runs/audio/weights.safetensors",
}  # weights of others, and of runs: commands with them are parsed only
# Blocks that show and do not tell, and what keeps them true.
SHOWN = {
    ("docs/design.md", "picture"): "the order of the pipeline, drawn",
    ("docs/fidelity.md", "listing"): "written and compared by tests/faults/test_fidelity.py",
    ("docs/training.md", "listing"): "names of files, for example",
}
# What makes the others short enough.
ADDED = {"demo": ["--seconds", "1"], "train": ["--dry-run"], "batch": ["--serial"]}


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def shell_lines(text: str) -> Iterator[list[str]]:
    """Words of each command of a block; `&&` and the end of a line part them, comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield words
                words = []


def kind(language: str, text: str) -> str:
    if language in ("python", "toml", "json", "dockerfile"):
        return language
    if text.startswith("video,audio,output"):
        return "list"
    if re.match(r"[-+]\w|! |footage/", text):
        return "listing"  # what two files differ in, what a folder holds
    return "picture" if re.search("[─►│▼]", text) else "shell"


def ours(words: list[str]) -> bool:
    return Path(words[0]).name == "lipdub"


def find(words: list[str]) -> tuple[str, Any, list[str]]:
    """The command that words name, without the leading `lipdub`: its name, itself and the words after it."""
    command: Any = COMMANDS
    path: list[str] = []
    while words and words[0] in getattr(command, "commands", {}):
        command, path, words = command.commands[words[0]], [*path, words[0]], words[1:]
    return " ".join(path), command, words


def options_of(command: Any) -> set[str]:
    names = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    names |= {"-h", "--help"}
    for below in getattr(command, "commands", {}).values():
        names |= options_of(below)
    return names


def test_there_are_pages() -> None:
    assert "README.md" in NAMES


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_something_that_is_tested(page: Path, tmp_path: Path) -> None:
    for language, text in blocks(page):
        name = page.relative_to(ROOT).as_posix()
        assert kind(language, text) in ("shell", "list", "python", "toml") or (name, kind(language, text)) in SHOWN
        if kind(language, text) == "toml":
            path = tmp_path / "a.toml"
            path.write_text(text, encoding="utf-8")
            if text.startswith("[[speaker]]"):
                assert read_speakers(path)
            else:
                commands = {each: [*long_options(command)] for each, command in commands_of(COMMANDS).items()}
                assert read_files(path, commands)[-1].options
        elif kind(language, text) == "shell":
            for words in shell_lines(text):
                assert ours(words) or words[0] in OTHERS, f"{words[0]} is neither ours nor listed"
        elif kind(language, text) == "list":
            path = tmp_path / "films.csv"
            path.write_text(text, encoding="utf-8")
            assert read_manifest(path, device="cpu", weights="generator")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_line_is_parsed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK", "3")
    root = COMMANDS.context_class(COMMANDS, info_name="lipdub")
    for language, text in blocks(page):
        if kind(language, text) != "shell":
            continue
        for words in shell_lines(os.path.expandvars(text)):
            if not ours(words) or "…" in words:
                continue
            name, command, rest = find(words[1:])
            assert name, f"no such command: {' '.join(words)}"
            try:
                command.make_context(name, list(rest), parent=root)
            except typer.Exit as done:
                assert done.exit_code == 0
            except USAGE as error:
                pytest.fail(f"{' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_in_the_text_exists(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for line in INLINE.findall(text):
        words = line.split()[1:]
        if not words[0].startswith(("-", "…")):
            name, command, rest = find(words)
            assert name, f"`{line}`: no such command"
            assert {word for word in rest if word.startswith("-") and len(word) > 1} <= options_of(command), line
    known = options_of(COMMANDS)
    scripts = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "scripts").iterdir()]
    for script in scripts:
        known |= set(OPTION.findall(script.read_text(encoding="utf-8")))
    told = {
        option
        for code in re.findall(r"`([^`]+)`", text)
        if code.split()[0] not in OTHERS
        for option in OPTION.findall(code)
    }
    assert told <= known


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_pictures_lead_to_a_file(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}
    assert {target for target in targets - {""} if not (page.parent / target).is_file()} == set()
    if page.is_relative_to(DOCS):  # the site holds nothing else
        assert [target for target in targets if not (page.parent / target).resolve().is_relative_to(DOCS)] == []


@pytest.mark.parametrize("name", ["README.md", "docs/troubleshooting.md"])
def test_every_exit_code_is_told(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    told = set(re.findall(r"^\| (\d+)", text, re.MULTILINE))
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and each is not errors.LipdubError]
    owned = {str(each.exit_code) for each in kinds if issubclass(each, errors.LipdubError)}
    assert owned | {"0", "1", "2", "130"} <= told


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    video, audio = make_demo_inputs(tmp_path, 0.4)
    for name in ("video.mp4", "talk.mp4", "a.mp4", "b.mp4"):
        shutil.copy(video, tmp_path / name)
    for name in ("dubbed.wav", "dub.wav", "polish.wav", "ukrainian.wav"):
        shutil.copy(audio, tmp_path / name)
    (tmp_path / "portrait.jpg").write_bytes(encode_picture(frame_at(video, 0.0), ".jpg"))
    cue = "1\n00:00:00,050 --> 00:00:00,300\nHello.\n"
    for name, text in (
        ("video.srt", cue),
        ("dub.srt", cue.replace("300", "350")),
        ("fit.json", '[{"source": [0.05, 0.3], "target": [0.05, 0.35]}]'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copy(locate("generator"), tmp_path / "mine.safetensors")
    rows = ["video,audio,output,language", *(f"video.mp4,dubbed.wav,{n}.mp4,uk" for n in range(3))]
    (tmp_path / "films.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASK", "3")
    return tmp_path


def test_the_notebook_holds_no_results() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["report"].dubbed == names["report"].frames == 100
    assert (tmp_path / "dub-example" / "dubbed.mp4").is_file()


@pytest.mark.slow
def test_python_in_the_pages_passes_mypy_strict(tmp_path: Path) -> None:
    texts = [text for page in PAGES for language, text in blocks(page) if language == "python"]
    assert len(texts) > 1
    for number, text in enumerate(texts):
        (tmp_path / f"page{number}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "."]
    variables = os.environ | {"MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_can_run_does(page: Path, folder: Path) -> None:
    for language, text in blocks(page):
        if kind(language, text) == "python":
            for made in re.findall(r'"([\w./-]+\.mp4)", lipdub', text):
                (folder / made).unlink(missing_ok=True)
            exec(compile(the_one(text), str(page), "exec"), {})
        if kind(language, text) != "shell":
            continue
        for words in shell_lines(os.path.expandvars(text)):
            if ours(words) and "…" not in words:
                run([the_one(word) for word in words[1:]], folder)


def the_one(text: str) -> str:
    """The test's video shows one person; the pages speak of several."""
    return re.sub(r"id:\d+(,\d+)*", "id:0", text)


def run(words: list[str], folder: Path) -> None:
    """One command line, unless it is listed; outputs of an earlier one make room."""
    name, _, rest = find(words)
    if (name in NOT_RUN and "--help" not in rest) or ABSENT & set(rest):
        return
    for flag, value in pairwise(rest):
        if flag in ("-o", "--output", "--report") and "--dry-run" not in rest:
            (folder / value).unlink(missing_ok=True)
    for state in folder.glob("*.state.jsonl"):
        state.unlink()
        for number in range(3):
            (folder / f"{number}.mp4").unlink(missing_ok=True)
    done = CliRunner().invoke(app, [*words, *ADDED.get(name, [])])
    assert done.exit_code == 0, f"lipdub {' '.join(words)}\n{done.output}"
