"""Which encoder writes the new picture, in which pixel format, and what of the source that cannot hold."""

from __future__ import annotations

from dataclasses import dataclass

import av

from lipdub.config import MediaConfig
from lipdub.errors import OutputError, SetupError
from lipdub.media.color import colorspace_of, full_range
from lipdub.media.containers import Container
from lipdub.media.probe import VideoInfo, has_alpha

# The source's codec -> encoders, of which the first that keeps depth and chroma is taken. Anything else (MPEG-2, MJPEG,
# DV, ...) becomes H.264, which every container here takes.
ENCODERS = {
    "h264": ("libx264", "libx265"),
    "hevc": ("libx265",),
    "vp8": ("libvpx-vp9",),
    "vp9": ("libvpx-vp9", "libsvtav1", "libx265"),
    "av1": ("libsvtav1", "libvpx-vp9", "libx265"),
    "prores": ("prores_ks",),
}
# Encoders of graphics processors, taken only by their own name: they are fast, but make larger files, not the same ones
# on each machine, and lack some of what the others keep.
HARDWARE = (
    *(f"{codec}_{maker}" for maker in ("nvenc", "qsv") for codec in ("h264", "hevc", "av1")),
    *(f"{codec}_{maker}" for maker in ("amf", "videotoolbox") for codec in ("h264", "hevc")),
)
# The same pixel format under the name that leaves the range to the stream.
_LIMITED_RANGE = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p", "yuvj440p": "yuv440p"}
# What an encoder falls back to when it lacks the picture's own pixel format, least change first.
_FALLBACKS = (
    *(f"yuv{chroma}p{depth}" for depth in ("", "10le", "12le") for chroma in ("420", "422", "444")),
    "yuva444p10le",
    "nv12",  # 4:2:0 as graphics processors store it
    "p010le",  # the same with 10 bits
)
_EVEN_SIZES = ("libx264", "libx265")
_ALPHA = ("prores_ks",)  # encoders whose transparency an intermediate QuickTime file holds
_INTERLACED = ("libx264", "prores_ks")  # encoders that keep two fields in a picture
_HDR_LEVELS = ("libx264", "libx265", "libsvtav1")  # encoders that write HDR's light levels into the stream
_NO_LOSSLESS = ("prores_ks", "libsvtav1")  # what SVT-AV1 4.1 calls lossless is off by one here and there
# A copy without loss, for what is to be changed first; without tracks that Matroska does not take.
_COPY_LOSSLESS = "ffmpeg -i FILE -map 0:v:0 -map 0:a? -c:a copy -c:v ffv1"
_FEW_PICTURES = 8  # pictures; x265 gives wild decoding times when fewer come than it reorders
BOTTOM_FIRST = (3, 4)  # FFmpeg's numbers for orders of fields in which the lower field is shown first
X264_REPRODUCIBLE = "cpu-independent=1"  # else x264's macroblock tree differs from run to run where there is AVX-512
PLAIN_ENCODER = "libx264"  # what any source can become; without it hardly a file can be written
LIMITED, FULL = 1, 2  # FFmpeg's numbers for the range of code values


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Settings of the encoder."""

    encoder: str
    pix_fmt: str
    options: dict[str, str]
    colorspace: int  # of the code values that are written
    color_range: int
    losses: tuple[str, ...]  # what of the source is not kept, a sentence each


def choose_encoding(
    video: VideoInfo,
    *,
    codec: str | None,
    crf: int | None,
    lossless: bool,
    container: Container | None,
    config: MediaConfig,
) -> Encoding:
    """The encoder that loses least; of equals the one of the source's own codec family.

    Args:
        video: the source's picture.
        codec: a key of ENCODERS or one of HARDWARE that was asked for; None: as the source.
        crf: constant quality of the encoder's own scale; None: the one of `config`.
        lossless: keep every pixel to the bit.
        container: of the output; None: any.
        config: quality and preset.

    Raises:
        SetupError: no such encoder, or this PyAV lacks it.
        OutputError: the container does not take the codec, or has no place for a rotation; transparency or the two
            fields of an interlaced picture would be lost, or `lossless` cannot be had.
    """
    if container is not None and not container.turns and video.is_turned:
        raise OutputError(
            f"{container.muxer} has no place for how the picture is to be turned",
            f"write .mp4, .mov or .mkv, or turn the picture first: {_COPY_LOSSLESS} TURNED.mkv",
        )
    encoder, pix_fmt = _choose_encoder(video, codec, container.video if container is not None else ())
    if lossless and encoder in (*_NO_LOSSLESS, *HARDWARE):
        raise OutputError(f"{encoder} is not lossless", "use --codec h264, hevc or vp9")
    options = _options(encoder, pix_fmt, video, crf, config, lossless=lossless)
    if container is not None and not container.stamps:
        options["bf"] = "0"  # pictures that come in another order than they are shown need their times
    before, after = av.VideoFormat(video.pix_fmt, 16, 16), av.VideoFormat(pix_fmt, 16, 16)
    mixed = before.is_rgb and not after.is_rgb  # then they are given a matrix, which must be named
    return Encoding(
        encoder=encoder,
        pix_fmt=pix_fmt,
        options=options,
        colorspace=colorspace_of(video) if mixed else video.colorspace,
        color_range=LIMITED if mixed or before.has_palette else FULL if full_range(video) else video.color_range,
        losses=_losses(encoder, pix_fmt, video),
    )


def _choose_encoder(video: VideoInfo, codec: str | None, accepted: tuple[str, ...]) -> tuple[str, str]:
    """Encoder and pixel format; `accepted` are the codecs that the container takes, empty for any.

    Raises:
        SetupError: no such encoder.
        OutputError: the container does not take the codec, or transparency or interlacing would be lost.
    """
    if codec is not None and codec not in ENCODERS and codec not in hardware_here():
        available = ", ".join((*sorted(ENCODERS), *hardware_here()))
        raise SetupError(f"no encoder for {codec!r}", f"choose one of {available}")
    if codec is not None and accepted and codec.partition("_")[0] not in accepted:
        raise OutputError(f"the output's container does not take {codec}", f"choose one of {', '.join(accepted)}")
    names = ENCODERS.get(codec, (codec,))[:1] if codec is not None else ENCODERS.get(video.codec, ENCODERS["h264"])
    allowed = tuple(ENCODERS[name][0] for name in accepted or ENCODERS)
    if accepted and codec not in HARDWARE:
        names = tuple(name for name in names if name in allowed) if names[0] in allowed else allowed
    encoder, pix_fmt = _best(names, video)
    if codec is None and any(_structure_lost(video, encoder, pix_fmt)):
        encoder, pix_fmt = _best((*names, *allowed), video)
    alpha_lost, fields_lost = _structure_lost(video, encoder, pix_fmt)
    if alpha_lost:
        raise OutputError(
            f"the video has transparency, which {encoder} in this container does not keep",
            "write .mov with --codec prores from a video that FFmpeg decodes with its alpha, or remove it first: "
            f"{_COPY_LOSSLESS} -pix_fmt yuv420p OPAQUE.mkv",
        )
    if fields_lost:
        raise OutputError(
            f"the video is interlaced, which {encoder} does not keep",
            f"write .mkv, .mp4 or .ts with --codec h264, or deinterlace it first: {_COPY_LOSSLESS} -vf bwdif PLAIN.mkv",
        )
    return encoder, pix_fmt


def hardware_here() -> list[str]:
    """Hardware encoders that this PyAV has; only opening one shows whether the machine has the hardware."""
    return [name for name in HARDWARE if name in av.codecs_available]


def installed() -> tuple[str, str, list[str], list[str]]:
    """Versions of PyAV and of the FFmpeg inside it; encoders of ENCODERS that it has, and those that it lacks."""
    names = sorted({name for names in ENCODERS.values() for name in names})
    there = [name for name in names if name in av.codecs_available]
    return av.__version__, av.ffmpeg_version_info, there, [name for name in names if name not in there]


def _best(names: tuple[str, ...], video: VideoInfo) -> tuple[str, str]:
    """The encoder and pixel format that lose least of the picture.

    Raises:
        SetupError: this PyAV has none of the encoders.
    """
    candidates = [(name, _pixel_format(name, video)) for name in names if name in av.codecs_available]
    if not candidates:
        raise SetupError(f"this installation of PyAV has no encoder {names[0]}", "install the wheel: pip install av")
    # Python's min keeps the first of equals, so the source's own codec wins unless it would cost quality.
    return min(
        candidates, key=lambda pair: (*_structure_lost(video, *pair), *_conversion_cost(video.pix_fmt, pair[1])[:2])
    )


def _structure_lost(video: VideoInfo, encoder: str, pix_fmt: str) -> tuple[bool, bool]:
    """Whether transparency is lost, which a decoder may already have left out, and the two fields of a picture."""
    alpha_lost = video.alpha and not (has_alpha(video.pix_fmt) and has_alpha(pix_fmt))
    return alpha_lost, bool(video.interlaced) and encoder not in _INTERLACED


def _losses(encoder: str, pix_fmt: str, video: VideoInfo) -> tuple[str, ...]:
    """What of the picture the encoder cannot hold, one sentence each."""
    losses = []
    chroma, bits, _ = _conversion_cost(video.pix_fmt, pix_fmt)
    if chroma or bits:
        less = " and ".join([*["resolution of colour"] * bool(chroma), *["depth"] * bool(bits)])
        losses.append(f"{encoder} has no {video.pix_fmt}: it is written as {pix_fmt}, with less {less}")
    if (video.mastering_display or video.content_light) and encoder not in _HDR_LEVELS:
        losses.append(f"HDR light levels (mastering display, content light) are not kept by {encoder}")
    if video.dynamic_hdr:
        losses.append(f"{video.dynamic_hdr} is not kept; the picture under it is")
    return tuple(losses)


def _options(
    encoder: str, pix_fmt: str, video: VideoInfo, crf: int | None, config: MediaConfig, *, lossless: bool
) -> dict[str, str]:
    """The encoder's own options."""

    def quality(default: int) -> dict[str, str]:
        return {"crf": str(default if crf is None else crf)}

    def joined(*pairs: str) -> str:
        return ":".join([*pairs, *_hdr_options(encoder, video), *["lossless=1"] * (lossless and encoder != "libx264")])

    if encoder == "libx264":
        bottom_first = ["bff=1"] * (video.field_order in BOTTOM_FIRST)
        options = {"preset": config.preset, "x264-params": joined(X264_REPRODUCIBLE, *bottom_first)}
        return options | ({"qp": "0"} if lossless else quality(config.crf_h264))
    if encoder == "libx265":
        few = video.duration_s * video.average_rate < _FEW_PICTURES
        parameters = joined("log-level=error", *["bframes=0"] * few)
        return quality(config.crf_hevc) | {"preset": config.preset, "x265-params": parameters}
    if encoder == "libvpx-vp9":
        options = {"deadline": "good", "cpu-used": "4", "row-mt": "1"}
        return options | ({"crf": "0", "lossless": "1"} if lossless else quality(config.crf_vp9))
    if encoder == "libsvtav1":
        parameters = joined()
        return quality(config.crf_av1) | {"preset": "8"} | ({"svtav1-params": parameters} if parameters else {})
    if encoder in HARDWARE:
        by_codec = {"h264": config.crf_h264, "hevc": config.crf_hevc, "av1": config.crf_av1}
        return _hardware_options(encoder, by_codec[encoder.partition("_")[0]] if crf is None else crf)
    return {"profile": "4444" if "444" in pix_fmt else "hq", "vendor": "apl0"}  # ProRes has no crf


def _hardware_options(encoder: str, crf: int) -> dict[str, str]:
    """Constant quality, in each maker's own words; the numbers mean about the same as x264's."""
    maker = encoder.rpartition("_")[2]
    if maker == "nvenc":
        return {"preset": "p5", "tune": "hq", "rc": "vbr", "cq": str(crf)}
    if maker == "qsv":
        return {"preset": "slow", "global_quality": str(max(1, crf))}
    if maker == "amf":
        return {"quality": "quality", "rc": "cqp", "qp_i": str(crf), "qp_p": str(crf)}
    # VideoToolbox counts from 1 to 100, best last, in FFmpeg's units of 118.
    return {"flags": "+qscale", "global_quality": str(118 * max(1, 100 - 2 * crf))}


def _hdr_options(encoder: str, video: VideoInfo) -> list[str]:
    """Static HDR metadata in an encoder's notation.

    x264 and x265 count chromaticity in 0.00002 and luminance in 0.0001 cd/m2; SVT-AV1 takes plain numbers.
    """
    av1 = encoder == "libsvtav1"
    options = []
    if video.mastering_display is not None:
        *points, min_luminance, max_luminance = video.mastering_display
        pairs = [points[i : i + 2] for i in range(0, 8, 2)]
        if av1:
            red, green, blue, white = (f"({float(x):.5f},{float(y):.5f})" for x, y in pairs)
            light = f"({float(max_luminance):.4f},{float(min_luminance):.4f})"
        else:
            red, green, blue, white = (f"({round(x * 50_000)},{round(y * 50_000)})" for x, y in pairs)
            light = f"({round(max_luminance * 10_000)},{round(min_luminance * 10_000)})"
        name = "mastering-display" if encoder != "libx265" else "master-display"
        options.append(f"{name}=G{green}B{blue}R{red}WP{white}L{light}")
    if video.content_light is not None:
        name = {"libx264": "cll", "libx265": "max-cll"}.get(encoder, "content-light")
        options.append(f"{name}={video.content_light[0]},{video.content_light[1]}")
    return options


def _pixel_format(encoder: str, video: VideoInfo) -> str:
    """The source's own format where the encoder takes it, else the nearest that loses neither colour nor depth."""
    accepted = {form.name for form in av.Codec(encoder, "w").video_formats or ()}
    accepted = {name for name in accepted if encoder in _ALPHA or not has_alpha(name)}
    if encoder in HARDWARE:
        accepted &= {*_FALLBACKS}  # without those that lie on the graphics processor, and RGB
    if encoder.startswith("h264_"):  # most machines encode no deeper H.264, whatever FFmpeg lists
        accepted = {name for name in accepted if av.VideoFormat(name, 16, 16).components[0].bits == 8}
    if encoder in (*_EVEN_SIZES, *HARDWARE):
        # Odd sizes do not exist in H.264 and HEVC unless every pixel has its own chroma sample.
        accepted = {name for name in accepted if _size_allowed(name, video)}
    own = (video.pix_fmt, _LIMITED_RANGE.get(video.pix_fmt, video.pix_fmt))
    for name in own:
        if name in accepted:
            return name
    offered = [name for name in _FALLBACKS if name in accepted]
    if not offered:
        raise OutputError(f"{encoder} takes no pictures of {video.width}x{video.height}", "leave out --codec")
    return min(offered, key=lambda name: (video.alpha and not has_alpha(name), *_conversion_cost(video.pix_fmt, name)))


def _conversion_cost(source: str, target: str) -> tuple[int, int, int]:
    """What a conversion costs: chroma samples lost (of 16 in each direction), bits lost; then what it adds."""
    before, after = av.VideoFormat(source, 16, 16), av.VideoFormat(target, 16, 16)
    if len(before.components) == 1 and not before.has_palette:  # grey has no chroma to lose
        wide, high = 0, 0
    elif before.is_rgb or before.has_palette:
        wide, high = 16, 16
    else:
        wide, high = before.chroma_width(), before.chroma_height()
    bits = 0 if before.has_palette else before.components[0].bits
    lost = max(0, wide - after.chroma_width()) + max(0, high - after.chroma_height())
    deeper = after.components[0].bits - bits
    added = max(0, deeper) + after.chroma_width() * after.chroma_height() + len(after.components)
    return lost, max(0, -deeper), added


def _size_allowed(name: str, video: VideoInfo) -> bool:
    """Whether every chroma sample of a pixel format covers whole pixels of the picture."""
    form = av.VideoFormat(name, video.width, video.height)
    step_x, step_y = (16 // size for size in (form.chroma_width(16), form.chroma_height(16)))
    return video.width % step_x == 0 and video.height % step_y == 0
