"""Table 4.1 [4.1]: the row of each run, and the table in the thesis' layout.

A run is recognised by its training settings (RUN/config.json), not by its name. If two runs match one row, the last by
name is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lipdub.config import Config
from lipdub.errors import InputError
from lipdub.evaluation.table import Line
from lipdub.weights_export import CHECKPOINT, SETTINGS, export, run_config

COLUMNS = ("expert", "perceptual", "psnr", "sharpness")
HEADER = ("Refs.", "ResNet", "Attn.", "Audio skips", "Mask", "GAN", "Expert", "Perc.", "PSNR", "vL")


@dataclass(frozen=True)
class Row:
    """One line of the ablation."""

    references: str
    sampling: str
    augment: bool
    residual: bool
    attention: bool
    audio_skips: bool
    mask: bool
    gan: bool
    published: tuple[float, float, float, float]  # expert, perceptual, PSNR, vL on LRS2

    @property
    def name(self) -> str:
        """Name of the row in other tables: the references and the parts that are enabled."""
        return " + ".join([self.references, *(name for name, on in zip(HEADER[1:6], self.choices, strict=True) if on)])

    @property
    def choices(self) -> tuple[bool, ...]:
        """ResNet, attention, audio skips, mask, GAN."""
        return self.residual, self.attention, self.audio_skips, self.mask, self.gan


ROWS = (
    Row("Random 1", "random", False, False, False, False, False, False, (0.833, 35.5, 13.7, 66.2)),
    Row(
        "Random 1 in neigh. of 30", "neighbourhood", False, False, False, False, False, False, (0.82, 35.1, 13.5, 66.8)
    ),
    Row("KMeans", "kmeans", False, False, False, False, False, False, (0.818, 34.4, 13.8, 66.4)),
    Row("KMeans + Aug", "kmeans", True, False, False, False, False, False, (0.789, 33.6, 13.6, 69.1)),
    Row("KMeans + Aug", "kmeans", True, True, True, False, False, False, (0.753, 30.4, 14.6, 78.3)),
    Row("KMeans + Aug", "kmeans", True, True, True, True, False, False, (0.724, 29.7, 14.2, 79.5)),
    Row("KMeans + Aug", "kmeans", True, True, True, True, True, False, (0.693, 28.1, 15.2, 86.1)),
    Row("KMeans + Aug", "kmeans", True, True, True, True, True, True, (0.716, 24.28, 15.44, 103.2)),
)


def row_of(config: Config) -> Row | None:
    """Row of a run with this configuration; None if it is not in the table."""
    reference, generator = config.reference, config.generator
    if config.train.stage not in ("1", "2") or generator.warp or generator.shape_code:
        return None  # another network than the thesis'
    augment = reference.augment and reference.sampling == "kmeans"
    gan = config.train.stage == "2" or config.loss.adversarial > 0
    choices = (generator.residual, generator.attention, generator.audio_skips, generator.mask_head, gan)
    settings = (reference.sampling, augment, choices)
    return next((row for row in ROWS if (row.sampling, row.augment, row.choices) == settings), None)


def export_runs(runs: Path, folder: Path) -> dict[Row, Path]:
    """Export the weights of every run below `runs` that is a row of Table 4.1 into a folder.

    Raises:
        InputError: no such run.
    """
    exported = {}
    for run in sorted(path.parent for path in runs.glob(f"*/{SETTINGS}")):
        config = run_config(run)
        row = row_of(config)
        if row is None or not (run / CHECKPOINT).is_file():
            continue
        target = folder / f"row{ROWS.index(row) + 1}-{run.name}.safetensors"
        exported[row] = export(run / CHECKPOINT, target, "generator", config)
    if not exported:
        raise InputError(f"no run below {runs} is a row of Table 4.1", "train them with the presets ablation/*")
    return {row: exported[row] for row in ROWS if row in exported}


def table_4_1(lines: Sequence[Line], measured: Mapping[str, Row], real: str) -> list[tuple[str, ...]]:
    """Table 4.1 from the lines of one pairing, with the thesis' values for LRS2 in brackets.

    Args:
        lines: of the pairing.
        measured: name of a line -> its row; rows without one are printed as not run.
        real: name of the line of real videos.
    """
    by_name = {line.row: line for line in lines}
    table = []
    for row in ROWS:
        name = next((name for name, each in measured.items() if each == row), None)
        marks = tuple("Yes" if on else "No" for on in row.choices)
        line = by_name.get(name or "")
        cells = ("not run",) * 4 if line is None else tuple(_cell(line, key) for key in COLUMNS)
        printed = tuple(f"{cell} [{value:g}]" for cell, value in zip(cells, row.published, strict=True))
        table.append((row.references, *marks, *printed))
    if real in by_name:
        table.append(("Real", *[""] * 5, *(_cell(by_name[real], key) for key in COLUMNS)))
    return table


def _cell(line: Line, key: str) -> str:
    value = line.cells.get(key)
    return "-" if value is None else f"{value.mean:.3g}"
