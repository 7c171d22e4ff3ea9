"""A dub by clicks in a headless Chromium: pytest -m browser. Needs the extra ui, playwright, and a chromium on PATH."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lipdub.config import load_config
from lipdub.dub.demo import make_demo_inputs
from lipdub.media.probe import probe

pytest.importorskip("gradio", reason='needs the extra ui: pip install "lipdub[ui]"')
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
import lipdub.ui.page as ui  # noqa: E402
from lipdub.ui.page import served  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


@pytest.fixture
def page(window: Any) -> Iterator[Any]:
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    with served(lambda quality: load_config(f"quality/{quality}")) as address:
        window.goto(address)
        window.wait_for_selector("#dub")
        yield window
        assert asked and not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def fill(page: Any, video: Path, audio: Path, output: Path) -> None:
    page.fill("#video input", str(video))
    page.fill("#audio input", str(audio))
    page.fill("#output input", str(output))


def test_a_whole_dub_by_clicks(page: Any, tmp_path: Path) -> None:
    video, audio = make_demo_inputs(tmp_path, 2.0)
    output = tmp_path / "out.mp4"
    fill(page, video, audio, output)
    page.click("#find")
    page.wait_for_selector("#faces button img", timeout=WAIT_MS)
    assert "1 person found" in page.inner_text("#progress")
    page.locator("#faces button:has(img)").first.click()
    page.wait_for_selector("#ids input:checked", timeout=WAIT_MS)
    page.click("#quality label:has-text('fast')")
    page.click("#dub")
    page.wait_for_selector("#progress progress", timeout=WAIT_MS)
    page.wait_for_selector("#result video", timeout=WAIT_MS)
    assert "Done in" in page.inner_text("#progress") and "50 of 50 frames dubbed" in page.inner_text("#report")
    assert page.locator("#compare img").count() == 2
    page.wait_for_function("document.querySelector('#result video').readyState > 0", timeout=WAIT_MS)
    assert page.evaluate("document.querySelector('#result video').duration") == pytest.approx(2, abs=0.1)
    assert probe(output).video is not None
    for width in (420, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.reload()
    page.wait_for_selector("#result video", timeout=WAIT_MS)


def test_an_error_is_shown_with_what_to_do(page: Any, tmp_path: Path) -> None:
    page.click("#dub")
    page.wait_for_selector("#progress [role=alert]", timeout=WAIT_MS)
    assert "no video is given" in page.inner_text("#progress")
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    fill(page, tmp_path / "a.mp4", tmp_path / "a.mp4", tmp_path / "out.mp4")
    page.click("#dub")
    page.wait_for_selector("#progress [role=alert]:has-text('is not a media file')", timeout=WAIT_MS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("order", ["video", "output"])
def test_a_late_suggestion_leaves_what_was_typed(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """A slow machine suggests a name when the output has been typed; also with the output typed before the video."""
    suggested = ui._suggested
    monkeypatch.setattr(ui, "_suggested", lambda video: time.sleep(2) or suggested(video))
    fields = {"video": tmp_path / "talk.mp4", "output": tmp_path / "mine.mkv"}
    for name in (order, *(fields.keys() - {order})):
        page.fill(f"#{name} input", str(fields[name]))
    page.wait_for_selector("#output input[placeholder$='talk.dubbed.mp4']", timeout=WAIT_MS)
    page.wait_for_timeout(500)
    assert page.input_value("#output input") == str(fields["output"])
    page.fill("#output input", "")
    page.wait_for_timeout(500)
    assert page.input_value("#output input") == ""  # and none comes back


def test_a_dub_goes_where_the_page_suggests(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, audio = make_demo_inputs(tmp_path, 1.0)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))  # so that the video counts as typed, not as dropped
    page.fill("#audio input", str(audio))
    page.fill("#video input", str(video))
    page.wait_for_selector("#output input[placeholder$='portrait.dubbed.mp4']", timeout=WAIT_MS)
    page.click("#dub")
    page.wait_for_selector("#result video", timeout=WAIT_MS)
    assert probe(tmp_path / "portrait.dubbed.mp4").video is not None


def test_a_cancel_leaves_nothing(page: Any, tmp_path: Path) -> None:
    video, audio = make_demo_inputs(tmp_path, 12.0)
    fill(page, video, audio, tmp_path / "out.mp4")
    page.click("#dub")
    page.wait_for_selector("#progress p:has-text('dubbing')", timeout=WAIT_MS)
    assert len(list(tmp_path.iterdir())) > 2  # what it writes so far
    page.click("#cancel")
    page.wait_for_selector("#progress p:has-text('Cancelled')", timeout=WAIT_MS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["portrait.mp4", "speech.wav"]
    page.reload()
    page.wait_for_selector("#progress p:has-text('Cancelled')", timeout=WAIT_MS)
