"""The page of `lipdub ui`: video and speech in, progress, the result beside the source. The only home of Gradio.

It calls `list_faces` and `sync_video` with the options of the command line; there is nothing that only the page can do.
"""

from __future__ import annotations

import html
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipdub.config import Config
from lipdub.dub.face_list import list_faces
from lipdub.dub.options import OPTIONS, SyncOptions, options_from
from lipdub.dub.report import FacesReport, SyncReport
from lipdub.dub.still import is_picture, read_picture
from lipdub.dub.sync import sync_video
from lipdub.errors import InputError, LipdubError, SetupError
from lipdub.events import duration
from lipdub.faces.backend import Frame
from lipdub.faces.selection import parse_time
from lipdub.media.atomic import AtomicOutput
from lipdub.media.probe import probe, require_video
from lipdub.media.seek import frame_at
from lipdub.options import OptionError
from lipdub.ui.run import Run, Status

HOST = "127.0.0.1"  # nobody else may reach the page
POLL_S = 0.25  # between two looks at a job
SIDE = 1280  # longest side of the compared frames
PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
FACE_CHOICES = [
    ("the largest in each shot", "largest"),
    ("everybody", "all"),
    ("who speaks in the video", "speaking"),
    ("those chosen below", "chosen"),
]
STAGES = {
    "read": "reading the files",
    "faces": "finding faces",
    "dub": "dubbing",
    "write": "writing the output",
    "compare": "writing the comparison",
}
# The browser loads nothing from elsewhere, whatever Gradio's page asks for, and no other site can frame the page.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
FETCHES = re.compile(r"/(file|proxy)=\w+:/")
CSS = """
.gradio-container { max-width: 1200px !important; margin: auto; }
.lipdub-progress progress { appearance: none; width: 100%; height: .6rem; border: 0; background: #e4e4e7; }
.lipdub-progress progress::-webkit-progress-bar { background: transparent; }
.lipdub-progress progress::-webkit-progress-value { background: #f97316; }
.lipdub-progress progress::-moz-progress-bar { background: #f97316; }
.lipdub-progress progress:indeterminate { background: linear-gradient(90deg, #e4e4e7 35%, #f97316, #e4e4e7 65%); }
.lipdub-progress progress:indeterminate::-moz-progress-bar { background: transparent; }
.lipdub-progress ul { margin: .3rem 0 0 1.2rem; list-style: disc; }
.lipdub-error { border-left: .3rem solid #c0392b; padding: .2rem .8rem; }
#faces .grid-container { grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)) !important; }
#report th { word-break: keep-all; overflow-wrap: normal; }
#report p, #report li, #report code, #progress * { overflow-wrap: anywhere; white-space: normal; }
#faces, #faces .grid-wrap { min-height: 0; height: auto; }
.lipdub-player video { width: 100%; max-height: 70vh; }
"""


class _Policy:
    """ASGI middleware that adds POLICY to every response, and refuses what would make Gradio fetch an address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        if FETCHES.search(scope.get("path", "")):
            await PlainTextResponse("not found", 404)(scope, receive, sent)
        else:
            await self._app(scope, receive, sent)


@dataclass
class Desk:
    """What the page works on: one job at a time, whichever window began it.

    Args:
        config_for: settings of a quality preset.
        allow: lets the browser read a file.
    """

    config_for: Callable[[str], Config]
    allow: Callable[[Path], None]
    run: Run | None = None
    source: Path = field(default_factory=Path)  # of the last dub

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self.run is not None and self.run.status.state == "running"

    def begin(self, work: Callable[..., Any]) -> Run:
        """Run a job.

        Raises:
            SetupError: one is running.
        """
        if self.busy:
            raise SetupError("a job is running", "wait for it, or cancel it")
        self.run = Run(work)
        return self.run

    def find_faces(self, video: str, start: str, end: str, quality: str) -> Iterator[tuple[Any, ...]]:
        """Progress, then pictures, choices and ids of everybody in the video."""
        pictures: list[Frame] = []
        try:
            path, start_s, end_s = _file(video, "video"), _time(start), _time(end)
            config = self.config_for(quality)
            run = self.begin(
                lambda on_event: list_faces(
                    path, start_s=start_s, end_s=end_s, config=config, on_event=on_event, on_pictures=pictures.extend
                )
            )
        except LipdubError as error:
            yield error_html(error), gr.skip(), gr.skip(), gr.skip()
            return
        for status in _watched(run):
            yield status_html(status), gr.skip(), gr.skip(), gr.skip()
        if isinstance(run.status.report, FacesReport):
            faces = run.status.report.faces
            shown = [
                (picture, f"id {face.id}, {duration(face.first_s)}")
                for picture, face in zip(pictures, faces, strict=True)
            ]
            ids = [face.id for face in faces]
            choices = [(f"id {number}", str(number)) for number in sorted(set(ids))]
            people = f"{len(choices)} {'person' if len(choices) == 1 else 'people'}"
            summary = f"<p>{people} found; click on pictures to choose.</p>"
            yield summary, gr.Gallery(shown, visible=True), gr.CheckboxGroup(choices, value=[], visible=True), ids

    def dub(self, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Begin a dub and follow it; the values are those of the form."""
        try:
            job = _Form(*values)
            video, audio, output = _file(job.video, "video"), _file(job.audio, "speech"), _target(job)
            options, config = job.options(), self.config_for(job.quality)
            AtomicOutput(output, overwrite=options.overwrite, inputs=(video, audio)).check()
            self.begin(lambda on_event: sync_video(video, audio, output, options, config=config, on_event=on_event))
            self.source = video
        except OptionError as error:
            yield error_html(InputError(str(error), "correct the field")), *_no_result()
            return
        except LipdubError as error:
            yield error_html(error), *_no_result()
            return
        yield from self.follow()

    def follow(self) -> Iterator[tuple[Any, ...]]:
        """What the present job does, to its end; also of a page that was opened while it runs."""
        if self.run is None:
            return
        for status in _watched(self.run):
            yield status_html(status), *_no_result()
        report = self.run.status.report
        if isinstance(report, SyncReport):
            output = Path(report.output)
            length_s = require_video(probe(output)).duration_s
            slider = gr.Slider(0, round(length_s, 2), value=round(length_s / 2, 2), step=0.02)
            yield (
                status_html(self.run.status),
                gr.Column(visible=True),
                slider,
                self.compared(length_s / 2),
                self.player(output),
                report_text(report),
                report.to_dict(),
            )

    def compared(self, time_s: float) -> tuple[Frame, Frame] | None:
        """The source's and the dub's frame at a time of the dub; None where there is none, or a file is gone."""
        report = self.run.status.report if self.run is not None else None
        if not isinstance(report, SyncReport):
            return None
        output, retiming = Path(report.output), report.retiming
        source_s = time_s if retiming is None else time_s * retiming.source_s / retiming.output_s
        try:
            if is_picture(self.source):
                return read_picture(self.source, Config()).frame, frame_at(output, time_s)
            return frame_at(self.source, source_s, max_side=SIDE), frame_at(output, time_s, max_side=SIDE)
        except LipdubError:
            return None

    def player(self, output: Path) -> str:
        """The output as HTML, or where it is if no browser plays it."""
        kind = PLAYABLE.get(output.suffix.lower())
        if kind is None:
            return f"<p>Browsers do not play {html.escape(output.suffix)}: open {html.escape(str(output))}</p>"
        self.allow(output)
        address = (
            f"/gradio_api/file={quote(str(output))}?{time.monotonic_ns()}"  # another one than that of the last dub
        )
        return f'<video controls preload="metadata"><source src="{html.escape(address)}" type="{kind}"></video>'

    def cancel(self) -> None:
        """End the job, and remove what it made."""
        if self.run is not None:
            self.run.cancel()


@dataclass(frozen=True)
class _Form:
    """Values of the page's fields, in their order."""

    video: str
    audio: str
    output: str
    face: str
    ids: list[str]
    start: str
    end: str
    quality: str
    language: str
    length: str
    only_speaking: bool
    isolate_voice: bool
    overwrite: bool

    def options(self) -> SyncOptions:
        """As the command line reads them.

        Raises:
            OptionError, InputError: see `options_from`.
        """
        face = f"id:{','.join(self.ids)}" if self.face == "chosen" else self.face
        if face == "id:":
            raise OptionError("face", "no face is chosen: find faces and click on a picture")
        names = ("start", "end", "language", "length", "only_speaking", "isolate_voice", "overwrite")
        return options_from({"face": face} | {name: getattr(self, name) for name in names})


def _file(text: str, what: str) -> Path:
    """A path that was typed; quotes and ~ are taken as a shell does."""
    path = Path(text.strip().strip("\"'")).expanduser()
    if not text.strip():
        raise InputError(f"no {what} is given", "type a path, or drop a file")
    if not path.is_file():
        raise InputError(f"there is no file {path}", "check the path")
    return path


def _target(job: _Form) -> Path:
    """The path that was typed, or the suggested one where the field is empty."""
    return _expanded(job.output) if job.output.strip() else _suggested(job.video)


def _expanded(text: str) -> Path:
    return Path(text.strip().strip("\"'")).expanduser().absolute()


def _time(text: str) -> float | None:
    return parse_time(text) if text.strip() else None


def _watched(run: Run) -> Iterator[Status]:
    """Its status again and again, the last one when it has ended."""
    while (status := run.wait(POLL_S)).state == "running":
        yield status
    yield status


def _no_result() -> tuple[Any, ...]:
    return gr.Column(visible=False), *(gr.skip() for _ in range(5))


def error_html(error: LipdubError) -> str:
    """What happened, and what to do."""
    return (
        f'<div class="lipdub-error" role="alert"><b>{html.escape(error.what)}</b><br>{html.escape(error.remedy)}</div>'
    )


def status_html(status: Status) -> str:
    """A bar, the stage with its number, the time left, and warnings so far."""
    items = "".join(f"<li>{html.escape(warning)}</li>" for warning in status.warnings)
    warnings = f"<b>Warnings</b><ul>{items}</ul>" if items else ""
    if status.error is not None:
        return error_html(status.error) + warnings
    if status.state == "cancelled":
        return "<p>Cancelled; nothing was written.</p>"
    if status.state == "done":
        return f"<p>Done in {duration(status.seconds)}.</p>{warnings}"
    name = STAGES.get(status.stage, status.stage or "starting")
    place = f" (step {status.index} of {status.count})" if status.count > 1 else ""
    counted = f": {status.done} of {status.total} {status.unit}" if status.total else ""
    left = f", {duration(status.left_s)} left in this step" if status.left_s is not None else ""
    value = f' value="{status.done}" max="{status.total}"' if status.total and status.done else ""
    return f"<progress{value}></progress><p>{html.escape(name)}{place}{counted}{left}</p>{warnings}"


def report_text(report: SyncReport) -> str:
    """The report as Markdown."""
    people = f"{report.faces} {'person' if report.faces == 1 else 'people'}"
    lines = [f"**{report.dubbed} of {report.frames} frames dubbed**, {people}; written to `{report.output}`", ""]
    lines += [f"- {count} frames left as they were: {reason}" for reason, count in report.passed.items()]
    lines += [f"- not as in the video: {change}" for change in report.changes]
    lines += [f"- warning: {warning}" for warning in report.warnings]
    lines += ["", "| shot from | frames | dubbed | left as they were |", "|---|---|---|---|"]
    for shot in report.shots:
        passed = ", ".join(f"{reason}: {count}" for reason, count in shot.passed.items())
        lines.append(f"| {shot.first_s:.2f} s | {shot.frames} | {shot.dubbed} | {passed} |")
    return "\n".join(lines)


def _suggested(video: str) -> Path:
    """A name for the output, beside the video, or in the working directory if the video was dropped on the page."""
    path = _expanded(video)
    folder = Path.cwd() if path.is_relative_to(tempfile.gettempdir()) else path.parent
    return folder / f"{path.stem}.dubbed{path.suffix if path.suffix.lower() in PLAYABLE else '.mp4'}"


def _hint(video: str) -> Any:
    """The empty output field with the suggested name in grey; what was typed meanwhile stays."""
    return gr.Textbox(placeholder=str(_suggested(video)) if video.strip() else "")


def _toggled(event: gr.SelectData, ids: Sequence[int], chosen: Sequence[str]) -> tuple[Any, str]:
    """The chosen ids after a click on a picture."""
    number = str(ids[event.index])
    return [each for each in chosen if each != number] + ([] if number in chosen else [number]), "chosen"


def _files(desk: Desk) -> list[Any]:
    """Fields of the files; returns video, audio and output."""
    with gr.Row():
        with gr.Column():
            video = gr.Textbox(
                label="Video or picture (path on this computer)",
                placeholder="/films/talk.mp4",
                max_lines=1,
                elem_id="video",
            )
            video_file = gr.File(label="or drop it", height=150, elem_id="video-file")
        with gr.Column():
            audio = gr.Textbox(
                label="Speech (path on this computer)",
                placeholder="/films/talk.de.wav",
                max_lines=1,
                elem_id="audio",
            )
            audio_file = gr.File(label="or drop it", height=150, elem_id="audio-file")
    output = gr.Textbox(label="Output (path; the suffix chooses the container)", max_lines=1, elem_id="output")
    for dropped, typed in ((video_file, video), (audio_file, audio)):
        dropped.upload(lambda path: path, dropped, typed, show_progress="hidden", api_visibility="private")
    video.change(_hint, video, output, show_progress="hidden", api_visibility="private")
    return [video, audio, output]


def _choices(desk: Desk, video: Any, progress: Any) -> list[Any]:
    """Fields of what to do, in the order of `_Form`."""
    help_of = {name: option.help for name, option in OPTIONS.items()}
    face = gr.Radio(FACE_CHOICES, value="largest", label="Faces to dub", elem_id="face")
    with gr.Row():
        find = gr.Button("Find faces", elem_id="find")
    gallery = gr.Gallery(visible=False, height="auto", allow_preview=False, show_label=False, elem_id="faces")
    ids = gr.CheckboxGroup([], label="Chosen", visible=False, elem_id="ids")
    numbers = gr.State([])
    with gr.Row():
        start = gr.Textbox(label="Start", placeholder="0:00", info=help_of["start_s"], elem_id="start")
        end = gr.Textbox(label="End", info=help_of["end_s"], elem_id="end")
        quality = gr.Radio(["fast", "balanced", "best"], value="balanced", label="Quality", elem_id="quality")
    with gr.Accordion("More options", open=False):
        language = gr.Textbox(label="Language", info=help_of["language"])
        length = gr.Radio([*OPTIONS["length"].choices], value="video", label="Length", info=help_of["length"])
        only_speaking = gr.Checkbox(label="Only while someone speaks", info=help_of["only_speaking"])
        isolate_voice = gr.Checkbox(label="Speech in music or noise", info=help_of["isolate_voice"])
        overwrite = gr.Checkbox(label="Replace an existing output", elem_id="overwrite")
    find.click(
        desk.find_faces,
        [video, start, end, quality],
        [progress, gallery, ids, numbers],
        show_progress="hidden",
        api_visibility="private",
    )
    gallery.select(_toggled, [numbers, ids], [ids, face], show_progress="hidden", api_visibility="private")
    return [face, ids, start, end, quality, language, length, only_speaking, isolate_voice, overwrite]


def build(desk: Desk) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="lipdub", analytics_enabled=False) as page:
        gr.Markdown("# lipdub\nNew speech for a video, with lips that match. Dub people only with their consent.")
        files = _files(desk)
        progress = gr.HTML(elem_id="progress", elem_classes="lipdub-progress", render=False)
        choices = _choices(desk, files[0], progress)
        with gr.Row():
            begin = gr.Button("Dub", variant="primary", elem_id="dub")
            cancel = gr.Button("Cancel", elem_id="cancel")
        progress.render()
        with gr.Column(visible=False, elem_id="result") as result:
            slider = gr.Slider(0, 1, label="Time in seconds", elem_id="time")
            images = gr.ImageSlider(label="Source | dub", interactive=False, max_height=720, elem_id="compare")
            player = gr.HTML(elem_classes="lipdub-player", elem_id="player")
            text = gr.Markdown(elem_id="report")
            with gr.Accordion("Report as JSON", open=False):
                data = gr.JSON(show_label=False)
        shown = [progress, result, slider, images, player, text, data]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        begin.click(desk.dub, [*files, *choices], shown, **quiet)
        page.load(desk.follow, None, shown, **quiet)
        cancel.click(desk.cancel, None, None, queue=False, **quiet)
        slider.release(desk.compared, slider, images, **quiet)
    return page


@contextmanager
def served(config_for: Callable[[str], Config], *, port: int | None = None, browser: bool = False) -> Iterator[str]:
    """Serve the page on this computer alone; yields its address. At the end a running job is cancelled.

    Args:
        config_for: settings of a quality preset.
        port: None: the first that is free from 7860 on.
        browser: open it.

    Raises:
        SetupError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="lipdub-ui-") as name:
        os.environ["GRADIO_TEMP_DIR"] = name  # what is dropped on the page goes with the server
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        desk = Desk(config_for, lambda path: page.allowed_paths.append(str(path)))
        page = build(desk).queue(default_concurrency_limit=4)
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=port,
                inbrowser=browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(_Policy)], "docs_url": None, "redoc_url": None},
                theme=theme,
                css=CSS,
                pwa=False,
                enable_monitoring=False,
            )
        except OSError as error:
            raise SetupError(f"port {port or 7860} on {HOST} is taken", "give another: --port 8000") from error
        try:
            yield address
        finally:
            desk.cancel()
            if desk.run is not None:
                desk.run.wait()
            page.close(verbose=False)
