"""From a run folder to shippable weights: the averaged network in half precision, with the sections it is bound to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lipdub.config import Config
from lipdub.errors import InputError
from lipdub.weights import config_json, save_state

KINDS = {
    "expert": ("expert", "mel"),
    "generator": ("generator", "mel", "reference"),
    "faces-detector": (),
    "faces-landmarks": (),
}


def export(checkpoint: Path, output: Path, kind: str, config: Config) -> Path:
    """Write the weights of a checkpoint as fp16 safetensors.

    Args:
        checkpoint: checkpoint.pt of a run.
        output: the .safetensors file.
        kind: a key of KINDS.
        config: of the run; the sections that the weights are bound to go into the file.

    Raises:
        InputError: no such checkpoint.
    """
    if not checkpoint.is_file():
        raise InputError(f"no checkpoint {checkpoint}", "lipdub train writes one every minute")
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    save_state(output, _averaged(state), {"kind": kind, "config": config_json(config, *KINDS[kind])})
    return output


def _averaged(state: dict[str, Any]) -> dict[str, Tensor]:
    """The best or averaged weights, whichever the run keeps; without what AveragedModel adds to the names."""
    chosen: dict[str, Tensor] = state.get("best") or state.get("ema") or state["model"]
    return {
        k.removeprefix("module."): v for k, v in chosen.items() if k not in ("n_averaged",) and "num_batches" not in k
    }
