import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from lipdub.errors import InputError, OutputError, ResourceError
from lipdub.media import ffmpeg as module
from lipdub.media.atomic import verify
from lipdub.media.audio import load_audio, write_wav
from lipdub.media.containers import CONTAINERS
from lipdub.media.disclosure import disclosure_tags, read_marks
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.inspect import inspect_file
from lipdub.media.mux import RemuxPlan, remux
from lipdub.media.probe import probe, require_video
from lipdub.media.streams import no_marks, plan_streams
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter


def times(path):
    info = require_video(probe(path))
    with VideoReader(path, info) as reader:
        return [frame.pts * info.time_base for frame in reader]


def dubbed(source, dub, output, *, keep_audio=True, **options):
    """The whole way of a file, with no mouth changed. Returns the warnings."""
    info = probe(source)
    video = require_video(info)
    picture = output.parent / "intermediate"
    with VideoReader(source, video) as reader, VideoWriter(picture, video) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    plan = RemuxPlan(
        picture=picture,
        source=info,
        dub=dub,
        output=output,
        video_duration_s=video.duration_s,
        streams=plan_streams(source, dub, output, keep_audio=keep_audio),
        **options,
    )
    warnings = [*plan.streams.losses, *remux(plan)]
    verify(output, info, writer.n_frames)
    return warnings


CLOCKS = {
    "25": {"rate": Fraction(25)},
    "ntsc": {"rate": Fraction(30000, 1001), "time_base": Fraction(1, 30000)},
    "vfr": {"time_base": Fraction(1, 90000), "pts": [0, 3000, 7501, 7999, 30000, 30001, 60000]},
    "late": {"time_base": Fraction(1, 30000), "rate": Fraction(30000, 1001), "start": 777},
}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("clock", "codec"),
    [*((clock, "pcm_s16le") for clock in CLOCKS), ("late", "libmp3lame"), ("ntsc", "aac")],
)
def test_timestamps_are_exact(clip, sound, tmp_path, suffix, clock, codec):
    """Also with dubs whose encoder delay lies before time 0."""
    source = tmp_path / f"a.{suffix}"
    wanted = clip(source, **CLOCKS[clock])
    name = {"pcm_s16le": "d.wav", "libmp3lame": "d.mp3", "aac": "d.m4a"}[codec]
    dubbed(source, sound(tmp_path / name, codec=codec), tmp_path / f"out.{suffix}")
    if suffix == "mkv":  # whole milliseconds is all that it has
        wanted = times(source)
    assert times(tmp_path / f"out.{suffix}") == wanted


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rotation", [90, 180])
def test_shape_and_turn(clip, sound, tmp_path, suffix, rotation):
    source = tmp_path / f"a.{suffix}"
    clip(source, rotation=rotation, sar=Fraction(4, 3), time_base=Fraction(1, 1000))
    dubbed(source, sound(tmp_path / "d.wav"), tmp_path / f"out.{suffix}")
    before, after = (require_video(probe(p)) for p in (source, tmp_path / f"out.{suffix}"))
    np.testing.assert_array_equal(after.display_matrix, before.display_matrix)
    assert (after.sar, after.display_width, after.display_height) == (
        before.sar,
        before.display_width,
        before.display_height,
    )


def streams(path):
    with av.open(str(path)) as container:
        return [
            (s.type, s.codec_context.name if s.codec_context else None, s.language, s.disposition.name)
            for s in container.streams
            if s.type != "data"
        ]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_everything_else_is_kept(clip, sound, subtitled, tmp_path, suffix):
    plain, source = tmp_path / f"plain.{suffix}", tmp_path / f"a.{suffix}"
    clip(plain, n_audio=2, chapters=True, title="A title", time_base=Fraction(1, 1000), n_frames=20)
    subtitled(plain, source, ffmpeg_binary())
    output = tmp_path / f"out.{suffix}"
    warnings = dubbed(source, sound(tmp_path / "d.wav", rate=22050), output)
    assert warnings == []
    info = probe(output)
    assert [s for s in info.streams if s != "data"] == ["video", "audio", "audio", "audio", "subtitle"]
    assert [a.language for a in info.audio][1:] == ["eng", "fra"]
    found = streams(output)
    assert [("default" in (s[3] or "")) for s in found if s[0] == "audio"] == [True, False, False]
    assert next(s for s in found if s[0] == "subtitle")[2] == "spa"
    with av.open(str(output)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["title"] == "A title"
        assert tags.get("major_brand") != ""
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One", "Two"]
        assert [float(c["start"] * c["time_base"]) for c in container.chapters()] == [0, pytest.approx(0.4, abs=0.01)]
    for number, pitch in enumerate((440, 300, 600)):
        wave = load_audio(output, stream=number)
        assert np.abs(np.fft.rfft(wave)).argmax() / len(wave) * 16000 == pytest.approx(pitch, abs=5)


def test_cover_art_is_kept(clip, sound, tmp_path):
    clip(tmp_path / "a.mp4", cover=True)
    for suffix in ("mp4", "mkv"):
        output, marks = tmp_path / f"out.{suffix}", disclosure_tags("1.2.3", "ab" * 32)
        assert dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav"), output, metadata=marks) == []
        assert "picture" in probe(output).streams
        assert read_marks(output) == marks, "FFmpeg's MP4 has room for either covers or free tags"
    dubbed(tmp_path / "out.mkv", tmp_path / "d.wav", tmp_path / "again.mkv")
    assert probe(tmp_path / "again.mkv").streams.count("picture") == 1


def test_original_audio_can_go(clip, sound, tmp_path):
    clip(tmp_path / "a.mp4", n_audio=2)
    dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav"), tmp_path / "out.mp4", keep_audio=False)
    assert len(probe(tmp_path / "out.mp4").audio) == 1


@pytest.mark.parametrize(
    ("suffix", "tag", "kept"),
    [
        *(("mp4", "uk", "ukr"), ("mp4", "de-AT", "deu"), ("mov", "uk", "ukr"), ("mov", "de", "ger")),
        *(("mov", "fr", "fra"), ("mkv", "uk", "ukr"), ("mkv", "de", "ger"), ("webm", "uk", "ukr"), ("ts", "uk", "ukr")),
    ],
)
def test_the_dub_has_the_language_that_was_asked_for(clip, sound, tmp_path, suffix, tag, kept):
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    clip(tmp_path / "a.mkv", codec=codec, n_audio=1, time_base=Fraction(1, 1000), n_b=0)
    output = tmp_path / f"out.{suffix}"
    told = dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), output, language=tag)
    assert told == ([no_marks(output)] if suffix == "ts" else [])
    first, second = (stream for stream in inspect_file(output).streams if stream.kind == "audio")
    assert (first.language, second.language) == (kept, "eng")
    assert (first.default, second.default) == (suffix != "ts", False)  # a transport stream has no such flag


def test_the_language_of_the_dubs_own_file_is_kept(clip, sound, tmp_path):
    clip(tmp_path / "a.mp4")
    clip(tmp_path / "d.mp4", n_audio=2)
    dubbed(tmp_path / "a.mp4", tmp_path / "d.mp4", tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").audio[0].language == "eng"
    dubbed(tmp_path / "a.mp4", tmp_path / "d.mp4", tmp_path / "again.mp4", language="uk")
    assert probe(tmp_path / "again.mp4").audio[0].language == "ukr"


@pytest.mark.parametrize(("suffix", "tag"), [("avi", "uk"), ("mov", "sv")])
def test_a_language_that_finds_no_place_is_told(clip, sound, tmp_path, suffix, tag):
    clip(tmp_path / "a.mp4", n_b=0)
    (warning,) = dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav"), tmp_path / f"out.{suffix}", language=tag)
    assert warning.startswith(f".{suffix} has no place for the language ")


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "layout", "made"),
    [
        ("mp4", "pcm_s16le", 22050, "mono", "aac"),
        ("mp4", "aac", 48000, "stereo", "aac"),
        ("mp4", "libmp3lame", 44100, "stereo", "mp3"),
        ("mp4", "flac", 96000, "5.1", "flac"),
        ("mov", "pcm_s24le", 48000, "stereo", "pcm_s24le"),
        ("mov", "flac", 44100, "mono", "pcm_s16le"),
        ("mkv", "pcm_f32le", 48000, "5.1", "pcm_f32le"),
        ("mkv", "libopus", 48000, "stereo", "opus"),
        ("webm", "pcm_s16le", 48000, "stereo", "opus"),
        ("avi", "pcm_s16le", 44100, "stereo", "pcm_s16le"),
        ("ts", "pcm_s16le", 48000, "stereo", "aac"),
    ],
)
def test_the_dub_keeps_rate_and_channels(clip, sound, tmp_path, suffix, codec, rate, layout, made):
    clip(tmp_path / "a.mkv", codec="libvpx-vp9" if suffix == "webm" else "libx264", time_base=Fraction(1, 1000), n_b=0)
    ending = {"aac": "m4a", "flac": "flac", "libmp3lame": "mp3", "libopus": "mkv"}.get(codec, "wav")
    dub = sound(tmp_path / f"d.{ending}", codec=codec, rate=rate, layout=layout)
    dubbed(tmp_path / "a.mkv", dub, tmp_path / f"out.{suffix}")
    audio = probe(tmp_path / f"out.{suffix}").audio[0]
    assert (audio.codec, audio.sample_rate) == (made, rate)
    assert audio.channels == {"mono": 1, "stereo": 2, "5.1": 6}[layout]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(("seconds", "codec"), [(0.2, "pcm_s16le"), (1.5, "pcm_s16le"), (1.5, "aac"), (0.2, "aac")])
def test_shorter_and_longer_dubs(clip, sound, tmp_path, suffix, seconds, codec):
    clip(tmp_path / f"a.{suffix}", n_frames=20, time_base=Fraction(1, 1000))
    dub = sound(tmp_path / ("d.wav" if codec.startswith("pcm") else "d.m4a"), seconds, codec=codec)
    dubbed(tmp_path / f"a.{suffix}", dub, tmp_path / f"out.{suffix}")
    assert len(times(tmp_path / f"out.{suffix}")) == 20
    wave = load_audio(tmp_path / f"out.{suffix}")
    wanted = 0.8 if seconds > 0.8 or codec.startswith("pcm") else seconds
    assert len(wave) / 16000 == pytest.approx(wanted, abs=0.05)
    assert np.abs(wave[:3000]).max() > 0.3
    assert (np.abs(wave[4500:12000]).max(initial=0.0) > 0.3) == (seconds > 0.8)


def test_sound_stays_in_place(clip, tmp_path):
    """A beep at 0.5 s of the dub is heard at 0.5 s of the film, whatever the source's clock and the dub's delay."""
    wave = np.zeros(16000, np.float32)
    wave[8000:8016] = 0.9
    write_wav(tmp_path / "d.wav", wave, 16000)
    clip(tmp_path / "late.mp4", start=3, n_frames=25)
    clip(tmp_path / "clock.ts", n_frames=25, n_audio=1)
    subprocess.run([ffmpeg_binary(), "-v", "error", "-i", tmp_path / "d.wav", tmp_path / "d.mp3"], check=True)
    for source in ("late.mp4", "clock.ts"):
        for dub in ("d.wav", "d.mp3"):
            for suffix in ("mp4", "mkv"):
                output = tmp_path / f"{source}-{dub}.{suffix}"
                dubbed(tmp_path / source, tmp_path / dub, output)
                info = probe(output)
                peak = np.abs(load_audio(output)).argmax() / 16000
                assert peak == pytest.approx(0.5, abs=0.005), output.name
                before = require_video(probe(tmp_path / source))
                first = float(times(tmp_path / source)[0]) - before.origin_s
                assert float(times(output)[0]) - info.origin_s == pytest.approx(first, abs=0.002)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_vorbis_that_begins_before_time_0_moves_no_picture(clip, sound, tmp_path, suffix):
    """The first packet in Ogg has a time before 0, for it is not heard."""
    wave = np.zeros(48000, np.float32)
    wave[24000:24048] = 0.9
    write_wav(tmp_path / "click.wav", wave, 48000)
    clip(tmp_path / "a.mp4", n_frames=25)
    argv = [ffmpeg_binary(), "-v", "error", "-i", tmp_path / "a.mp4", "-i", tmp_path / "click.wav"]
    subprocess.run([*argv, "-c:v", "libtheora", "-c:a", "libvorbis", tmp_path / "a.ogv"], check=True)
    dubbed(tmp_path / "a.ogv", sound(tmp_path / "d.wav"), tmp_path / f"out.{suffix}")
    assert times(tmp_path / "a.ogv")[0] == times(tmp_path / f"out.{suffix}")[0] == 0
    before, after = (
        np.abs(load_audio(tmp_path / name, sample_rate=48000, stream=stream)).argmax() / 48000
        for name, stream in (("a.ogv", 0), (f"out.{suffix}", 1))
    )
    assert after == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_original_sound_stays_in_place(clip, sound, tmp_path, suffix):
    """It starts 0.333 s late, which no 25th of a second is."""
    clip(tmp_path / "silent.mp4", n_frames=20)
    sound(tmp_path / "o.m4a", codec="aac", rate=48000)
    source = tmp_path / f"a.{suffix}"
    argv = [ffmpeg_binary(), "-v", "error", "-i", tmp_path / "silent.mp4", "-itsoffset", "0.333"]
    subprocess.run([*argv, "-i", tmp_path / "o.m4a", "-c", "copy", source], check=True)
    dubbed(source, sound(tmp_path / "d.wav"), tmp_path / f"out.{suffix}")
    starts = []
    for path, stream in ((source, 0), (tmp_path / f"out.{suffix}", 1)):
        starts.append(np.flatnonzero(np.abs(load_audio(path, stream=stream)) > 0.1)[0] / 16000)
    assert starts[0] == pytest.approx(0.333, abs=0.003)
    assert starts[1] == pytest.approx(starts[0], abs=1e-4)


def test_apple_gets_its_kind_of_hevc(clip, sound, tmp_path):
    clip(tmp_path / "a.mkv", codec="libx265", size=(128, 96), time_base=Fraction(1, 1000))
    dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_tag == "hvc1"


def test_what_does_not_fit_is_told(clip, sound, subtitled, tmp_path):
    clip(tmp_path / "plain.mkv", n_audio=1, chapters=True, time_base=Fraction(1, 1000), n_b=0)
    subtitled(tmp_path / "plain.mkv", tmp_path / "a.mkv", ffmpeg_binary())
    warnings = dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), tmp_path / "out.avi")
    assert [w.split(" (")[0] for w in warnings] == ["subtitle stream 2", "chapters do not fit into avi"]


def test_text_subtitles_change_with_the_container(clip, sound, subtitled, tmp_path):
    clip(tmp_path / "plain.mkv", n_audio=1, time_base=Fraction(1, 1000))
    subtitled(tmp_path / "plain.mkv", tmp_path / "a.mkv", ffmpeg_binary())
    assert dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), tmp_path / "out.mp4") == []
    assert "mov_text" in [s[1] for s in streams(tmp_path / "out.mp4")]
    clip(tmp_path / "plain.mp4", n_audio=1)
    subtitled(tmp_path / "plain.mp4", tmp_path / "a.mp4", ffmpeg_binary())
    assert dubbed(tmp_path / "a.mp4", sound(tmp_path / "d.wav"), tmp_path / "out.mkv") == []
    assert probe(tmp_path / "out.mkv").streams[-1] == "subtitle"


@pytest.mark.parametrize("suffix", [name.removeprefix(".") for name in CONTAINERS])
def test_no_file_is_without_marks_unless_that_is_told(clip, sound, tmp_path, suffix):
    clip(tmp_path / "a.mkv", codec="libvpx-vp9" if suffix == "webm" else "libx264", time_base=Fraction(1, 1000), n_b=0)
    marks, output = disclosure_tags("1.2.3", "ab" * 32), tmp_path / f"out.{suffix}"
    warnings = dubbed(tmp_path / "a.mkv", sound(tmp_path / "d.wav"), output, metadata=marks)
    if suffix in ("ts", "m2ts", "mts"):
        assert (read_marks(output), len(warnings)) == ({}, 1) and "marks that AI altered it" in warnings[0]
    else:
        assert (read_marks(output), warnings) == (marks, [])


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_marks(clip, sound, tmp_path, suffix):
    source = tmp_path / f"a.{suffix}"
    clip(source)
    marks = disclosure_tags("1.2.3", "ab" * 32)
    assert read_marks(source) == {}
    dubbed(source, sound(tmp_path / "d.wav"), tmp_path / f"out.{suffix}", metadata=marks)
    assert read_marks(tmp_path / f"out.{suffix}") == marks
    again = tmp_path / f"again.{suffix}"
    dubbed(tmp_path / f"out.{suffix}", sound(tmp_path / "d.wav"), again, metadata=disclosure_tags("2.0", "cd" * 32))
    assert "lipdub 2.0" in read_marks(again)["comment"]
    assert "lipdub 1.2.3" in read_marks(again)["comment"], "an older mark is never stripped"


@pytest.mark.parametrize(
    "name", ["with space", 'it\'s "q"', "-dash", "c:olon", "%03d", "漢字", "a,b;c[d]=e\\f", "n\nl"]
)
def test_odd_names(clip, sound, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    source, dub, output = tmp_path / f"{name}.mp4", tmp_path / f"{name}.wav", tmp_path / f"{name} out.mp4"
    clip(source, n_frames=3)
    sound(tmp_path / "d.wav").rename(dub)
    dubbed(source, dub, output)
    assert len(times(output)) == 3


def test_film_as_its_own_dub(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=20)
    dubbed(tmp_path / "a.mp4", tmp_path / "a.mp4", tmp_path / "out.mp4")
    assert len(probe(tmp_path / "out.mp4").audio) == 2


def plan_of(clip, sound, tmp_path, output):
    source, dub = tmp_path / "a.mp4", sound(tmp_path / "d.wav")
    clip(source)
    streams = plan_streams(source, dub, output)
    return RemuxPlan(
        picture=source, source=probe(source), dub=dub, output=output, video_duration_s=0.4, streams=streams
    )


def test_unknown_ending(clip, sound, tmp_path):
    with pytest.raises(OutputError, match=r"\.xyz"):
        remux(plan_of(clip, sound, tmp_path, tmp_path / "out.xyz"))


def test_ffmpegs_last_words(clip, sound, tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        remux(plan_of(clip, sound, tmp_path, tmp_path / "nowhere" / "out.mp4"))


def test_a_full_disk(clip, sound, tmp_path):
    (tmp_path / "out.mkv").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="full"):
        remux(plan_of(clip, sound, tmp_path, tmp_path / "out.mkv"))


def test_the_child_dies_with_us(clip, sound, tmp_path, monkeypatch):
    children = []

    class Popen(subprocess.Popen):
        def communicate(self, *args, **kwargs):
            children.append(self)
            if len(children) == 1:
                raise KeyboardInterrupt
            return super().communicate(*args, **kwargs)

    monkeypatch.setattr(module.subprocess, "Popen", Popen)
    with pytest.raises(KeyboardInterrupt):
        remux(plan_of(clip, sound, tmp_path, tmp_path / "out.mp4"))
    assert children[0].poll() == -9


def test_dub_without_sound(clip, tmp_path):
    clip(tmp_path / "silent.mp4", n_frames=2)
    clip(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="no audio stream"):
        dubbed(tmp_path / "a.mp4", tmp_path / "silent.mp4", tmp_path / "out.mp4")


def test_verify_notices(clip, sound, tmp_path):
    source, output = tmp_path / "a.mp4", tmp_path / "out.mp4"
    clip(source)
    info = probe(source)
    dubbed(source, sound(tmp_path / "d.wav"), output)
    with pytest.raises(OutputError, match="has 10 pictures, 11 were written"):
        verify(output, info, 11)
    with pytest.raises(OutputError, match="no sound"):
        verify(source, info, 10)
    clip(tmp_path / "slow.mp4", rate=Fraction(20), n_audio=1)
    with pytest.raises(OutputError, match="off its time"):
        verify(tmp_path / "slow.mp4", info, 10)
    clip(tmp_path / "turned.mp4", rotation=90, n_audio=1)
    with pytest.raises(OutputError, match="48x64"):
        verify(tmp_path / "turned.mp4", info, 10)
    output.write_bytes(output.read_bytes()[:900])
    with pytest.raises(OutputError, match="read back"):
        verify(output, info, 10)


@pytest.mark.parametrize("clock", ["25", "ntsc"])
def test_an_avi_shows_its_pictures_one_after_another(clip, sound, tmp_path, clock):
    timing = {"25": {"time_base": Fraction(1, 1000)}, "ntsc": {"rate": Fraction(30000, 1001)}}[clock]
    clip(tmp_path / "a.mkv", n_frames=20, **timing)
    info = probe(tmp_path / "a.mkv")
    video, output = require_video(info), tmp_path / "out.avi"
    with VideoReader(info.path, video) as reader, VideoWriter(tmp_path / "p", video, output=output) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    dub = sound(tmp_path / "dub.wav", 0.6)
    streams = plan_streams(info.path, dub, output)
    remux(RemuxPlan(picture=tmp_path / "p", source=info, dub=dub, output=output, video_duration_s=0.6, streams=streams))
    with av.open(str(output)) as container:
        rate = container.streams.video[0].average_rate
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert float(rate) == pytest.approx(25 if clock == "25" else 30000 / 1001, rel=1e-3)
    assert np.diff(times) == pytest.approx([1 / float(rate)] * 19, abs=1e-6)


def test_sound_of_an_unknown_codec_is_told_and_left_out(clip, sound, tmp_path):
    clip(tmp_path / "a.mkv", n_audio=2, time_base=Fraction(1, 1000))
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(b"A_AAC", b"A_ZZZ", 1))
    output = tmp_path / "out.mp4"
    warnings = dubbed(tmp_path / "a.mkv", sound(tmp_path / "dub.wav"), output)
    assert probe(output).streams == ("video", "audio", "audio")
    assert any("(unknown) does not fit" in warning for warning in warnings)


def test_damage_in_the_old_sound_names_the_file_and_a_way_out(clip, sound, tmp_path):
    clip(tmp_path / "a.mp4", n_audio=1, n_frames=50, options={"movflags": "faststart"})
    data = (tmp_path / "a.mp4").read_bytes()  # the sound is at its end
    (tmp_path / "a.mp4").write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"a\.mp4 is damaged") as caught:
        plan_streams(tmp_path / "a.mp4", sound(tmp_path / "dub.wav"), tmp_path / "out.mp4")
    assert "--original-audio drop" in caught.value.remedy
