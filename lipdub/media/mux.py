"""The finished file: new picture, the dub, and everything else of the source as it was.

Only home of ffmpeg-python, which here does nothing but write the argument list; we run it ourselves, because its own
runner can block on a full pipe and knows neither time nor signals.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import ffmpeg
from imageio_ffmpeg import get_ffmpeg_exe

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError, ResourceError, SetupError
from lipdub.media.atomic import AtomicOutput, verify
from lipdub.media.containers import Container, Item, container_of, movie_clock, planned
from lipdub.media.disclosure import folded, read_marks
from lipdub.media.language import code_in, language_code
from lipdub.media.probe import FORMATS, AudioInfo, MediaInfo, VideoInfo, file_url, open_input, probe, require_video

__all__ = ["AtomicOutput", "RemuxPlan", "arguments", "ffmpeg_binary", "remux", "verify"]

_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-v", "error", "-xerror", "-y", "-copyts")
_TRUST = {"format_whitelist": FORMATS, "protocol_whitelist": "file,pipe"}
_BRANDS = ("major_brand", "minor_version", "compatible_brands")  # the muxer writes its own
# How FFmpeg says that it is an input, and which, that it cannot read on.
_DAMAGE = re.compile(r"\[in#(\d+)/[^]]*\] (corrupt input packet in stream \d+|[^\n]*Invalid data found[^\n]*)")
_LOSSLESS = frozenset({"flac", "alac"})  # compressed codecs that FFmpeg also writes, under the same name
_COVERS = {"image/png": "png", "image/jpeg": "jpg"}  # kinds of cover art, and the ending of their files
_COARSE = 8  # ticks of a clock between two pictures, from which on a difference of one is rounding
_EDGE = 0.001  # s before the end, from which on nothing begins: a chapter of no length would be left there
_TOLERANCE = 0.02  # s by which a dub may differ from the picture's length without being cut or filled


@dataclass(frozen=True, kw_only=True)
class RemuxPlan:
    """What goes into the finished file."""

    picture: Path  # of VideoWriter
    source: Path
    source_info: MediaInfo
    dub: Path
    output: Path  # its ending chooses the container
    video_duration_s: float
    keep_original_audio: bool = True
    language: str | None = None  # of the dub, as `language_code` takes it; None: what its own file says
    metadata: dict[str, str] = field(default_factory=dict)


def ffmpeg_binary() -> Path:
    """The ffmpeg on PATH, else the one that imageio-ffmpeg carries.

    Raises:
        SetupError: neither is there.
    """
    found = shutil.which("ffmpeg")
    if found is not None:
        return Path(found)
    try:
        return Path(get_ffmpeg_exe())
    except RuntimeError as error:
        raise SetupError("there is no ffmpeg", "install it: pip install imageio-ffmpeg") from error


def remux(plan: RemuxPlan, config: MediaConfig | None = None) -> list[str]:
    """Write `plan.output`.

    First audio is the dub, default, at its own rate and channels: copied where the container takes its codec, else AAC,
    Opus or PCM; cut at the picture's end when longer, filled with silence when shorter and not compressed. Then the
    original audio, subtitles, cover art, attachments, data, chapters and tags of the source. Timestamps are copied.

    Returns:
        What the container could not take, one sentence each.

    Raises:
        OutputError: unknown container, or FFmpeg failed: its last words are in the message.
        ResourceError: the disc is full.
        SetupError: no ffmpeg.
        InputError: the dub or the source cannot be read or is damaged, or there is no such language.
    """
    config = config or MediaConfig()
    container = container_of(plan.output)
    items, warnings = planned(plan.source, container, keep_audio=plan.keep_original_audio)
    try:
        _run(arguments(plan, items, config), config)
    except (OutputError, InputError):
        spare = [item for item in items if item.optional]
        if not spare:
            raise
        # A stream that FFmpeg can read but not write again must not cost the user the whole film.
        items = [item for item in items if not item.optional]
        _run(arguments(plan, items, config), config)
        warnings += [f"{item.kind} stream {item.index} ({item.codec}) cannot be copied by FFmpeg" for item in spare]
    finally:
        for ending in _COVERS.values():
            _cover(plan.output, ending).unlink(missing_ok=True)
    _check_streams(plan.output, items)
    if plan.language is not None and probe(plan.output).audio[0].language in (None, "und"):
        code = language_code(plan.language)
        warnings.append(f"{plan.output.suffix} has no place for the language {code}; .mkv and .mp4 have")
    if plan.metadata and not read_marks(plan.output):
        warnings.append(f"{plan.output.suffix} has no place for the marks that AI altered it; .mkv and .mp4 have")
    return warnings


def arguments(plan: RemuxPlan, items: Sequence[Item], config: MediaConfig | None = None) -> list[str]:
    """FFmpeg's whole argument list; nothing is run. Cover art to be attached is written beside the output."""
    container, dub = container_of(plan.output), probe(plan.dub)
    if not dub.audio:
        raise InputError(f"{plan.dub} has no audio stream (it has: {', '.join(dub.streams)})", "give a file with sound")
    source = require_video(plan.source_info)
    end_s = source.start_s + plan.video_duration_s
    late = {"itsoffset": f"{source.origin_s - dub.origin_s:.6f}"}  # brings both clocks together
    picture_in = ffmpeg.input(file_url(plan.picture))
    dub_in = ffmpeg.input(file_url(plan.dub), **_TRUST, **late)
    source_in = ffmpeg.input(file_url(plan.source), **_TRUST)
    copied = [item for item in items if item.encoder != "attach"]
    # ffmpeg-python forgets an input of which nothing is mapped, and tags come from the source in any case: hence a map
    # that never matches.
    wanted = [str(item.index) for item in copied] or ["99999?"]
    streams = [picture_in["v:0"], dub_in["a:0"], *(source_in[each] for each in wanted)]
    options = _picture_options(plan, container) | _dub_options(
        dub.audio[0], container, config or MediaConfig(), source.origin_s, end_s=end_s
    )
    if plan.language is not None:
        options["metadata:s:1"] = f"language={code_in(container.muxer, language_code(plan.language))}"
    options |= _copied_options(copied, config or MediaConfig()) | _clock(source, container)
    if source.ending is not None:  # nothing goes on behind the picture, chapters neither
        options |= _cut_options(copied, source.origin_s + end_s)
    if not container.stamps and (rate := even_rate(plan.picture)) is not None:
        options["r:0"] = f"{rate.numerator}/{rate.denominator}"  # else it calls its clock's ticks pictures
    options |= _attached(items, len(copied), plan.output)
    own_keys = container.tags and not (container.is_mov and any(item.kind == "picture" for item in items))
    if container.is_mov:
        # QuickTime's key list takes any tag, but FFmpeg then leaves cover art out; `_tags` knows another way.
        options["movflags"] = "+faststart+use_metadata_tags" if own_keys else "+faststart"

    def build(tags: dict[str, str]) -> list[str]:
        target = ffmpeg.output(*streams, file_url(plan.output), **options, **tags, f=container.muxer)
        return [str(word) for word in target.compile(cmd=[str(ffmpeg_binary()), *_QUIET])]

    # ffmpeg-python numbers inputs in an order of its own; tags and chapters need those numbers.
    order = [word for flag, word in pairwise(build({})) if flag == "-i"]
    numbers = (order.index(file_url(plan.source)), order.index(file_url(plan.dub)))
    return build(_maps(source.index, copied, *numbers) | _tags(plan, fold=not own_keys))


def even_rate(picture: Path) -> Fraction | None:
    """Pictures a second, where all are equally far apart but for rounding to the file's clock."""
    with open_input(picture) as container:
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None and packet.size)
        steps = {after - before for before, after in pairwise(stamps)}
        if len(steps) == 1 and stream.time_base is not None:
            return 1 / (steps.pop() * stream.time_base)
        rounded = bool(steps) and max(steps) - min(steps) == 1 and min(steps) >= _COARSE
        return stream.average_rate if rounded else None


def dub_encoder(codec: str, container: Container, too_long: float) -> str:
    """What FFmpeg is given for a dub that is `too_long` seconds longer than the picture: "copy", or an encoder."""
    encoder = container.audio_encoder(codec)
    if encoder == "copy" and abs(too_long) > _TOLERANCE and (codec.startswith("pcm_") or codec in _LOSSLESS):
        return codec  # decoded and written again without loss, which lets it be cut and filled to the sample
    return encoder


def _picture_options(plan: RemuxPlan, container: Container) -> dict[str, str]:
    options = {"c:0": "copy", "disposition:0": "default"}
    if container.is_mov and require_video(probe(plan.picture)).codec == "hevc":
        options["tag:0"] = "hvc1"  # what Apple's players insist on
    return options


def _dub_options(
    dub: AudioInfo, container: Container, config: MediaConfig, origin_s: float, *, end_s: float
) -> dict[str, str]:
    encoder = dub_encoder(dub.codec, container, dub.end_s - end_s)
    options = {"c:1": encoder, "disposition:1": "default"}
    if encoder in ("aac", "libopus"):
        options["b:1"] = config.audio_bitrate
    # By timestamps, not with -t: that counts from where the dub's own clock starts, which a raw stream does not tell.
    if encoder != "copy":
        options["filter:1"] = f"apad,atrim=end={origin_s + end_s:.6f}"
    filters = container.audio_filters(dub.codec, encoder, origin_s, origin_s + end_s)
    return options | ({"bsf:1": filters} if filters else {})


def _copied_options(items: Sequence[Item], config: MediaConfig) -> dict[str, str]:
    options: dict[str, str] = {}
    for number, item in enumerate(items, start=2):
        options[f"c:{number}"] = item.encoder
        options[f"disposition:{number}"] = item.disposition
        if item.filters:
            options[f"bsf:{number}"] = item.filters
        if item.encoder in ("aac", "libopus"):
            options[f"b:{number}"] = config.audio_bitrate
    return options


def _cut_options(items: Sequence[Item], end_s: float) -> dict[str, str]:
    """Options that end every stream at a timestamp, and a subtitle that is still shown then."""
    options = {"t": f"{end_s - _EDGE:.6f}"}
    for number, item in enumerate(items, start=2):
        if item.kind == "subtitle":
            options[f"bsf:{number}"] = f"setts=duration=min(DURATION\\,max(0\\,{end_s:.6f}/TB-PTS))"
    return options


def _attached(items: Sequence[Item], n_copied: int, output: Path) -> dict[str, str]:
    """The first cover picture as an attached file, which is how Matroska keeps it."""
    cover = next((item for item in items if item.encoder == "attach"), None)
    if cover is None:
        return {}
    kind = "image/png" if cover.codec == "png" else "image/jpeg"
    ending = _COVERS[kind]
    path = _cover(output, ending)
    path.write_bytes(cover.data)
    place = sum(item.kind == "attachment" for item in items)
    return {
        "attach": file_url(path),
        f"metadata:s:t:{place}": f"filename=cover.{ending}",
        f"metadata:s:{2 + n_copied}": f"mimetype={kind}",
    }


def _cover(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.name}.cover.{ending}")


def _clock(source: VideoInfo, container: Container) -> dict[str, str]:
    """Options that keep timestamps exact."""
    options: dict[str, str] = {}
    if container.is_mov:
        options |= movie_clock(source.time_base.denominator)
    if container.muxer == "mpegts":
        return options | {"mpegts_copyts": "1", "muxdelay": "0", "muxpreload": "0"}
    if source.origin_s:
        options["output_ts_offset"] = f"{-source.origin_s:.6f}"
    return options


def _maps(index: int, items: Sequence[Item], source: int, dub: int) -> dict[str, str]:
    """Where chapters and tags come from: for the file, its picture, the dub, and each other stream."""
    maps = {"map_chapters": str(source), "map_metadata": str(source)}
    maps |= {"map_metadata:s:0": f"{source}:s:{index}", "map_metadata:s:1": f"{dub}:s:a:0"}
    return maps | {f"map_metadata:s:{n}": f"{source}:s:{item.index}" for n, item in enumerate(items, start=2)}


def _tags(plan: RemuxPlan, *, fold: bool) -> dict[str, str]:
    """Our tags on top of the source's; with `fold`, all of them in the comment, which nearly every file can hold."""
    tags = dict.fromkeys(_BRANDS, "") | plan.metadata
    if fold and plan.metadata:
        tags = dict.fromkeys(_BRANDS, "") | {"comment": folded(plan.metadata)}
    with open_input(plan.source) as container:
        theirs = {key.lower(): value for key, value in container.metadata.items()}.get("comment")
    if theirs and "comment" in tags and theirs != tags["comment"]:
        tags["comment"] += f" | {theirs}"  # never strip what was there
    return {f"metadata:g:{i}": f"{key}={value}" for i, (key, value) in enumerate(tags.items())}


def _run(argv: list[str], config: MediaConfig) -> None:
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
        )
    except OSError as error:
        raise SetupError(f"cannot start {argv[0]}: {error.strerror}", "install ffmpeg or imageio-ffmpeg") from error
    try:
        _, stderr = process.communicate()  # reads until the end, so that FFmpeg never waits for us
    except BaseException:  # Ctrl-C or a signal's SystemExit: no child may outlive us
        process.kill()
        process.communicate()
        raise
    if process.returncode == 0:
        return
    said = stderr.decode("utf-8", "replace").strip()
    if damage := _DAMAGE.search(said):
        inputs = [word for flag, word in pairwise(argv) if flag == "-i"]
        raise InputError(
            f"{inputs[int(damage[1])].removeprefix('file:')} is damaged: {damage[2]}",
            "get the file again; where only its old sound is damaged, leave that out with --original-audio drop",
        )
    lines = said.splitlines()[-config.error_lines :]
    words = "\n".join(lines) or f"exit code {process.returncode}"
    if "No space left on device" in words:
        raise ResourceError("the disk is full", "free some space, or write to another disk")
    raise OutputError(f"FFmpeg could not write the output:\n{words}", "try another container, such as .mkv")


def _check_streams(output: Path, items: Sequence[Item]) -> None:
    made = list(probe(output).streams)
    wanted = ["video", "audio", *(item.kind for item in items)]
    for kind in ("video", "audio", "subtitle"):
        if made.count(kind) != wanted.count(kind):
            raise OutputError(
                f"the output has {made.count(kind)} {kind} streams, {wanted.count(kind)} were planned",
                "try another container, such as .mkv",
            )
