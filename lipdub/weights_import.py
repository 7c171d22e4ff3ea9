"""Import of `.pth` files as .safetensors, in a separate process.

A pickle can run code when it is read. So it is read by a child that has little memory, no core dump and a limit on
time and on what it writes, and by `torch.load(weights_only=True)`, which runs none. There is no other way in: a file
that cannot be read like that is refused.

    import_weights(source, target)              the parent: starts the child, checks what it wrote, puts it in place
    python lipdub/weights_import.py IN OUT KIND the child: prints one JSON line
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipdub.errors import InputError, LipdubError, OutputError, WeightsError
from lipdub.weights import load_state, manifest, save_state, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_S = 900.0
SPARE_MEMORY = 2 << 30  # bytes beyond the copies of the file's content
COPIES = 4  # of the content that lie in memory at once: read, cleaned, serialised, written
CONTAINERS = ("state_dict", "model_state_dict", "model", "generator", "params_ema", "params", "net")
REFUSAL = "ask its author for .safetensors; files that need code to be read are never opened"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came in."""

    target: Path
    kind: str
    tensors: int
    parameters: int  # numbers in all tensors


def import_weights(source: Path, target: Path, *, kind: str = "", overwrite: bool = False) -> Imported:
    """Convert a `.pth`, `.pt` or `.ckpt` file of tensors; names and values stay as they are.

    Args:
        source: the foreign file.
        target: `.safetensors`; written beside its place, checked, then renamed.
        kind: for the metadata; by default that of the entry of weights.toml with this sum, else "foreign".
        overwrite: replace an existing target.

    Raises:
        InputError: no such file.
        OutputError: the target exists or cannot be written.
        WeightsError: the file needs more than plain tensors, is damaged, holds NaN, or is too large for the limits.
    """
    if not source.is_file():
        raise InputError(f"no file {source}", "check the path")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists", "choose another name, or add --overwrite")
    if not target.parent.is_dir():
        raise OutputError(f"no folder {target.parent}", "create it first")
    digest = sha256_of(source)
    kind = kind or next((entry.kind for entry in manifest().values() if entry.sha256 == digest), "foreign")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        _run_child(source, temporary, kind)
        state, _ = load_state(temporary)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", "choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return Imported(target=target, kind=kind, tensors=len(state), parameters=sum(t.numel() for t in state.values()))


def _run_child(source: Path, temporary: Path, kind: str) -> None:
    package = str(Path(__file__).resolve().parents[1])
    # -P: a torch.py in the current folder must not be taken for torch
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).resolve()),
        str(source.resolve()),
        str(temporary.resolve()),
        kind,
    ]
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"reading {source} took longer than {TIMEOUT_S:.0f} s", REFUSAL) from error
    if child.returncode == 0:
        return
    lines = child.stdout.decode(errors="replace").splitlines()
    try:
        answer = json.loads(lines[-1])
        what, remedy = str(answer["what"]), str(answer["remedy"])
    except (IndexError, KeyError, TypeError, json.JSONDecodeError):  # it was killed, or ran out of memory
        last = (child.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        what, remedy = f"the process that read it ended with {child.returncode}: {last}", REFUSAL
    raise WeightsError(f"cannot import {source}: {what}", remedy)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a foreign file, by name: of the first known container in it, without a leading `module.`.

    Raises:
        WeightsError: needs code to be read, is damaged, or holds no tensors.
    """
    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"it holds more than tensors ({reason[:200]})", REFUSAL) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"it cannot be read ({reason[:200]})", REFUSAL) from error
    if isinstance(content, dict):
        content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
    tensors = content.items() if isinstance(content, dict) else ()
    state = {str(key).removeprefix("module."): value for key, value in tensors if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsError("it holds no state dict", "a state dict, alone or under " + ", ".join(CONTAINERS))
    return state


def _limit(size: int) -> None:
    """Limits for a file of `size` bytes, on systems that have them; after torch is loaded, which maps gigabytes."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 2 * size + (1 << 20), resource.RLIMIT_CPU: int(TIMEOUT_S)}
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + COPIES * size + SPARE_MEMORY
    except OSError:  # no /proc: macOS, where RLIMIT_AS does nothing either
        pass
    for what, value in limits.items():
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def _child(source: Path, target: Path, kind: str) -> int:
    import torch  # noqa: F401  # before the limits

    _limit(source.stat().st_size)
    try:
        metadata = {"kind": kind, "imported_from": source.name, "sha256": sha256_of(source)}
        save_state(target, read_checkpoint(source), metadata, half=False)
    except LipdubError as error:
        print(json.dumps({"what": error.what, "remedy": error.remedy or REFUSAL}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_child(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
