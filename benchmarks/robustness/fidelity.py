"""Is everything but the mouth still there, or reported? By frames, timestamps and ffprobe (good: no difference).

    python -m benchmarks fidelity CLIPS_DIR -o OUT [--limit N] [--seconds S] [--sound FILE] [--ffprobe PATH]

Checked on the finished file: number of frames, every timestamp, coded size, rotation; and of what `ffprobe -show_format
-show_streams -show_chapters -show_programs` says of the source, whatever the output has not, or has otherwise, must be
named in the report's `changes` or warnings. With --seconds, clips are first cut with `-c copy`. Clips without a face
are counted and left out. Exits 1 if anything differs untold. A line per dub goes to OUT/fidelity.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from lipdub import SyncOptions, sync
from lipdub.errors import LipdubError, NoFaceError
from lipdub.media.ffmpeg import ffmpeg_binary

SUFFIXES = {".mp4", ".mpg", ".avi", ".mkv", ".mov"}
CLOCK_S = 1e-3  # timestamps may differ by the target container's clock
# What is no property of the film: the container's and encoders' own numbers, lengths (checked on pictures and by `sync`
# on sounds), names of those who wrote the file.
MEANT = frozenset(
    {"index", "id", "filename", "format_name", "format_long_name", "nb_streams", "nb_programs", "probe_score", "size"}
    | {"bit_rate", "max_bit_rate", "duration", "duration_ts", "start_pts", "start_time", "time_base", "nb_frames"}
    | {"profile", "level", "refs", "has_b_frames", "is_avc", "nal_length_size", "extradata_size", "codec_long_name"}
    | {"codec_tag", "codec_tag_string", "bits_per_raw_sample", "bits_per_sample", "sample_fmt", "avg_frame_rate"}
    | {"r_frame_rate", "quarter_sample", "divx_packed", "coded_width", "coded_height", "codec_time_base"}
    | {"encoder", "duration", "major_brand", "minor_version", "compatible_brands", "dmix_mode", "loro_cmixlev"}
    | {
        "max_bitrate",
        "min_bitrate",
        "avg_bitrate",
        "buffer_size",
        "vbv_delay",
        "display_aspect_ratio",
        "initial_padding",
    }
)
WORDS = {  # how the report names what ffprobe names otherwise
    "codec_name": "became",
    "pix_fmt": "pixel format",
    "color_range": "range",
    "color_primaries": "colour primaries",
    "color_transfer": "colour transfer",
    "color_space": "colour matrix",
    "chroma_location": "place of chroma",
    "field_order": "order of fields",
    "sample_aspect_ratio": "pixel aspect",
    "channel_layout": "channels",
    "sample_rate": " hz",
    "service_name": "program",
    "service_provider": "program",
}


def facts(path: Path) -> dict[str, Any]:
    """What must not change."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size = (stream.codec_context.width, stream.codec_context.height)
        frames = list(container.decode(stream))
        times = [float(frame.pts * frame.time_base) for frame in frames if frame.pts is not None]
        rotation = frames[0].rotation if frames else 0
    first = min(times, default=0.0)
    return {"size": size, "rotation": rotation, "frames": len(frames), "times": sorted(time - first for time in times)}


def differences(source: dict[str, Any], dub: dict[str, Any]) -> list[str]:
    """What of the picture is not as it was, in words."""
    found = [key for key in ("size", "rotation", "frames") if source[key] != dub[key]]
    worst = max((abs(a - b) for a, b in zip(source["times"], dub["times"], strict=False)), default=0.0)
    if worst > CLOCK_S:
        found.append(f"timestamps off by up to {1000 * worst:.1f} ms")
    return found


def shown(path: Path, ffprobe: str) -> dict[tuple[str, str], list[str]]:
    """What ffprobe says: (place, key) -> values; places are "file", "video 0", "audio 0", ... in order."""
    asked = ("-show_format", "-show_streams", "-show_chapters", "-show_programs")
    done = subprocess.run([ffprobe, "-v", "error", *asked, "-of", "json", path], capture_output=True, check=True)
    said = json.loads(done.stdout)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    places: list[tuple[str, Any]] = [("file", said["format"])]
    places += [
        ("chapter", {key: each.get(key) for key in ("start_time", "end_time", "tags")}) for each in said["chapters"]
    ]
    places += [("program", each.get("tags", {})) for each in said.get("programs", [])]
    counts: dict[str, int] = defaultdict(int)
    for stream in said["streams"]:
        kind = "picture" if stream["disposition"].get("attached_pic") else stream["codec_type"]
        places.append((f"{kind} {counts[kind]}", stream))
        counts[kind] += 1
    for place, values in places:
        for key, value in _flat(values):
            found[place, key.lower()].append(value)
    return found


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for each in value:
            yield from _flat(each, name)
    elif value is not None:
        yield name, str(value)


def untold(before: Path, after: Path, told: Sequence[str], ffprobe: str) -> list[str]:
    """What of the source the output has not, or has otherwise, without a word."""
    said = " ".join(told).lower()
    old, new = shown(before, ffprobe), {}
    for (place, key), value in shown(after, ffprobe).items():
        kind, _, number = place.partition(" ")
        new[f"audio {int(number) - 1}" if kind == "audio" else place, key] = value  # the first is the dub
    there = {place for place, _ in new}
    found = [
        f"{place} is gone" for place in sorted({place for place, _ in old} - there) if place.split()[0] not in said
    ]
    for (place, key), value in old.items():
        last = key.rpartition(".")[2]
        other = new.get((place, key), [])
        if (
            place not in there
            or last in MEANT
            or value == other
            or value[0] in ("unknown", "und", "[0][0][0][0]", "FFMP", "1:1", "CPB properties")
        ):
            continue
        if last == "default" and place.split()[0] in ("video", "audio"):  # the dub is now
            continue
        if last == "comment" and other and value[0] in other[0]:
            continue
        if last == "channel_layout" and value[0] in ("mono", "stereo") and not other:  # as the number of channels says
            continue
        word = WORDS.get(last, "side data" if "side_data" in key else last)
        if word not in said and last.replace("_", " ") not in said:
            found.append(f"{place} {key}: {', '.join(value)} became {', '.join(other) or 'nothing'}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0, help="at most so many clips of each folder")
    parser.add_argument("--seconds", type=float, help="of each clip, cut with -c copy")
    parser.add_argument("--sound", type=Path, help="dub for all clips; else each gets its own sound, where it has any")
    parser.add_argument("--ffprobe", default="ffprobe")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    clips: list[Path] = []
    for folder in sorted({path.parent for path in args.clips.rglob("*") if path.suffix in SUFFIXES}):
        own = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        clips += own[: args.limit or len(own)]
    bad = faceless = 0
    with (args.output / "fidelity.jsonl").open("w", encoding="utf-8") as log:
        for clip in clips:
            sound = args.sound or clip
            source, dub = clip, args.output / f"dub{clip.suffix if clip.suffix != '.mpg' else '.mp4'}"
            if args.seconds is not None:
                source = args.output / f"cut{clip.suffix}"
                argv = [ffmpeg_binary(), "-v", "error", "-y", "-i", clip, "-t", str(args.seconds), "-map", "0"]
                subprocess.run([*argv, "-ignore_unknown", "-c", "copy", source], check=True)
            row: dict[str, Any] = {"clip": str(clip.relative_to(args.clips)), "sound": sound.name}
            try:
                report = sync(source, sound, dub, SyncOptions(overwrite=True))
                told = [*report.changes, *report.warnings]
                row |= {"dubbed": report.dubbed, "frames": report.frames, "fps": report.fps, "told": told}
                row["differences"] = differences(facts(source), facts(dub)) + untold(source, dub, told, args.ffprobe)
            except NoFaceError:
                faceless += 1
                row["differences"] = []
            except LipdubError as error:
                row["differences"] = [f"{type(error).__name__}: {error.what}"]
            bad += bool(row["differences"])
            log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    print(f"{len(clips)} dubs ({faceless} without a face), {bad} with differences")
    return int(bad > 0)
