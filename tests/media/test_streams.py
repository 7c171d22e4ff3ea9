"""Sources as people have them: joined, cut, streamed; and streams that no container takes."""

from __future__ import annotations

import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media import mux as module
from lipdub.media.audio import load_audio
from lipdub.media.clocks import _clock_of, _Packet, _signed_duration
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.mend import on_one_clock, sound_on_one_clock
from lipdub.media.probe import open_input, probe, read_clocks, require_video
from lipdub.media.streams import plan_streams
from lipdub.media.video import VideoReader


def run(*words: object) -> None:
    subprocess.run([ffmpeg_binary(), "-v", "error", "-y", *map(str, words)], check=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_joined_recordings_are_put_on_one_clock(clip, sound, dubbed, tmp_path, suffix):
    clip(tmp_path / "a.ts", n_audio=1, n_frames=40, time_base=Fraction(1, 90000))
    (tmp_path / "two.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    output = tmp_path / f"out.{suffix}"
    told, _, n_frames = dubbed(tmp_path / "two.ts", sound(tmp_path / "d.wav", 3.0), output)
    assert n_frames == 80 and "clock goes back" in told[0]
    info = probe(output)
    with VideoReader(output, require_video(info)) as reader:
        times = [frame.time_s for frame in reader]
    assert times[-1] - times[0] == pytest.approx(3.16, abs=0.1) and np.diff(times).max() < 0.15
    assert [read_clocks(output)[each.index].end_s > 3.0 for each in info.audio] == [True, True]


@pytest.mark.parametrize("suffix", ["flv", "mkv"])
def test_joined_recordings_of_other_kinds_keep_their_times(clip, sound, dubbed, tmp_path, suffix):
    """FFmpeg would press what follows the joint to one tick each."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=40, time_base=Fraction(1, 1000))
    muxer = ("-f", "flv") if suffix == "flv" else ("-f", "matroska", "-live", "1")
    run("-i", tmp_path / "a.mkv", "-c", "copy", *muxer, tmp_path / "one")
    data = (tmp_path / "one").read_bytes()
    behind = 13 if suffix == "flv" else data.index(b"\x1f\x43\xb6\x75")  # the first tag, or cluster
    (tmp_path / f"two.{suffix}").write_bytes(data + data[behind:])
    output = tmp_path / "out.mp4"
    told, _, n_frames = dubbed(tmp_path / f"two.{suffix}", sound(tmp_path / "d.wav", 3.3), output)
    assert n_frames == 80 and "put behind what is before" in told[0]
    with VideoReader(output, require_video(probe(output))) as reader:
        steps = np.diff([frame.time_s for frame in reader])
    assert np.delete(steps, 39) == pytest.approx([0.04] * 78, abs=0.0015)
    assert steps[39] == pytest.approx(0.04, abs=0.1)  # where the sound of the first goes on longer than its picture
    assert read_clocks(output)[probe(output).audio[1].index].end_s == pytest.approx(3.3, abs=0.12)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_video_with_the_times_of_a_longer_one_begins_at_once(clip, sound, dubbed, tmp_path, suffix):
    """It would begin with five hours of silence."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=10, time_base=Fraction(1, 1000))
    run("-i", tmp_path / "a.mkv", "-c", "copy", "-output_ts_offset", 18_000, tmp_path / "late.mkv")
    output = tmp_path / f"out.{suffix}"
    dubbed(tmp_path / "late.mkv", sound(tmp_path / "d.wav", 0.4), output)
    info, clocks = probe(output), read_clocks(output)
    assert require_video(info).start_s == pytest.approx(0, abs=0.03)
    assert [clocks[each.index].start_s for each in info.audio] == pytest.approx([0, 0], abs=0.03)
    assert [clocks[each.index].end_s for each in info.audio] == pytest.approx([0.4, 0.4], abs=0.05)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_matroska_video_that_begins_before_time_0_is_whole(clip, sound, dubbed, tmp_path, suffix):
    """FFmpeg gives its first pictures no time; they, and the sound beside them, were lost."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=25, n_b=0, time_base=Fraction(1, 1000))
    early = ("-output_ts_offset", "-0.6", "-avoid_negative_ts", "disabled")
    run("-i", tmp_path / "a.mkv", "-c", "copy", *early, tmp_path / "early.mkv")
    output = tmp_path / f"out.{suffix}"
    told, _, n_frames = dubbed(tmp_path / "early.mkv", sound(tmp_path / "d.wav", 1.0), output)
    assert n_frames == 25 and "15 frames begin before time 0" in told[0]
    with VideoReader(output, require_video(probe(output))) as reader:
        assert [frame.time_s for frame in reader] == pytest.approx([0.04 * n for n in range(25)], abs=0.0205)
    clocks = read_clocks(output)
    assert [clocks[each.index].end_s for each in probe(output).audio] == pytest.approx([1.0, 1.0], abs=0.05)


def test_a_sound_that_begins_late_keeps_its_place(sound, tmp_path):
    run("-i", sound(tmp_path / "a.wav", 0.4), "-output_ts_offset", 20, tmp_path / "late.mka")
    assert probe(tmp_path / "late.mka").audio[0].start_s == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clock_that_runs_over_hides_no_picture(clip, sound, dubbed, tmp_path, suffix):
    """That of a transport stream does after 26.5 hours; FFmpeg gives what is before that negative times."""
    clip(tmp_path / "a.ts", n_audio=1, n_frames=25, time_base=Fraction(1, 90000))
    run("-i", tmp_path / "a.ts", "-c", "copy", "-output_ts_offset", 95_443.2, "-muxdelay", 0, tmp_path / "over.ts")
    output = tmp_path / f"out.{suffix}"
    assert dubbed(tmp_path / "over.ts", sound(tmp_path / "d.wav", 1.0), output).n_frames == 25
    with VideoReader(output, require_video(probe(output))) as reader:
        times = [frame.time_s for frame in reader]
    assert np.diff(times) == pytest.approx([0.04] * 24, abs=0.0015)
    assert len(load_audio(output, stream=1)) / 16_000 == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [("mxf", "-c:v mpeg2video -c:a pcm_s16le"), ("ogv", "-c:v libtheora -c:a libvorbis")],
)
def test_joined_mxf_and_ogg_are_refused_before_the_work(clip, tmp_path, suffix, codecs):
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=10)
    one, two = tmp_path / f"a.{suffix}", tmp_path / f"two.{suffix}"
    run("-i", tmp_path / "a.mp4", *codecs.split(), one)
    two.write_bytes(one.read_bytes() * 2)
    with pytest.raises(InputError, match="repeat an earlier time"):
        on_one_clock(two, tmp_path.joinpath, MediaConfig())
    assert on_one_clock(one, tmp_path.joinpath, MediaConfig())[2] == []


@pytest.mark.parametrize("suffix", ["mp4", "wmv"])
def test_files_behind_the_end_of_a_video_are_told(clip, tmp_path, suffix):
    clip(tmp_path / "a.mp4", n_audio=1)
    video = tmp_path / f"b.{suffix}"
    run("-i", tmp_path / "a.mp4", *(("-c", "copy") if suffix == "mp4" else ("-c:v", "wmv2", "-c:a", "wmav2")), video)
    assert on_one_clock(video, tmp_path.joinpath, MediaConfig())[2] == []
    video.write_bytes(video.read_bytes() * 3)
    assert "2 other files follow" in on_one_clock(video, tmp_path.joinpath, MediaConfig())[2][0]


@pytest.mark.parametrize(("suffix", "codec"), [("opus", "libopus"), ("flac", "flac"), ("ogg", "libvorbis")])
def test_joined_sounds_are_read_one_after_another(clip, sound, dubbed, tmp_path, suffix, codec):
    """Each begins at time 0: the second was heard at the same time as the first."""
    clip(tmp_path / "v.mp4", n_frames=50)
    for name, hz in (("a", 400), ("b", 900)):
        run("-f", "lavfi", "-i", f"sine={hz}:d=1:r=48000", "-c:a", codec, tmp_path / f"{name}.{suffix}")
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab"))
    whole, told = sound_on_one_clock(joined, tmp_path.joinpath, MediaConfig())
    assert "joined from several sounds" in told[0]
    dubbed(tmp_path / "v.mp4", whole, tmp_path / "out.mp4")
    for heard in (load_audio(joined), load_audio(tmp_path / "out.mp4")):
        assert len(heard) / 16_000 == pytest.approx(2.0, abs=0.06)
        assert [pitch(heard[at : at + 8000]) for at in (4000, 20_000)] == pytest.approx([400, 900], abs=5)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *(("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("caf", "pcm_s16le"), ("w64", "pcm_s24le"), ("au", "pcm_s16be")),
        *(("tta", "tta"), ("m4a", "aac"), ("mp3", "libmp3lame"), ("amr", "libopencore_amrnb")),
    ],
)
def test_sounds_that_lie_one_behind_another_are_read(tmp_path, suffix, codec):
    """Only the first was heard, or its data was taken for damage: each has a header of its own."""
    options = ("-ar", 8000, "-b:a", 12_200) if suffix == "amr" else ("-ar", 24_000)
    for name, hz in (("a", 400), ("b", 900)):
        run("-f", "lavfi", "-i", f"sine={hz}:d=1", *options, "-c:a", codec, tmp_path / f"{name}.{suffix}")
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join((tmp_path / f"{name}.{suffix}").read_bytes() for name in "aba"))
    whole, told = sound_on_one_clock(joined, tmp_path.joinpath, MediaConfig())
    assert told == [f"{joined.name} was joined from 3 sounds: they are read one after another"]
    heard = load_audio(whole)
    assert len(heard) / 16_000 == pytest.approx(3.0, abs=0.1)
    assert [pitch(heard[at : at + 8000]) for at in (4000, 20_000, 36_000)] == pytest.approx([400, 900, 400], abs=5)
    single = tmp_path / f"a.{suffix}"
    assert sound_on_one_clock(single, tmp_path.joinpath, MediaConfig()) == (single, [])


def test_two_tags_in_front_of_a_sound_are_no_two_sounds(sound, tmp_path):
    data = sound(tmp_path / "a.mp3", 0.4, codec="libmp3lame").read_bytes()
    (tmp_path / "b.mp3").write_bytes(data[: data.index(b"\xff\xfb")] + data)
    path, told = sound_on_one_clock(tmp_path / "b.mp3", tmp_path.joinpath, MediaConfig())
    assert told == [] and len(load_audio(path)) / 16_000 == pytest.approx(0.4, abs=0.06)


def test_a_dub_of_which_nothing_can_be_decoded_is_an_input_error(clip, sound, tmp_path):
    clip(tmp_path / "v.mp4")
    data = sound(tmp_path / "a.wav", 0.4).read_bytes()
    (tmp_path / "b.wav").write_bytes(data[: data.index(b"data") + 9])
    with pytest.raises(InputError, match=r"b\.wav"):
        plan_streams(tmp_path / "v.mp4", tmp_path / "b.wav", tmp_path / "o.mp4")


def test_what_lies_behind_a_sound_and_is_none_is_told(sound, tmp_path):
    data = sound(tmp_path / "a.wav", 0.4).read_bytes()
    (tmp_path / "b.wav").write_bytes(data + data[:44].replace(b"data", b"atad"))
    path, told = sound_on_one_clock(tmp_path / "b.wav", tmp_path.joinpath, MediaConfig())
    assert path == tmp_path / "b.wav" and told == [
        "what follows behind the first sound in b.wav cannot be read: left out"
    ]


@pytest.mark.parametrize("gop", [8, 25])
def test_joined_mp4_in_fragments_is_read_on_or_told(sound, dubbed, tmp_path, gop):
    """FFmpeg reads on where the first file has several fragments; that was told as left out, too."""
    pieces = ("-g", gop, "-movflags", "frag_keyframe+empty_moov+default_base_moof")
    run("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1", "-pix_fmt", "yuv420p", *pieces, tmp_path / "a.mp4")
    (tmp_path / "two.mp4").write_bytes((tmp_path / "a.mp4").read_bytes() * 2)
    made = dubbed(tmp_path / "two.mp4", sound(tmp_path / "d.wav", 2.0), tmp_path / "out.mp4")
    left_out = any("another file follows" in each for each in made.told)
    assert (made.n_frames, left_out) == ((50, False) if gop == 8 else (25, True))
    with VideoReader(tmp_path / "out.mp4", require_video(probe(tmp_path / "out.mp4"))) as reader:
        assert np.diff([frame.time_s for frame in reader]) == pytest.approx(0.04, abs=1e-6)


def test_pictures_that_share_a_time_are_no_fault_of_the_output(sound, dubbed, tmp_path):
    """MP4 with a fragment for each picture: FFmpeg's own file has two at one time, and the dub ended with exit 5."""
    pieces = ("-bf", 2, "-g", 8, "-movflags", "frag_every_frame+empty_moov+default_base_moof")
    streams = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1", "-f", "lavfi", "-i", "sine=440:d=1:r=48000")
    run(*streams, "-pix_fmt", "yuv420p", "-preset", "ultrafast", *pieces, tmp_path / "a.mp4")
    with open_input(tmp_path / "a.mp4") as opened:
        shown = [each.pts for each in opened.demux(video=0) if each.pts is not None and not each.is_discard]
    assert len(set(shown)) < len(shown)
    assert dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav", 1.0), tmp_path / "o.mp4").n_frames == len(shown)


def test_chapters_of_damaged_times_are_left_out_and_told(clip, sound, dubbed, tmp_path):
    """Matroska refuses the whole file for one, at the end of the work."""
    clip(tmp_path / "a.mp4", chapters=True)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"chpl") + 13
    data[at : at + 8] = b"\x31" * 8
    (tmp_path / "b.mp4").write_bytes(data.replace(b"chap", b"chax"))
    made = dubbed(tmp_path / "b.mp4", sound(tmp_path / "d.wav"), tmp_path / "o.mkv")
    assert made.told == ["chapters have damaged times: they are left out"]
    assert probe(tmp_path / "o.mkv").chapters == 0


def test_a_dub_of_several_sounds_tells_which_is_taken(sound, tmp_path):
    first = sound(tmp_path / "a.wav", 0.4)
    run("-i", first, "-i", first, "-map", 0, "-map", 1, tmp_path / "two.mka")
    assert sound_on_one_clock(first, tmp_path.joinpath, MediaConfig()) == (first, [])
    path, told = sound_on_one_clock(tmp_path / "two.mka", tmp_path.joinpath, MediaConfig())
    assert path == tmp_path / "two.mka" and told == ["of the 2 sounds of two.mka, the first is taken"]


@pytest.mark.parametrize("told", [0, 3 / 25])
def test_a_header_that_tells_too_short_a_length_shortens_nothing(clip, sound, dubbed, tmp_path, told):
    """0 is what a writer leaves that broke off; the dub was cut there, or the work ended with exit 5."""
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=25)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    for box in (b"mvhd", b"mdhd"):  # of the file, and of its first track
        at = data.index(box) + 16
        scale = int.from_bytes(data[at : at + 4], "big")
        data[at + 4 : at + 8] = round(told * scale).to_bytes(4, "big")
    (tmp_path / "b.mp4").write_bytes(data)
    output = tmp_path / "out.mp4"
    assert dubbed(tmp_path / "b.mp4", sound(tmp_path / "d.wav", 1.0), output).n_frames == 25
    assert [len(load_audio(output, stream=n)) / 16_000 for n in (0, 1)] == pytest.approx([1.0, 1.0], abs=0.05)


def test_a_copy_that_is_too_short_is_no_mend(clip, tmp_path, monkeypatch):
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=40, time_base=Fraction(1, 1000))
    run("-i", tmp_path / "a.mkv", "-c", "copy", tmp_path / "one.flv")
    data = (tmp_path / "one.flv").read_bytes()
    (tmp_path / "two.flv").write_bytes(data + data[13:])
    monkeypatch.setattr("lipdub.media.mend._shifts", lambda info, clocks: [])
    with pytest.raises(InputError, match="goes back at"):
        on_one_clock(tmp_path / "two.flv", tmp_path.joinpath, MediaConfig())


@pytest.mark.parametrize(
    ("offset_s", "lasts_s", "said"), [(99, 3.2, "put behind"), (4, 6.9, "picture before is shown")]
)
def test_joined_recordings_whose_clock_leaps_are_read(clip, sound, dubbed, tmp_path, offset_s, lasts_s, said):
    clip(tmp_path / "a.ts", n_audio=1, n_frames=40, time_base=Fraction(1, 90000))
    run("-i", tmp_path / "a.ts", "-c", "copy", "-output_ts_offset", offset_s, tmp_path / "b.ts")
    (tmp_path / "two.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    output = tmp_path / "out.mp4"
    told, _, n_frames = dubbed(tmp_path / "two.ts", sound(tmp_path / "d.wav", lasts_s), output)
    assert n_frames == 80 and "clock leaps" in told[0] and said in told[0]
    info = probe(output)
    with VideoReader(output, require_video(info)) as reader:
        times = [frame.time_s for frame in reader]
    ends = [times[-1], *(read_clocks(output)[each.index].end_s for each in info.audio)]
    assert ends == pytest.approx([lasts_s] * 3, abs=0.15)


@pytest.mark.parametrize("suffix", ["ts", "m2ts"])
def test_segments_whose_clock_goes_on_are_read(clip, sound, dubbed, tmp_path, suffix):
    """As downloaded, one behind another: only the counters of their packets begin anew."""
    clip(tmp_path / "a.ts", n_audio=1, n_frames=40, time_base=Fraction(1, 90000))
    disc = ("-mpegts_m2ts_mode", int(suffix == "m2ts"))
    for name, offset_s in (("one", 0), ("two", 1.6)):
        run("-i", tmp_path / "a.ts", "-c", "copy", "-output_ts_offset", offset_s, *disc, tmp_path / f"{name}.{suffix}")
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two")))
    assert any(clock.damaged_s is not None for clock in read_clocks(joined).values())
    output = tmp_path / "out.mp4"
    told, _, n_frames = dubbed(joined, sound(tmp_path / "d.wav", 3.2), output)
    assert n_frames == 80 and "joined from several recordings" in told[0]
    assert [read_clocks(output)[each.index].end_s for each in probe(output).audio] == pytest.approx([3.2, 3.2], abs=0.1)


@pytest.mark.parametrize("first", range(20, 60, 8))
def test_lost_packets_are_no_joint(clip, tmp_path, first):
    clip(tmp_path / "a.ts", n_audio=1, n_frames=40, time_base=Fraction(1, 90000))
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "lost.ts").write_bytes(data[: first * 188] + data[(first + 3) * 188 :])
    assert on_one_clock(tmp_path / "lost.ts", tmp_path.joinpath, MediaConfig())[0] == tmp_path / "lost.ts"


@pytest.mark.parametrize("suffix", ["flv", "mp4", "avi"])
def test_a_recording_that_breaks_off_amid_a_packet_is_read_up_to_there(clip, sound, dubbed, tmp_path, suffix):
    """As OBS and browsers leave them when they crash."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=40, time_base=Fraction(1, 1000), n_b=0)
    pieces = ("-movflags", "frag_keyframe+empty_moov", "-frag_duration", "200000") if suffix == "mp4" else ()
    codecs = ("-c:v", "mjpeg", "-c:a", "pcm_s16le") if suffix == "avi" else ("-c", "copy")
    run("-i", tmp_path / "a.mkv", *codecs, *pieces, tmp_path / f"whole.{suffix}")
    with av.open(str(tmp_path / f"whole.{suffix}")) as container:
        ends = [packet.pos + packet.size for packet in container.demux() if packet.size]
    torn = tmp_path / f"torn.{suffix}"
    torn.write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[: max(ends) - 5])
    assert any(clock.broken_off for clock in read_clocks(torn).values())
    output = tmp_path / "out.mkv"
    told, _, n_frames = dubbed(torn, sound(tmp_path / "d.wav", 1.6), output)
    assert n_frames >= 39 and "breaks off at 1." in told[0]
    assert read_clocks(output)[probe(output).audio[1].index].end_s == pytest.approx(1.6, abs=0.15)


def test_a_recording_of_which_more_is_missing_is_still_damaged(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=80, n_b=0)
    run("-i", tmp_path / "a.mp4", "-c", "copy", "-movflags", "faststart", tmp_path / "whole.mp4")
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) * 6 // 10])
    assert on_one_clock(tmp_path / "half.mp4", tmp_path.joinpath, MediaConfig())[0] == tmp_path / "half.mp4"


def test_a_hole_in_the_sound_alone_is_no_joint(clip, sound, tmp_path):
    clip(tmp_path / "a.ts", n_audio=1, n_frames=40, time_base=Fraction(1, 90000))
    run("-i", tmp_path / "a.ts", "-c", "copy", "-bsf:a", "noise=drop=between(pts*tb\\,1.8\\,2.3)", tmp_path / "hole.ts")
    assert on_one_clock(tmp_path / "hole.ts", tmp_path.joinpath, MediaConfig())[0] == tmp_path / "hole.ts"


def test_a_clock_that_cannot_be_mended_is_refused_before_the_work(clip, tmp_path, monkeypatch):
    clip(tmp_path / "a.ts", n_audio=1, n_frames=40, time_base=Fraction(1, 90000))
    two = tmp_path / "two.ts"
    two.write_bytes((tmp_path / "a.ts").read_bytes() * 2)

    def refuse(argv, config):
        raise OutputError("FFmpeg could not write the output", "")

    monkeypatch.setattr("lipdub.media.mend.run", refuse)
    with pytest.raises(InputError, match=r"goes back at 1\.\d+ s"):
        on_one_clock(two, tmp_path.joinpath, MediaConfig())


def test_old_sound_whose_times_repeat_is_copied_and_told(clip, sound, dubbed, tmp_path):
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=50, time_base=Fraction(1, 1000))
    setts = "setts=pts=min(PTS\\,800):dts=min(DTS\\,800)"
    run("-i", tmp_path / "a.mkv", "-c", "copy", "-bsf:a", setts, tmp_path / "stuck.mkv")
    told, _, _ = dubbed(tmp_path / "stuck.mkv", sound(tmp_path / "d.wav", 2.0), tmp_path / "out.mp4")
    assert any("repeat an earlier time" in each for each in told)
    assert len(probe(tmp_path / "out.mp4").audio) == 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
def test_a_cut_without_encoding_brings_nothing_hidden_back(clip, sound, dubbed, tmp_path, suffix):
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=100)
    run("-ss", "1.3", "-i", tmp_path / "a.mp4", "-t", "2", "-c", "copy", tmp_path / "cut.mp4")
    before = load_audio(tmp_path / "cut.mp4")
    output = tmp_path / f"out.{suffix}"
    dubbed(tmp_path / "cut.mp4", sound(tmp_path / "d.wav", 2.0), output)
    info = probe(output)
    assert info.duration_s == pytest.approx(probe(tmp_path / "cut.mp4").duration_s, abs=0.15)
    assert info.start_s == pytest.approx(0.0, abs=0.001) or suffix == "ts"
    after = load_audio(output, stream=1)
    assert len(after) == pytest.approx(len(before), abs=0.1 * 16000)
    assert np.abs(after[1600:3200]).max() > 0.3


def with_pieces(path: Path, pieces: list[tuple[float, float]]) -> None:
    """Give the last track of an MP4 that ends with its index an edit list; pieces are from, to in seconds."""
    data = path.read_bytes()
    movie, media = (
        int.from_bytes(data[at : at + 4], "big") for at in (data.index(b"mvhd") + 16, data.rindex(b"mdhd") + 16)
    )
    rows = b"".join(
        struct.pack(">Iii", round((last - first) * movie), round(first * media), 0x10000) for first, last in pieces
    )
    at = data.rindex(b"elst") - 4
    old, new = int.from_bytes(data[at : at + 4], "big"), 16 + len(rows)
    made = bytearray(data[:at] + struct.pack(">I4sII", new, b"elst", 0, len(pieces)) + rows + data[at + old :])
    for parent in (data.rindex(b"edts") - 4, data.rindex(b"trak") - 4, data.index(b"moov") - 4):
        made[parent : parent + 4] = (int.from_bytes(made[parent : parent + 4], "big") + new - old).to_bytes(4, "big")
    path.write_bytes(made)


def pitch(samples: np.ndarray, rate: int = 16_000) -> float:
    """The strongest frequency of samples (n,) in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate / len(samples)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_an_edit_list_of_two_pieces(clip, sound, dubbed, tmp_path, suffix):
    """Old sound of 300 Hz, then 900 Hz, then 2 kHz, of which the middle is cut out: nobody hears it after the dub."""
    clip(tmp_path / "p.mp4", n_frames=30)
    tones = [f"-f lavfi -i sine={hertz}:r=48000:d=0.6" for hertz in (300, 900, 2000)]
    joined = ["-filter_complex", "[1][2][3]concat=n=3:v=0:a=1[a]", "-map", "0:v", "-map", "[a]", "-c:v", "copy"]
    run("-i", tmp_path / "p.mp4", *" ".join(tones).split(), *joined, "-c:a", "aac", tmp_path / "a.mp4")
    with_pieces(tmp_path / "a.mp4", [(0.02, 0.6), (1.2, 1.8)])
    hidden = read_clocks(tmp_path / "a.mp4")[1].hidden
    assert any(first > 0 and last - first > 20 for first, last in hidden), hidden  # 0.6 s are 28 packets
    output = tmp_path / f"out.{suffix}"
    dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav", 1.2), output)
    heard = load_audio(output, stream=1)
    assert len(heard) / 16_000 == pytest.approx(1.18, abs=0.06)
    steps = [pitch(heard[at : at + 1600]) for at in range(800, len(heard) - 2400, 800)]
    assert {round(step, -2) for step in steps} <= {300.0, 2000.0}, steps
    assert steps[0] == pytest.approx(300, abs=15) and steps[-1] == pytest.approx(2000, abs=15)


@pytest.mark.parametrize(
    ("codec", "source", "target", "made"),
    [
        ("pcm_bluray", "a.m2ts", "out.mkv", "flac"),
        ("pcm_bluray", "a.m2ts", "out.mov", "pcm_s24le"),
        ("pcm_bluray", "a.m2ts", "out.mp4", "aac"),
        ("nellymoser", "a.flv", "out.mkv", "aac"),
        ("adpcm_ima_qt", "a.mov", "out.mkv", "flac"),
    ],
)
def test_sound_that_a_container_cannot_hold_is_converted_and_told(
    clip, sound, dubbed, tmp_path, codec, source, target, made
):
    clip(tmp_path / "p.mp4", n_frames=25, time_base=Fraction(1, 1000), n_b=0)
    rate = 22050 if codec == "nellymoser" else 48000
    sound(tmp_path / "s.wav", 1.0, rate=rate)
    inputs = ["-i", tmp_path / "p.mp4", "-i", tmp_path / "s.wav", "-map", "0:v", "-map", "1:a", "-c:v", "copy"]
    run(*inputs, "-c:a", codec, "-strict", "-2", tmp_path / source)
    before = load_audio(tmp_path / source)
    told, changed, _ = dubbed(tmp_path / source, sound(tmp_path / "d.wav", 1.0), tmp_path / target)
    assert [each.codec for each in probe(tmp_path / target).audio][1] == made
    assert any(f"{codec} became {made}" in each for each in changed), (told, changed)
    after = load_audio(tmp_path / target, stream=1)
    n = min(len(before), len(after)) - 2000
    if made in ("flac", "pcm_s24le"):
        np.testing.assert_allclose(after[1000:n], before[1000:n], atol=2e-3)


@pytest.mark.parametrize("layout", ["5.1(side)", "2.1", "3.0", "quad", "5.0(side)"])
def test_opus_takes_any_layout(clip, sound, dubbed, tmp_path, layout):
    clip(tmp_path / "a.mkv", codec="libvpx-vp9", time_base=Fraction(1, 1000), n_b=0)
    dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.flac", codec="flac", layout=layout), tmp_path / "out.webm")
    made = probe(tmp_path / "out.webm").audio[0]
    assert made.codec == "opus" and made.channels >= av.AudioLayout(layout).nb_channels


@pytest.mark.parametrize(("layout", "suffix"), [("5.1(side)", "webm"), ("hexagonal", "webm"), ("mono", "mp4")])
def test_a_dub_of_an_odd_layout_costs_no_old_sound(clip, sound, dubbed, tmp_path, layout, suffix):
    """The old sound is tried beside the dub, which needs another layout in Opus, or a name for its only channel."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=25, time_base=Fraction(1, 1000))
    codec, name = ("tta", "d.tta") if layout == "mono" else ("flac", "d.mka")
    dub = sound(tmp_path / name, 1.0, codec=codec, layout=layout)
    told, _, _ = dubbed(tmp_path / "a.mkv", dub, tmp_path / f"out.{suffix}")
    assert not [each for each in told if "left out" in each]
    assert len(probe(tmp_path / f"out.{suffix}").audio) == 2


def test_one_stream_that_cannot_be_written_takes_no_other_with_it(clip, sound, subtitled, dubbed, tmp_path):
    """A track of a kind that FFmpeg does not know, as telephones write it."""
    clip(tmp_path / "p.mov", n_frames=25, n_audio=1, n_b=0)
    subtitled(tmp_path / "p.mov", tmp_path / "a.mov", ffmpeg_binary())
    run("-i", tmp_path / "a.mov", "-map", "0", "-c", "copy", "-timecode", "01:00:00:00", tmp_path / "t.mov")
    data = bytearray((tmp_path / "t.mov").read_bytes())
    at = data.rindex(b"tmcd", 0, data.rindex(b"stts"))  # the sample entry of the last track
    data[at : at + 4] = b"mebx"
    at = data.rindex(b"mhlrtmcd")
    data[at : at + 8] = b"mhlrmeta"
    (tmp_path / "x.mov").write_bytes(data)
    with av.open(str(tmp_path / "x.mov")) as opened:
        assert [stream.type for stream in opened.streams] == ["video", "audio", "subtitle", "data"]
    told, _, _ = dubbed(tmp_path / "x.mov", sound(tmp_path / "d.wav", 1.0), tmp_path / "out.mov")
    assert told == ["data stream 3 (unknown) cannot be written into mov: it is left out"]
    assert probe(tmp_path / "out.mov").streams == ("video", "audio", "audio", "subtitle")


def test_all_covers_are_kept_with_their_names_and_kinds(clip, sound, frame, dubbed, tmp_path):
    clip(tmp_path / "p.mkv", time_base=Fraction(1, 1000))
    for name in ("cover.jpg", "cover_land.png", "small.gif"):
        run("-f", "lavfi", "-i", "testsrc=s=32x24", "-frames:v", "1", "-update", "1", tmp_path / name)
    words = []
    for number, (name, kind) in enumerate({"cover.jpg": "jpeg", "cover_land.png": "png", "small.gif": "gif"}.items()):
        words += ["-attach", tmp_path / name, f"-metadata:s:{1 + number}", f"mimetype=image/{kind}"]
    run("-i", tmp_path / "p.mkv", "-map", "0", "-c", "copy", *words, tmp_path / "a.mkv")
    told, changed, _ = dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as made:
        names = [(s.metadata["filename"], s.metadata["mimetype"]) for s in made.streams if "filename" in s.metadata]
    assert names == [("cover.jpg", "image/jpeg"), ("cover_land.png", "image/png"), ("small.gif", "image/gif")]
    assert (told, changed) == ([], [])


def test_a_dub_that_came_out_too_short_is_never_put_in_place(clip, sound, dubbed, tmp_path, monkeypatch):
    """As an ffmpeg made it that cut by another clock."""
    clip(tmp_path / "a.mp4", n_frames=50)
    real = module.run

    def short(argv, config):
        real([word.replace("atrim=end=2.0", "atrim=end=0.1") for word in argv], config)

    monkeypatch.setattr(module, "run", short)
    with pytest.raises(OutputError, match=r"audio stream 1 of the output lasts .* to 0\.1\d\d s, not .* to 2\.000 s"):
        dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav", 2.0), tmp_path / "out.mp4")


def test_statistics_of_the_old_picture_do_not_describe_the_new_one(clip, sound, dubbed, tmp_path):
    clip(tmp_path / "p.mkv", time_base=Fraction(1, 1000))
    run(
        "-i",
        tmp_path / "p.mkv",
        "-c",
        "copy",
        "-metadata:s:v:0",
        "BPS=5000000",
        "-metadata:s:v:0",
        "title=Take 3",
        tmp_path / "a.mkv",
    )
    _, changed, _ = dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as made:
        tags = {key.lower(): value for key, value in made.streams[0].metadata.items()}
    assert "bps" not in tags and tags["title"] == "Take 3"
    assert changed == ["tag BPS of the picture"]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
def test_two_runs_give_the_same_bytes(dubbed, clip, sound, frame, tmp_path, suffix):
    """Also with chapters and an attached file, which Matroska gives random ids of their own."""
    clip(tmp_path / "a.mkv", n_audio=1, chapters=True, title="A title")
    (tmp_path / "font.ttf").write_bytes(bytes(range(256)))
    words = ("-c", "copy", "-attach", tmp_path / "font.ttf", "-metadata:s:t", "mimetype=font/ttf")
    run("-i", tmp_path / "a.mkv", "-map", "0", *words, tmp_path / "b.mkv")
    audio, made = sound(tmp_path / "d.wav"), set()
    for name in "cd":
        (tmp_path / name).mkdir()
        dubbed(tmp_path / "b.mkv", audio, tmp_path / name / f"out.{suffix}")
        made.add((tmp_path / name / f"out.{suffix}").read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("pix_fmt", ["gray", "bgr0", "yuvj420p"])
@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_pictures_of_the_whole_scale_look_as_they_did(clip, sound, dubbed, tmp_path, pix_fmt, suffix):
    """Grey and RGB have no range of their own, YUV has, which stream and header must tell alike."""
    codec = {"gray": "ffv1", "bgr0": "ffv1", "yuvj420p": "mjpeg"}[pix_fmt]
    clip(tmp_path / "a.mkv", pix_fmt=pix_fmt, codec=codec, n_frames=5, still=True)
    output = tmp_path / f"out.{suffix}"
    dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav", 0.2), output)
    before, after = (next(av.open(str(path)).decode(video=0)) for path in (tmp_path / "a.mkv", output))
    pixels = [frame.to_ndarray(format="rgb24").astype(int) for frame in (before, after)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 2
    run("-i", output, "-map", "v", "-c", "copy", tmp_path / "bare.ts")  # its header tells no range
    bare = next(av.open(str(tmp_path / "bare.ts")).decode(video=0))
    assert (int(bare.color_range) == 2) == (int(after.color_range) == 2) == (pix_fmt != "bgr0")


def test_an_empty_packet_of_theora_shows_the_picture_before_on(clip, tmp_path):
    clip(tmp_path / "a.mkv", n_frames=6, still=True, codec="libvpx-vp9")
    run("-i", tmp_path / "a.mkv", "-c:v", "libtheora", "-q:v", "3", tmp_path / "a.ogv")  # of equal pictures
    with av.open(str(tmp_path / "a.ogv")) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.pts is not None]
    assert len(sizes) == 6 and 0 in sizes
    with VideoReader(tmp_path / "a.ogv", require_video(probe(tmp_path / "a.ogv"))) as reader:
        assert len(list(reader)) == 6 - sizes.count(0)


def test_what_an_ogg_file_cuts_off_its_end_is_no_length_of_a_day():
    packets = [_Packet(0, 0, 128), _Packet(128, 128, _signed_duration((1 << 32) - 28))]
    clock = _clock_of(packets, Fraction(1, 100), 0.0)
    assert clock.end_s == 1.28 and _signed_duration((1 << 31) + 7) == (1 << 31) + 7


def test_a_picture_that_ends_long_before_the_sound_is_not_cut_short(clip, tmp_path):
    """FFmpeg gives the file's length for that of the picture's two."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=50, time_base=Fraction(1, 1000))
    run("-i", tmp_path / "a.mkv", "-vf", "trim=end_frame=2", "-c:a", "copy", tmp_path / "two.mkv")
    video = require_video(probe(tmp_path / "two.mkv"))
    assert video.duration_s == pytest.approx(0.08)
    with VideoReader(tmp_path / "two.mkv", video) as reader:
        assert len(list(reader)) == 2


@pytest.mark.parametrize(("before", "after"), [("mp4", "mkv"), ("mkv", "mp4"), ("mkv", "mov")])
def test_a_second_camera_goes_into_other_containers(clip, sound, dubbed, tmp_path, before, after):
    clip(tmp_path / "a.mkv", n_audio=1, time_base=Fraction(1, 1000))
    both = ("-i", tmp_path / "a.mkv", "-i", tmp_path / "a.mkv", "-map", "0:v", "-map", "1:v", "-map", "0:a")
    run(*both, "-c", "copy", tmp_path / f"two.{before}")
    output = tmp_path / f"out.{after}"
    told, _, _ = dubbed(tmp_path / f"two.{before}", sound(tmp_path / "d.wav"), output)
    assert told == [] and probe(output).streams == ("video", "audio", "audio", "video")


def test_a_language_that_quicktime_spells_otherwise_is_kept(clip, sound, dubbed, tmp_path):
    clip(tmp_path / "a.mkv", n_audio=2, time_base=Fraction(1, 1000))
    tags = ("-metadata:s:a:0", "language=fre", "-metadata:s:a:1", "language=deu")
    run("-i", tmp_path / "a.mkv", "-map", "0", "-c", "copy", *tags, tmp_path / "b.mkv")
    _, changed, _ = dubbed(tmp_path / "b.mkv", sound(tmp_path / "d.wav"), tmp_path / "out.mov")
    assert [each.language for each in probe(tmp_path / "out.mov").audio[1:]] == ["fra", "ger"]
    assert not any("language" in each for each in changed)


@pytest.mark.parametrize(
    ("rate", "channels", "suffix", "told"),
    [
        (192_000, 1, "mp4", ["of the audio, 192000 Hz become 96000 in aac; .mov and .mkv keep them"]),
        (48_000, 16, "mp4", ["of the audio, 16 channels become 8 in aac; .mov and .mkv keep them"]),
        (192_000, 16, "mkv", []),
    ],
)
def test_what_a_lossy_encoder_cannot_hold_of_the_dub_is_told(clip, dubbed, tmp_path, rate, channels, suffix, told):
    clip(tmp_path / "a.mkv", n_audio=1, time_base=Fraction(1, 1000))
    tone = f"aevalsrc={'|'.join(['sin(9*t)'] * channels)}:s={rate}:d=0.4:c={channels}c"
    run("-f", "lavfi", "-i", tone, tmp_path / "d.wav")
    output = tmp_path / f"out.{suffix}"
    said, _, _ = dubbed(tmp_path / "a.mkv", tmp_path / "d.wav", output)
    assert said == told
    made = probe(output).audio[0]
    assert (made.channels, made.sample_rate) == ((min(channels, 8), min(rate, 96_000)) if told else (channels, rate))


def test_a_container_without_a_place_for_marks_is_told_before_the_work(clip, sound, tmp_path):
    clip(tmp_path / "a.mkv", time_base=Fraction(1, 1000))
    for suffix, losses in (("ts", 1), ("avi", 0), ("mkv", 0)):
        planned = plan_streams(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), tmp_path / f"o.{suffix}")
        assert len(planned.losses) == losses


def test_a_sound_without_a_sample_is_said_to_have_none(clip, sound, tmp_path):
    clip(tmp_path / "a.mkv", time_base=Fraction(1, 1000))
    data = sound(tmp_path / "d.wav").read_bytes()
    at = data.index(b"data")
    (tmp_path / "none.wav").write_bytes(data[: at + 4] + bytes(4))
    with pytest.raises(InputError, match="has no samples"):
        plan_streams(tmp_path / "a.mkv", tmp_path / "none.wav", tmp_path / "o.mkv")


def test_a_sound_of_no_channels_is_left_out_alone(clip, sound, tmp_path):
    """As where a run of zeros lies on the header of its track."""
    clip(tmp_path / "a.mkv", time_base=Fraction(1, 1000))
    both = ("-i", tmp_path / "a.mkv", "-i", sound(tmp_path / "d.wav"), "-c:v", "copy", "-c:a", "pcm_s16le")
    run(*both, tmp_path / "b.mkv")
    data = bytearray((tmp_path / "b.mkv").read_bytes())
    at = data.index(b"\xe1", data.index(b"A_PCM/INT/LIT"))  # Audio: rate, channels, bits
    data[at : at + 2 + (data[at + 1] & 127)] = bytes(2 + (data[at + 1] & 127))
    (tmp_path / "zero.mkv").write_bytes(data)
    told = plan_streams(tmp_path / "zero.mkv", tmp_path / "d.wav", tmp_path / "o.mkv").losses
    assert "audio stream 1 (pcm_s16le) has a damaged header: it is left out" in told


def test_a_sound_whose_header_is_damaged_is_left_out_and_told(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=25)
    clip(tmp_path / "dub.mkv", n_audio=1, n_frames=25)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"\x05\x80\x80\x80") + 5  # AudioSpecificConfig of an MPEG-4 sound
    data[at + 1] &= ~0x78  # no channels
    (tmp_path / "b.mp4").write_bytes(data)
    for name, lost in (("a.mp4", ()), ("b.mp4", ("audio stream 1 (aac) has a damaged header: it is left out",))):
        plan = plan_streams(tmp_path / name, tmp_path / "dub.mkv", tmp_path / "out.mkv")
        assert plan.losses == lost and len(plan.items) == 1 - len(lost)


def test_a_sound_whose_header_tells_another_rate_moves_no_other_stream(clip, sound, dubbed, tmp_path):
    """Matroska counts a sound's delay in its samples: at twice the rate, half the time."""
    clip(tmp_path / "v.mp4")
    dub = sound(tmp_path / "d.wav", 2.0)
    run("-i", tmp_path / "v.mp4", "-i", dub, "-c:v", "copy", "-c:a", "aac", "-ar", "16000", tmp_path / "a.mp4")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"\x05\x80\x80\x80") + 5  # AudioSpecificConfig: 5 bits of object type, 4 of rate
    assert (data[at] & 7) << 1 | data[at + 1] >> 7 == 8  # 16 kHz
    data[at], data[at + 1] = data[at] & ~7 | 2, data[at + 1] | 0x80  # 32 kHz
    (tmp_path / "b.mp4").write_bytes(data)
    told, _, _ = dubbed(tmp_path / "b.mp4", dub, tmp_path / "out.mkv")
    assert "audio stream 1 (aac) cannot be written into matroska: it is left out" in told  # nor can it be decoded
    clocks = read_clocks(tmp_path / "out.mkv")
    assert clocks[0].start_s == clocks[1].start_s == 0


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_hole_behind_a_packet_before_time_0_is_no_fault_of_the_output(clip, sound, dubbed, tmp_path, suffix):
    clip(tmp_path / "a.mp4", n_audio=1)
    hole = "setts=ts='if(eq(N\\,0)\\,-1024\\,if(eq(N\\,1)\\,-448\\,PTS+0.4/TB))'"
    run("-i", tmp_path / "a.mp4", "-c", "copy", "-bsf:a", hole, tmp_path / "hole.mp4")
    clock = read_clocks(tmp_path / "hole.mp4")[1]
    assert clock.start_s < 0 < 0.4 < clock.inside_s
    output = tmp_path / f"out.{suffix}"
    dubbed(tmp_path / "hole.mp4", sound(tmp_path / "d.wav", 2.0), output)
    assert read_clocks(output)[2].end_s == pytest.approx(clock.end_s, abs=0.1)


@pytest.mark.parametrize(
    ("codec", "suffix", "late_s", "filled"),
    [
        ("pcm_s16le", "mov", 0.0, True),
        ("ac3", "avi", 0.0, True),
        ("mp3", "avi", 0.4, True),
        ("aac", "avi", 0.4, False),  # it is written anew in any case
        ("ac3", "mov", 0.0, False),
        ("pcm_s16le", "mov", 0.4, False),  # an edit list says when it begins
    ],
)
def test_a_sound_that_begins_late_or_pauses_keeps_its_place(clip, dubbed, tmp_path, codec, suffix, late_s, filled):
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal(32_000) * np.repeat(rng.uniform(0, 1, 20), 1600)
    wav = (noise * 32767).astype("<i2").tobytes()
    (tmp_path / "noise.raw").write_bytes(wav)
    clip(tmp_path / "v.mkv", n_frames=60, time_base=Fraction(1, 1000))
    run("-f", "s16le", "-ar", 16000, "-ac", 1, "-i", tmp_path / "noise.raw", tmp_path / "dub.wav")
    late = ("-itsoffset", late_s, "-i", tmp_path / "dub.wav")
    run("-i", tmp_path / "v.mkv", *late, "-c:v", "copy", "-c:a", codec, "-ar", 32000, tmp_path / "whole.mkv")
    pause = () if late_s else ("-bsf:a", "noise=drop=between(pts*tb\\,0.6\\,1)")
    run("-i", tmp_path / "whole.mkv", "-c", "copy", *pause, tmp_path / "a.mkv")
    told, _, _ = dubbed(tmp_path / "a.mkv", tmp_path / "dub.wav", tmp_path / f"out.{suffix}")
    said = f"audio stream 1 ({codec}) begins late or has gaps: {suffix} gets silence there"
    assert (said in told) == filled
    before, after = (
        load_audio(path, stream=n) for path, n in ((tmp_path / "a.mkv", 0), (tmp_path / f"out.{suffix}", 1))
    )
    size = min(len(before), len(after))
    assert size >= 16_000 * (1.9 + late_s)
    loudness = [np.abs(each[: size // 160 * 160]).reshape(-1, 160).mean(1) for each in (before, after)]
    assert np.corrcoef(loudness)[0, 1] > 0.98


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", "avi"), ("mp3", "avi"), ("flac", "avi")])
def test_a_dub_that_begins_late_in_its_file_does_so_in_a_container_without_times(
    clip, sound, dubbed, tmp_path, codec, suffix
):
    clip(tmp_path / "a.mkv", n_frames=50, time_base=Fraction(1, 1000))
    run("-itsoffset", 0.5, "-i", sound(tmp_path / "d.wav", 1.5), "-c:a", codec, tmp_path / "late.mkv")
    dubbed(tmp_path / "a.mkv", tmp_path / "late.mkv", tmp_path / f"out.{suffix}")
    made = load_audio(tmp_path / f"out.{suffix}")
    assert np.abs(made[: int(0.45 * 16_000)]).max() < 0.01
    assert np.abs(made[int(0.55 * 16_000) : int(0.65 * 16_000)]).max() > 0.1
