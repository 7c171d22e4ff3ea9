"""What a film of ten times the length costs in memory: next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipdub.config import Config, MediaConfig, ReferenceConfig

SHORT, LONG = 200, 2000  # frames
SHOT = 20  # frames
WIDE, HIGH = 320, 180
PICTURE_MIB = WIDE * HIGH * 1.5 / 2**20  # 0.08; the long film's pictures are 165 MiB
REFERENCES = 60  # crops of 3 kB: 17 MiB for the long film's hundred shots
MOST_MIB = 20.0  # three copies of 72 s more of sound while it is read: 14 MiB; landmarks and mel: 3 MiB

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
