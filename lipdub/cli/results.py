"""Plans, reports and face lists as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lipdub.cli import console
from lipdub.events import clock, duration

if TYPE_CHECKING:
    from lipdub.dub.report import FaceSummary, Retiming, SyncPlan, SyncReport
    from lipdub.evaluation.quality import QualityReport


def show_plan(plan: SyncPlan) -> None:
    """What a dry run found, on stdout; its warnings were said before."""
    console.data("dry run: nothing was written")
    how = "copied" if plan.dub_encoder == "copy" else f"as {plan.dub_encoder}"
    language = f", language {plan.language}" if plan.language else ""
    longer_s = plan.output_s - plan.video_s
    lasts = f", {abs(longer_s):.2f} s {'longer' if longer_s > 0 else 'shorter'} than the video" if longer_s else ""
    rows = [
        ("output", f"{plan.output} ({plan.container}){lasts}"),
        ("picture", f"{plan.source}, {plan.frames} frames, {plan.video_s:.2f} s -> {plan.encoder} {plan.pix_fmt}"),
        *([] if plan.retiming is None else [("times", retimed(plan.retiming))]),
        ("sound", f"{plan.dub}, {plan.audio_s:.2f} s -> {how}, first and default track{language}"),
        *(("kept", kept) for kept in plan.kept),
        ("shots", f"{len(plan.shots)}, from {', '.join(clock(start) for start in plan.shots)}"),
        ("faces", f"{len(plan.faces)} found, {sum(face.dubbed > 0 for face in plan.faces)} to be dubbed"),
    ]
    for name, text in rows:
        console.data(f"{name:8} {text}")
    show_faces(plan.faces, dubbed=True)
    console.data(f"{'frames':8} {plan.dubbed} of {plan.frames} would be dubbed")
    for reason, count in plan.passed.items():
        console.data(f"{'':8} {count} would be left as they are: {reason}")
    estimate = plan.estimate
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in estimate.seconds.items())
    total = duration(sum(estimate.seconds.values()))
    console.data(f"{'time':8} about {total} on {plan.device} ({stages}; the last copy is not counted)")
    made, room = estimate.output_bytes, estimate.output_bytes + estimate.needed_bytes
    console.data(f"{'disk':8} about {size(made)}, {size(room)} while it is made; {size(estimate.free_bytes)} free")


def show_report(report: SyncReport) -> None:
    """What a job did, on stderr."""
    console.say(
        f"{report.output}: {report.dubbed} of {report.frames} frames dubbed, "
        f"{report.faces} {'person' if report.faces == 1 else 'people'}, "
        f"{report.seconds:.1f} s ({report.fps:.1f} fps on {report.device})"
    )
    if report.added:
        console.say(f"  {report.added} frames are behind the video's own end")
    if report.occluded:
        console.say(f"  {report.occluded} frames have something in front of a mouth, which stays as it is")
    if report.drawn_open:
        who = "1 person hardly opens" if report.drawn_open == 1 else f"{report.drawn_open} people hardly open"
        console.say(f"  {who} the mouth in the video: what shows inside is drawn, in part at least")
    if report.rests:
        seconds = sum(rest.last_s - rest.first_s for rest in report.rests)
        places = "1 place" if len(report.rests) == 1 else f"{len(report.rests)} places"
        console.say(f"  in {places}, {seconds:.1f} s in all, a face stays as it is because it does not speak")
    if report.retiming is not None:
        console.say(f"  {retimed(report.retiming)}")
    for reason, count in report.passed.items():
        console.say(f"  {count} frames left as they were: {reason}")
    if report.changes:
        console.say(f"  not as in the video: {'; '.join(report.changes)}")
    if report.cached:
        console.say("  faces as an earlier run found them in this video; --no-cache looks anew")


def show_quality(report: QualityReport) -> None:
    """A table of segments with their measures, and the faults of each."""
    header = ["TIME", "SHOT", "FACE", "OFFSET", "CONF", "AGREE", "SILENCE", "JITTER", "SEAM"]
    forms = ("{:+.0f} ms", "{:.2f}", "{:.2f}", "{:.0f} %", "{:.2f}", "{:.1f}")
    rows = []
    for part in report.segments:
        values = (part.offset_ms, part.confidence, part.agreement, part.silence, part.jitter, part.seam)
        cells = ["-" if value is None else form.format(value) for value, form in zip(values, forms, strict=True)]
        cells[0] += "" if part.sure or part.offset_ms is None else " ?"
        rows.append([f"{clock(part.first_s)} - {clock(part.last_s)}", str(part.shot), str(part.face), *cells])
    console.table(header, rows)
    for part in report.segments:
        for fault in part.faults:
            console.data(f"{clock(part.first_s)} - {clock(part.last_s)}, face {part.face}: {fault}")
    unsure = " (? = unsure)" if any("?" in row[3] for row in rows) else ""
    console.data(f"offset by {report.by}{unsure}; {report.faults} of {len(report.segments)} segments with a fault")


def show_faces(faces: Sequence[FaceSummary], *, dubbed: bool = False) -> None:
    """A table of people: a row for each track."""
    header = ["ID", "SHOT", "FIRST", "LAST", "FRAMES", "SIZE", "USABLE", *(["DUBBED"] if dubbed else [])]
    rows = []
    for face in faces:
        row = [str(face.id), str(face.shot), clock(face.first_s), clock(face.last_s), str(face.frames)]
        row += [f"{face.size_px:.0f} px", f"{100 * face.usable:.0f} %"]
        rows.append(row + ([str(face.dubbed)] if dubbed else []))
    console.table(header, rows)


def retimed(retiming: Retiming) -> str:
    """What became of the picture's times."""
    count = f" to {len(retiming.sentences)} sentences" if retiming.sentences else ""
    speeds = f"{retiming.fastest:.2f} to {retiming.slowest:.2f} times as long"
    return f"picture fitted{count}: {retiming.source_s:.2f} s became {retiming.output_s:.2f} s, pieces {speeds}"


def size(n_bytes: float) -> str:
    """Bytes as kB, MB or GB, powers of 1000."""
    for unit, power in (("GB", 9), ("MB", 6)):
        if n_bytes >= 10**power:
            return f"{n_bytes / 10**power:.1f} {unit}"
    return f"{n_bytes / 1000:.0f} kB"
