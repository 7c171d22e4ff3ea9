"""A click in the dub is heard beside the picture that it belongs to, whatever the container, codec and clock."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import Config, MediaConfig
from lipdub.dub.options import SyncOptions
from lipdub.dub.sync import sync_video
from lipdub.media.audio import write_wav
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe

RATE = 48_000
FACE, FLASH = (50, 30, 56), (148, 4, 7)  # the flash is too small for a face
FLASHES = (8, 15)  # frames in which it is seen: 0.32 s and 0.6 s after the first
CLICKS_S = (0.3, 0.6)
TOLERANCE_S = 0.002

# container, dub's file, how it is encoded, what it becomes
CASES = {
    "mp4 aac": (".mp4", "m4a", ["-c:a", "aac"], "aac"),
    "m4v aac": (".m4v", "m4a", ["-c:a", "aac"], "aac"),
    "mov pcm": (".mov", "wav", [], "pcm_s16le"),
    "mkv flac": (".mkv", "flac", [], "flac"),
    "mkv opus": (".mkv", "opus", ["-c:a", "libopus"], "opus"),
    "webm opus": (".webm", "opus", ["-c:a", "libopus"], "opus"),
    "avi mp3": (".avi", "mp3", [], "mp3"),
    "avi pcm": (".avi", "wav", [], "pcm_s16le"),
    "ts aac": (".ts", "m4a", ["-c:a", "aac"], "aac"),
    "mp4 flac": (".mp4", "flac", [], "flac"),
    "mp4 raw aac": (".mp4", "aac", ["-c:a", "aac"], "aac"),
    "mp4 mp3": (".mp4", "mp3", [], "mp3"),
    "mkv aac": (".mkv", "m4a", ["-c:a", "aac"], "aac"),
    "ts wav": (".ts", "wav", [], "aac"),
    "webm wav": (".webm", "wav", [], "opus"),
}
ENCODERS = {  # of sources that cannot take the maker's stream as it is
    ".webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", 8],
    ".avi": ["-c:v", "libx264", "-preset", "ultrafast", "-bf", 0],
}
LATE = {"avi mp3", "webm opus", "mp4 flac", "ts aac", "mkv flac"}  # of the default run, those with a late picture
SLOW = {"mp4 mp3", "mkv aac", "ts wav", "webm wav", "mkv opus"}


def ffmpeg(*words: object) -> None:
    done = subprocess.run([str(ffmpeg_binary()), "-y", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def clicks(path: Path) -> list[float]:
    """When clicks are heard, as FFmpeg plays a file: edit lists and priming honoured, gaps kept."""
    raw = path.with_name("heard.raw")
    place = "aresample=async=1:first_pts=0"
    ffmpeg("-v", "error", "-i", path, "-map", "0:a:0", "-af", place, "-ac", 1, "-ar", RATE, "-f", "f32le", raw)
    return loud(raw)


def loud(raw: Path) -> list[float]:
    level = np.convolve(np.abs(np.fromfile(raw, np.float32)), np.ones(48) / 48, "same")
    found = []
    while level.max(initial=0) > 0.1:
        place = int(level.argmax())
        found.append(place / RATE)
        level[max(0, place - RATE // 10) : place + RATE // 10] = 0
    return sorted(found)


def played(path: Path) -> tuple[list[float], list[float]]:
    """Clicks and flashes, of one pass through a file, so that both count from the same moment."""
    raw, levels = path.with_name("heard.raw"), path.with_name("seen.txt")  # not the log: threads break its lines
    sound = ["-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", 1, "-ar", RATE, "-f", "f32le", raw]
    look = f"crop=4:4:150:6,scale=1:1,format=gray,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file={levels}"
    ffmpeg("-i", path, *sound, "-map", "0:v:0", "-vf", look, "-fps_mode", "passthrough", "-f", "null", "-")
    rows = re.findall(r"pts_time:([\d.-]+)\n.*YAVG=([\d.]+)", levels.read_text())
    return loud(raw), [float(time) for time, level in rows if float(level) > 150]


def cases() -> Iterator[object]:
    """Ten of them by default, half with a picture that starts late; all in the slow half."""
    for case in CASES:
        for late_s in (0.0, 0.2):
            slow = case in SLOW or (case in LATE) != (late_s > 0)
            yield pytest.param(case, late_s, marks=pytest.mark.slow if slow else (), id=f"{case}, {late_s:g} s late")


@pytest.mark.parametrize(("case", "late_s"), [*cases()])
def test_a_click_lands_beside_its_picture(
    face_clip, generator_file, fake_faces, tmp_path: Path, monkeypatch, case: str, late_s: float
) -> None:
    suffix, ending, encoder, made = CASES[case]
    plain = face_clip(lambda number: [FACE, *[FLASH] * (number in FLASHES)], "plain.mkv", n_frames=20)
    source, dub, output = (tmp_path / name for name in (f"s{suffix}", f"d.{ending}", f"o{suffix}"))
    codec = ENCODERS.get(suffix, ["-c:v", "copy"])
    tone = ["-f", "lavfi", "-i", "sine=d=0.8:r=48000"]
    ffmpeg("-itsoffset", late_s, "-i", plain, *tone, *codec, *(["-f", "mp4"] if suffix == ".m4v" else []), source)
    wave = np.zeros(int(1.2 * RATE), np.float32)
    for time_s in CLICKS_S:
        first = round(time_s * RATE) - 24
        wave[first : first + 48] = 0.9 * np.cos(2 * np.pi * 1000 * np.arange(48) / RATE)
    write_wav(tmp_path / "c.wav", wave, RATE)
    if ending == "wav":
        dub = tmp_path / "c.wav"
    else:
        ffmpeg("-i", tmp_path / "c.wav", *encoder, dub)
    monkeypatch.setattr("lipdub.dub.networks.face_backend", lambda name, config, device: fake_faces())
    options = SyncOptions(generator=str(generator_file), device="cpu", cache=False)
    report = sync_video(source, dub, output, options, config=Config(media=MediaConfig(preset="ultrafast")))
    assert report.frames == 20
    wanted, before = clicks(dub), played(source)[1]
    heard, seen = played(output)
    assert (len(heard), len(seen), len(before)) == (2, 2, 2)
    for click, flash, own, old in zip(heard, seen, wanted, before, strict=True):
        assert click - flash == pytest.approx(own - old, abs=TOLERANCE_S), case
    if suffix != ".ts":  # whose clock is free
        assert heard == pytest.approx(wanted, abs=TOLERANCE_S)
    assert probe(output).audio[0].codec == made
    assert len(np.fromfile(tmp_path / "heard.raw", np.float32)) / RATE <= 0.87 + late_s, "cut with the picture"
