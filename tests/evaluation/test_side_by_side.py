"""Dubs of one video and an audio file, judged by source, audio and output alone, and shown frame by frame."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lipdub.config import load_config
from lipdub.errors import InputError
from lipdub.evaluation.evaluate import UNTOUCHED, evaluate
from lipdub.evaluation.options import EvalOptions
from lipdub.evaluation.report import EvalReport, markdown

pytestmark = pytest.mark.usefixtures("fake_backend")
FAST = load_config(None, ["media.preset=ultrafast", "face.size=32"])
N_FRAMES, PEER_FRAMES = 40, 30  # at 25 a second; the peer stops early


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def paint_boxes(source: Path, target: Path) -> Path:
    """A crude other tool: a flat box for a mouth, twice the size, twice the frame rate, and the end is missing."""
    with av.open(str(target), "w") as made:
        stream = made.add_stream("libx264", rate=50)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"crf": "8", "preset": "ultrafast"}
        for number, picture in enumerate(decoded(source)[:PEER_FRAMES]):
            picture[50:60, 45 + number : 65 + number] = (180, 160, 160)
            for _ in range(2):
                larger = np.ascontiguousarray(picture.repeat(2, 0).repeat(2, 1))
                made.mux(stream.encode(av.VideoFrame.from_ndarray(larger, format="rgb24")))
        made.mux(stream.encode())
    return target


@pytest.fixture
def judge(square_tracker, face_clip, speech, generator_file: Path, tmp_path: Path) -> Callable[..., EvalReport]:
    """`evaluate` of our dub and the crude tool's, of a face that goes to the right and has no sound of its own."""
    source = face_clip(lambda t: [(30 + t, 10, 56)], "source.mp4", n_frames=N_FRAMES)
    peer = paint_boxes(source, tmp_path / "peer.mp4")

    def run(**changes: object) -> EvalReport:
        options = {
            "clips": source,
            "audio": speech(1.6),
            "output": tmp_path / "out",
            "weights": (str(generator_file),),
            "videos": {"box": peer},
            "device": "cpu",
            "side_by_side": True,
        }
        return evaluate(EvalOptions(**{**options, **changes}), FAST, judge=square_tracker())

    return run


def page_of(folder: Path) -> list[dict]:
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "http" not in text and not re.search(r"(src|href)=\"", text), "nothing from elsewhere"
    found = re.search(r"^const pairs = (\[.*\]);$", text, re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def test_source_audio_and_outputs_are_enough(judge) -> None:
    report = judge(side_by_side=False)
    lines = {line.row: line for line in report.lines}
    assert list(lines) == [UNTOUCHED, "box", "tiny"]
    assert [(line.pairing, line.n, line.failed) for line in lines.values()] == [("given", 1, 0)] * 3
    for line in lines.values():
        assert {"range", "sharpness", "jitter", "outside", "replaced_z"} <= set(line.cells)
        assert {"opening_r", "closures", "width_r", "articulation", "psnr"}.isdisjoint(line.cells)
    assert lines[UNTOUCHED].cells["outside"].mean == 0
    assert lines["tiny"].cells["outside"].mean > 0 and lines["tiny"].cells["dubbed"].mean == 100
    text = markdown(report)
    assert "### given audio" in text and "they need a video of the audio" in text and "no real video" in text
    assert not (Path(report.verdicts).parent / "side-by-side").exists()


def test_the_page_has_every_frame_of_every_column_at_full_size(judge, tmp_path: Path) -> None:
    judge()
    folder = tmp_path / "out" / "side-by-side"
    (pair,) = page_of(folder)
    assert pair["times"] == pytest.approx([number / 25 for number in range(N_FRAMES)], abs=1e-3)
    columns = {column["row"]: column for column in pair["columns"]}
    assert list(columns) == [UNTOUCHED, "box", "tiny"]
    assert [(c["count"], c["size"]) for c in columns.values()] == [
        (N_FRAMES, [160, 120]),
        (PEER_FRAMES, [320, 240]),
        (N_FRAMES, [160, 120]),
    ]
    wanted = {f"{c['prefix']}-{number:05}.jpg" for c in columns.values() for number in range(c["count"])}
    assert {path.name for path in folder.glob("*.jpg")} == wanted
    for row, path, rate in ((UNTOUCHED, "source.mp4", 1), ("box", "peer.mp4", 2)):
        frames = decoded(tmp_path / path)
        for number in (0, 17, PEER_FRAMES - 1):
            shown = cv2.imread(str(folder / f"{columns[row]['prefix']}-{number:05}.jpg"))[..., ::-1].astype(float)
            apart = [np.abs(shown - frame).mean() for frame in frames[::rate]]
            assert np.argmin(apart) == number and apart[number] < 3, (row, number)


def test_a_dub_that_cannot_be_judged_says_why_and_old_pictures_go(judge, face_clip, tmp_path: Path) -> None:
    judge()
    faceless = face_clip(lambda t: [], "faceless.mp4", n_frames=N_FRAMES)
    judge(videos={"nobody": faceless}, weights=(), overwrite=True)
    (pair,) = page_of(tmp_path / "out" / "side-by-side")
    source, nobody = pair["columns"]
    assert (nobody["row"], nobody["count"]) == ("nobody", 0) and "0 of 40 frames" in nobody["error"]
    pictures = {path.name for path in (tmp_path / "out" / "side-by-side").glob("*.jpg")}
    assert pictures == {f"{source['prefix']}-{number:05}.jpg" for number in range(N_FRAMES)}


def test_audio_that_cannot_be_read_stops_before_the_first_dub(judge, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"text\.wav"):
        judge(audio=tmp_path / "text.wav")
    assert not (tmp_path / "out").exists()
