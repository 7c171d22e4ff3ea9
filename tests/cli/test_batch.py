from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.cli.batch import read_manifest
from lipdub.config import load_config
from lipdub.dub import batch as batch_module
from lipdub.dub.batch import BatchItem, BatchResult, failure
from lipdub.dub.options import SyncOptions
from lipdub.errors import InputError, OutputError
from lipdub.faces.selection import Speaker

runner = CliRunner()
FORMS = {
    "csv": "video,audio,output,face,start,crf\na.mp4,a.wav,a_uk.mp4,,,\nsub/b.mp4,b.wav,b_uk.mp4,id:2,1:02.5,20\n",
    "jsonl": '{"video": "a.mp4", "audio": "a.wav", "output": "a_uk.mp4"}\n\n'
    '{"video": "sub/b.mp4", "audio": "b.wav", "output": "b_uk.mp4", "face": "id:2", "start": 62.5, "crf": 20}\n',
    "toml": '[[item]]\nvideo = "a.mp4"\naudio = "a.wav"\noutput = "a_uk.mp4"\n'
    '[[item]]\nvideo = "sub/b.mp4"\naudio = "b.wav"\noutput = "b_uk.mp4"\nface = "id:2"\nstart = "1:02.5"\ncrf = 20\n',
}


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the outputs that were made, in order; an audio of "bad.wav" fails."""
    made: list[str] = []

    def work(item: BatchItem) -> BatchResult:
        made.append(item.output.name)
        if item.audio.name == "bad.wav":
            return failure(item, 4, "no face in it", "look", 0.0)
        item.output.write_text("dubbed")
        return BatchResult(key=item.key, status="done")

    monkeypatch.setattr(
        batch_module.run_batch, "__kwdefaults__", batch_module.run_batch.__kwdefaults__ | {"work": work}
    )
    return made


def listed(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "list.csv"
    path.write_text("video,audio,output\n" + "".join(f"v.mp4,{audio},{output}\n" for audio, output in rows))
    return path


def test_lengths_and_labels_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "video,audio,output,length,extend,label_text\na.mp4,a.wav,b.mp4,audio,loop,AI\na.mp4,a.wav,c.mp4,,,\n"
    )
    first, second = (item.options for item in read_manifest(path, device="cpu", weights="generator"))
    assert (first.length, first.extend, first.label) == ("audio", "loop", "AI")
    assert (second.length, second.extend, second.label) == ("video", "freeze", None)
    path.write_text("video,audio,output,length\na.mp4,a.wav,b.mp4,sound\n")
    with pytest.raises(InputError, match=r"item 1: length: 'sound' is none of video, audio, shortest"):
        read_manifest(path, device="cpu", weights="generator")


@pytest.mark.parametrize("form", FORMS)
def test_a_manifest_says_the_same_in_every_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"list.{form}"
    path.write_text(FORMS[form])
    first, second = read_manifest(path, device="cpu", weights="mine.safetensors")
    assert (first.video, first.audio, first.output) == (tmp_path / "a.mp4", tmp_path / "a.wav", tmp_path / "a_uk.mp4")
    assert (first.options.face, first.options.start_s, first.options.crf) == ("largest", None, None)
    assert second.video == tmp_path / "sub" / "b.mp4"
    assert (second.options.face, second.options.start_s, second.options.crf) == ("id:2", 62.5, 20)
    assert (second.options.device, second.options.generator) == ("cpu", "mine.safetensors")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "video,audio\nv,a\n", "item 1 has no output"),
        ("a.csv", "video,audio,output,speed\nv,a,o,2\n", "unknown key 'speed'"),
        ("a.csv", "video,audio,output,start\nv,a,o,soon\n", "item 1: start: invalid time 'soon'"),
        ("a.csv", "video,audio,output,crf\nv,a,o,low\n", "item 1: crf: 'low' is not an integer"),
        ("a.csv", "video,audio,output,original_audio\nv,a,o,loud\n", "original_audio: 'loud' is none of keep, drop"),
        ("a.csv", "", "lists nothing"),
        ("a.jsonl", "[1]\n", "not a table of keys"),
        ("a.jsonl", "{\n", "cannot read"),
        ("a.toml", "item = 1 2", "cannot read"),
        ("a.txt", "v a o", "is none of"),
    ],
)
def test_a_bad_manifest_says_where_and_what(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_manifest(path, device="cpu", weights="generator")
    assert told in caught.value.what


def test_a_batch_is_done_remembered_and_summed_up(tmp_path: Path, worked: list[str]) -> None:
    path = listed(tmp_path, [("a.wav", "one.mp4"), ("bad.wav", "two.mp4"), ("c.wav", "three.mp4")])
    summary = tmp_path / "summary.json"
    result = runner.invoke(app, ["batch", str(path), "--serial", "--summary", str(summary)])
    assert result.exit_code == 9, result.stderr
    assert worked == ["one.mp4", "two.mp4", "three.mp4"]
    assert "3 videos in 0:00: 2 done, 1 failed" in result.stderr
    assert "two.mp4: no face in it (exit code 4)" in result.stderr
    assert "--retry-failed" in result.stderr
    assert [each["status"] for each in json.loads(summary.read_text())["results"]] == ["done", "failed", "done"]
    assert (tmp_path / "list.csv.state.jsonl").is_file()
    result = runner.invoke(app, ["batch", str(path), "--serial", "--retry-failed"])
    assert result.exit_code == 9 and worked[3:] == ["two.mp4"]


def test_shards_have_states_of_their_own(tmp_path: Path, worked: list[str]) -> None:
    path = listed(tmp_path, [(f"{n}.wav", f"{n}.mp4") for n in range(5)])
    for shard in ("2/2", "1/2"):
        assert runner.invoke(app, ["batch", str(path), "--serial", "--shard", shard]).exit_code == 0
    assert worked == ["1.mp4", "3.mp4", "0.mp4", "2.mp4", "4.mp4"]
    states = sorted(each.name for each in tmp_path.glob("*.state.jsonl"))
    assert states == ["list.csv.1-of-2.state.jsonl", "list.csv.2-of-2.state.jsonl"]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b"])
def test_a_shard_that_is_none_is_a_usage_error(tmp_path: Path, shard: str) -> None:
    result = runner.invoke(app, ["batch", str(listed(tmp_path, [])), "--shard", shard])
    assert result.exit_code == 2 and "--shard" in result.stderr


def test_events_are_json_lines(tmp_path: Path, worked: list[str]) -> None:
    path = listed(tmp_path, [("a.wav", "one.mp4"), ("bad.wav", "two.mp4")])
    result = runner.invoke(app, ["batch", str(path), "--serial", "--json"])
    kinds = [json.loads(line)["type"] for line in result.stdout.splitlines()]
    assert kinds[-2:] == ["done", "error"] and "warning" in kinds
    jobs = [json.loads(line) for line in result.stdout.splitlines() if '"job"' in line]
    assert [(Path(job["name"]).name, job["state"]) for job in jobs] == [
        ("one.mp4", "running"),
        ("one.mp4", "done"),
        ("two.mp4", "running"),
        ("two.mp4", "failed"),
    ]


def test_a_clean_voice_may_drive_the_lips(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("video,audio,output,drive_audio\nv.mp4,mix.wav,o.mp4,voices/v.wav\nv.mp4,mix.wav,p.mp4,\n")
    with_voice, without = read_manifest(path, device="cpu", weights="generator")
    assert with_voice.options.drive_audio == tmp_path / "voices" / "v.wav" and without.options.drive_audio is None


def test_every_option_of_sync_is_a_column(tmp_path: Path) -> None:
    (tmp_path / "who.toml").write_text('[[speaker]]\nface = "id:1"\nsound = "anna.wav"\n')
    row = {"video": "v.mp4", "audio": "a.wav", "output": "o.mp4", "speakers": "who.toml", "lossless": True}
    row |= {"preset": "slow", "detector": "face-alignment", "c2pa_cert": "c.pem", "c2pa_key": "k.pem", "device": "cpu"}
    row |= {
        "no_cache": True,
        "mask_feather": 0.1,
        "label_text": "KI",
        "compare": "both.mp4",
        "weights": "w.safetensors",
    }
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps(row))
    (item,) = read_manifest(path, device="auto", weights="generator")
    assert item.options == SyncOptions(
        speakers=(Speaker(face="id:1", sound=tmp_path / "anna.wav"),),
        lossless=True,
        preset="slow",
        detector="face-alignment",
        c2pa_cert=tmp_path / "c.pem",
        c2pa_key=tmp_path / "k.pem",
        device="cpu",
        cache=False,
        feather=0.1,
        label="KI",
        compare=tmp_path / "both.mp4",
        generator="w.safetensors",
    )
    for column, value, message in [
        ("strength", "4", "out of range: from 0 to 3"),
        ("lossless", "maybe", "use true or false"),
        ("overwrite", "true", "unknown key 'overwrite'"),
        ("end", "0", "not after the start"),
        ("crf", "20", "no effect with lossless"),
    ]:
        path.write_text(json.dumps(row | {column: value}))
        with pytest.raises(InputError, match=message):
            read_manifest(path, device="cpu", weights="generator")


def test_a_batch_has_the_settings_of_its_command(tmp_path: Path, worked: list[str], monkeypatch) -> None:
    path = listed(tmp_path, [("a.wav", "one.mp4")])
    seen = []
    monkeypatch.setattr("lipdub.cli.batch.read_manifest", lambda *_, config, **__: seen.append(config) or [])
    assert runner.invoke(app, ["batch", str(path), "--quality", "fast", "--set", "face.min_face=40"]).exit_code == 0
    assert seen[0] == load_config("quality/fast", ["face.min_face=40"])


@pytest.mark.parametrize("mark", [";", "\t"])
def test_spreadsheets_of_other_countries_and_empty_rows(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "list.csv"
    rows = [["video", "audio", "output", "language"], ["a.mp4", "a.wav", "b.mp4", "iw"], [""] * 4]
    path.write_bytes("\ufeff".encode() + "".join(mark.join(row) + "\r\n" for row in rows).encode())
    (item,) = read_manifest(path, device="cpu", weights="generator")
    assert (item.output.name, item.options.language) == ("b.mp4", "iw")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("list.csv", "video\taudio\toutput\r\na.mp4\ta.wav\tb.mp4\r\n".encode("utf-16")),  # "Unicode text"
        ("list.tsv", b"video\taudio\toutput\na.mp4\ta.wav\tb.mp4\n"),
        ("list.csv", b"sep=;\r\nvideo;audio;output\r\na.mp4;a.wav;b.mp4\r\n"),
        ("list.csv", b"Video, Audio, Output\na.mp4, a.wav, b.mp4\n  ,,\n"),
        ("list.csv", b"video,audio,output\ra.mp4,a.wav,b.mp4\r"),
    ],
)
def test_lists_as_spreadsheets_write_them(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    (item,) = read_manifest(tmp_path / name, device="cpu", weights="generator")
    assert (item.video.name, item.audio.name, item.output.name) == ("a.mp4", "a.wav", "b.mp4")


def test_a_list_that_is_not_utf8_or_has_a_value_too_many_says_so(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("video,audio,output\nfilm é.mp4,a.wav,b.mp4\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"is not UTF-8: .* at byte 24") as caught:
        read_manifest(path, device="cpu", weights="generator")
    assert caught.value.remedy == "save it as CSV UTF-8"
    path.write_text("video,audio,output\nHello, film.mp4,a.wav,b.mp4\n")
    with pytest.raises(InputError, match="more than the 3 values of the header"):
        read_manifest(path, device="cpu", weights="generator")


def test_folders_of_outputs_are_made(tmp_path: Path, worked: list[str]) -> None:
    run_batch = batch_module.run_batch
    item = read_manifest(listed(tmp_path, [("a.wav", "out/deep/a.mp4")]), device="cpu", weights="generator")
    run_batch(item, tmp_path / "state")
    assert (tmp_path / "out" / "deep" / "a.mp4").exists()
    (tmp_path / "file").write_text("in the way")
    item = read_manifest(listed(tmp_path, [("a.wav", "file/a.mp4")]), device="cpu", weights="generator")
    with pytest.raises(OutputError, match="cannot make the folder"):
        run_batch(item, tmp_path / "state2")
