from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.audio import load_audio
from lipdub.media.excerpt import cut_sound, cut_video, pour
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe


def test_a_piece_has_the_pictures_and_the_sound_of_its_time(flash_and_beep, tmp_path: Path) -> None:
    film = flash_and_beep(seconds=3.0, at_s=[1.6])
    cut_video(film, tmp_path / "v.mkv", 1.2, 0.8)
    cut_sound(film, tmp_path / "a.wav", 1.2, 0.8)
    with av.open(str(tmp_path / "v.mkv")) as piece:
        means = [float(frame.to_ndarray(format="gray").mean()) for frame in piece.decode(video=0)]
    assert len(means) == 20 and int(np.argmax(means)) == 10
    for path in (tmp_path / "v.mkv", tmp_path / "a.wav"):
        beep = int(np.flatnonzero(np.abs(load_audio(path)) > 0.2)[0]) / 16000
        assert beep == pytest.approx(0.4, abs=0.003)
    with pytest.raises(InputError, match=r"cannot cut .*nosuch"):
        cut_video(tmp_path / "nosuch.mp4", tmp_path / "x.mkv", 0, 1)


def test_a_piece_without_a_key_frame_is_decoded_from_the_beginning(flash_and_beep, tmp_path: Path) -> None:
    """FFmpeg seeks in a transport stream by its times alone, and finds only what follows a later key frame."""
    words = (
        "-v",
        "error",
        "-i",
        flash_and_beep(seconds=3.0, at_s=[1.6]),
        "-c:v",
        "libx264",
        "-g",
        "1000",
        "-c:a",
        "aac",
    )
    subprocess.run([ffmpeg_binary(), *words, tmp_path / "film.ts"], check=True)
    cut_video(tmp_path / "film.ts", tmp_path / "v.mkv", 1.2, 0.8)
    with av.open(str(tmp_path / "v.mkv")) as piece:
        means = [float(frame.to_ndarray(format="gray").mean()) for frame in piece.decode(video=0)]
    assert len(means) == pytest.approx(20, abs=1) and int(np.argmax(means)) == pytest.approx(10, abs=1)


def test_a_piece_of_a_sound_that_begins_late_keeps_its_time(sound, tmp_path: Path) -> None:
    words = ("-v", "error", "-itsoffset", "0.5", "-i", sound(tmp_path / "a.wav", 1.0), "-c:a", "flac")
    subprocess.run([ffmpeg_binary(), *words, tmp_path / "late.mka"], check=True)
    cut_sound(tmp_path / "late.mka", tmp_path / "b.wav", 0.4, 1.5)
    heard = np.abs(load_audio(tmp_path / "b.wav"))
    assert len(heard) == pytest.approx(1.5 * 16_000, abs=20)  # silence behind its end
    assert np.flatnonzero(heard > 0.1)[0] / 16_000 == pytest.approx(0.1, abs=0.005)
    assert heard[int(1.15 * 16_000) :].max() < 0.01


def test_a_piece_of_joined_sounds_may_lie_behind_the_first(sound, tmp_path: Path) -> None:
    (tmp_path / "two.wav").write_bytes(sound(tmp_path / "a.wav", 0.4).read_bytes() * 2)
    cut_sound(tmp_path / "two.wav", tmp_path / "b.wav", 0.5, 0.2)
    heard = load_audio(tmp_path / "b.wav")
    assert len(heard) == pytest.approx(3200, abs=20) and np.abs(heard).max() == pytest.approx(0.5, abs=0.02)


def test_a_film_is_poured_whole_into_a_pipe(face_clip, tmp_path: Path) -> None:
    film, poured = face_clip(lambda number: [], languages=("eng",)), tmp_path / "poured"
    with poured.open("wb") as pipe:
        pour(film, pipe)
    assert b"moof" in poured.read_bytes()  # in pieces: nothing had to be sought
    assert probe(poured).streams[:2] == probe(film).streams[:2] == ("video", "audio")
    with av.open(str(poured)) as made:
        assert sum(1 for _ in made.decode(video=0)) == 10
        assert [chapter["metadata"]["title"] for chapter in made.chapters()] == ["Chapter 0", "Chapter 1"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_ffmpeg_that_was_asked_for_cuts_and_pours(flash_and_beep, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/log"\nexec "{ffmpeg_binary()}" "$@"\n')
    other.chmod(0o755)
    film, config = flash_and_beep(seconds=1.0, at_s=[0.5]), MediaConfig(ffmpeg=str(other))
    ffmpeg_binary(config)  # tried once a process
    (tmp_path / "log").write_text("")
    cut_video(film, tmp_path / "v.mkv", 0.2, 0.4, config)
    cut_sound(film, tmp_path / "a.wav", 0.2, 0.4, config)
    with (tmp_path / "poured").open("wb") as pipe:
        pour(film, pipe, config)
    made = [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()]
    assert made == [f"file:{tmp_path}/v.mkv", f"file:{tmp_path}/a.wav", "pipe:1"]
