"""What a film costs in memory: next to nothing for its length, a known constant for its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lipdub.config import Config, MediaConfig, ReferenceConfig
from lipdub.media.ffmpeg import ffmpeg_binary

SHORT, LONG = 200, 2000  # frames
SHOT = 20  # frames
WIDE, HIGH = 320, 180
PICTURE_MIB = WIDE * HIGH * 1.5 / 2**20  # 0.08; the long film's pictures are 165 MiB
REFERENCES = 60  # crops of 3 kB: 17 MiB for the long film's hundred shots
MOST_MIB = 22.0  # three copies of 72 s more of sound while it is read: 14 MiB; landmarks and mel: 3 MiB; views: 1 MiB

RESET = Path("/proc/self/clear_refs")


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10


@pytest.mark.slow
@pytest.mark.skipif(not RESET.exists(), reason="only Linux can reset a process's peak of memory")
def test_ten_times_the_film_takes_no_more_memory(dub, face_clip, speech) -> None:
    config = Config(media=MediaConfig(preset="ultrafast"), reference=ReferenceConfig(count=REFERENCES, pool=REFERENCES))
    peaks = []
    for n_frames in (SHORT, SHORT, LONG):  # the first run loads what is loaded once
        video = face_clip(
            lambda number: [(40 + 30 * (number // SHOT % 5), 40, 90)],
            n_frames=n_frames,
            size=(WIDE, HIGH),
            scenes=lambda number: number // SHOT % 3,
            name=f"{n_frames}.mp4",
        )
        sound = speech(n_frames / 25)
        RESET.write_text("5")
        report = dub(video, sound, config=config, crf=30, overwrite=True, cache=False)
        peaks.append(peak_mib())
        assert report.dubbed == report.frames == n_frames and len(report.shots) == n_frames // SHOT
    assert peaks[2] - peaks[1] < MOST_MIB


CHILD = """
import atexit, resource, sys
from lipdub.cli.app import main

atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
main(sys.argv[1:])
"""
BASE_MIB, MIB_A_MEGAPIXEL = 850, 360  # docs/design.md


@pytest.mark.slow
@pytest.mark.skipif(not RESET.exists(), reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize("size", ["640x360", "1920x1080"])
def test_a_picture_of_any_size_stays_below_the_bound_that_is_documented(tmp_path: Path, size: str) -> None:
    def run(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stderr

    width, height = map(int, size.split("x"))
    run(sys.executable, "-m", "lipdub", "demo", "-o", "demo.mp4")
    fit = f"scale={width}:{height}:force_original_aspect_ratio=decrease,pad={width}:{height}:-1:-1,setsar=1"
    run(str(ffmpeg_binary()), "-v", "error", "-i", "demo.mp4", "-vf", fit, "-t", "4", "-map", "0:v", "large.mp4")
    run(str(ffmpeg_binary()), "-v", "error", "-i", "demo.mp4", "-map", "0:a:0", "dub.wav")
    told = run(sys.executable, "-c", CHILD, "sync", "large.mp4", "dub.wav", "-o", "out.mp4", "--no-cache", "--json")
    assert int(told.split()[-1]) / 2**10 < BASE_MIB + MIB_A_MEGAPIXEL * width * height / 1e6
