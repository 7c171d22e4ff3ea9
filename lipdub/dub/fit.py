"""`--fit` and `--length stretch`: the video on new times, before anything else is done with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lipdub.dub.options import SyncOptions
from lipdub.dub.report import FittedSentence, Retiming
from lipdub.errors import InputError, OutputError
from lipdub.media.containers import container_of
from lipdub.media.probe import measured, probe, read_clocks
from lipdub.media.retime import TimeMap, copy_retimed, fit_times
from lipdub.media.sentences import Sentence, read_sentences
from lipdub.media.source import Source

OFF_S = 0.04  # from which on a sentence counts as off: a frame at 25 frames a second
_NAMED = 3  # sentences that a warning names


@dataclass(frozen=True, kw_only=True)
class Retimed:
    """A video on the times that the options ask for."""

    source: Source
    options: SyncOptions  # with what is left to do
    retiming: Retiming | None = None  # None: its times are as they were
    warnings: tuple[tuple[str, str], ...] = ()  # codes and sentences


def on_new_times(
    source: Source,
    audio: Path,
    output: Path,
    options: SyncOptions,
    scratch: Callable[[str], Path],
) -> Retimed:
    """The video, or a copy of it whose frames are shown when the dub's sentences are spoken.

    Args:
        source: the video; its clock only goes forward.
        audio: the dub.
        output: its suffix chooses a container, which must take frames of any length.
        options: fit, fit_source, stretch_max, length and face.
        scratch: the path of a temporary file, for a name.

    Raises:
        InputError: the sentences or the lengths do not fit this video, or its own audio is asked for.
        OutputError: the container has one frame rate.
    """
    if options.fit_source is not None and options.fit is None:
        raise InputError("--fit-source belongs to --fit", "give --fit, too: subtitles of the dub")
    if options.fit is None and options.length != "stretch":
        return Retimed(source=source, options=options)
    _check(options, output)
    info, config = source.video, source.config
    start_s, end_s = info.start_s, info.start_s + info.duration_s
    sentences = () if options.fit is None else read_sentences(options.fit, options.fit_source)
    length_s = None
    if options.length == "stretch":
        length_s = measured(probe(audio, config), read_clocks(audio)).audio[0].end_s
        factor = (length_s - start_s) / max(end_s - start_s, 1e-3)
        if not 1 / options.stretch_max <= factor <= options.stretch_max:
            raise InputError(
                f"the audio is {factor:.2f} times as long as the video, --stretch-max is {options.stretch_max:g}",
                "raise --stretch-max, or use --length audio" if 0.25 <= factor <= 4 else "use --length audio",
            )
    times = fit_times(sentences, start_s, end_s, options.stretch_max, length_s)
    target = scratch("retimed")
    left = copy_retimed(source.path, target, times, config, name_audio=options.keep_original_audio)
    retiming = _retiming(times, sentences)
    left_out = replace(options, fit=None, fit_source=None, length="video" if length_s is not None else options.length)
    warnings = [("stream", each) for each in left] + _off(retiming, options.stretch_max)
    if length_s is not None and abs(retiming.output_s - length_s) > OFF_S:
        off = f"the picture ends at {retiming.output_s:.2f} s, the audio at {length_s:.2f} s"
        warnings.append(("fit", f"{off}: the sentences allow no more"))
    clocks = read_clocks(target)
    source = replace(source, media=measured(probe(target, config), clocks), clocks=clocks)
    return Retimed(source=source, options=left_out, retiming=retiming, warnings=tuple(warnings))


def _check(options: SyncOptions, output: Path) -> None:
    asked = "--fit" if options.fit is not None else "--length stretch"
    if "speaking" in (options.face, *(one.face for one in options.speakers)):
        raise InputError(
            f"--face speaking needs the video's own audio, which {asked} leaves out",
            "choose the face by id:N or by a point",
        )
    if not container_of(output).stamps:
        raise OutputError(
            f"{output.suffix} has one frame rate, and {asked} changes it within the video", "use .mp4, .mov or .mkv"
        )


def _retiming(times: TimeMap, sentences: tuple[Sentence, ...]) -> Retiming:
    rows = []
    for sentence in sentences:
        begin_s, end_s = times(sentence.source[0]), times(min(sentence.source[1], float(times.source_s[-1])))
        rows.append(
            FittedSentence(
                source_s=sentence.source,
                target_s=sentence.target,
                shown_s=(round(begin_s, 3), round(end_s, 3)),
                off_s=round(begin_s - sentence.target[0], 3),
                end_off_s=round(end_s - sentence.target[1], 3),
            )
        )
    return Retiming(
        source_s=round(float(times.source_s[-1]), 3),
        output_s=round(float(times.output_s[-1]), 3),
        slowest=round(float(times.speeds.max()), 4),
        fastest=round(float(times.speeds.min()), 4),
        sentences=tuple(rows),
    )


def _off(retiming: Retiming, limit: float) -> list[tuple[str, str]]:
    """Warnings about sentences whose start, or end, the picture does not meet."""
    starts = [(each.off_s, each.target_s[0]) for each in retiming.sentences]
    ends = [(each.end_off_s, each.target_s[1]) for each in retiming.sentences]
    warnings = []
    for verb, places, reason in (
        ("begin", starts, f"--stretch-max {limit:g} allows no more"),
        ("end", ends, f"starts are met first, within --stretch-max {limit:g}"),
    ):
        off = sorted((each for each in places if abs(each[0]) > OFF_S), key=lambda each: -abs(each[0]))
        if off:
            named = ", ".join(f"{off_s:+.2f} s at {at_s:.2f} s" for off_s, at_s in off[:_NAMED])
            more = f" and {len(off) - _NAMED} more" if len(off) > _NAMED else ""
            count = f"{len(off)} of {len(places)} sentences"
            message = f"{count} {verb} where the picture is more than {OFF_S:g} s off ({named}{more})"
            warnings.append(("fit", f"{message}: {reason}"))
    return warnings
