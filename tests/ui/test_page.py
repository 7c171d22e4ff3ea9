"""The page of `lipdub ui` without a browser: its functions, its answers over HTTP. Skipped without the extra ui."""

from __future__ import annotations

import asyncio
import gc
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lipdub.config import Config, load_config
from lipdub.dub.demo import make_demo_inputs
from lipdub.dub.report import Retiming, ShotReport, SyncReport
from lipdub.errors import InputError, SetupError
from lipdub.events import OnEvent, Progress
from lipdub.faces.contact_sheet import encode_picture
from lipdub.media.seek import frame_at
from lipdub.ui.run import Run, Status

pytest.importorskip("gradio", reason='needs the extra ui: pip install "lipdub[ui]"')
from lipdub.ui.page import Desk, _hint, duration, report_text, served, status_html

FORM = ("", "", "", "largest", [], "", "", "balanced", "", "video", False, False, False)
pytestmark = pytest.mark.filterwarnings("default")  # Gradio's own dependencies


@pytest.fixture(autouse=True)
def event_loops() -> Iterator[None]:
    """Gradio leaves event loops open: they go here, where their warnings are allowed, not at the end of all tests."""
    yield
    asyncio.set_event_loop(None)
    gc.collect()


@pytest.fixture
def desk() -> Desk:
    return Desk(lambda quality: Config(), lambda path: None)


def test_files_that_are_missing_are_told_with_what_to_do(desk: Desk, tmp_path: Path) -> None:
    told = [next(desk.dub(*FORM))[0], next(desk.dub("absent.mp4", *FORM[1:]))[0]]
    assert "no video is given" in told[0] and "there is no file absent.mp4" in told[1]
    there = tmp_path / "there.mp4"
    there.write_bytes(b"x")
    form = (str(there), str(there), str(tmp_path / "out.mp4"))
    for changed, what in [
        ((*form, "chosen", *FORM[4:]), "face: no face is chosen"),
        ((*form, *FORM[3:5], "x", *FORM[6:]), "start: invalid time"),
        ((*form[:2], str(there), *FORM[3:]), "the output"),
    ]:
        assert what in next(desk.dub(*changed))[0], what
    assert [path.name for path in tmp_path.iterdir()] == ["there.mp4"]


@pytest.mark.parametrize("typed", ["", "  ", "mine.mkv"])
def test_the_suggested_output_is_used_where_none_is_typed(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """Beside the video; where the video was dropped on the page, in the working directory."""
    (films := tmp_path / "films").mkdir()
    (video := films / "talk.mov").write_bytes(b"x")
    targets: list[Path] = []
    monkeypatch.setattr("lipdub.ui.page.sync_video", lambda video, audio, output, *a, **k: targets.append(output))
    monkeypatch.chdir(tmp_path)
    for dropped, folder in ((False, films), (True, tmp_path)):
        monkeypatch.setattr("tempfile.tempdir", str(films if dropped else tmp_path / "elsewhere"))
        list(desk.dub(str(video), str(video), typed, *FORM[3:]))
        suggested = folder / "talk.dubbed.mov"
        assert targets.pop() == (tmp_path / "mine.mkv" if typed.strip() else suggested)
        update = _hint(str(video)).constructor_args
        assert update["placeholder"] == str(suggested) and "value" not in update
    assert _hint(" ").constructor_args["placeholder"] == ""


def test_one_job_at_a_time(desk: Desk) -> None:
    def work(hear: OnEvent) -> None:
        while True:
            hear(Progress(1))

    desk.begin(work)
    with pytest.raises(SetupError, match="a job is running"):
        desk.begin(work)
    desk.cancel()
    assert desk.run is not None and desk.run.wait(10).state == "cancelled" and not desk.busy


def test_progress_and_errors_are_escaped() -> None:
    status = Status(stage="dub", index=3, count=4, done=5, total=10, left_s=65.0, warnings=("<b>",))
    assert "dubbing (step 3 of 4): 5 of 10 frames, 1:05 left in this step" in status_html(status)
    assert "&lt;b&gt;" in status_html(status) and "<li><b>" not in status_html(status)
    failed = status_html(Status(state="failed", error=InputError("<i> is empty", "get it again")))
    assert "&lt;i&gt; is empty" in failed and "get it again" in failed
    assert duration(3725.4) == "1:02:05"


def report_of(output: str, **more: Any) -> SyncReport:
    return SyncReport(
        output=output,
        frames=10,
        dubbed=7,
        passed={"no face": 3},
        faces=1,
        seconds=1.0,
        fps=10.0,
        stages={},
        device="cpu",
        generator="generator",
        shots=(ShotReport(first_s=0.0, frames=10, dubbed=7, passed={"no face": 3}),),
        **more,
    )


def test_the_report_as_text() -> None:
    text = report_text(report_of("/out.mp4", changes=("tag title",), warnings=("short",)))
    for part in ("7 of 10 frames dubbed", "1 person", "3 frames left as they were: no face", "tag title", "short"):
        assert part in text
    assert "| 0.00 s | 10 | 7 | no face: 3 |" in text


def test_source_and_dub_are_compared_at_the_same_moment(
    desk: Desk, face_clip: Callable[..., Path], tmp_path: Path
) -> None:
    """Also where the picture was stretched; a picture has one moment; a file that is gone leaves the page as it was."""

    def compare(source: Path, retiming: Retiming | None = None) -> Any:
        desk.source, desk.run = source, Run(lambda hear: report_of(str(dub), retiming=retiming))
        desk.run.wait(10)
        return desk.compared(0.2)

    video, dub = (face_clip(lambda n: [(5 * n, 30, 40)], name=f"{n}.mp4", n_frames=n) for n in (10, 20))
    before, after = compare(video)
    assert (before == frame_at(video, 0.2)).all() and (after == frame_at(dub, 0.2)).all()
    before, _ = compare(video, Retiming(source_s=0.4, output_s=0.8, slowest=2.0, fastest=2.0))
    assert (before == frame_at(video, 0.1)).all() and (before != frame_at(video, 0.2)).any()
    picture = tmp_path / "p.png"
    picture.write_bytes(encode_picture(before, ".png"))
    still, after = compare(picture)
    assert (still == before).all() and after.shape == still.shape
    assert compare(tmp_path / "gone.mp4") is None


def get(address: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, "", dict(error.headers)


def test_the_page_is_served_here_alone_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    with served(lambda quality: load_config(f"quality/{quality}"), port=None) as address:
        assert address.startswith("http://127.0.0.1:")
        code, _, headers = get(address)
        policy = {key.lower(): value for key, value in headers.items()}["content-security-policy"]
        assert code == 200 and policy.startswith("default-src 'self'") and "http" not in policy
        assert get(f"{address}gradio_api/file=https://example.com/a.png")[0] == 404
        assert get(f"{address}gradio_api/proxy=https://example.com/a.png")[0] == 404
        assert get(f"{address}gradio_api/file={secret}")[0] == 403
        config = json.loads(get(f"{address}config")[1])
        assert config["analytics_enabled"] is False
        taken = int(address.rstrip("/").rpartition(":")[2])
        with (
            pytest.raises(SetupError, match=f"port {taken} on 127.0.0.1 is taken"),
            served(lambda q: Config(), port=taken),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        get(address)


def test_a_running_job_ends_with_the_server(desk: Desk) -> None:
    def work(hear: OnEvent) -> None:
        while True:
            hear(Progress(1))

    runs: list[Run] = []
    import lipdub.ui.page as page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "Desk", lambda *args: runs.append(Desk(*args)) or runs[-1])
        with served(lambda quality: Config()):
            runs[0].begin(work)
    assert runs[0].run.status.state == "cancelled"


@pytest.mark.slow
def test_the_form_isolates_the_voice_and_says_what_it_needs(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipdub.dub.voice_isolation.find_spec", lambda name: None)
    video, audio = make_demo_inputs(tmp_path, 1.0)
    form = (str(video), str(audio), str(tmp_path / "out.mp4"), *FORM[3:-2], True, False)
    *_, last = desk.dub(*form)
    assert "lipdub[voice]" in last[0] and not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_a_whole_dub_without_a_browser(desk: Desk, tmp_path: Path) -> None:
    video, audio = make_demo_inputs(tmp_path, 1.0)
    *_, last = desk.find_faces(str(video), "", "", "fast")
    assert "1 person found" in last[0] and last[3] == [0]
    form = (f"'{video}'", str(audio), str(tmp_path / "out.mkv"), "chosen", ["0"], *FORM[5:])
    steps = list(desk.dub(*form))
    assert "Done in" in steps[-1][0] and "25 of 25 frames dubbed" in steps[-1][5]
    source, dub = steps[-1][3]
    assert source.shape == dub.shape == frame_at(video, 0.5).shape and (source != dub).any()
    assert "Browsers do not play .mkv" in steps[-1][4]
    assert [step[0] for step in desk.follow()][-1] == steps[-1][0]  # a page that is opened later
