import struct
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from lipdub.errors import InputError, OutputError
from lipdub.media.audio import load_audio, write_wav
from lipdub.media.excerpt import cut_sound
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import measured, probe, read_clocks
from lipdub.media.streamed import copy_with_length


def click_at(path, seconds, *, codec="pcm_s16le", rate=48000, layout="mono", start=0.0, length=2.0):
    """A loud click `seconds` after time 0, in a track whose timestamps begin at `start`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        n_channels = stream.codec_context.layout.nb_channels
        wave = np.zeros(int((length - start) * rate), np.float32)
        place = round((seconds - start) * rate)
        wave[place : place + 24] = 0.9
        size = stream.codec_context.frame_size or 1024
        for begin in range(0, len(wave), size):
            block = np.repeat(wave[None, begin : begin + size], n_channels, axis=0)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = begin + round(start * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def peak_time(wave, rate):
    return np.abs(wave).argmax() / rate


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.wav", "pcm_s16le", "mono"),
        ("a.wav", "pcm_s24le", "stereo"),
        ("a.wav", "pcm_f32le", "5.1"),
        ("a.wav", "pcm_u8", "mono"),
        ("a.wav", "pcm_mulaw", "mono"),
        ("a.flac", "flac", "stereo"),
        ("a.m4a", "aac", "stereo"),
        ("a.mp3", "libmp3lame", "mono"),
        ("a.mkv", "libopus", "stereo"),
    ],
)
def test_a_click_stays_where_it_is(tmp_path, name, codec, layout):
    click_at(tmp_path / name, 1.0, codec=codec, layout=layout)
    wave = load_audio(tmp_path / name)
    assert wave.dtype == np.float32
    assert peak_time(wave, 16000) == pytest.approx(1.0, abs=0.002)
    assert len(wave) == pytest.approx(32000, abs=1600)
    assert np.abs(wave).max() > 0.2


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_late_start_is_silence(tmp_path, name):
    click_at(tmp_path / name, 1.5, codec="aac", start=0.5)
    wave = load_audio(tmp_path / name)
    assert peak_time(wave, 16000) == pytest.approx(1.5, abs=0.002)
    assert np.abs(wave[: 16000 // 2 - 200]).max() < 1e-3


def test_transport_stream_counts_from_its_start(tmp_path):
    click_at(tmp_path / "a.ts", 6.0, codec="aac", start=5.0, length=6.5)
    assert peak_time(load_audio(tmp_path / "a.ts"), 16000) == pytest.approx(1.0, abs=0.03)


def test_a_gap_in_the_timestamps_is_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for begin in (0, 1600, 8000):  # 0.2 s of sound, 0.3 s of nothing, 0.1 s of sound
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 8000, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, begin, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    wave = load_audio(tmp_path / "a.mkv")
    assert len(wave) == pytest.approx(9600, abs=32)
    assert np.abs(wave[3300:7900]).max() < 1e-3
    assert wave[1000:3000].min() > 0.2
    assert wave[8200:9400].min() > 0.2


def test_any_rate_any_stream(clip, sound, tmp_path):
    wave = load_audio(sound(tmp_path / "a.wav", 0.5, rate=8000), sample_rate=16000)
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum.argmax() / len(wave) * 16000 == pytest.approx(440, abs=3)
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.05)
    clip(tmp_path / "b.mp4", n_audio=2, n_frames=20)
    for number, pitch in ((0, 300), (1, 600)):
        wave = load_audio(tmp_path / "b.mp4", stream=number)
        assert np.abs(np.fft.rfft(wave)).argmax() / len(wave) * 16000 == pytest.approx(pitch, abs=3)


def test_no_sound(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=2)
    with pytest.raises(InputError, match=r"no audio stream.*video"):
        load_audio(tmp_path / "a.mp4")


def test_no_such_stream(sound, tmp_path):
    with pytest.raises(InputError, match="1 audio streams"):
        load_audio(sound(tmp_path / "a.wav"), stream=1)


def test_a_rate_that_no_sound_has(sound, tmp_path):
    """FFmpeg would take hours to bring it to another rate."""
    path = sound(tmp_path / "a.wav", 1.0)
    data = bytearray(path.read_bytes())
    data[24:28] = (956_317_312).to_bytes(4, "little")
    path.write_bytes(data)
    for read in (load_audio, probe):
        with pytest.raises(InputError, match="956317312 samples a second"):
            read(path)


def test_no_samples(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(InputError, match=r"a\.wav"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number(tmp_path, value):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        wave = np.zeros((1, 16000), np.float32)
        wave[0, 8000] = value
        frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match=r"not a number.* 0\.\d+ s"):
        load_audio(tmp_path / "a.wav")


def test_wav_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    wave = rng.uniform(-1, 1, 5000).astype(np.float32)
    wave[0] = 2.0  # clipped
    write_wav(tmp_path / "a.wav", wave, 22050)
    with av.open(str(tmp_path / "a.wav")) as container:
        stream = container.streams.audio[0]
        assert (stream.sample_rate, stream.layout.nb_channels) == (22050, 1)
        back = np.concatenate([f.to_ndarray()[0] for f in container.decode(stream)])
    np.testing.assert_allclose(back / 32767, np.clip(wave, -1, 1), atol=2e-5)


def test_wav_into_nowhere(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        write_wav(tmp_path / "nowhere" / "a.wav", np.zeros(10, np.float32), 16000)


def test_a_cut_file_is_damaged(sound, tmp_path):
    data = sound(tmp_path / "a.wav", 1.0).read_bytes()
    (tmp_path / "b.wav").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"the sound is damaged at 0\.\d+ s: a packet is incomplete") as caught:
        load_audio(tmp_path / "b.wav")
    assert "ffmpeg -i FILE WHOLE.wav" in caught.value.remedy


def test_channels_that_nobody_can_mix(tmp_path):
    """Found by `python -m benchmarks mutants`: a WAV whose damaged header claims 230 of them."""
    block = 2 * 230
    form = struct.pack("<HHIIHH", 1, 230, 16_000, 16_000 * block, block, 16)
    data = bytes(block * 100)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    (tmp_path / "d.wav").write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    with pytest.raises(InputError, match="230 channels cannot be mixed"):
        load_audio(tmp_path / "d.wav")


STREAMED = {  # where each kind of file keeps the length of its samples, and what writers put there who do not know it
    "wav": (b"data", 4, "little", [0xFFFFFFFF, 0x7FFFFFFF, 2_000_000_000, 0x7FFFF000, 0]),
    "aiff": (b"SSND", 4, "big", [0xFFFFFFFF, 0x7FFFFFFF]),
    "au": (b".snd", 8, "big", [0xFFFFFFFF]),
}


@pytest.mark.parametrize(
    ("kind", "length"), [(kind, length) for kind, (_, _, _, lengths) in STREAMED.items() for length in lengths]
)
def test_a_file_that_was_streamed_is_heard_to_its_end(sound, tmp_path, kind, length):
    """Its header does not tell how long it is; the last packet is shorter than the others."""
    tag, offset, order, _ = STREAMED[kind]
    codec = "pcm_s16le" if kind == "wav" else "pcm_s16be"
    path = sound(tmp_path / f"a.{kind}", 1.237, codec=codec, rate=22050)
    wanted = load_audio(path)
    data = bytearray(path.read_bytes())
    place = data.index(tag) + offset
    data[place : place + 4] = length.to_bytes(4, order)
    path.write_bytes(data)
    np.testing.assert_array_equal(load_audio(path), wanted)
    assert len(wanted) / 16000 == pytest.approx(1.237, abs=0.001)


PIPED = {  # written by FFmpeg into a pipe: RF64, Wave64 and CAF, whose headers then hold placeholders
    "rf64": ["-rf64", "always", "-f", "wav"],
    "w64": ["-f", "w64"],
    "caf": ["-f", "caf"],
}


@pytest.mark.parametrize("kind", PIPED)
def test_a_sound_from_a_pipe_gets_its_length(sound, tmp_path, kind):
    whole = sound(tmp_path / "a.wav", 1.237, rate=22050)
    words = [ffmpeg_binary(), "-v", "error", "-i", whole, "-c:a", "pcm_s16be" if kind == "caf" else "pcm_s16le"]
    made = subprocess.run([*words, *PIPED[kind], "pipe:1"], check=True, stdout=subprocess.PIPE).stdout
    piped, mended, part = (tmp_path / name for name in ("piped", "mended", "part.wav"))
    piped.write_bytes(made)
    np.testing.assert_array_equal(load_audio(piped), load_audio(whole))  # also --drive-audio, and voices of --speakers
    assert measured(probe(piped), read_clocks(piped)).audio[0].duration_s == pytest.approx(1.237, abs=0.001)
    cut_sound(piped, part, 0.5, 0.4)
    assert len(load_audio(part)) / 16000 == pytest.approx(0.4, abs=0.001)
    assert copy_with_length(piped, mended) == mended
    np.testing.assert_array_equal(load_audio(mended), load_audio(whole))
    samples = [*words[:3], "-i", mended, "-f", "s16le", "pipe:1"]
    read = subprocess.run(samples, check=True, stdout=subprocess.PIPE).stdout  # FFmpeg reads all of it
    assert len(read) == 2 * int(1.237 * 22050)
    assert piped.read_bytes() == made  # it is the user's
    assert copy_with_length(mended, tmp_path / "again") == mended
    cut = tmp_path / "cut"
    cut.write_bytes(mended.read_bytes()[:-1001])  # a length that is told, and not there, is damage
    assert copy_with_length(cut, tmp_path / "again") == cut
    assert copy_with_length(whole, tmp_path / "again") == whole


def test_a_long_file_that_was_cut_short_is_still_damaged(sound, tmp_path):
    path = sound(tmp_path / "a.wav", 1.237, rate=22050)
    path.write_bytes(path.read_bytes()[:-1001])
    with pytest.raises(InputError, match="damaged at"):
        load_audio(path)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "pcm_u8", "flac"])
@pytest.mark.parametrize("right", [-1.0, -0.7])
def test_channels_that_cancel_each_other_are_heard(tmp_path, codec, right):
    """One of them turned upside down: the mix is next to silent, the loudest channel is not."""
    wave = 0.5 * np.sin(np.arange(16000) / 7)
    path = tmp_path / ("a.flac" if codec == "flac" else "a.wav")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.stack([wave, right * wave]).astype(np.float32), format="fltp", layout="stereo"
        )
        frame.sample_rate = 16000
        for part in av.AudioResampler(format=stream.codec_context.format, layout="stereo").resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    np.testing.assert_allclose(load_audio(path), wave, atol=0.01)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("libopus", "a.webm"), ("aac", "a.m4a"), ("flac", "a.flac"), ("pcm_s24le", "a.wav"), ("libvorbis", "a.ogg")],
)
@pytest.mark.parametrize("layout", ["mono", "5.1", "7.1"])
def test_sounds_of_eight_channels_are_heard(tmp_path, codec, name, layout):
    """PyAV reads a ninth plane of them, which is not there."""
    tone = f"sine=r=48000:d=0.5,aformat=channel_layouts=mono,volume=4,pan={layout}|c{0 if layout == 'mono' else 2}=c0"
    words = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", tone, "-c:a", codec, tmp_path / name]
    subprocess.run(words, check=True)
    wave = load_audio(tmp_path / name, sample_rate=48000)
    assert len(wave) / 48000 == pytest.approx(0.5, abs=0.03)
    spectrum = np.abs(np.fft.rfft(wave[4800:19200]))
    assert spectrum.argmax() * 48000 / 14400 == pytest.approx(440, abs=4)


def test_a_sound_that_becomes_another_is_refused_and_the_advice_works(tmp_path):
    """A copy would be heard at the wrong speed from there on."""
    for name, rate in (("a", 44_100), ("b", 22_050)):
        run = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", f"sine=400:d=1:r={rate}", tmp_path / f"{name}.aac"]
        subprocess.run(run, check=True)
    both = tmp_path / "both.aac"
    both.write_bytes((tmp_path / "a.aac").read_bytes() + (tmp_path / "b.aac").read_bytes())
    with pytest.raises(InputError, match="becomes mono, 22050 Hz, at 1") as caught:
        load_audio(both)
    command = caught.value.remedy.partition("ffmpeg ")[2].replace("FILE", str(both)).replace("WHOLE", f"{tmp_path}/w")
    subprocess.run([ffmpeg_binary(), "-v", "error", *command.split()], check=True)
    assert len(load_audio(tmp_path / "w.wav")) / 16_000 == pytest.approx(2.1, abs=0.1)
