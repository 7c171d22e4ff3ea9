"""`lipdub batch`: many dubs, on this machine, on a cluster, or one shard of them."""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipdub.cli import console, settings
from lipdub.cli.arguments import Device, Json, Overwrite, Quiet, Set, Weights
from lipdub.cli.command import files_of
from lipdub.config import Config
from lipdub.dub.options import OPTIONS, options_from
from lipdub.errors import InputError
from lipdub.events import Done, Event, duration
from lipdub.options import OptionError

if TYPE_CHECKING:
    from lipdub.dub.batch import BatchItem, BatchReport

FILES = ("video", "audio", "output")
COLUMNS = {option.key: option for option in OPTIONS.values() if option.column}


def batch(
    ctx: typer.Context,
    manifest: Annotated[
        Path, typer.Argument(help="The list: .csv or .tsv with a header, .jsonl, or .toml with [[item]] tables.")
    ],
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster, auto or host:port; by default Ray runs on this machine."),
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(min=0.1, help="CPU cores per dub (default 2, or all of a smaller machine).")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs per dub; with 0.5 two dubs share one.")] = 0.0,
    retries: Annotated[
        int, typer.Option(min=0, help="Retries of an item on another machine when its machine is lost.")
    ] = 2,
    serial: Annotated[bool, typer.Option("--serial", help="Process items sequentially, without Ray.")] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="i/N", help="Process every N-th item, starting at item i: for job arrays.")
    ] = None,
    device: Device = "auto",
    weights: Weights = "generator",
    quality: Annotated[
        settings.Quality | None, typer.Option(help="Speed against quality, as for `lipdub sync`.")
    ] = None,
    set_: Set = None,
    state: Annotated[
        Path | None, typer.Option(help="File with the results so far; by default next to MANIFEST.")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Also write the report as JSON to this file.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry items that failed before.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Skip items whose output exists.")] = False,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Dub all items of MANIFEST; the same command again resumes.

    Each item has video, audio and output (relative to the manifest's folder), and may have any option of `lipdub sync`,
    with _ for -: face, start, speakers, label_text, ... A failed item is reported and does not stop the others; the
    exit code is then 9. Failed items are skipped until --retry-failed. Ray (pip install "lipdub[batch]") runs several
    at a time; without it they run one by one.
    """
    number, count = parse_shard(shard)
    from lipdub.dub.batch import one_by_one, run_batch
    from lipdub.dub.ray_executor import RayExecutor

    config = settings.config_of(files_of(ctx), set_ or (), quality)
    items = read_manifest(manifest, device=device, weights=weights, config=config)
    state = state or manifest.with_name(manifest.name + (f".{number}-of-{count}" if shard else "") + ".state.jsonl")
    serial = serial or (address is None and find_spec("ray") is None)
    wide = min(2.0, os.cpu_count() or 1) if cpus is None else cpus
    executor = one_by_one if serial else RayExecutor(address=address, cpus=wide, gpus=gpus, retries=retries)
    with console.progress(json_lines=json_, quiet=quiet) as on_event:

        def note(event: Event) -> None:
            on_event(event)
            if isinstance(event, Done) and summary is not None:
                summary.write_text(json.dumps(console.plain(event.report), indent=1) + "\n", encoding="utf-8")
            if isinstance(event, Done) and not (json_ or quiet):
                _show(event.report)

        run_batch(
            items[number - 1 :: count],
            state,
            executor=executor,
            retry_failed=retry_failed,
            skip_existing=skip_existing,
            overwrite=overwrite,
            on_event=note,
        )


def _show(report: BatchReport) -> None:
    counts = {"done": report.done, "done before": report.before, "skipped": report.skipped, "failed": report.failed}
    outcome = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.say(f"{report.items} videos in {duration(report.seconds)}: {outcome or 'nothing to do'}")


def parse_shard(text: str | None) -> tuple[int, int]:
    """(i, N) of `i/N`; (1, 1) where none is given; usage error otherwise."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(f"invalid shard {text!r}: use i/N with i from 1 to N", param_hint="--shard")
    return int(match[1]), int(match[2])


def read_manifest(path: Path, *, device: str, weights: str, config: Config | None = None) -> list[BatchItem]:
    """The items of a list, .csv, .tsv, .jsonl or .toml; `device` and `weights` are of those that name none.

    Raises:
        InputError: it cannot be read, an item lacks a file, has an unknown key or a bad value; names the item.
    """
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _jsonl_rows, ".toml": _toml_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is none of {', '.join(readers)}", "give the list in one of these forms")
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as spreadsheets write "Unicode text"
        rows = reader(data.decode("utf-16" if utf16 else "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}", "save it as CSV UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}", "check the path") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}", "see `lipdub batch --help` for its form") from error
    if not rows:
        raise InputError(f"{path} lists nothing", "an item has video, audio and output")
    defaults = {"device": device, "weights": weights}
    return [
        _item(row, f"{path}, item {number}", path.parent, defaults, config or Config())
        for number, row in enumerate(rows, 1)
    ]


def _csv_rows(text: str) -> list[dict[str, Any]]:
    """Commas, or what spreadsheets of other countries write in their place; empty rows are no items."""
    lines = text.splitlines()
    lines = lines[1:] if lines and re.fullmatch("sep=.", lines[0]) else lines  # sets the delimiter in Excel
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    table = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    header = [name.strip().lower() for name in next(table, [])]
    rows = [[value.strip() for value in row] for row in table]
    if any(any(row[len(header) :]) for row in rows):
        raise ValueError(f"a row has more than the {len(header)} values of the header")
    items = ({key: value for key, value in zip(header, row, strict=False) if value} for row in rows)
    return [item for item in items if item]


def _jsonl_rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _toml_rows(text: str) -> list[dict[str, Any]]:
    return tomllib.loads(text).get("item", [])


def _item(row: Any, where: str, folder: Path, defaults: dict[str, str], config: Config) -> BatchItem:
    from lipdub.dub.batch import BatchItem

    known = f"known: {', '.join((*FILES, *COLUMNS))}"
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a table of keys", known)
    if unknown := [str(key) for key in row if key not in FILES and key not in COLUMNS]:
        raise InputError(f"{where} has unknown key {unknown[0]!r}", known)
    if missing := [key for key in FILES if not isinstance(row.get(key), str)]:
        raise InputError(f"{where} has no {missing[0]}", "an item has video, audio and output")
    written = {key: str(value) for key, value in row.items() if key in COLUMNS}
    try:
        options = options_from(
            defaults | {key: COLUMNS[key].parsed(text, folder) for key, text in written.items() if text}
        )
    except OptionError as error:
        raise InputError(f"{where}: {error}", "values are those of `lipdub sync`") from error
    except InputError as error:
        raise InputError(f"{where}: {error.what}", error.remedy) from error
    video, audio, output = ((folder / row[key]).absolute() for key in FILES)
    return BatchItem(video=video, audio=audio, output=output, options=options, config=config)
