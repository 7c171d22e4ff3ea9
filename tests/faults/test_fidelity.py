"""Streams, tags, chapters and dispositions before and after a dub, for pairs of container and codec: docs/fidelity.md.

`WRITE_DOCS=1 python -m pytest tests/faults/test_fidelity.py` writes the page anew.
"""

from __future__ import annotations

import difflib
import os
from fractions import Fraction
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import av
import pytest

from lipdub.media.disclosure import disclosure_tags
from lipdub.media.inspect import inspect_file
from lipdub.media.mux import RemuxPlan, remux
from lipdub.media.probe import is_timeline, probe, require_video
from lipdub.media.streams import plan_streams
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"
MS, NTSC = Fraction(1, 1000), Fraction(1, 30000)
PAIRS = {  # source, encoder, pixel format, clock, output
    "mp4, H.264": ("a.mp4", "libx264", "yuv420p", NTSC, "b.mp4"),
    "mp4, HEVC 10 bit": ("a.mp4", "libx265", "yuv420p10le", NTSC, "b.mp4"),
    "mov, ProRes": ("a.mov", "prores_ks", "yuv422p10le", NTSC, "b.mov"),
    "mov, H.264 4:2:2": ("a.mov", "libx264", "yuv422p", NTSC, "b.mov"),
    "mkv, H.264": ("a.mkv", "libx264", "yuv420p", MS, "b.mkv"),
    "mkv, AV1": ("a.mkv", "libsvtav1", "yuv420p", MS, "b.mkv"),
    "webm, VP9": ("a.mkv", "libvpx-vp9", "yuv420p", MS, "b.webm"),
    "ts, H.264": ("a.ts", "libx264", "yuv420p", Fraction(1, 90000), "b.ts"),
}
MEANT = (  # what a changed line may be about
    " audio ",  # the new track, and the old ones no longer default
    "tag comment",
    "tag digital_source_type",
    "tag lipdub_",
    "tag encoder",
)
HEAD = """# What a dub changes in a file

Made by `tests/faults/test_fidelity.py`: a clip with sound, chapters and a title (where the container holds them) is
written again as `lipdub sync` writes it, with no mouth changed. Every line of the listing before and after is compared;
lines that begin with - went, with + came, with ! are warnings. The rest is unchanged: size, pixel format, shape of the
pixels, colour tags, timestamps, chapters, title, languages.

`tests/media/test_kept.py` compares 22 more pairs by all that `ffmpeg -i` shows of them: tags, flags, side data, order
of fields, place of chroma, programs, tracks. What differs there is in the report's `changes`, except for who wrote a
file and how (`encoder`, brands, lengths, bit rates), and for the dub being the default in place of the old sound.
`python -m benchmarks fidelity` does the same by ffprobe for a folder of clips.
"""


def makers() -> ModuleType:
    """The makers of clips of the media tests."""
    spec = spec_from_file_location("media_makers", Path(__file__).parents[1] / "media" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listing(path: Path) -> list[str]:
    """A file, line by line."""
    info, found = probe(path), inspect_file(path)
    video = require_video(info)
    with VideoReader(path, video) as reader:
        times = [frame.time_s for frame in reader]
    if not is_timeline(found.format):  # a clock that may start anywhere
        times = [time - times[0] for time in times]
    lines = [f"container {found.format}, {found.chapters} chapters"]
    lines += [f"stream {each.kind} {each.codec}, {each}" for each in found.streams if each.kind != "video"]
    lines += [
        f"stream video {video.codec}, {video.width}x{video.height}, {video.pix_fmt}, pixels {video.sar}",
        f"colour {video.color_primaries} {video.color_trc} {video.colorspace} range {video.color_range}",
        f"pictures {len(times)}: {' '.join(f'{time:.3f}' for time in times)}",
    ]
    with av.open(str(path)) as container:
        lines += [f"tag {key.lower()}: {value[:90]}" for key, value in sorted(container.metadata.items())]
        for each in container.chapters():
            start_s = float(each["start"] * each["time_base"])
            lines.append(f"chapter {each['metadata'].get('title', '')} at {start_s:.3f} s")
    return lines


def compared(folder: Path, pair: str) -> list[str]:
    """The lines that went and came."""
    name, codec, pix_fmt, clock, target = PAIRS[pair]
    source, output, make = folder / name, folder / target, makers()
    rate = Fraction(30000, 1001) if clock == NTSC else Fraction(25)
    plain = source.suffix == ".ts"
    make.make_clip(
        source,
        codec=codec,
        pix_fmt=pix_fmt,
        rate=rate,
        time_base=clock,
        size=(128, 96),
        sar=Fraction(4, 3),
        n_audio=1,
        chapters=not plain,
        title=None if plain else "A title",
    )
    info = probe(source)
    video = require_video(info)
    dub = make.make_sound(folder / "dub.flac", 0.4, codec="flac")
    with VideoReader(source, video) as reader, VideoWriter(folder / "p", video, output=output) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    streams = plan_streams(source, dub, output)
    plan = RemuxPlan(
        picture=folder / "p",
        source=info,
        dub=dub,
        output=output,
        video_duration_s=video.duration_s,
        streams=streams,
        metadata=disclosure_tags("1.2.3", "0123abcd"),
    )
    warnings = [f"! {warning}" for warning in (*streams.losses, *remux(plan))]
    lines = difflib.unified_diff(listing(source), listing(output), lineterm="", n=0)
    return warnings + [line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@"]


@pytest.mark.parametrize("pair", PAIRS)
def test_only_what_is_meant_to_differ_differs(pair: str, tmp_path: Path) -> None:
    found = compared(tmp_path, pair)
    assert any("+stream audio" in line for line in found), "the dub is there"
    strange = [line for line in found if line[0] != "!" and not any(word in line for word in MEANT)]
    if pair.startswith("webm"):  # from Matroska: the container is another one
        strange = [line for line in strange if "container" not in line]
    assert strange == []
    block = f"## {pair}\n\n```\n" + "\n".join(found) + "\n```\n"
    if os.environ.get("WRITE_DOCS"):
        first = pair == next(iter(PAIRS))
        text = HEAD if first else PAGE.read_text(encoding="utf-8")
        PAGE.write_text(f"{text}\n{block}", encoding="utf-8")
    assert f"## {pair}\n" in PAGE.read_text(encoding="utf-8")
