from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from lipdub import weights
from lipdub.config import Config, load_config
from lipdub.errors import InputError, OutputError, WeightsError
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.models.expert import Expert
from lipdub.weights_import import import_weights, read_checkpoint

ROOT = Path(__file__).parents[1]
CONTENT = b"0123456789" * 100
SUM = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Server(ThreadingHTTPServer):
    """Answers every path with CONTENT, as a plain web server and as a model hub do; counts what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.content = CONTENT
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.server.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def entry_toml(name: str = "thing", sha256: str = SUM, **source: str) -> str:
    lines = [f"[{name}]", 'kind = "state"', f'sha256 = "{sha256}"', f"bytes = {len(CONTENT)}"]
    lines += ['license = "MIT"', "commercial = true", 'trained_on = "nothing"']
    return "\n".join(lines + [f'{key} = "{value}"' for key, value in source.items()]) + "\n"


@pytest.fixture
def use_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make weights.toml say something else; its caches are folders of this test."""

    def use(text: str) -> None:
        path = tmp_path / "manifest.toml"
        path.write_text(text)
        monkeypatch.setattr(weights, "MANIFEST", path)
        monkeypatch.setattr(weights, "BUNDLED", tmp_path / "bundled")

    (tmp_path / "bundled").mkdir()
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return use


# --- the manifest ---


def test_the_manifest_pins_every_entry() -> None:
    entries = weights.manifest(ROOT / "weights.toml")
    assert {"faces-detector", "faces-landmarks", "generator", "s3fd", "2dfan4", "vgg16"} <= set(entries)
    for entry in entries.values():
        hexadecimal = set("0123456789abcdef")
        if not entry.bundled:
            assert len(entry.sha256) == 64 and set(entry.sha256) <= hexadecimal, entry.name
        assert not entry.revision or (len(entry.revision) == 40 and set(entry.revision) <= hexadecimal), entry.name
        assert not entry.url or entry.url.startswith("https://"), entry.name
        assert entry.license and entry.trained_on and entry.bytes >= 0, entry.name


def test_names_of_third_party_files_are_those_that_their_loader_looks_for() -> None:
    entries = weights.manifest()
    assert entries["s3fd"].filename == "s3fd-619a316812.pth"
    assert entries["2dfan4"].filename == "2DFAN4-11f355bf06.pth.tar"
    assert entries["yunet"].filename == "face_detection_yunet_2023mar.onnx"
    assert entries["blazeface-back-anchors"].filename == "anchorsback.npy"
    for name in ("s3fd", "2dfan4"):  # torch.hub's rule: the name carries the start of the sum
        assert entries[name].sha256[:10] in entries[name].filename


def test_weights_of_research_footage_are_not_marked_commercial() -> None:
    assert not any(entry.commercial for entry in weights.manifest().values() if entry.bundled)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (entry_toml(url="https://x/y", bundled="z"), "one source"),
        (entry_toml(), "one source"),
        (entry_toml(repo="a/b", file="c"), "one source"),
        (entry_toml(url="https://x/y", colour="red"), "colour"),
        (entry_toml(url="https://x/y").replace("bytes = 1000", 'bytes = "1000"'), "bytes"),
        (entry_toml(url="https://x/y").replace('license = "MIT"\n', ""), "license"),
        (entry_toml(bundled="../../secret.safetensors"), "may not be read from '../../secret"),
        (entry_toml(bundled="/etc/passwd"), "may not be read from '/etc"),
        (entry_toml(repo="a/b", revision="c", file="d/../../e"), "may not be read from 'd/../../e"),
        (entry_toml(url="https://x/.."), "may not be read from 'https"),
        (entry_toml(url="file:///etc/passwd"), "may not be read from 'file"),
        ("[thing\n", "manifest.toml"),
        ("thing = 3\n", "manifest.toml"),
    ],
)
def test_a_wrong_manifest_is_refused(use_manifest, text: str, named: str) -> None:
    use_manifest(text)
    with pytest.raises(WeightsError, match=named):
        weights.manifest()


def test_a_manifest_that_is_no_text_is_refused(use_manifest, tmp_path: Path) -> None:
    use_manifest("")
    weights.MANIFEST.write_bytes(b"[thing]\nkind = '\xf0\xff'\n")
    with pytest.raises(WeightsError, match="cannot read the list"):
        weights.manifest()


# --- finding files ---


def test_a_bundled_file_is_found_and_compared(use_manifest, tmp_path: Path) -> None:
    use_manifest(entry_toml(bundled="thing.safetensors"))
    path = tmp_path / "bundled" / "thing.safetensors"
    with pytest.raises(WeightsError, match="not on this machine") as raised:
        weights.locate("thing")
    assert raised.value.remedy == "install lipdub again"
    path.write_bytes(CONTENT)
    assert weights.locate("thing") == path
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(WeightsError, match=r"sha256 .*, not " + SUM[:16]):
        weights.locate("thing")


def test_an_absent_file_names_the_command_that_fetches_it(use_manifest) -> None:
    use_manifest(entry_toml(url="https://example.org/thing.pth"))
    with pytest.raises(WeightsError, match=r"thing\.pth") as raised:
        weights.locate("thing")
    assert "`lipdub weights pull thing`" in raised.value.remedy
    assert "LIPDUB_WEIGHTS" in raised.value.remedy


def test_a_folder_brought_by_hand_is_looked_into(use_manifest, tmp_path: Path, monkeypatch) -> None:
    use_manifest(entry_toml(url="https://example.org/sub/thing.pth?raw=true"))
    monkeypatch.setenv("LIPDUB_WEIGHTS", str(tmp_path))
    (tmp_path / "thing.pth").write_bytes(CONTENT)
    assert weights.locate("thing") == tmp_path / "thing.pth"


def test_a_path_is_taken_as_it_is_and_a_name_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    with pytest.raises(WeightsError, match=r"own\.safetensors"):
        weights.locate(path)
    path.write_bytes(b"")
    assert weights.locate(path) == weights.locate(str(path)) == path
    with pytest.raises(WeightsError, match="generatr") as raised:
        weights.locate("generatr")
    assert "generator" in raised.value.remedy


# --- fetching ---


def test_pull_fetches_once_and_verifies(use_manifest, server: _Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    use_manifest(entry_toml(url=f"{server.url}/a/thing.pth"))
    path = weights.pull("thing")
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache" / "lipdub")
    assert weights.pull("thing") == weights.locate("thing") == path
    assert server.asked == ["GET /a/thing.pth"]


def test_a_file_with_another_sum_is_set_aside(use_manifest, server: _Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    use_manifest(entry_toml(url=f"{server.url}/thing.pth"))
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=r"thing\.pth\.bad"):
        weights.pull("thing")
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["thing.pth.bad"]
    server.content = CONTENT
    assert weights.pull("thing").read_bytes() == CONTENT


def test_offline_and_refused_are_weights_errors(use_manifest, monkeypatch) -> None:
    use_manifest(entry_toml(url="http://127.0.0.1:9/thing.pth"))
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        weights.pull("thing")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(WeightsError, match="cannot fetch 'thing' from http://127") as raised:
        weights.pull("thing")
    assert "LIPDUB_WEIGHTS" in raised.value.remedy


def test_pull_from_a_hub(tmp_path: Path, server: _Server) -> None:
    """In a process of its own: the hub's library reads its address when it is imported."""
    (tmp_path / "m.toml").write_text(entry_toml(repo="someone/some", revision=COMMIT, file="sub/thing.safetensors"))
    code = f"""
from pathlib import Path
from lipdub import weights
from lipdub.errors import WeightsError
weights.MANIFEST = Path({str(tmp_path / "m.toml")!r})
print(weights.find(weights.entry_of("thing")))
path = weights.pull("thing")
print(path.read_bytes() == {CONTENT!r}, weights.locate("thing") == path)
Path({str(tmp_path / "m.toml")!r}).write_text({entry_toml(repo="a/b", revision=COMMIT, file="x", sha256="0" * 64)!r})
try:
    weights.pull("thing")
except WeightsError as error:
    print(Path(str(error).partition("kept as ")[2].partition(", not")[0]).read_bytes() == {CONTENT!r})
print(weights.find(weights.entry_of("thing")))
"""
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "True", "True", "True", "None"]
    assert f"GET /someone/some/resolve/{COMMIT}/sub/thing.safetensors" in server.asked


# --- state files ---


def test_states_survive_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    values = torch.tensor([[0.5, -2.0], [1 / 3, 60000.0]])
    shared = torch.arange(3)
    weights.save_state(path, {"w": values.T, "n": shared, "m": shared}, {"kind": "x", "config": "{}"})
    state, metadata = weights.load_state(path)
    assert metadata == {"kind": "x", "config": "{}"}
    assert state["w"].dtype == torch.float32
    assert torch.equal(state["w"], values.T.half().float())
    assert torch.equal(state["n"], shared) and state["n"].dtype == torch.int64
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_full_precision_is_kept_on_request(tmp_path: Path) -> None:
    weights.save_state(tmp_path / "a", {"w": torch.tensor([1e30, 1 / 3])}, {}, half=False)
    assert torch.equal(weights.load_state(tmp_path / "a")[0]["w"], torch.tensor([1e30, 1 / 3]))


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    metadata = {letter: letter for letter in "hgfedcba"}
    weights.save_state(tmp_path / "a", {"w": torch.ones(3)}, metadata)
    weights.save_state(tmp_path / "b", {"w": torch.ones(3)}, dict(sorted(metadata.items())))
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == list("abcdefgh")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_do_not_fit_are_refused_and_leave_no_file(tmp_path: Path, value: float) -> None:
    with pytest.raises(WeightsError, match=r"w\.bias"):
        weights.save_state(tmp_path / "a", {"w.bias": torch.tensor([value])}, {})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "nosuch" / "a.safetensors"
    with pytest.raises(OutputError, match="nosuch"):
        weights.save_state(path, {"w": torch.ones(1)}, {})


def test_damaged_foreign_and_poisoned_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save_state(path, {"w": torch.ones(4)}, {"kind": "x"}, half=False)
    data = path.read_bytes()
    for damaged in (b"", data[:-1], b"\xff" * 64, data[:8] + b"[" + data[9:]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            weights.load_state(path)
    path.write_bytes(data[:-4] + b"\x00\x00\xc0\x7f")  # the last float32 becomes NaN
    with pytest.raises(WeightsError, match="w holds NaN"):
        weights.load_state(path)
    with pytest.raises(WeightsError, match=r"a\.pth") as raised:
        weights.load_state(tmp_path / "a.pth")
    assert "lipdub weights import" in raised.value.remedy


# --- networks ---


@pytest.fixture
def expert_file(tmp_path: Path, tiny_config: Config) -> Path:
    path = tmp_path / "expert.safetensors"
    torch.manual_seed(0)
    state = {k: v for k, v in Expert(tiny_config.expert).state_dict().items() if "num_batches" not in k}
    config = weights.config_json(tiny_config, "expert", "mel")
    weights.save_state(path, state, {"kind": "expert", "config": config})
    return path


def test_an_audio_encoder_from_before_closures_were_kept_still_loads(tmp_path: Path) -> None:
    config = replace(Config(), audio=replace(Config().audio, width=8, members=1))
    encoder = TrackEncoder(config.audio, config.mel.n_mels)
    encoder.closing[0, 5] = 1.0
    metadata = {"kind": "audio", "config": weights.config_json(config, "audio", "mel")}
    weights.save_state(tmp_path / "new.safetensors", encoder.state_dict(), metadata)
    before = {k: v for k, v in encoder.state_dict().items() if k != "closing"}
    weights.save_state(tmp_path / "old.safetensors", before, metadata)
    assert weights.load_audio_encoder(tmp_path / "new.safetensors", Config())[0].closing.sum() == 1
    assert weights.load_audio_encoder(tmp_path / "old.safetensors", Config())[0].closing.sum() == 0


def test_a_network_comes_back_with_its_configuration(expert_file: Path, tiny_config: Config) -> None:
    network, config = weights.load_expert(expert_file, Config())
    assert config.expert == tiny_config.expert
    assert config.generator == Config().generator  # not bound to these weights
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    saved, _ = weights.load_state(expert_file)
    assert torch.equal(network.state_dict()["embed.weight"], saved["embed.weight"])


def test_weights_of_another_kind_are_refused(expert_file: Path) -> None:
    with pytest.raises(WeightsError, match="holds 'expert' weights, not 'generator'"):
        weights.load_model(expert_file, "generator")


def test_settings_that_contradict_the_weights_are_refused(expert_file: Path, tiny_config: Config) -> None:
    assert weights.load_bound(expert_file, "expert", tiny_config)[1] == tiny_config
    with pytest.raises(WeightsError, match=r"mel\.hop = 200, not 160") as raised:
        weights.load_bound(expert_file, "expert", load_config(None, ["mel.hop=160"]))
    assert "--set mel.hop" in raised.value.remedy


def test_dimensions_that_do_not_fit_are_refused(expert_file: Path, tiny_config: Config) -> None:
    state, metadata = weights.load_state(expert_file)
    larger = replace(tiny_config, expert=replace(tiny_config.expert, embedding=64))
    weights.save_state(expert_file, state, metadata | {"config": weights.config_json(larger, "expert")})
    with pytest.raises(WeightsError, match="does not fit its configuration"):
        weights.load_model(expert_file, "expert")


@pytest.mark.parametrize("config", ["{", '{"expert": {"colour": 1}}', '{"colour": {}}', "[]", '{"expert": 3}', "null"])
def test_metadata_that_cannot_be_read_is_refused(expert_file: Path, config: str) -> None:
    state, metadata = weights.load_state(expert_file)
    weights.save_state(expert_file, state, metadata | {"config": config})
    with pytest.raises(WeightsError, match="configuration does not fit this version"):
        weights.load_model(expert_file, "expert")


# --- foreign checkpoints ---


class _Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_tensors_are_found_in_the_usual_containers(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for content in ({"w": torch.ones(2)}, {"state_dict": {"module.w": torch.ones(2)}, "epoch": 3}):
        torch.save(content, path)
        state = read_checkpoint(path)
        assert list(state) == ["w"] and torch.equal(state["w"], torch.ones(2))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(2)], torch.ones(2)], ids=str)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04" + bytes(60), bytes(1000)], ids=["empty", "text", "zip", "zeros"]
)
def test_rubbish_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "a.pth")


def test_import_writes_a_verified_file(tmp_path: Path) -> None:
    source, target = tmp_path / "a b.pth", tmp_path / "a.safetensors"
    torch.save({"state_dict": {"module.w": torch.tensor([1 / 3, 1e30])}}, source)
    done = import_weights(source, target, kind="wav2lip")
    assert (done.kind, done.tensors, done.parameters) == ("wav2lip", 1, 2)
    state, metadata = weights.load_state(target)
    assert torch.equal(state["w"], torch.tensor([1 / 3, 1e30]))
    assert metadata["kind"] == "wav2lip"
    assert metadata["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(OutputError, match=r"a\.safetensors exists"):
        import_weights(source, target)
    with pytest.raises(InputError, match=r"b\.pth"):
        import_weights(tmp_path / "b.pth", target, overwrite=True)


def test_a_pickle_that_runs_code_does_not_run_it(tmp_path: Path) -> None:
    source, touched = tmp_path / "bomb.pth", tmp_path / "touched"
    source.write_bytes(pickle.dumps({"w": _Bomb(touched)}))
    pickle.loads(source.read_bytes())
    assert touched.exists()  # it is a real one
    touched.unlink()
    torch.save({"state_dict": _Bomb(touched)}, source)
    with pytest.raises(WeightsError, match="more than tensors") as raised:
        import_weights(source, tmp_path / "a.safetensors")
    assert "never opened" in raised.value.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bomb.pth"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on memory")
def test_a_small_file_that_unfolds_to_much_memory_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(1).expand(10**11)}, source)
    assert source.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="memory"):
        import_weights(source, tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.pth"]
