"""Rules about the whole: who may import whom, where a package lives, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lipdub

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lipdub"

# design: imports run downwards only. Units of one layer may use each other as long as no module needs itself.
LAYERS = (
    {"affine", "config", "errors", "events", "options", "process", "threads"},
    {"models", "mel", "losses"},
    {"faces", "media", "weights", "weights_export", "weights_import"},
    {"metrics"},
    {"data"},
    {"dub", "training"},
    {"evaluation", "html", "ui"},
    {"cli"},
    {"__init__", "__main__"},
)

# package -> the only places that may import it
HOMES = {
    "accelerate": {"training"},
    "ai_edge_litert": {"evaluation/teachers.py"},
    "av": {"media"},
    "c2pa": {"media/c2pa.py"},
    "cryptography": {"media/c2pa.py"},
    "face_alignment": {"faces/face_alignment.py"},
    "ffmpeg": {"media/mux.py"},
    "gradio": {"ui/page.py"},
    "huggingface_hub": {"weights.py"},
    "imageio_ffmpeg": {"media/ffmpeg.py"},
    "jinja2": {"html/page.py"},
    "librosa": {"mel.py"},
    "markupsafe": {"html"},
    "pyrnnoise": {"dub/voice_isolation.py"},
    "ray": {"dub/ray_executor.py"},
    "rich": {"cli/console.py", "cli/train.py"},
    "safetensors": {"weights.py"},
    "sklearn": {"faces/references.py"},
    "starlette": {"ui/page.py"},
    "torchmetrics": {"evaluation/perceptual.py"},
    "typer": {"cli"},
    "webdataset": {"data/shards.py"},
}

MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def dotted(name: str) -> str:
    """File name below lipdub/ -> module name: "faces/track.py" -> "faces.track", "faces/__init__.py" -> "faces"."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


KNOWN = {dotted(name) for name in MODULES}


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names that a module imports, wherever in it; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Modules of lipdub, without the prefix, that a module imports; its name and version alone do not count."""
    found = set()
    for target in imports(TREES[name]):
        if not target.startswith("lipdub.") or target == "lipdub.__version__":
            continue
        target = target.removeprefix("lipdub.")
        found.add(target if target in KNOWN else target.rpartition(".")[0])
    return found - {""}


def layer(module: str) -> int:
    unit = module.partition(".")[0]
    return next(number for number, units in enumerate(LAYERS) if unit in units)


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards(name: str) -> None:
    mine = dotted(name)
    upwards = {other for other in own_imports(name) if layer(other) > layer(mine)}
    assert not upwards, f"{name} is in layer {layer(mine)} and imports {upwards}"


def test_training_and_evaluation_are_apart() -> None:
    """They share layers below them; neither, nor the pages, knows the other."""
    for mine, others in (("training", {"evaluation", "html"}), ("evaluation", {"training"}), ("html", {"training"})):
        for name in (name for name in MODULES if name.startswith(f"{mine}/")):
            assert not {other for other in own_imports(name) if other.partition(".")[0] in others}, name


def test_no_module_needs_itself() -> None:
    graph = {
        dotted(name): own_imports(name) - {dotted(name)} for name in MODULES if "/" in name or name != "__init__.py"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_every_module_has_a_layer() -> None:
    units = {dotted(name).partition(".")[0] for name in MODULES}
    assert units <= set().union(*LAYERS)


@pytest.mark.parametrize("package", HOMES)
def test_a_third_party_package_has_one_home(package: str) -> None:
    users = {name for name, tree in TREES.items() if package in {target.partition(".")[0] for target in imports(tree)}}
    strangers = {
        name for name in users if not any(name == home or name.startswith(home + "/") for home in HOMES[package])
    }
    assert not strangers, f"{package} belongs to {HOMES[package]}"


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.match(r"[a-z0-9-]+", line, re.IGNORECASE)[0].replace("-", "_") for lines in lists for line in lines}
    names = {"cv2": "opencv_python", "sklearn": "scikit_learn", "skimage": "scikit_image", "ffmpeg": "ffmpeg_python"}
    names["c2pa"] = "c2pa_python"
    used = {target.partition(".")[0] for tree in TREES.values() for target in imports(tree)}
    used -= {*sys.stdlib_module_names, "lipdub"}
    assert {names.get(package, package) for package in used} <= declared


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("name", MODULES)
def test_nothing_runs_code_from_data_or_a_shell(name: str) -> None:
    for function, call in calls(TREES[name]):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert keywords.get("shell", "False") == "False", f"{name}: shell"
        assert function not in {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "np.memmap"}, (
            name
        )
        assert keywords.get("allow_pickle", "False") == "False", f"{name}: allow_pickle"
        if function == "torch.load":
            assert keywords.get("weights_only") == "True", f"{name}: torch.load without weights_only=True"


@pytest.mark.parametrize("name", MODULES)
def test_no_error_is_swallowed(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            kind = ast.unparse(node.type) if node.type else ""
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert kind not in {"", "BaseException", "Exception"} or reraises, f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_readable(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            body = node.end_lineno - node.body[0].lineno + 1  # signature and decorators do not count
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
            assert body - docstring <= 50, f"{name}: {node.name}"


def test_the_version_is_that_of_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert top is not None and top[1] == lipdub.__version__


def test_the_public_names() -> None:
    assert {"sync", "plan", "list_faces", "SyncOptions", "SyncReport", "Speaker", "errors", "events"} < set(
        lipdub.__all__
    )
    assert all(getattr(lipdub, name) is not None for name in lipdub.__all__)
    assert set(lipdub.__all__) <= set(dir(lipdub))
    with pytest.raises(AttributeError, match="nosuch"):
        _ = lipdub.nosuch


def test_the_public_names_load_on_first_use() -> None:
    code = "import sys, lipdub; print('torch' in sys.modules, callable(lipdub.sync), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("False True True\n", "")
