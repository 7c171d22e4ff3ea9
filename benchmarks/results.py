"""Results as data: benchmarks/results/*.json, from which RESULTS.md and figures of README and docs are made.

    python benchmarks/results.py            write benchmarks/RESULTS.md anew, and every marked figure in the texts
    python benchmarks/results.py --check    change nothing; exit 1 if one of them is stale, or a figure has no result

A file has `title, command, commit, date, machine, weights` and `values`; a value has `key, metric, value`, and where
there are any `interval` (95 %, of the mean over clips; of speed the least and the most), `n` (clips, or runs), `unit`,
`digits`, `bar` (what is aimed at) and `run` (its own command and so on, if they are not the file's). In a text
`<!--r FILE.KEY-->...<!--/r-->` is a value with its interval, `<!--r FILE.KEY value-->` the value alone. A benchmark
that has the option `--record` writes its file itself (`record`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "RESULTS.md"
TEXTS = [ROOT / "README.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(r"<!--r ([a-z_]+)\.([a-z0-9_]+)( value)?-->(.*?)<!--/r-->")
# What README may not say without a result: measured figures with a unit.
MEASURED = re.compile(r"\b\d[\d.,]*\s?(?:fps|dB|GB|MB|GiB|MiB|hours?|minutes?|x real time|times real time)(?!\w)")
RUN = ("command", "commit", "date", "machine", "weights")  # what a value has in common with others of its run
HEAD = """# Results

Current figures, made by `python benchmarks/results.py` from [results/](results); earlier ones: [journal](journal).
Mean and 95 % bootstrap interval over clips of speakers that no network was trained on (local footage).
"""


def load() -> dict[str, dict[str, Any]]:
    """Every file of results, by its stem."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def mean_of(key: str, metric: str, numbers: Sequence[float], **more: Any) -> dict[str, Any]:
    """A value for `record`: the mean of one number a clip, with its interval."""
    from lipdub.evaluation.table import interval

    mean = interval(numbers)
    bounds = [round(mean.low, 4), round(mean.high, 4)]
    return {"key": key, "metric": metric, "value": round(mean.mean, 4), "interval": bounds, "n": mean.n, **more}


def names_with_sums(*names: str) -> str:
    """Names of weights, each with the beginning of its checksum, for `record`."""
    from lipdub.weights import locate, sha256_of

    return ", ".join(f"{name} {sha256_of(locate(name))[:8]}" for name in names)


def record(name: str, values: list[dict[str, Any]], *, title: str, weights: str, machine: str = "") -> Path:
    """Write results/NAME.json; command, commit, date and machine are those of this run.

    Values of other keys in an older file stay, each with the `run` that measured it.

    Args:
        name: stem of the file.
        values: as the module says; what an older file says of a key's metric, digits and bar stays.
        title: of its table, unless there is one.
        weights: names and the beginning of their sums.
        machine: in words; by default the processor, its cores and the memory.
    """
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"values": []}
    known = {value["key"]: value for value in old["values"]}
    kept = ("metric", "digits", "unit", "bar")
    new = [{**value, **{k: v for k, v in known.get(value["key"], {}).items() if k in kept}} for value in values]
    argv = ["git", "rev-parse", "--short", "HEAD"]
    head = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    measured = {value["key"] for value in values}
    run = {field: old[field] for field in RUN if field in old}
    new += [{"run": run, **value} for value in old["values"] if value["key"] not in measured]
    done = {
        "title": old.get("title", title),
        "command": " ".join(
            [sys.argv[0], *(Path(w).name if {"/", ".."} & {*Path(w).parts} else w for w in sys.argv[1:])]
        ),
        "commit": head.stdout.strip() or "unknown",  # a copy of the sources has no history
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine or this_machine(),
        "weights": weights,
        "values": new,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def this_machine() -> str:
    """Cores, processor and memory, as far as the system says."""
    parts = [f"{os.cpu_count()} cores", platform.processor() or platform.machine()]
    if (processors := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"^model name\s*: (.*)$", processors.read_text(encoding="utf-8"), re.MULTILINE)
        parts[1:] = names[:1] or parts[1:]
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    return ", ".join(parts)


def shown(value: dict[str, Any], *, alone: bool = False) -> str:
    """A value as text, with its interval unless it is wanted `alone`."""
    digits, number = value.get("digits", 2), value["value"]
    text = number if isinstance(number, str) else f"{number:.{digits}f}"
    unit = value.get("unit", "")
    text += unit if unit.startswith("x") else f" {unit}" if unit else ""
    if value.get("interval") and not alone:
        low, high = value["interval"]
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def _of_run(value: dict[str, Any]) -> str:
    """Date and commit of a value that an older run measured."""
    return f" ({run['date']}, commit {run['commit']})" if (run := value.get("run")) else ""


def page(results: dict[str, dict[str, Any]]) -> str:
    """RESULTS.md."""
    parts = [HEAD]
    for name, one in results.items():
        of = f"{one['date']}, commit {one['commit']}, weights {one['weights']}, {one['machine']}"
        parts.append(f"## {one['title']}\n`{one['command']}` ({of}; [{name}.json](results/{name}.json))\n")
        rows = ["| | value | aim | n |", "|---|---|---|---|"]
        rows += [
            f"| {v['metric']}{_of_run(v)} | {shown(v)} | {v.get('bar', '')} | {v.get('n', '')} |" for v in one["values"]
        ]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def filled(text: str, results: dict[str, dict[str, Any]]) -> str:
    """A text with every marked figure as the results have it.

    Raises:
        KeyError: a mark that names no result.
    """

    def figure(match: re.Match[str]) -> str:
        name, key, alone = match[1], match[2], match[3]
        found = [value for value in results.get(name, {"values": []})["values"] if value["key"] == key]
        if not found:
            raise KeyError(f"{name}.{key} is not in benchmarks/results")
        return f"<!--r {name}.{key}{alone or ''}-->{shown(found[0], alone=bool(alone))}<!--/r-->"

    return MARKED.sub(figure, text)


def unmarked(text: str) -> list[str]:
    """Measured figures of a text outside of its marks and of its blocks of code."""
    prose = re.sub(r"^```.*?^```$", "", MARKED.sub("", text), flags=re.MULTILINE | re.DOTALL)
    return [match[0] for match in MEASURED.finditer(re.sub(r"`[^`]*`", "", prose))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    results = load()
    wanted = {PAGE: page(results)} | {text: filled(text.read_text(encoding="utf-8"), results) for text in TEXTS}
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if not check:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
        stale = []
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale: python benchmarks/results.py")
    loose = unmarked(wanted[ROOT / "README.md"])
    for figure in loose:
        print(f"README.md: {figure!r} has no result: mark it (see benchmarks/results.py) or say it without a number")
    return 1 if stale or loose else 0


if __name__ == "__main__":
    sys.exit(main())
