"""Words that the code has left behind, in favour of the field's own; none of them comes back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from lipdub.config import load_config
from lipdub.errors import InputError

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("lipdub", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "lipdub").rglob("*.toml")])

NAMES = {  # Python names, anywhere
    *("Agreement", "AS_IT_IS", "Behind", "FaceFollower", "Heard", "Judge", "Lesson", "Listing", "Look", "Manner"),
    *("MouthPainter", "NOBODY", "Painted", "Painter", "ReelWriter", "STRANGER", "Sight", "Sighting", "Speech"),
    *("Stretch", "Survey", "SurveyRequest", "TaughtExpert", "TaughtGenerator", "Beyond", "MeshJudge", "STILL"),
    *("ahead", "as_spoken_by", "bulge", "edge_l1", "finder", "finder_identity", "follow_loss", "fool", "give_up"),
    *("hear", "is_time", "lend_skin", "listen", "list_file", "mouths_heard", "nearest_views", "places_of"),
    *("rate_of", "relit", "some_of", "spoken_by", "steadied", "stretches", "survey", "surveyed", "taught"),
}
VAGUE = {"found", "given", "wanted", "told", "most", "least", "sure", "heard", "said"}  # names that say nothing
# functions whose name does not say what they do or return; more of them than of VAGUE are needed
VAGUE_FUNCTIONS = VAGUE | {
    *(
        "alike",
        "apart",
        "drawn",
        "kept",
        "made",
        "moved",
        "of_faces",
        "one",
        "parted",
        "rest",
        "same",
        "seen",
        "settle",
    ),
    *("shown", "strangers", "takes", "telling", "through", "twins", "used", "ways", "what_was_seen"),
}
UNNAMED = ("models",)  # packages that still have some
UNNAMED_FILES = {  # modules that still have some
    *("data/store.py", "evaluation/quality.py"),  # `sure` is a key of a data set's manifest and of a report
}
FOLDERS = ("pipeline", "training/layouts", "data/layouts")
MODULES = {  # below lipdub/
    *("cast", "faces/align", "faces/alignment", "faces/follow", "faces/people", "faces/sheet", "media/credentials"),
    *("media/ending", "media/label", "media/lanes", "media/listing", "media/marks", "media/output", "media/reel"),
    *("media/remux", "training/looks", "evaluation/judge", "evaluation/likeness"),
}
SETTINGS = {
    *("sync.views", "sync.pick", "sync.own_lips", "cache.most_mib", "loss.follow", "loss.edges", "loss.paint"),
    *("train.wrong_sounds", "train.sound_first", "train.sounds", "train.looks"),
    *("quality.piece_s", "quality.sure", "quality.sure_expert"),
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_old_name_is_back(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    assert not names & NAMES


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a module gives to variables, parameters, functions, classes and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


@pytest.mark.parametrize("path", sorted((ROOT / "lipdub").rglob("*.py")), ids=lambda path: path.name)
def test_names_say_what_a_thing_is(path: Path) -> None:
    name = path.relative_to(ROOT / "lipdub").as_posix()
    vague = {each for each in defined(ast.parse(path.read_text(encoding="utf-8"))) if each.strip("_") in VAGUE}
    if name in UNNAMED_FILES:
        assert vague, "take it off the list"
    elif not name.startswith(UNNAMED):
        assert not vague


@pytest.mark.parametrize("path", sorted((ROOT / "lipdub").rglob("*.py")), ids=lambda path: path.name)
def test_functions_say_what_they_do_or_return(path: Path) -> None:
    name = path.relative_to(ROOT / "lipdub").as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    vague = {function for function in functions if function.strip("_") in VAGUE_FUNCTIONS}
    if not name.startswith(UNNAMED):
        assert not vague


def test_no_old_module_is_back() -> None:
    assert not [name for name in MODULES if (ROOT / "lipdub" / f"{name}.py").exists()]
    assert not [name for name in FOLDERS if (ROOT / "lipdub" / name).exists()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_page_names_an_old_setting(path: Path) -> None:
    if path.name == "CHANGELOG.md":
        return
    text = path.read_text(encoding="utf-8")
    assert not [name for name in SETTINGS if re.search(rf"\b{re.escape(name)}\b(?!\()", text)]


def test_no_old_setting_is_read() -> None:
    for name in SETTINGS:
        with pytest.raises(InputError, match=f"unknown setting {name.partition('.')[2]!r}"):
            load_config(None, [f"{name}=1"])


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))])
def test_pages_for_users_do_not_read_as_a_translation(path: Path) -> None:
    """`reported` for what a user learns, `someone` for a person: the plain words."""
    assert not re.findall(r"\b(?:told|somebody|strangers?)\b", path.read_text(encoding="utf-8"))
