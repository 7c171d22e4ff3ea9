from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner, Result

from lipdub.cli.app import app

LEFT, RIGHT = (6, 34, 48), (90, 30, 60)


@pytest.fixture
def video(face_clip) -> Path:
    """Two people, a cut, one of them again."""
    return face_clip(lambda n: [LEFT, RIGHT] if n < 10 else [(40, 20, 52)], n_frames=20, scenes=lambda n: n // 10)


@pytest.fixture
def faces(fake_faces, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for place in ("face_list", "networks"):
        monkeypatch.setattr(f"lipdub.dub.{place}.face_backend", lambda name, config, device: fake_faces())

    def run(video: Path, *args: object, command: str = "faces") -> Result:
        return CliRunner().invoke(app, [str(word) for word in (command, video, "--device", "cpu", *args)])

    return run


def test_each_person_of_each_shot_has_a_row(faces, video: Path, tmp_path: Path) -> None:
    before = {*tmp_path.iterdir()}
    result = faces(video)
    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == ["ID", "SHOT", "FIRST", "LAST", "FRAMES", "SIZE", "USABLE"]
    assert [row[1:5] for row in rows] == [
        ["0", "0:00.00", "0:00.40", "10"],
        ["0", "0:00.00", "0:00.40", "10"],
        ["1", "0:00.40", "0:00.80", "10"],
    ]
    assert [row[0] for row in rows] == ["0", "1", "0"]  # who comes back keeps the number
    assert all(row[-2:] == ["100", "%"] for row in rows)
    assert "[1/1] faces" in result.stderr and "--face id:N" in result.stderr
    assert {*tmp_path.iterdir()} == before
    assert faces(video, "-q").stderr == ""


def test_a_range_leaves_people_out_and_their_numbers_alone(faces, video: Path) -> None:
    def rows(*args: str) -> list[list[str]]:
        return [line.split() for line in faces(video, *args).stdout.splitlines()[1:]]

    first, second, third = rows()
    assert rows("--start", "0.5") == [[third[0], "1", "0:00.52", "0:00.80", "7", *third[5:]]]
    assert [row[0] for row in rows("--end", "0.3")] == [first[0], second[0]]


def test_json_ends_with_all_faces(faces, video: Path) -> None:
    result = faces(video, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout.splitlines()[-1])["report"]
    assert (report["video"], report["frames"], report["shots"], report["sheet"]) == (str(video), 20, [0, 0.4], None)
    first, second, third = report["faces"]
    assert {first["shot"], second["shot"]} == {0} and (third["shot"], third["first_s"], third["last_s"]) == (
        1,
        0.4,
        0.8,
    )
    assert (third["frames"], third["usable"]) == (10, 1.0) and third["size_px"] > 20


def test_the_sheet_has_a_picture_of_each(faces, video: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert faces(video, "-o", sheet).exit_code == 0
    page = cv2.imread(str(sheet))
    assert page.shape == (192 + 8 + 2 * 18 + 8, 3 * 200 + 8, 3)
    for column in range(3):  # the bright squares fill their pictures
        assert page[40:160, 200 * column + 48 : 200 * column + 168].mean() > 150
    before = sheet.read_bytes()
    result = faces(video, "-o", sheet)
    assert (result.exit_code, sheet.read_bytes()) == (5, before) and "-y" in result.stderr
    assert faces(video, "-o", sheet, "-y").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "sheet.png"}


def test_the_page_has_a_card_for_each_person(faces, video: Path, tmp_path: Path) -> None:
    page = tmp_path / "faces.html"
    assert faces(video, "--html", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "2 people, 2 shots" in text and text.count("<figure>") == 2 and text.count("data:image/jpeg") == 2
    assert "0:00.80 on screen" in text and "2 times, first at 0:00.00" in text and "1 time, first" in text
    bars = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', text)
    (x0, y0, wide), (x1, y1, _), (x2, y2, _) = sorted(bars, key=lambda bar: (float(bar[1]), float(bar[0])))
    assert y0 == y1 != y2 and x0 == x2 and abs(float(x1) - float(x0) - float(wide)) < 0.2  # back without a pause
    assert "http" not in text.replace("http://www.w3.org", "") and "<script" not in text
    before = page.read_bytes()
    assert faces(video, "--html", page).exit_code == 5 and page.read_bytes() == before
    assert faces(video, "--html", page, "-y").exit_code == 0


def test_what_cannot_be_done_has_its_exit_code(faces, video: Path, face_clip, tmp_path: Path) -> None:
    nobody = face_clip(lambda number: [], "nobody.mp4")
    for args, code, word in [
        ((nobody, "-o", tmp_path / "s.png"), 4, "no face"),
        ((tmp_path / "nosuch.mp4",), 3, "nosuch.mp4"),
        ((video, "-o", tmp_path / "s.gif"), 5, ".gif"),
        ((video, "--start", "9"), 3, "--start"),
        ((video, "--start", "2", "--end", "1"), 2, "--end"),
        ((video, "--device", "tpu"), 6, "tpu"),
    ]:
        result = faces(*args)
        assert (result.exit_code, result.stdout) == (code, ""), args
        assert word in result.stderr
    assert not list(tmp_path.glob("*s.*"))
    last = json.loads(faces(nobody, "--json").stdout.splitlines()[-1])
    assert (last["type"], last["code"]) == ("error", 4)


def test_sync_takes_the_same_ids(faces, video: Path, speech, generator_file: Path, tmp_path: Path) -> None:
    listed = json.loads(faces(video, "--json").stdout.splitlines()[-1])["report"]["faces"]
    words = (speech(0.8), "-o", tmp_path / "out.mp4", "--weights", generator_file, "--dry-run", "--json")
    assert [face["id"] for face in listed] == [0, 1, 0]
    for choice, wanted in [("1", [1]), ("id:0", [0, 0]), ("id:0,1", [0, 1, 0])]:
        result = faces(video, *words, "--face", choice, command="sync")
        assert result.exit_code == 0, result.output
        planned = json.loads(result.stdout.splitlines()[-1])["plan"]["faces"]
        assert [face["id"] for face in planned if face["dubbed"]] == wanted
        assert [{**face, "dubbed": 0} for face in planned] == listed
    result = faces(video, *words[:-1], "--face", "id:1,77", command="sync")
    assert result.exit_code == 4 and "no face with id 77 (there are: 0, 1)" in result.stderr
