"""Export of a training run: averaged weights in half precision, with the settings they depend on.

A run that ended, or was stopped, has them as RUN/weights.safetensors, so that its folder can be given as weights.
What a run's folder is called by is here, too: training writes it, evaluation and the command line read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lipdub.config import Config, from_dict, to_dict
from lipdub.errors import InputError
from lipdub.weights import RUN_WEIGHTS, config_json, load_state, save_state, sha256_of

CHECKPOINT, SETTINGS = "checkpoint.pt", "config.json"  # of a run's folder
STAGES = {
    "detector": "faces-detector",
    "landmarks": "faces-landmarks",
    "occlusion": "occlusion",
    "expert": "expert",
    "phones": "audio",
    "audio": "audio",
    "1": "generator",
    "2": "generator",
}
KINDS = {
    "expert": ("expert", "mel"),
    "audio": ("audio", "mel"),
    "generator": ("generator", "mel", "reference"),
    "faces-detector": (),
    "faces-landmarks": (),
    "occlusion": (),
}


def run_config(folder: Path) -> Config:
    """The configuration that a run's folder was made with.

    Sections that training does not read are the defaults; settings that only an earlier version had are left out.

    Raises:
        InputError: no run there, or one of another version.
    """
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", "give the folder of a `lipdub train` run") from error
    known = to_dict(Config())
    return from_dict(
        Config, {name: {key: table[key] for key in table if key in known[name]} for name, table in settings.items()}
    )


def export(checkpoint: Path, output: Path, kind: str, config: Config) -> Path:
    """Write the weights of a run's checkpoint as fp16 safetensors, with the sections of `config` they are bound to.

    Raises:
        InputError: no such checkpoint.
    """
    if not checkpoint.is_file():
        raise InputError(f"no checkpoint {checkpoint}", "lipdub train writes one every minute")
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    save_state(output, _averaged(state), {"kind": kind, "config": config_json(config, *KINDS[kind])})
    return output


def export_run(folder: Path, output: Path | None = None) -> Path:
    """Write the weights of a run, whatever its stage; RUN/weights.safetensors if no output is given.

    Raises:
        InputError: no run there, or one that has no checkpoint yet.
    """
    config = run_config(folder)
    return export(folder / CHECKPOINT, output or folder / RUN_WEIGHTS, STAGES[config.train.stage], config)


def manifest_entry(path: Path, name: str) -> str:
    """The table of weights.toml that describes a file; what only its maker knows is left to be filled in."""
    return "\n".join(
        (
            f"[{name}]",
            f'kind = "{load_state(path)[1]["kind"]}"',
            f'bundled = "{path.name}"  # or repo, revision and file, or url',
            f'sha256 = "{sha256_of(path)}"',
            f"bytes = {path.stat().st_size}",
            'license = ""',
            "commercial = false",
            'trained_on = ""',
        )
    )


def _averaged(state: dict[str, Any]) -> dict[str, Tensor]:
    """The best or averaged weights, whichever the run keeps; without what AveragedModel adds to the names."""
    chosen: dict[str, Tensor] = state.get("best") or state.get("ema") or state["model"]
    return {
        k.removeprefix("module."): v for k, v in chosen.items() if k not in ("n_averaged",) and "num_batches" not in k
    }
