"""What each container takes: which codecs are copied, which are converted, and what must stay behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from lipdub.config import MediaConfig
from lipdub.errors import OutputError
from lipdub.media.probe import UNKNOWN, AudioInfo, audio_info, codec_of, kind_of, open_input, origin

_TEXT = frozenset({"subrip", "ass", "ssa", "webvtt", "text", "mov_text"})
_IMAGES = frozenset({"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"})


_DISC_PCM = frozenset({"pcm_bluray", "pcm_dvd", "s302m"})  # at most 24 bits, packed as only their own streams are
_OPUS_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")  # by number of channels
_OPUS_WITH_BASS = {"2.1": "5.1", "3.1": "5.1", "4.1": "5.1"}  # the smallest that has all of their channels
MOST_CHANNELS = 8  # of AAC and Opus, as FFmpeg writes them
MOST_HZ = {"aac": 96_000, "libopus": 48_000}
_FINE = 90_000  # Hz; places sound to 0.01 ms
_MAX_CHAPTER_S = 1e9  # from which on a time is damage, for which a muxer refuses the whole file


@dataclass(frozen=True, kw_only=True)
class Container:
    """An output format. An empty `audio` takes every codec."""

    muxer: str
    video: tuple[str, ...]  # codecs that we write and it takes, the usual one first
    audio: frozenset[str] = frozenset()
    pcm: bool = False  # takes uncompressed sound
    fallback: str = "aac"  # for sound that it does not take
    lossless: str = ""  # for sound that it does not take, where that loses nothing
    subtitles: frozenset[str] = frozenset()  # copied
    text: str = ""  # encoder for other text subtitles
    pictures: str = ""  # how cover art is kept: "copy" as a stream, "attach" as a file
    attachments: bool = False
    chapters: bool = True
    tags: bool = True  # takes tags of any name; else a comment, if that
    marks: bool = True  # keeps tags or a comment
    turns: bool = True  # says how the picture is to be turned
    stamps: bool = True  # packets have times of their own; else they follow one another, in the file's order

    @property
    def is_mov(self) -> bool:
        """Whether it is of the QuickTime family."""
        return self.muxer in ("mp4", "mov", "ipod")

    def audio_encoder(self, codec: str) -> str:
        """What to give FFmpeg: "copy", or the encoder for sound of this codec."""
        if codec in _DISC_PCM:
            return self.lossless or self.fallback
        if not self.audio or codec in self.audio or (self.pcm and codec.startswith("pcm_")):
            return "copy"
        return self.fallback

    def keeps_gaps(self, codec: str) -> bool:
        """Whether sound of this codec can pause; else its packets follow one another."""
        return self.stamps and not (self.is_mov and codec.startswith("pcm_"))

    def silence_filter(self, encoder: str, origin_s: float, rate: int) -> str:
        """Audio filter that an encoder needs to put silence in the place of gaps and, without `stamps`, before a start.

        `origin_s` is the timestamp that becomes time 0.
        """
        if self.keeps_gaps(encoder):
            return ""
        return "aresample=async=1" + ("" if self.stamps else f":first_pts={round(origin_s * rate)}")

    def audio_filters(self, codec: str, encoder: str, origin_s: float, end_s: float | None = None) -> str:
        """Bit stream filters that a copy needs; `origin_s` is the timestamp that becomes time 0, `end_s` the last."""
        if encoder != "copy":
            return ""
        drops = []
        # MP3's declared delay starts before time 0. QuickTime says so in an edit list; the others would shift every
        # stream, the picture too. The first packet holds next to nothing else, so it goes.
        if codec == "mp3" and not self.is_mov:
            drops.append(f"lt(pts*tb\\,{origin_s - 1e-4:.6f})")
        if end_s is not None:
            drops.append(f"gte(pts*tb\\,{end_s:.6f})")
        filters = [f"noise=drop={'+'.join(drops)}"] if drops else []
        if codec == "vorbis" and not self.is_mov:  # its first packet is not heard, but the second needs it
            first = f"round({origin_s:.6f}/TB)"
            filters.append(f"setts=pts=max(PTS\\,{first}):dts=max(DTS\\,{first})")
        return ",".join(filters)


_MP4_AUDIO = frozenset({"aac", "mp3", "mp2", "ac3", "eac3", "alac", "opus", "flac", "dts"})
_MOV_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
_MP4 = Container(
    muxer="mp4",
    video=("h264", "hevc", "vp9", "av1"),
    audio=_MP4_AUDIO,
    subtitles=frozenset({"mov_text"}),
    text="mov_text",
    pictures="copy",
)
_QUICKTIME = Container(
    muxer="mov",
    video=("h264", "hevc", "prores"),
    audio=_MOV_AUDIO,
    pcm=True,
    fallback="pcm_s16le",
    lossless="pcm_s24le",
    subtitles=frozenset({"mov_text", "eia_608"}),
    text="mov_text",
)
_MATROSKA = Container(
    muxer="matroska",
    lossless="flac",
    video=("h264", "hevc", "vp9", "av1", "prores"),
    subtitles=(_TEXT | _IMAGES) - {"mov_text", "text"},
    text="srt",
    pictures="attach",
    attachments=True,
)
_WEBM = Container(
    muxer="webm",
    video=("vp9", "av1"),
    audio=frozenset({"opus", "vorbis"}),
    fallback="libopus",
    subtitles=frozenset({"webvtt"}),
    text="webvtt",
)
_AVI = Container(
    muxer="avi",
    video=("h264",),
    audio=frozenset({"mp3", "ac3", "mp2"}),
    pcm=True,
    fallback="pcm_s16le",
    chapters=False,
    tags=False,
    turns=False,
    stamps=False,
)
_TRANSPORT = Container(
    muxer="mpegts",
    video=("h264", "hevc"),
    audio=frozenset({"aac", "mp3", "mp2", "ac3", "eac3", "dts", "opus"}),
    subtitles=frozenset({"dvb_subtitle"}),
    chapters=False,
    tags=False,
    marks=False,
    turns=False,
)
CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": _QUICKTIME,
    ".mkv": _MATROSKA,
    ".webm": _WEBM,
    ".avi": _AVI,
    ".ts": _TRANSPORT,
    ".m2ts": _TRANSPORT,
    ".mts": _TRANSPORT,
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One stream of the source that goes into the output."""

    index: int  # in the source
    kind: str
    codec: str
    encoder: str  # or "copy", or "attach"
    disposition: str  # as FFmpeg writes it: "default+forced", or "0"
    filters: str = ""
    optional: bool = False  # left out when FFmpeg cannot write it again
    data: bytes = field(default=b"", repr=False)  # of cover art that is attached
    name: str = ""  # of its file, likewise
    sound: AudioInfo | None = None  # of an audio stream


def container_of(output: Path) -> Container:
    """The container that a file name's ending asks for.

    Raises:
        OutputError: an ending that we do not write.
    """
    container = CONTAINERS.get(output.suffix.lower())
    if container is None:
        raise OutputError(
            f"cannot write {output.suffix or 'a file without an ending'}", f"use one of {', '.join(CONTAINERS)}"
        )
    return container


def encoder_options(
    encoder: str, sound: AudioInfo, config: MediaConfig, number: int, filters: str = ""
) -> dict[str, str]:
    """FFmpeg's options for a sound stream of the output: bit rate and filters.

    Args:
        encoder: or "copy".
        sound: as it comes.
        config: the bit rate.
        number: of the stream in the output.
        filters: audio filters that it gets in any case.
    """
    if encoder == "copy":
        return {}
    chain = [filters] if filters else []
    if encoder == "libopus":  # it has one layout for each number: 5.1(side), as films have it, becomes 5.1
        layout = _OPUS_WITH_BASS.get(sound.layout, _OPUS_LAYOUTS[min(sound.channels, len(_OPUS_LAYOUTS)) - 1])
        chain.append(f"aformat=channel_layouts={layout}")
    elif encoder == "aac" and sound.channels > MOST_CHANNELS:
        chain.append("aformat=channel_layouts=7.1")
    elif sound.channels in (1, 2):  # some formats only state how many there are
        chain.append(f"aformat=channel_layouts={('mono', 'stereo')[sound.channels - 1]}")
    options = {f"b:{number}": config.audio_bitrate} if encoder in ("aac", "libopus") else {}
    return options | ({f"filter:{number}": ",".join(chain)} if chain else {})


def movie_clock(denominator: int) -> dict[str, str]:
    """Options for QuickTime's two clocks: the picture's is its own, so that its pts stay as they are.

    The movie's places the start of every track. It is a multiple, so that the picture starts exactly, and fine enough
    for sound.
    """
    return {
        "video_track_timescale": str(denominator),
        "movie_timescale": str(denominator * -(-_FINE // denominator)),
    }


def planned(source: Path, container: Container, *, keep_audio: bool) -> tuple[list[Item], list[str]]:
    """Every stream of the source but its picture: those that go along, and a sentence for each that cannot."""
    items: list[Item] = []
    warnings: list[str] = []
    with open_input(source) as opened:
        picture_seen = False
        for stream in opened.streams:
            kind, codec = kind_of(stream), codec_of(stream)
            if kind == "video" and not picture_seen:
                picture_seen = True
            elif (kind != "audio" or keep_audio) and not is_remade(stream, kind, len(opened.chapters())):
                item = _item(stream, kind, codec, container, opened)
                if item is None:
                    warnings.append(f"{kind} stream {stream.index} ({codec}) does not fit into {container.muxer}")
                else:
                    items.append(item)
        if opened.chapters() and not container.chapters:
            warnings.append(f"chapters do not fit into {container.muxer}")
        elif not chapters_timed(opened):
            warnings.append("chapters have damaged times: they are left out")
    order = {"audio": 0, "subtitle": 1}  # sound first: players number what they offer by position
    return sorted(items, key=lambda item: order.get(item.kind, 2)), warnings


def chapters_timed(opened: InputContainer) -> bool:
    """Whether all chapters of a file are at times that can be."""
    times = [each[end] * (each["time_base"] or 0) for each in opened.chapters() for end in ("start", "end")]
    return all(abs(float(time_s)) < _MAX_CHAPTER_S for time_s in times)


def is_remade(stream: av.stream.Stream, kind: str, n_chapters: int) -> bool:
    """Whether the muxer makes this track itself: a copy would be a second one.

    QuickTime stores chapters as a track with one text for each, and the time code as a track with that tag.
    """
    if kind not in ("data", "unknown"):
        return False
    return "timecode" in stream.metadata or (n_chapters > 0 and stream.frames == n_chapters)


def _item(stream: av.stream.Stream, kind: str, codec: str, container: Container, opened: InputContainer) -> Item | None:
    encoder = _encoder(kind, codec, container, opened.format.name)
    if encoder is None:
        return None
    return Item(
        index=stream.index,
        kind=kind,
        codec=codec,
        encoder=encoder,
        disposition=disposition_words(
            stream.disposition & ~(Disposition.default if kind == "audio" else Disposition(0))
        ),
        filters=container.audio_filters(codec, encoder, origin(opened)) if kind == "audio" else "",
        optional=kind not in ("audio", "subtitle"),
        data=_first_packet(opened, stream) if encoder == "attach" else b"",
        name=stream.metadata.get("filename", "") if encoder == "attach" else "",
        sound=audio_info(opened, stream) if isinstance(stream, av.AudioStream) and codec != UNKNOWN else None,
    )


def _first_packet(opened: InputContainer, stream: av.stream.Stream) -> bytes:
    return next((bytes(packet) for packet in opened.demux(stream) if packet.size), b"")


def _encoder(kind: str, codec: str, container: Container, source: str) -> str | None:
    """What to give FFmpeg for a stream; None: the container cannot hold it."""
    if kind == "audio":
        return None if codec == UNKNOWN else container.audio_encoder(codec)  # FFmpeg copies only what it can name
    if kind == "subtitle" and codec not in container.subtitles:
        return container.text if codec in _TEXT and container.text else None
    if kind == "picture":
        return container.pictures or None
    if kind in ("subtitle", "attachment"):
        return "copy" if kind == "subtitle" or container.attachments else None
    if kind == "video" and codec in container.video:  # a second camera
        return "copy"
    # Other tracks, such as telemetry, are known to fit only where they come from.
    names = source.split(",")
    return "copy" if container.muxer in names or (container.is_mov and "mov" in names) else None


def disposition_words(flags: Disposition) -> str:
    """Flags as FFmpeg's command line writes them."""
    return "+".join(flag.name for flag in flags if flag.name) or "0"
