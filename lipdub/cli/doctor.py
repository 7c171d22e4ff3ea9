"""`lipdub doctor`: checks of Python, PyTorch and its devices, PyAV, FFmpeg, OpenCV, weights, folders.

Cheap checks come first, and each imports what it looks at only when its turn comes, so that something is said at once
and a package that cannot be imported costs one line, not the whole report.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from lipdub import __version__
from lipdub.cli import console, settings
from lipdub.cli.command import files_of
from lipdub.config import MediaConfig
from lipdub.errors import LipdubError, SetupError

PYTHON = (3, 11)  # the oldest that is tested
LOW_BYTES, LEAST_BYTES = 2_000_000_000, 200_000_000  # free disk: some minutes of film, a short clip
_OTHER_FFMPEG = "name another ffmpeg in LIPDUB_FFMPEG or media.ffmpeg, or none: lipdub then uses imageio-ffmpeg's"


def doctor(
    ctx: typer.Context,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object per line: each check, then the counts.")
    ] = False,
) -> None:
    """Check the installation; include the output in bug reports.

    Each line is OK, a warning, or a problem. Exit code 0, or 6 with a problem.
    """
    config = settings.config_of(files_of(ctx), ()).media
    counts = Counter(dict.fromkeys(("ok", "warning", "problem"), 0))
    with console.progress(json_lines=json_, quiet=True):
        for check in examine(config):
            counts[check.status] += 1
            if json_:
                console.data(console.json_line(check, type="check"))
                continue
            console.data(f"{check.status.replace('ok', 'OK'):8} {check.name:12} {check.text}")
            if check.remedy:
                console.data(f"{'':21} {check.remedy}")
        n_problems = counts["problem"]
        if n_problems:
            raise SetupError(
                f"{n_problems} problem{'s' if n_problems > 1 else ''}", "each problem above names its remedy"
            )
        if json_:
            console.data(console.json_line({"report": counts}, type="done"))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report."""

    name: str
    status: str = "ok"  # ok | warning: works, but something is amiss | problem: jobs will fail
    text: str  # what was found
    remedy: str = ""  # what to do about it
    values: dict[str, Any] = field(default_factory=dict)  # the same for a program


def examine(config: MediaConfig) -> Iterator[Check]:
    """All checks, each as soon as it is done; a check that fails is a problem, never an exception."""
    for name, check in CHECKS.items():
        try:
            yield from check(config)
        except LipdubError as error:
            yield Check(name=name, status="problem", text=error.what, remedy=error.remedy)
        except (ImportError, OSError) as error:  # a package that is absent, or whose libraries are
            text = f"{type(error).__name__}: {error}"
            yield Check(name=name, status="problem", text=text, remedy="install lipdub again: pip install lipdub")


def _lipdub(config: MediaConfig) -> Iterator[Check]:
    place = Path(__file__).parent
    yield Check(name="lipdub", text=f"{__version__} in {place}", values={"version": __version__, "path": str(place)})


def _python(config: MediaConfig) -> Iterator[Check]:
    version, old = platform.python_version(), sys.version_info < PYTHON
    yield Check(
        name="python",
        status="problem" if old else "ok",
        text=f"{version} ({platform.python_implementation()}), {sys.executable}",
        remedy=f"use Python {PYTHON[0]}.{PYTHON[1]} or newer" if old else "",
        values={"version": version, "executable": sys.executable},
    )


def _platform(config: MediaConfig) -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check(
        name="platform",
        text=f"{platform.platform()}, {cores} CPU core{'s' if cores > 1 else ''}",
        values={"platform": platform.platform(), "machine": platform.machine(), "cores": cores},
    )


def _weights(config: MediaConfig) -> Iterator[Check]:
    from lipdub.weights import locate, manifest

    for entry in manifest().values():
        if entry.bundled:
            values = {"weights": entry.name, "sha256": entry.sha256}
            try:
                path = locate(entry.name)
            except LipdubError as error:
                yield Check(name="weights", status="problem", text=error.what, remedy=error.remedy, values=values)
            else:
                yield Check(name="weights", text=f"{entry.name}: sha256 as in weights.toml, {path}", values=values)


def _cache(config: MediaConfig) -> Iterator[Check]:
    from platformdirs import user_cache_path

    folder = user_cache_path("lipdub")
    writable = _writable(folder)
    yield Check(
        name="cache",
        status="ok" if writable else "warning",  # the bundled weights need none
        text=f"{folder}{'' if folder.is_dir() else ' (not made yet)'}{'' if writable else ' cannot be written'}",
        remedy="" if writable else "give yourself the right to write there, or set XDG_CACHE_HOME; `pull` needs it",
        values={"path": str(folder), "writable": writable},
    )


def _disk(config: MediaConfig) -> Iterator[Check]:
    for name, folder in (("output disk", Path.cwd()), ("temp disk", Path(tempfile.gettempdir()))):
        free, writable = shutil.disk_usage(folder).free, _writable(folder)
        status, remedy = "ok", ""
        if not writable or free < LEAST_BYTES:
            status, remedy = "problem" if name == "temp disk" else "warning", "make room, or use another folder"
        elif free < LOW_BYTES:
            status, remedy = "warning", "a run needs about three times the size of its output while it lasts"
        yield Check(
            name=name,
            status=status,
            text=f"{free / 1e9:.1f} GB free in {folder}{'' if writable else ', which cannot be written'}",
            remedy=remedy,
            values={"path": str(folder), "free_bytes": free, "writable": writable},
        )


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder or, while it does not exist, in the parent that would hold it."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def _pyav(config: MediaConfig) -> Iterator[Check]:
    from lipdub.media.encoders import PLAIN_ENCODER, installed

    version, ffmpeg, encoders, missing = installed()
    lacks = f"; lacks {', '.join(missing)}" if missing else ""
    yield Check(
        name="pyav",
        status="problem" if PLAIN_ENCODER in missing else "warning" if missing else "ok",
        text=f"{version} with FFmpeg {ffmpeg}, encoders {', '.join(encoders) or 'none'}{lacks}",
        remedy="use the wheel, which has them all: pip install --force-reinstall av" if missing else "",
        values={"version": version, "ffmpeg": ffmpeg, "encoders": encoders, "missing": missing},
    )


def _ffmpeg(config: MediaConfig) -> Iterator[Check]:
    from lipdub.media.ffmpeg import chosen_binary, inspect_binary

    program = inspect_binary(chosen_binary(config))
    serious = [word for word in program.missing if word == "aac" or "=" in word] + [*program.faults]
    amiss = [f"lacks {', '.join(program.missing)}"] if program.missing else [*program.faults]
    yield Check(
        name="ffmpeg",
        status="problem" if serious else "warning" if program.missing else "ok",
        text="; ".join([f"{program.version}, {program.path}", *amiss]),
        remedy=_OTHER_FFMPEG if amiss else "",
        values=vars(program),
    )


def _opencv(config: MediaConfig) -> Iterator[Check]:
    import cv2

    owners = sorted(set(metadata.packages_distributions().get("cv2", [])), reverse=True)
    several = len(owners) > 1
    yield Check(
        name="opencv",
        status="warning" if several else "ok",
        text=cv2.__version__ + (f"; {' and '.join(owners)} write over each other's files" if several else ""),
        remedy=f"keep one: pip uninstall {' '.join(owners[1:])}, then install {owners[0]} again" if several else "",
        values={"version": cv2.__version__, "packages": owners},
    )


def _torch(config: MediaConfig) -> Iterator[Check]:
    import torch

    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(number) for number in range(n_cuda)]
    devices = [f"cuda:{i} {gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for i, gpu in enumerate(gpus)]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    devices.append(f"cpu ({torch.get_num_threads()} threads)")
    idle = not n_cuda and shutil.which("nvidia-smi") is not None
    yield Check(
        name="torch",
        status="warning" if idle else "ok",
        text=f"{torch.__version__}, devices: {', '.join(devices)}; auto takes {devices[0].partition(' ')[0]}",
        remedy="this PyTorch does not find the NVIDIA card: install the build for your driver, see pytorch.org"
        if idle
        else "",
        values={"version": str(torch.__version__), "cuda": torch.version.cuda, "devices": devices},
    )


CHECKS: dict[str, Callable[[MediaConfig], Iterator[Check]]] = {
    "lipdub": _lipdub,
    "python": _python,
    "platform": _platform,
    "weights": _weights,
    "cache": _cache,
    "disk": _disk,
    "pyav": _pyav,
    "ffmpeg": _ffmpeg,
    "opencv": _opencv,
    "torch": _torch,  # the slowest to import
}
