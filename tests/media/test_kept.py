"""Everything that FFmpeg shows of a source is in the output as it was, or told: read here from `ffmpeg -i`.

`lipdub.media.kept` finds its differences otherwise; what it overlooks is seen here.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lipdub.media.boxes import insert_boxes
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe, require_video

PICTURE = "-f lavfi -i testsrc2=s=64x48:r=25:d=0.4"
SOUND = "-f lavfi -i sine=440:r=48000:d=0.4"
H264 = "-c:v libx264 -preset ultrafast"
WHEN = "2019-05-06T07:08:09.000000Z"
NOTES = f"""\
;FFMETADATA1
title=A title
artist=Somebody
comment=their words
track=1
copyright=C
location=+48.1000-011.5000/
creation_time={WHEN}
com.apple.quicktime.model=Phone
[CHAPTER]
TIMEBASE=1/1000
START=0
END=200
title=One
[CHAPTER]
TIMEBASE=1/1000
START=200
END=400
title=Two
"""
STREAMS = (
    "-metadata:s:v:0 handler_name=Cam -metadata:s:v:0 title=Take -metadata:s:v:0 language=fra -disposition:v:0 original"
    " -metadata:s:a:0 handler_name=Mic -metadata:s:a:0 title=Talk -metadata:s:a:0 language=eng"
    " -disposition:a:0 default+comment -metadata:s:s:0 language=spa -metadata:s:s:0 title=Sub"
    " -disposition:s:0 forced+hearing_impaired"
)
FULL = f"{PICTURE} {SOUND} -i s.srt -i notes.txt -map 0:v -map 1:a -map 2 -map_metadata 3 -map_chapters 3 {STREAMS}"
BOTH = f"{PICTURE} {SOUND} -map 0:v -map 1:a"
ATTACHED = (
    "-attach s.srt -metadata:s:3 mimetype=text/plain -attach c.png -metadata:s:4 mimetype=image/png"
    " -metadata:s:v:0 BPS=1234 -metadata:s:a:0 NUMBER_OF_BYTES=77"
)
HDR = (
    "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084"
    " -colorspace bt2020nc -x265-params log-level=none:master-display="
    "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400:chromaloc=2"
)
SOURCES = {  # name of the file -> how FFmpeg makes it
    "phone.mp4": f"{FULL} {H264} -c:a aac -c:s mov_text -movflags +use_metadata_tags -timecode 01:02:03:04",
    "studio.mov": f"{FULL} -c:v prores_ks -c:a pcm_s24le -c:s mov_text -timecode 10:00:00:00 -metadata:s:v reel_name=R",
    "library.mkv": f"{FULL} {H264} -c:a aac -c:s srt {ATTACHED}",
    "cover.mp4": f"{PICTURE} {SOUND} -i c.png -map 0:v -map 1:a -map 2 {H264} -c:a aac -c:v:1 copy"
    " -disposition:v:1 attached_pic -metadata title=T",
    "browser.webm": f"{BOTH} -c:v libvpx-vp9 -c:a libopus -metadata title=W",
    "air.ts": f"{BOTH} {H264} -c:a mp2 -metadata service_name=S -metadata service_provider=P -mpegts_service_id 7"
    " -metadata:s:a language=eng -disposition:a:0 hearing_impaired",
    "camera.m2ts": f"{BOTH} -c:v mpeg2video -flags +ilme+ildct -vf setfield=bff -aspect 16:9 -c:a ac3",
    "old.avi": f"{BOTH} -c:v mpeg4 -c:a mp3 -metadata title=A -metadata:s:a:0 title=Snd",
    "fields.mp4": f"{BOTH} {H264} -vf setfield=bff -flags +ilme+ildct -x264-params bff=1 -c:a aac",
    "stereo.mkv": f"{BOTH} {H264} -metadata:s:v stereo_mode=left_right -c:a aac",
    "packed.mp4": f"{BOTH} {H264} -x264-params frame-packing=3 -c:a aac",
    "hdr.mkv": f"{BOTH} {HDR} -c:a aac",
    "turned.mp4": f"-display_rotation 90 {BOTH} {H264} -c:a aac",
    "chroma.mov": f"{BOTH} -c:v mjpeg -chroma_sample_location center -c:a pcm_s16le -metadata:s:v language=fra",
    "web.flv": f"{BOTH} -c:v flv1 -c:a mp3 -ar 44100 -metadata title=F",
    "office.wmv": f"{BOTH} -c:v wmv2 -c:a wmav2 -metadata title=W -metadata author=X",
    "tape.mxf": f"{BOTH} -c:v mpeg2video -c:a pcm_s16le -timecode 10:00:00:00 -metadata company_name=C",
    "disc.mpg": f"{BOTH} -c:v mpeg2video -c:a mp2",
}
PAIRS = [
    "phone.mp4 mp4",
    "phone.mp4 mkv",
    "studio.mov mov",
    "studio.mov mp4",
    "library.mkv mkv",
    "library.mkv mp4",
    "library.mkv webm",
    "library.mkv ts",
    "cover.mp4 mp4",
    "browser.webm webm",
    "air.ts ts",
    "camera.m2ts ts",
    "old.avi mp4",
    "fields.mp4 mkv",
    "stereo.mkv mkv",
    "stereo.mkv mp4",
    "hdr.mkv mp4",
    "turned.mp4 mkv",
    "chroma.mov mov",
    "web.flv mp4",
    "office.wmv mkv",
    "tape.mxf mov",
]
MEANT = {  # of the file or its encoders, and what is no property: never told
    *("encoder", "duration", "major_brand", "minor_version", "compatible_brands", "vendor_id", "cpb properties"),
    "default",  # the dub is; and the picture, which players would switch off
}


def ffmpeg(*words: object) -> str:
    done = subprocess.run([ffmpeg_binary(), "-hide_banner", "-y", *map(str, words)], capture_output=True, check=False)
    return done.stderr.decode("utf-8", "replace")


def make(folder: Path, name: str) -> Path:
    (folder / "notes.txt").write_text(NOTES)
    (folder / "s.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nhello\n")
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=32x24", "-frames:v", "1", folder / "c.png")
    words = [folder / word if word in ("notes.txt", "s.srt", "c.png") else word for word in SOURCES[name].split()]
    said = ffmpeg("-v", "error", *words, folder / name)
    assert (folder / name).exists(), said
    return folder / name


def shown(path: Path) -> dict[tuple[str, ...], str]:
    """What FFmpeg shows: (stream, what) -> value; streams are "file", "video 0", "audio 0", ... in order."""
    place, block, numbers = "file", "", Counter[str]()
    found: dict[tuple[str, ...], str] = {}
    for line in ffmpeg("-v", "verbose", "-i", path).splitlines():
        if header := re.match(r"\s+Stream #0:(\d+)(?:\[\w+\])?(?:\((\w+)\))?: (\w+): (.*)", line):
            _, language, kind, rest = header.groups()
            kind = "Picture" if "(attached pic)" in rest else kind
            place = f"{kind.lower()} {numbers[kind]}"
            numbers[kind] += 1
            block = ""
            found[place, "there"] = "yes"
            found[place, "language"] = language if language not in (None, "und") else ""
            codec, *parts = re.split(r", (?![^(]*\))", rest)
            found[place, "codec"] = codec.split()[0]
            for part in parts:
                if form := re.fullmatch(r"((?:yuv|gray|gbr)\w+)(?:\(([^)]*)\))?", part):
                    found[place, "pixel format"] = form[1]
                    for word in re.split(", ", form[2] or ""):
                        name = "range" if word in ("tv", "pc") else "order of fields" if "first" in word else ""
                        found[place, name or ("chroma" if word in CHROMA else f"word {word}")] = word
                elif "[SAR" in part:
                    found[place, "aspect"] = re.search(r"\[SAR (\S+)", part)[1]
                elif part.endswith(" Hz"):
                    found[place, " hz"] = part
                elif re.fullmatch(r"mono|stereo|\d channels|[\d.]+(\(side\))?", part):
                    found[place, "channels"] = part
            for flag in re.findall(r"\(([a-z ]+)\)", rest):
                if flag in FLAGS:
                    found[place, "flag", flag.replace(" ", "_")] = "yes"
        elif re.match(r"\s+Program \d+", line):
            place, block = "program", ""
            found[place, "number"] = line.split()[1]
        elif re.match(r"\s+Chapter #0:(\d+): (.*)", line):
            place, block = "chapter", ""
            found["chapter", line.strip()] = "yes"
        elif line.strip() in ("Metadata:", "Side data:"):
            block = "side data" if "Side" in line else "tag"
        elif block and (pair := re.match(r"\s{4,}([^:]+?)\s*: (.+)", line)):
            found[place, block, pair[1].lower()] = pair[2]
        elif not line.startswith("    "):
            block = ""
    return found


FLAGS = ("default", "dub", "original", "comment", "lyrics", "karaoke", "forced", "hearing impaired", "captions")
CHROMA = ("left", "center", "topleft", "top", "bottomleft", "bottom")
WORDS = {
    "there": ("stream {}", "track"),
    "codec": ("became",),
    "chroma": ("place of chroma",),
    "number": ("program",),
} | {name: ("program",) for name in ("service_name", "service_provider")}


def untold(source: Path, output: Path, told: list[str]) -> list[str]:
    """Differences of which nothing was told."""
    said = " ".join(told).lower()
    old, new = shown(source), {}
    for (place, *what), value in shown(output).items():  # without the dub
        kind, _, number = place.partition(" ")
        if kind == "audio":
            place = f"audio {int(number) - 1}"
        new[(place, *what)] = value
    found = []
    for key, value in old.items():
        place, *what = key
        name = what[-1]
        other = new.get(key, "")
        same = (
            value == (other or "1:1") or value == other or value.split(";")[0] == other.split(";")[0] or name in MEANT
        )
        if same or not value or value == "unknown" or name == "filename" or (place == "chapter" and "chapter" in said):
            continue
        if (place, "there") in old and (place, "there") not in new and what != ["there"]:
            continue  # the whole stream is
        if name == "comment" and value in other:
            continue
        words = WORDS.get(name, (name.lower(), name.replace("_", " ")))
        if not any(word.format("") in said for word in words):
            found.append(f"{' '.join(key)}: {value} became {other}")
    return found


@pytest.fixture(scope="module")
def dub_of(
    tmp_path_factory: pytest.TempPathFactory, dubbed: Callable[..., Any]
) -> Callable[[str], tuple[Path, Path, list[str]]]:
    """For a pair: the source, its dub, and what was told; made once."""

    @cache
    def made(pair: str) -> tuple[Path, Path, list[str]]:
        name, suffix = pair.split()
        folder = tmp_path_factory.mktemp("pair")
        source, output = make(folder, name), folder / f"out.{suffix}"
        dub = dubbed(source, tone(folder), output)
        return source, output, dub.told + dub.changed

    return made


def tone(folder: Path) -> Path:
    ffmpeg("-v", "error", *SOUND.split(), folder / "d.wav")
    return folder / "d.wav"


@pytest.mark.parametrize("pair", PAIRS)
def test_what_differs_is_told(dub_of, pair: str) -> None:
    source, output, told = dub_of(pair)
    before, after = (
        Counter(place.split()[0] for place, what, *_ in shown(path) if what == "there") for path in (source, output)
    )
    assert after["video"] == before["video"] == 1 and after["audio"] == before["audio"] + 1
    assert untold(source, output, told) == []


CARRIED = [
    ("phone.mp4 mp4", "file", "tag", "creation_time", f"{WHEN};{WHEN}"),  # FFmpeg shows both places that have it
    ("phone.mp4 mp4", "audio 1", "tag", "creation_time", WHEN),
    ("phone.mp4 mp4", "audio 1", "tag", "handler_name", "Mic"),
    ("phone.mp4 mp4", "audio 1", "tag", "name", "Talk"),
    ("library.mkv mkv", "video 0", "flag", "original", "yes"),
    ("phone.mp4 mkv", "file", "tag", "creation_time", WHEN),
    ("phone.mp4 mkv", "audio 1", "tag", "title", "Talk"),
    ("studio.mov mov", "data 0", "tag", "reel_name", "R"),
    ("air.ts ts", "program", "tag", "service_name", "S"),
    ("air.ts ts", "program", "number", "7"),
    ("camera.m2ts ts", "video 0", "order of fields", "bottom first"),
    ("camera.m2ts ts", "video 0", "range", "tv"),
    ("chroma.mov mov", "video 0", "chroma", "center"),
    ("hdr.mkv mp4", "video 0", "chroma", "topleft"),
    ("stereo.mkv mp4", "video 0", "side data", "stereo 3d", "side by side, view: packed, primary eye: none"),
]


@pytest.mark.parametrize("expected", CARRIED, ids=" ".join)
def test_what_the_muxer_would_drop_is_carried(dub_of, expected: tuple[str, ...]) -> None:
    pair, *key, value = expected
    assert shown(dub_of(pair)[1])[tuple(key)] == value


def test_the_last_picture_lasts_as_long_where_the_source_tells_no_lengths(dub_of) -> None:
    assert require_video(probe(dub_of("web.flv mp4")[1])).duration_s == pytest.approx(0.4, abs=0.002)


def box(kind: bytes, *content: bytes, full: bool = True) -> bytes:
    data = bytes(4 * full) + b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def spherical(turn: tuple[int, int, int], shape: bytes) -> bytes:
    """As Google's Spherical Video V2 has it; angles in degrees."""
    head = box(b"prhd", struct.pack(">3i", *(angle << 16 for angle in turn)))
    return box(b"sv3d", box(b"svhd", b"x\0"), box(b"proj", head, shape, full=False), full=False)


SHAPES = {
    "equirectangular (90.000000/-10.000000/5.000000)": spherical((90, -10, 5), box(b"equi", bytes(16))),
    "cubemap [pad 7]": spherical((0, 0, 0), box(b"cbmp", struct.pack(">2I", 0, 7))),
    "tiled equirectangular": spherical((0, 0, 0), box(b"equi", struct.pack(">4I", 0, 0, 1 << 30, 1 << 30))),
}
EYES = {"top and bottom": b"\1", "side by side": b"\2", "": b""}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize(("eyes", "shape"), [*zip(EYES, SHAPES, strict=True)])
def test_marks_of_stereoscopic_and_spherical_video_are_carried(
    dubbed: Callable[..., Any], tmp_path: Path, suffix: str, eyes: str, shape: str
) -> None:
    source, output = tmp_path / "a.mp4", tmp_path / f"out.{suffix}"
    ffmpeg("-v", "error", *PICTURE.split(), *H264.split(), source)
    boxes = (box(b"st3d", EYES[eyes]) if eyes else b"") + SHAPES[shape]
    insert_boxes(source, boxes)
    before = shown(source)
    dub = dubbed(source, tone(tmp_path), output)
    told = dub.told + dub.changed
    after = shown(output)
    assert after["video 0", "side data", "spherical mapping"].startswith(shape)
    assert after["video 0", "side data", "spherical mapping"] == before["video 0", "side data", "spherical mapping"]
    assert after.get(("video 0", "side data", "stereo 3d"), "").startswith(eyes)
    assert not [each for each in told if "pherical" in each or "tereo" in each]
    if suffix in ("mp4", "mov"):
        data = output.read_bytes()
        assert data.count(b"sv3d") == 1 and boxes[-16:] in data  # the same projection, to the byte
        assert b"vexu" not in data  # which says that there are two pictures, one for each eye


def test_old_marks_of_spherical_video_become_new_ones(dubbed: Callable[..., Any], tmp_path: Path) -> None:
    """Version 1: XML in a `uuid` box of the track."""
    source = tmp_path / "a.mp4"
    ffmpeg("-v", "error", *PICTURE.split(), *H264.split(), source)
    marks = {"Spherical": "true", "Stitched": "true", "StitchingSoftware": "X", "ProjectionType": "equirectangular"}
    marks |= {"StereoMode": "top-bottom"}
    words = "".join(f"<GSpherical:{key}>{value}</GSpherical:{key}>" for key, value in marks.items())
    xml = f"<rdf:SphericalVideo>{words}</rdf:SphericalVideo>".encode()
    mark = box(b"uuid", bytes.fromhex("ffcc8263f8554a938814587a02521fdd"), xml, full=False)
    data = bytearray(source.read_bytes())
    for kind in (b"trak", b"moov"):  # at the end of the only track, before what follows it
        at = data.index(kind) - 4
        length = int.from_bytes(data[at : at + 4], "big")
        if kind == b"trak":
            data[at + length : at + length] = mark
        data[at : at + 4] = (length + len(mark)).to_bytes(4, "big")
    source.write_bytes(data)
    assert shown(source)["video 0", "side data", "spherical mapping"].startswith("equirectangular")
    dubbed(source, tone(tmp_path), tmp_path / "out.mp4")
    after = shown(tmp_path / "out.mp4")
    assert after["video 0", "side data", "spherical mapping"].startswith("equirectangular")
    assert after["video 0", "side data", "stereo 3d"].startswith("top and bottom")


def test_boxes_that_ffmpeg_does_not_know_are_told(dubbed: Callable[..., Any], tmp_path: Path) -> None:
    """As cameras write them: settings among the user data, XMP in a `uuid` box."""
    source = tmp_path / "a.mp4"
    ffmpeg("-v", "error", *PICTURE.split(), *H264.split(), source)
    data, uuid = source.read_bytes(), bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    at = data.index(b"moov") - 4
    more = box(b"udta", box(b"LENS", b"50mm", full=False), full=False)
    index = struct.pack(">I", len(data) - at + len(more)) + data[at + 4 :] + more
    source.write_bytes(data[:at] + index + box(b"uuid", uuid, b"<xmp/>", full=False))
    dub = dubbed(source, tone(tmp_path), tmp_path / "out.mp4")
    told = dub.told + dub.changed
    assert [each for each in told if "box" in each] == [f"box uuid {uuid.hex()} of the file", "box LENS of the file"]


def test_the_matrix_that_rgb_gets_is_told(dubbed: Callable[..., Any], tmp_path: Path) -> None:
    ffmpeg(*PICTURE.split(), "-c:v", "libx264rgb", tmp_path / "a.mkv")
    changed = dubbed(tmp_path / "a.mkv", tone(tmp_path), tmp_path / "o.mkv").changed
    assert "colour matrix of the picture: RGB became 5" in changed


@pytest.mark.parametrize("suffix", ["ts", "avi"])
def test_marks_that_a_container_cannot_hold_are_told(dubbed: Callable[..., Any], tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "a.mp4"
    ffmpeg("-v", "error", *PICTURE.split(), *H264.split(), source)
    insert_boxes(source, box(b"st3d", b"\2") + spherical((0, 0, 0), box(b"equi", bytes(16))))
    dub = dubbed(source, tone(tmp_path), tmp_path / f"out.{suffix}")
    told = dub.told + dub.changed
    for mark in ("Spherical Mapping of the picture: equirectangular", "Stereo 3D of the picture: side by side"):
        assert any(each.startswith(mark) for each in told), told
