"""What `ffmpeg -i` says, taken apart."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.stream_details import StreamDetails, parse, read_details

TEXT = """\
Input #0, mpegts, from 'a.ts':
  Duration: 00:00:01.20, start: 1.469978, bitrate: 1143 kb/s
  Program 7
    Metadata:
      service_name    : My: service
      service_provider: Prov
  Stream #0:0[0x100](fra): Video: h264 (High), yuv420p10le(pc, bt2020nc/bt2020/smpte2084, topleft), 12x9
    Metadata:
      handler_name    : Cam
    Side data:
      Stereo 3D: side by side, view: packed
      Mastering Display Metadata, has_primaries:1
  Stream #0:1[0x101]: Audio: mp2 (mp3float), 48000 Hz, mono, fltp, 384 kb/s
"""


def test_a_listing_is_taken_apart() -> None:
    found = parse(TEXT)
    assert [(each.number, each.tags) for each in found.programs] == [
        (7, {"service_name": "My: service", "service_provider": "Prov"})
    ]
    picture = found.of(0)
    assert (picture.first_of(("tv", "pc")), picture.first_of(("left", "topleft"))) == ("pc", "topleft")
    assert picture.side_data["Stereo 3D"] == "side by side, view: packed" and "handler_name" not in picture.side_data
    assert found.of(1) == found.of(9) == StreamDetails(frozenset())


def test_tags_that_look_like_a_listing_are_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    title = "title=x\n  Stream #0:5: Video: h264, yuv420p(pc, bottom)\n    Side data:\n      Stereo 3D: no"
    words = ["-v", "error", "-f", "lavfi", "-i", "color=s=64x48:d=0.1", "-metadata", title, "-metadata:s:v", title]
    subprocess.run([ffmpeg_binary(), *words, path], check=True)
    found = read_details(path)
    assert [*found.streams] == [0] and found.of(0).side_data == {} and "pc" not in found.of(0).words
