"""Damaged pictures that `--on-damage skip` replaces: their positions and replacements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av

from lipdub.media.probe import VideoInfo


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Damaged pictures in a row, or a place at which pictures are missing and the one before stays on screen."""

    first_s: float  # when the first is shown, on the file's timeline
    last_s: float  # when the last one is
    what: str  # what the decoder said of the first
    replaced: int = 0  # pictures in whose place the one before is shown
    passed: int = 0  # pictures that follow up to the next key frame, built on damaged ones: shown as they are decoded
    missing: int = 0  # pictures that the decoder refused: the one before is shown for longer


def damage_text(damage: Damage) -> str:
    """Sentence for the user about a damaged place."""
    when = f"{damage.first_s:.3f} s"
    if damage.last_s > damage.first_s:
        when = f"{when} to {damage.last_s:.3f} s"
    parts = []
    if damage.replaced:
        parts.append(f"{damage.replaced} damaged frame{'s' if damage.replaced > 1 else ''} replaced by the one before")
    if damage.passed:
        parts.append(f"{damage.passed} shown as decoded, which build on damaged ones")
    if damage.missing:
        frames = f"{damage.missing} frames are" if damage.missing > 1 else "1 frame is"
        parts.insert(0, f"{frames} missing, and the one before stays on screen")
    return f"damage at {when} ({damage.what}): {', '.join(parts) or 'frames are missing'}"


def joined(places: Iterable[Damage], gap_s: float) -> tuple[Damage, ...]:
    """Damage with what follows within `gap_s` put together."""
    rows: list[Damage] = []
    for each in sorted(places, key=lambda one: one.first_s):
        before = rows[-1] if rows else None
        if before is not None and each.first_s - before.last_s <= gap_s:
            rows[-1] = Damage(
                first_s=before.first_s,
                last_s=max(before.last_s, each.last_s),
                what=before.what,
                replaced=before.replaced + each.replaced,
                passed=before.passed + each.passed,
                missing=before.missing + each.missing,
            )
        else:
            rows.append(each)
    return tuple(rows)


def copies_of(picture: av.VideoFrame, info: VideoInfo) -> Iterator[av.VideoFrame]:
    """Endless copies of a picture, with its flags, but without its closed captions.

    All share its memory until one is written to, which is the only way that keeps a picture's interlace flags. The
    first is taken when this is called, so that `picture` may be written to afterwards.
    """
    graph = av.filter.Graph()
    width, height = picture.width, picture.height
    source = graph.add_buffer(width=width, height=height, format=picture.format, time_base=info.time_base)
    loop = graph.add("loop", "loop=-1:size=1")
    bare = graph.add("sidedata", "mode=delete:type=A53_CC")
    sink = graph.add("buffersink")
    for first, second in ((source, loop), (loop, bare), (bare, sink)):
        first.link_to(second)
    graph.configure()
    graph.vpush(picture)

    def pull() -> Iterator[av.VideoFrame]:
        while True:
            yield graph.vpull()

    return pull()
