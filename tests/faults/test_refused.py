"""Inputs that want to do more than be read: refused, nothing executed, nothing fetched, nothing written."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lipdub import weights
from lipdub.cli.app import app


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


@pytest.fixture
def listener():
    """A server that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


def playlist(kind: str, host: str, secret: Path) -> str:
    if kind == "m3u8":
        items = "".join(f"#EXTINF:1,\n{where}\n" for where in (f"http://{host}/a.ts", f"file://{secret}"))
        return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{items}#EXT-X-ENDLIST\n"
    if kind == "ffconcat":
        return f"ffconcat version 1.0\nfile '{secret}'\nfile 'http://{host}/a.mp4'\n"
    if kind == "sdp":
        return f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    return f'<?xml version="1.0"?><MPD><BaseURL>http://{host}/</BaseURL></MPD>'


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.m3u8"])
@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "dash"])
def test_a_playlist_under_another_name_opens_nothing(kind, name, listener, face_clip, speech, tmp_path: Path) -> None:
    secret = face_clip(lambda number: [(50, 30, 56)])
    evil = tmp_path / name
    evil.write_text(playlist(kind, f"127.0.0.1:{listener.getsockname()[1]}", secret))
    for words in (["sync", evil, speech()], ["sync", secret, evil]):
        code, said = run(*words, "-o", tmp_path / "out.mp4")
        assert code == 3 and "not a media file" in said
    assert run("inspect", evil)[0] == 3
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.mp4", "concat:a|b", "pipe:0", "data:video/mp4;base64,AA"])
def test_an_address_is_only_a_name(address: str, speech, tmp_path: Path) -> None:
    code, said = run("sync", address, speech(), "-o", tmp_path / "out.mp4")
    assert code == 3 and "cannot open" in said


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["bomb.safetensors", "bomb.pth"])
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_given_as_weights_is_not_read(name, form, face_clip, speech, tmp_path: Path) -> None:
    touched, bomb = tmp_path / "touched", tmp_path / name
    if form == "pickle":
        bomb.write_bytes(pickle.dumps({"w": Bomb(touched)}))
    else:
        torch.save({"state_dict": Bomb(touched)}, bomb)
    video = face_clip(lambda number: [(50, 30, 56)])
    code, said = run("sync", video, speech(), "-o", tmp_path / "out.mp4", "--weights", bomb, "--device", "cpu")
    assert code == 7 and ".safetensors" in said
    assert not touched.exists() and not (tmp_path / "out.mp4").exists()


def test_one_flipped_byte_in_bundled_weights_is_noticed(face_clip, speech, tmp_path: Path, monkeypatch) -> None:
    entry = weights.entry_of("generator")
    data = bytearray((weights.BUNDLED / entry.bundled).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / entry.bundled).write_bytes(data)
    monkeypatch.setattr(weights, "BUNDLED", tmp_path / "bundled")
    code, said = run("sync", face_clip(lambda number: [(50, 30, 56)]), speech(), "-o", tmp_path / "out.mp4")
    assert code == 7 and "sha256" in said
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("command", [["list"], ["path", "thing"], ["pull", "thing"]])
def test_a_manifest_that_points_outside_is_refused(command: list[str], tmp_path: Path, monkeypatch) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"x")
    listed = tmp_path / "deep" / "weights.toml"
    listed.parent.mkdir()
    listed.write_text(
        f'[thing]\nkind = "generator"\nbundled = "../../{secret.name}"\nsha256 = "{weights.sha256_of(secret)}"\n'
        'bytes = 1\nlicense = "MIT"\ncommercial = true\ntrained_on = "x"\n'
    )
    monkeypatch.setattr(weights, "MANIFEST", listed)
    monkeypatch.setattr(weights, "BUNDLED", tmp_path / "deep" / "bundled" / "x")
    code, said = run("weights", *command)
    assert code == 7 and "may not be read from '../../secret.safetensors'" in said
