"""Runner of the benchmarks.

python -m benchmarks                    list all, each with what it measures and what a good value is
python -m benchmarks NAME [ARGS]        run one; `python -m benchmarks NAME --help` explains its arguments
"""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

from lipdub.errors import LipdubError

FOLDERS = ("speed", "quality", "robustness")


def benchmarks() -> dict[str, Path]:
    """Name -> file of every benchmark, in the order of the folders."""
    return {path.stem: path for folder in FOLDERS for path in sorted((Path(__file__).parent / folder).glob("*.py"))}


def summary(path: Path) -> str:
    """First line of a file's docstring; the file is not imported, which takes seconds."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def main(words: list[str]) -> int:
    """Run the benchmark that is named first, or list all of them; the exit code."""
    known = benchmarks()
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, known))
        for folder in FOLDERS:
            print(f"{folder}:")
            for name, path in known.items():
                if path.parent.name == folder:
                    print(f"  {name:{width}}  {summary(path)}")
        return 0
    name = words[0]
    if name not in known:
        print(f"no benchmark {name!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *words[1:]]  # argparse's `prog`, and the command that is recorded
    try:
        return import_module(f"benchmarks.{known[name].parent.name}.{name}").main() or 0
    except LipdubError as error:
        print(f"error: {error.what}\n{error.remedy}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
