"""The finished file: new picture, the dub, and everything else of the source as it was.

Only home of ffmpeg-python, which here does nothing but write the argument list; we run it ourselves, because its own
runner can block on a full pipe and knows neither time nor signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import ffmpeg
from av.container import InputContainer
from av.stream import Disposition

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.boxes import drop_eyes, insert_boxes
from lipdub.media.containers import (
    Container,
    Item,
    chapters_timed,
    container_of,
    disposition_words,
    encoder_options,
    movie_clock,
)
from lipdub.media.disclosure import folded, read_marks
from lipdub.media.ffmpeg import READING, run
from lipdub.media.kept import is_statistic
from lipdub.media.language import code_in, language_code
from lipdub.media.probe import (
    MediaInfo,
    VideoInfo,
    file_url,
    is_timeline,
    open_input,
    probe,
    read_clocks,
    require_video,
)
from lipdub.media.stream_details import CHROMA, RANGES, FileDetails, read_details
from lipdub.media.streams import StreamPlan, no_marks

_BRANDS = ("major_brand", "minor_version", "compatible_brands")  # the muxer writes its own
_LOSSLESS = frozenset({"flac", "alac"})  # compressed codecs that FFmpeg also writes, under the same name
_COVERS = ("png", "gif", "webp", "bmp", "tiff")  # codecs of cover art, called image/... ; all else is a JPEG
_MIN_TICKS = 8  # ticks of a clock between two pictures, from which on a difference of one is rounding
_END_MARGIN_S = 0.001  # s before the end, from which on nothing begins: a chapter of no length would be left there
_AUDIO_TOLERANCE_S = 0.25  # by which a sound may begin or end elsewhere: some packets of any codec
_DUB_TOLERANCE_S = 0.02  # s by which a dub may differ from the picture's length without being cut or filled


@dataclass(frozen=True, kw_only=True)
class RemuxPlan:
    """What goes into the finished file."""

    picture: Path  # of VideoWriter
    source: MediaInfo
    dub: Path
    output: Path  # its ending chooses the container
    video_duration_s: float
    streams: StreamPlan
    cut: bool = False  # nothing goes on behind the picture, chapters neither
    language: str | None = None  # of the dub, as `language_code` takes it; None: what its own file says
    metadata: dict[str, str] = field(default_factory=dict)


def remux(plan: RemuxPlan, config: MediaConfig | None = None) -> list[str]:
    """Write `plan.output`.

    First audio is the dub, default, at its own rate and channels: copied where the container takes its codec, else AAC,
    Opus or PCM; cut at the picture's end when longer, filled with silence when shorter and not compressed. Then the
    original audio, subtitles, cover art, attachments, data, chapters and tags of the source. Timestamps are copied.

    Returns:
        What FFmpeg could not take, beside the losses of `plan.streams`, one sentence each.

    Raises:
        OutputError: unknown container, or FFmpeg failed: its last words are in the message.
        ResourceError: the disk is full.
        SetupError: no ffmpeg.
        InputError: the dub or the source cannot be read or is damaged, or there is no such language.
    """
    config = config or MediaConfig()
    items = plan.streams.items
    try:
        left_out = _write(plan, config)
    finally:
        for number in range(len(items)):
            _cover_file(plan.output, number).unlink(missing_ok=True)
    spatial = require_video(plan.source).spatial
    if spatial and container_of(plan.output).is_mov:
        drop_eyes(plan.output)
        if container_of(plan.output).muxer == "mov":  # there, FFmpeg writes only those
            insert_boxes(plan.output, spatial)
    warnings = [f"{item.kind} stream {item.index} ({item.codec}) cannot be copied by FFmpeg" for item in left_out]
    _check_streams(plan, [item for item in items if item not in left_out])
    if plan.language is not None and probe(plan.output).audio[0].language in (None, "und"):
        code = language_code(plan.language)
        warnings.append(f"{plan.output.suffix} has no place for the language {code}; .mkv and .mp4 have")
    if plan.metadata and container_of(plan.output).marks and not read_marks(plan.output):
        warnings.append(no_marks(plan.output))
    return warnings


def _write(plan: RemuxPlan, config: MediaConfig) -> list[Item]:
    """Write the output; returns what had to stay behind: a stream must not cost the user the whole film."""
    optional = [item for item in plan.streams.items if item.optional]
    errors: list[OutputError | InputError] = []
    for left_out in ([], *([item] for item in optional), *([optional] if optional else [])):
        try:
            run(arguments(plan, [item for item in plan.streams.items if item not in left_out], config), config)
            return left_out
        except (OutputError, InputError) as error:
            errors.append(error)
    raise errors[0]


def arguments(plan: RemuxPlan, items: Sequence[Item], config: MediaConfig) -> list[str]:
    """FFmpeg's argument list; nothing is run. Cover art to be attached is written beside the output."""
    container, dub = container_of(plan.output), probe(plan.dub)
    source, path = require_video(plan.source), plan.source.path
    end_s = source.start_s + plan.video_duration_s
    delay = {"itsoffset": f"{source.origin_s - dub.origin_s:.6f}"}  # brings both clocks together
    picture_in = ffmpeg.input(file_url(plan.picture))
    dub_in = ffmpeg.input(file_url(plan.dub), **READING, **delay)
    source_in = ffmpeg.input(file_url(path), **READING)
    copied = [item for item in items if item.encoder != "attach"]
    # ffmpeg-python forgets an input of which nothing is mapped, and tags come from the source in any case: hence a map
    # that never matches.
    indices = [str(item.index) for item in copied] or ["99999?"]
    streams = [picture_in["v:0"], dub_in["a:0"], *(source_in[each] for each in indices)]
    details = read_details(path, config)
    # QuickTime's key list takes any tag, but FFmpeg then leaves cover art out; `_file_tags` knows another way.
    tag_keys = container.tags and not (container.is_mov and any(item.kind == "picture" for item in items))
    with open_input(path) as opened:
        options = _picture_options(plan, opened, container, details, config)
        words = _stream_tags(opened, source.index, copied, container.muxer)
        tags = _file_tags(plan.metadata, opened.metadata, fold=not tag_keys)
        chapters = chapters_timed(opened)
    options |= _dub_options(plan.streams, container, config, source.origin_s, end_s=end_s)
    if plan.language is not None:
        options["metadata:s:1"] = f"language={code_in(container.muxer, language_code(plan.language))}"
    options |= _copied_options(copied, container, config, source.origin_s)
    options |= _clock_options(source, container, plan.picture)
    if plan.cut:
        options |= _cut_options(copied, source.origin_s + end_s)
    attached, files = _attach_covers(items, len(copied), plan.output)
    options, words = options | attached, files + words
    if container.muxer == "mpegts" and details.programs:
        program = details.programs[0]
        if program.number:
            options["mpegts_service_id"] = str(program.number)
        words += [word for key, value in program.tags.items() for word in ("-metadata", f"{key}={value}")]
    if container.is_mov:
        fast = "" if container.muxer == "mov" and source.spatial else "+faststart"  # marks go into an index at the end
        options["movflags"] = fast + "+use_metadata_tags" * tag_keys

    if container.muxer in ("matroska", "webm"):
        options["fflags"] = "+bitexact"  # else the file and its tracks get random ids, others in each run

    def build(tags: dict[str, str]) -> list[str]:
        target = ffmpeg.output(*streams, file_url(plan.output), **options, **tags, f=container.muxer)
        made = ["-copyts", *map(str, target.get_args())]
        return [*made[:-1], *words, made[-1]]

    # ffmpeg-python numbers inputs in an order of its own; tags and chapters need those numbers.
    order = [word for flag, word in pairwise(build({})) if flag == "-i"]
    numbers = (order.index(file_url(path)), order.index(file_url(plan.dub)))
    return build(_metadata_maps(source.index, copied, *numbers, chapters=chapters) | tags)


def even_rate(picture: Path) -> Fraction | None:
    """Pictures a second, where all are equally far apart but for rounding to the file's clock."""
    with open_input(picture) as container:
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None and packet.size)
        steps = {after - before for before, after in pairwise(stamps)}
        if len(steps) == 1 and stream.time_base is not None:
            return 1 / (steps.pop() * stream.time_base)
        rounded = bool(steps) and max(steps) - min(steps) == 1 and min(steps) >= _MIN_TICKS
        return stream.average_rate if rounded else None


def dub_encoder(streams: StreamPlan, too_long: float) -> str:
    """What FFmpeg is given for a dub that is `too_long` seconds longer than the picture: "copy", or an encoder."""
    encoder, codec = streams.dub_encoder, streams.dub.codec
    if encoder == "copy" and abs(too_long) > _DUB_TOLERANCE_S and (codec.startswith("pcm_") or codec in _LOSSLESS):
        return codec  # decoded and written again without loss, which lets it be cut and filled to the sample
    return encoder


def _picture_options(
    plan: RemuxPlan, opened: InputContainer, container: Container, details: FileDetails, config: MediaConfig
) -> dict[str, str]:
    """Options of the new picture: flags, tag, and what of the source's picture its stream does not say."""
    source, made = require_video(plan.source), require_video(probe(plan.picture))
    flags = opened.streams[source.index].disposition | Disposition.default  # players would switch it off
    options = {"c:0": "copy", "disposition:0": disposition_words(flags)}
    if container.is_mov and made.codec == "hevc":
        options["tag:0"] = "hvc1"  # what Apple's players insist on
    if container.muxer == "mp4" and source.spatial:
        options["strict"] = "unofficial"  # else its marks are left out
    before, after = details.of(source.index), read_details(plan.picture, config).of(0)
    changes = []
    rgb_to_yuv = av.VideoFormat(source.pix_fmt, 16, 16).is_rgb and not av.VideoFormat(made.pix_fmt, 16, 16).is_rgb
    for names, option in ((CHROMA, "chroma_sample_loc_type"), (RANGES, "video_full_range_flag")):
        # What was RGB has a range of its own, which is not the source's.
        if not rgb_to_yuv and (value := before.first_of(names)) not in ("", after.first_of(names)):
            changes.append(f"{option}={names.index(value)}")
    if changes and made.codec in ("h264", "hevc"):  # their encoders leave out what is usual
        options["bsf:0"] = f"{made.codec}_metadata={':'.join(changes)}"
    return options


def _dub_options(
    streams: StreamPlan, container: Container, config: MediaConfig, origin_s: float, *, end_s: float
) -> dict[str, str]:
    """Options that bring the dub to the length of the picture, which ends at `end_s`, and encode or copy it."""
    dub = streams.dub
    encoder = dub_encoder(streams, dub.end_s - end_s)
    # By timestamps, not with -t: that counts from where the dub's own clock starts, which a raw stream does not state.
    options = {"c:1": encoder, "disposition:1": "default"}
    filters = [container.silence_filter(encoder, origin_s, dub.sample_rate), f"apad,atrim=end={origin_s + end_s:.6f}"]
    options |= encoder_options(encoder, dub, config, 1, ",".join(filter(None, filters)))
    drops = container.audio_filters(dub.codec, encoder, origin_s, origin_s + end_s)
    return options | ({"bsf:1": drops} if drops else {})


def _copied_options(
    items: Sequence[Item], container: Container, config: MediaConfig, origin_s: float
) -> dict[str, str]:
    """Encoder, disposition and filters of each stream of the source behind picture and dub."""
    options: dict[str, str] = {}
    for number, item in enumerate(items, start=2):
        options[f"c:{number}"] = item.encoder
        options[f"disposition:{number}"] = item.disposition
        if item.filters:
            options[f"bsf:{number}"] = item.filters
        if item.sound is not None:
            silence = container.silence_filter(item.encoder, origin_s, item.sound.sample_rate)
            options |= encoder_options(item.encoder, item.sound, config, number, silence)
    return options


def _cut_options(items: Sequence[Item], end_s: float) -> dict[str, str]:
    """Options that end every stream at a timestamp, and a subtitle that is still shown then."""
    options = {"t": f"{end_s - _END_MARGIN_S:.6f}"}
    for number, item in enumerate(items, start=2):
        if item.kind == "subtitle":
            options[f"bsf:{number}"] = f"setts=duration=min(DURATION\\,max(0\\,{end_s:.6f}/TB-PTS))"
    return options


def _attach_covers(items: Sequence[Item], n_copied: int, output: Path) -> tuple[dict[str, str], list[str]]:
    """Options that name and attach cover pictures as files, which is how Matroska keeps them."""
    covers = [item for item in items if item.encoder == "attach"]
    n_attachments = sum(item.kind == "attachment" for item in items)
    options: dict[str, str] = {}
    attach: list[str] = []  # apart, since ffmpeg-python gives an option only once
    for number, cover in enumerate(covers):
        kind = cover.codec if cover.codec in _COVERS else "jpeg"
        _cover_file(output, number).write_bytes(cover.data)
        attach += ["-attach", file_url(_cover_file(output, number))]
        name = cover.name or f"cover{'' if number == 0 else number + 1}.{kind.replace('jpeg', 'jpg')}"
        options[f"metadata:s:t:{n_attachments + number}"] = f"filename={name}"
        options[f"metadata:s:{2 + n_copied + number}"] = f"mimetype=image/{kind}"
    return options, attach


def _cover_file(output: Path, number: int) -> Path:
    return output.with_name(f"{output.name}.cover{number}")


def _clock_options(source: VideoInfo, container: Container, picture: Path) -> dict[str, str]:
    """Options that keep timestamps exact."""
    options: dict[str, str] = {}
    if not container.stamps and (rate := even_rate(picture)) is not None:
        options["r:0"] = f"{rate.numerator}/{rate.denominator}"  # else it calls its clock's ticks pictures
    if container.is_mov:
        options |= movie_clock(source.time_base.denominator)
    if container.muxer == "mpegts":
        return options | {"mpegts_copyts": "1", "muxdelay": "0", "muxpreload": "0"}
    if source.origin_s:
        options["output_ts_offset"] = f"{-source.origin_s:.6f}"
    return options


def _metadata_maps(index: int, items: Sequence[Item], source: int, dub: int, *, chapters: bool) -> dict[str, str]:
    """Where chapters and tags come from: for the file, its picture, the dub, and each other stream."""
    maps = {"map_chapters": str(source) if chapters else "-1", "map_metadata": str(source)}
    maps |= {"map_metadata:s:0": f"{source}:s:{index}", "map_metadata:s:1": f"{dub}:s:a:0"}
    return maps | {f"map_metadata:s:{n}": f"{source}:s:{item.index}" for n, item in enumerate(items, start=2)}


def _file_tags(ours: dict[str, str], theirs: Mapping[str, str], *, fold: bool) -> dict[str, str]:
    """Our tags on top of the source's; with `fold`, all of them in the comment, which nearly every file can hold."""
    tags = dict.fromkeys(_BRANDS, "") | ({"comment": folded(ours)} if fold and ours else ours)
    comment = {key.lower(): value for key, value in theirs.items()}.get("comment")
    if comment and "comment" in tags and comment != tags["comment"]:
        tags["comment"] += f" | {comment}"  # never strip what was there
    return {f"metadata:g:{i}": f"{key}={value}" for i, (key, value) in enumerate(tags.items())}


def _stream_tags(opened: InputContainer, picture: int, copied: Sequence[Item], muxer: str) -> list[str]:
    """Options that put right what a copy of each stream's tags would not say, or not say truly."""
    words: list[str] = []
    streams = {0: (opened.streams[picture], True)}  # in the output's order, with whether they are encoded anew
    streams |= {n: (opened.streams[item.index], item.encoder != "copy") for n, item in enumerate(copied, start=2)}
    for number, (stream, encoded) in streams.items():
        tags = dict(stream.metadata)
        new = dict.fromkeys((tag for tag in tags if encoded and is_statistic(tag)), "")
        if stream.language is not None and number and muxer == "mov":  # which knows one code of each language
            with suppress(InputError):
                new["language"] = code_in(muxer, language_code(stream.language))
        if "name" in tags and "title" not in tags:  # as FFmpeg reads it in QuickTime, but does not write it
            new["title"] = tags["name"]
        words += [word for key, value in new.items() for word in (f"-metadata:s:{number}", f"{key}={value}")]
    reels = [reel for each in opened.streams if each.type == "data" and (reel := each.metadata.get("reel_name"))]
    words += ["-metadata:s:0", f"reel_name={reels[0]}"] if reels else []
    if made := opened.metadata.get("creation_time"):  # where two places state it, FFmpeg joins them
        words += ["-metadata", f"creation_time={made.partition(';')[0]}"]
    return words


def _check_streams(plan: RemuxPlan, items: Sequence[Item]) -> None:
    """Check that all streams are there, and that each sound begins and ends where it should.

    Raises:
        OutputError: they are not, or one does not.
    """
    made = probe(plan.output)
    planned = ["video", "audio", *(item.kind for item in items)]
    for kind in ("video", "audio", "subtitle"):
        if made.streams.count(kind) != planned.count(kind):
            raise OutputError(
                f"the output has {made.streams.count(kind)} {kind} streams, {planned.count(kind)} were planned",
                "choose another container for the output",
            )
    source, clocks = require_video(plan.source), read_clocks(plan.output)
    end_s = source.start_s + plan.video_duration_s
    dub = plan.streams.dub
    copied = dub_encoder(plan.streams, dub.end_s - end_s) == "copy"
    stamps = container_of(plan.output).stamps  # without, silence fills the time before a sound
    dub_start_s = max(0.0, dub.start_s) * stamps
    expected = [(dub_start_s, dub_start_s, min(end_s, dub.end_s) if copied else end_s)]
    for item in items:
        clock = plan.streams.clocks.get(item.index)
        if item.kind == "audio" and clock is not None:
            stop = min(clock.end_s, end_s) if plan.cut else clock.end_s
            known = not clock.repeats and stop > clock.start_s
            # FFmpeg may leave out a packet that begins before time 0, and there may be a hole behind it.
            first_s = max(0.0, clock.start_s) * stamps
            expected.append((first_s, max(first_s, clock.inside_s * stamps), stop) if known else (0.0, 0.0, -1.0))
    picture_s = clocks[require_video(made).index].start_s
    offset_s = 0.0 if is_timeline(made.format) else source.start_s - picture_s  # a free clock may start anywhere
    for (start_s, latest_s, stop_s), sound in zip(expected, made.audio, strict=True):
        clock = clocks.get(sound.index)
        if stop_s < start_s:  # nothing is known of it, or nothing is left of it
            continue
        if clock is None:
            raise OutputError(f"audio stream {sound.index} of the output is empty", "run with --debug and report it")
        begins_s, ends_s = clock.start_s + offset_s, clock.end_s + offset_s
        off_s = max(start_s - begins_s, begins_s - latest_s, abs(ends_s - stop_s))
        if off_s > _AUDIO_TOLERANCE_S:
            raise OutputError(
                f"audio stream {sound.index} of the output lasts from {begins_s:.3f} s to {ends_s:.3f} s, not from "
                f"{start_s:.3f} s to {stop_s:.3f} s",
                "choose another container for the output, or report it",
            )
