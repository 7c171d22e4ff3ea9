"""Weights: from a name in weights.toml to a verified file, and from a file to a network.

    manifest() -> locate(name) -> load_state(path) -> load_model(name, kind)        sync, train, eval: no network access
    pull(name)                                                                      the only function that downloads

Only home of huggingface_hub and safetensors. Nothing here unpickles; weights_import.py does, in a process of its own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import struct
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints
from urllib.parse import urlsplit

from lipdub.config import Config, from_dict
from lipdub.errors import InputError, OutputError, ResourceError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lipdub.models.audio_encoder import TrackEncoder
    from lipdub.models.expert import Expert
    from lipdub.models.generator import Generator
    from lipdub.models.occlusion import OcclusionNet

_HERE = Path(__file__).parent
BUNDLED = _HERE / "bundled"
# In a wheel the manifest lies beside this module, in a checkout at the top level.
MANIFEST = _HERE / "weights.toml" if (_HERE / "weights.toml").exists() else _HERE.parent / "weights.toml"
_FILE = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*")  # a path that stays in its folder
RUN_WEIGHTS = "weights.safetensors"  # in the folder of a run of `lipdub train`
FOLDER_VARIABLE = "LIPDUB_WEIGHTS"  # folder of files brought by hand, for machines without network


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One table of weights.toml; the fields are described there."""

    name: str
    kind: str
    sha256: str  # "" for a bundled file that was not made yet
    bytes: int  # 0: unknown
    license: str
    commercial: bool
    trained_on: str
    note: str = ""
    bundled: str = ""  # either this,
    repo: str = ""  # or these three,
    revision: str = ""
    file: str = ""
    url: str = ""  # or this

    @property
    def filename(self) -> str:
        """Name of the file, the one that third-party loaders look for."""
        return (self.bundled or self.file or urlsplit(self.url).path).rsplit("/", 1)[-1]


def manifest(path: Path | None = None) -> dict[str, Entry]:
    """Entries of weights.toml by name, in its order.

    Raises:
        WeightsError: the manifest is absent or an entry is not as described there.
    """
    path = path or MANIFEST
    try:
        return dict(_entries(path, path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"cannot read the list of weights {path}: {error}", "install lipdub again") from error


@lru_cache(maxsize=4)  # a dub asks for six of them
def _entries(path: Path, text: str) -> dict[str, Entry]:
    """Entries of a manifest's text; `path` is what errors name."""
    hints = get_type_hints(Entry)
    entries = {}
    for name, table in tomllib.loads(text).items():
        for key, value in table.items():
            if type(value) is not hints.get(key):
                raise WeightsError(f"{path}: [{name}] {key} = {value!r} cannot be", f"known: {', '.join(hints)}")
        entries[name] = entry = Entry(name=name, **table)
        sources = (entry.bundled, entry.repo and entry.revision and entry.file, entry.url)
        if sum(map(bool, sources)) != 1:
            raise WeightsError(f"{path}: [{name}] needs one source", "bundled, or repo + revision + file, or url")
        if not _FILE.fullmatch(entry.bundled or entry.file or entry.filename) or entry.url[:4] not in ("", "http"):
            raise WeightsError(f"{path}: [{name}] may not be read from {max(sources)!r}", "name a plain file")
    return entries


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Raises:
        WeightsError: no such name; lists those that exist.
    """
    entries = manifest()
    if name not in entries:
        raise WeightsError(f"no weights named {name!r}", f"there are: {', '.join(entries)}; or give a file")
    return entries[name]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; remembered while the file does not change."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(entry: Entry) -> Path | None:
    """Where the entry's file lies on this machine, or None. Not verified; no network access."""
    folder = os.environ.get(FOLDER_VARIABLE)
    candidates = [Path(folder) / entry.filename] if folder and not entry.bundled else []
    if entry.bundled:
        candidates.append(BUNDLED / entry.bundled)
    elif entry.url:
        candidates.append(_cache_path(entry))
    else:
        from huggingface_hub import try_to_load_from_cache

        hit = try_to_load_from_cache(entry.repo, entry.file, revision=entry.revision)
        candidates += [Path(hit)] if isinstance(hit, str) else []
    return next((path for path in candidates if path.is_file()), None)


def _cache_path(entry: Entry) -> Path:
    from platformdirs import user_cache_path

    # the sum is part of the path: two versions of a file never meet
    return user_cache_path("lipdub") / "weights" / entry.sha256[:16] / entry.filename


def locate(name: str | Path) -> Path:
    """A verified file: of an entry, or a path, with no sum to compare; the folder of a run stands for its weights.

    Never downloads.

    Raises:
        WeightsError: absent (names the command that fetches it), or another sum than the manifest's.
    """
    if isinstance(name, Path) or name not in manifest():
        path = Path(name) / RUN_WEIGHTS if Path(name).is_dir() else Path(name)
        if path.is_file():
            return path
        if isinstance(name, Path) or path.suffix:
            remedy = f"`lipdub weights export {name}` writes it" if Path(name).is_dir() else "see `lipdub weights list`"
            raise WeightsError(f"no weights file {path}", remedy)
    entry = entry_of(str(name))
    file = find(entry)
    again = "install lipdub again" if entry.bundled else f"run `lipdub weights pull {name}`"
    if file is None:
        by_hand = "" if entry.bundled else f"; without network, put the file into a folder named by {FOLDER_VARIABLE}"
        raise WeightsError(f"weights {name!r} ({entry.filename}) are not on this machine", again + by_hand)
    if (digest := sha256_of(file)) != entry.sha256:
        raise WeightsError(
            f"{file} is not {name!r} of weights.toml: sha256 {digest[:16]}, not {entry.sha256[:16] or 'set yet'}",
            f"delete it, then {again}",
        )
    return file


def pull(name: str, *, progress: bool = False) -> Path:
    """Fetch the file of an entry, unless it is here already, and verify it; `progress` is a bar on stderr.

    Raises:
        WeightsError: no network, refused, offline mode, or the file that came is not the one that is pinned; that
            file is kept as `<file>.bad` and never used.
        ResourceError: the disk is full.
    """
    entry = entry_of(name)
    if entry.bundled or find(entry) is not None:
        return locate(name)
    try:
        path = _from_url(entry, progress) if entry.url else _from_hub(entry, progress)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ResourceError(f"no space left for {entry.filename}", "free some space, then pull again") from error
        raise _unreachable(entry, error) from error
    if (digest := sha256_of(path)) != entry.sha256:
        blob = path.resolve()  # the hub's cache holds links
        bad = blob.replace(blob.with_name(blob.name + ".bad"))
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"{name!r} came with sha256 {digest[:16]}..., wanted {entry.sha256[:16]}...: kept as {bad}, not used",
            "the source changed or the transfer was tampered with; report it",
        )
    return path


def _unreachable(entry: Entry, error: Exception) -> WeightsError:
    source = entry.url or f"{entry.repo}@{entry.revision[:8]}:{entry.file}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(
        f"cannot fetch {entry.name!r} from {source}: {reason}",
        f"check the network (and HF_HUB_OFFLINE), or put {entry.filename} into a folder named by {FOLDER_VARIABLE}",
    )


def _from_hub(entry: Entry, progress: bool) -> Path:
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if progress else disable_progress_bars)()
    # A connection that breaks is an error of the hub's HTTP library; its base class is all that stays the same.
    broken: type[Exception] = vars(errors)["HTTPError"]
    try:
        return Path(hf_hub_download(entry.repo, entry.file, revision=entry.revision, library_name="lipdub"))
    except broken as error:
        raise _unreachable(entry, error) from error


def _from_url(entry: Entry, progress: bool) -> Path:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise _unreachable(entry, ConnectionError("HF_HUB_OFFLINE is set"))
    from torch.hub import download_url_to_file

    path = _cache_path(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(entry.url, str(path), progress=progress)
    except HTTPException as error:
        raise _unreachable(entry, error) from error
    return path


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file; half precision comes back as float32.

    Raises:
        WeightsError: absent, damaged, of another format, or with NaN or infinity in it.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    if path.suffix in {".pth", ".pt", ".ckpt", ".bin", ".tar", ".model"}:
        raise WeightsError(f"{path} is not a .safetensors file", f"run `lipdub weights import {path}`")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot read weights {path}: {error}", "fetch or make the file again") from error
    for key, tensor in state.items():
        if tensor.is_floating_point():
            state[key] = tensor.float()
            if not np.isfinite(state[key].numpy()).all():  # several times as fast as PyTorch's
                raise WeightsError(f"{path}: {key} holds NaN or infinity", "fetch or make the file again")
    return state, metadata


def save_state(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, half: bool = True) -> None:
    """Write a .safetensors file: beside its place first, then renamed. Equal input gives equal bytes.

    Args:
        path: replaced if it exists.
        tensors: a state dict.
        metadata: "kind", and "config" as `config_json` makes it.
        half: floating-point tensors as float16.

    Raises:
        WeightsError: a value is not finite, or does not fit into float16.
        OutputError: the folder cannot be written.
        ResourceError: the disk is full.
    """
    import torch
    from safetensors.torch import save

    ready = {}
    for key, tensor in tensors.items():
        copy = tensor.detach().cpu()
        if copy.is_floating_point():
            copy = copy.to(torch.float16) if half else copy
            if not bool(copy.isfinite().all()):
                raise WeightsError(f"{key} holds values that are not finite", "export an earlier state of the run")
        ready[key] = copy.clone(memory_format=torch.contiguous_format)  # tensors that share memory are refused
    data = _sorted_header(save(ready, dict(metadata)))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ResourceError(f"no space left for {path}", "free some space, or choose another folder") from error
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sorted_header(data: bytes) -> bytes:
    """The same file with the header's keys in order: the library writes metadata in random order."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def config_json(config: Config, *sections: str) -> str:
    """The value of metadata["config"]: those sections that the weights are bound to, for example generator and mel."""
    return json.dumps({name: asdict(getattr(config, name)) for name in sections}, sort_keys=True)


def bind(config: Config, metadata: Mapping[str, str], source: str) -> Config:
    """`config` with the sections that travel with the weights.

    Where a value was changed from its default and the weights say another, they contradict each other.

    Raises:
        WeightsError: a contradiction (names the setting and both values), or metadata that cannot be read.
    """
    try:
        bound = json.loads(metadata.get("config", "{}"))
        known = from_dict(Config, bound)
    except (InputError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise WeightsError(f"{source}: configuration does not fit this version: {error}", "export it anew") from error
    for name in bound:
        for field in fields(getattr(config, name)):
            mine, theirs, default = (getattr(getattr(c, name), field.name) for c in (config, known, Config()))
            if mine not in (theirs, default):
                what = f"{source} was trained with {name}.{field.name} = {theirs}, not {mine}"
                raise WeightsError(what, f"leave --set {name}.{field.name} out, or use other weights")
    return replace(config, **{name: getattr(known, name) for name in bound})


def _build(kind: str, config: Config) -> nn.Module:
    from lipdub.models import audio_encoder, expert, facenets, generator, occlusion, syncnet, wav2lip

    builders: dict[str, Callable[[], nn.Module]] = {
        "generator": lambda: generator.Generator(config.generator),
        "audio": lambda: audio_encoder.TrackEncoder(config.audio, config.mel.n_mels),
        "expert": lambda: expert.Expert(config.expert),
        "faces-detector": facenets.FaceDetector,
        "faces-landmarks": facenets.LandmarkNet,
        "occlusion": occlusion.OcclusionNet,
        "syncnet": syncnet.SyncNet,
        "wav2lip": wav2lip.Wav2Lip,
    }
    return builders[kind]()


def load_bound(
    name: str | Path, kind: str | tuple[str, ...], config: Config, device: str | torch.device = "cpu"
) -> tuple[Any, Config]:
    """A network of the kind's class in eval mode, and `config` with the sections its weights are bound to; see `bind`.

    Args:
        name: in weights.toml, or a .safetensors file.
        kind: a key of `_build`, or several that will do.
        config: the caller's.
        device: where the network goes.

    Raises:
        WeightsError: absent, damaged, of another kind, or of other dimensions than its configuration.
    """
    path, kinds = locate(name), (kind,) if isinstance(kind, str) else kind
    state, metadata = load_state(path)
    if (stored_kind := metadata.get("kind")) not in kinds:
        expected = " or ".join(map(repr, kinds))
        raise WeightsError(f"{path} holds {stored_kind!r} weights, not {expected}", "see `lipdub weights list`")
    config = bind(config, metadata, str(path))
    try:
        network = _build(stored_kind, config)
        optional = {k: v for k, v in network.state_dict().items() if k.endswith(("num_batches_tracked", "closing"))}
        network.load_state_dict(optional | state)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path} does not fit its configuration: {reason}", "export or fetch it again") from error
    return network.eval().requires_grad_(False).to(device), config


def load_model(name: str | Path, kind: str, device: str | torch.device = "cpu") -> Any:
    """The network of `load_bound`, with the configuration in its metadata."""
    return load_bound(name, kind, Config(), device)[0]


def load_generator(name: str | Path, config: Config, device: str | torch.device = "cpu") -> tuple[Generator, Config]:
    """`load_bound` for a generator."""
    return load_bound(name, "generator", config, device)


def load_expert(name: str | Path, config: Config) -> tuple[Expert, Config]:
    """`load_bound` for an expert."""
    return load_bound(name, "expert", config)


def load_occlusion(name: str | Path, device: str | torch.device = "cpu") -> OcclusionNet:
    """`load_model` for an occlusion network."""
    network: OcclusionNet = load_model(name, "occlusion", device)
    return network


def load_audio_encoder(
    name: str | Path, config: Config, device: str | torch.device = "cpu"
) -> tuple[TrackEncoder, Config]:
    """`load_bound` for an audio encoder."""
    return load_bound(name, "audio", config, device)


def load_features(name_or_path: str) -> nn.Module:
    """The frozen backbone of the perceptual loss: VGG-16 (torchvision's layout), or VGG-19 up to conv3_1.

    Raises:
        WeightsError: absent, or neither of the two.
    """
    from lipdub.models.vgg import Vgg16, Vgg19Conv31

    state, _ = load_state(locate(name_or_path))
    for network in (Vgg16, Vgg19Conv31):
        try:
            return network(state)
        except WeightsError:
            continue
    raise WeightsError(f"{name_or_path} holds neither VGG-16 nor VGG-19 features", "see `lipdub weights list`")
