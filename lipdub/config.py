"""All settings: frozen sections with their defaults, and how files, presets and `--set` change them.

Defaults are the thesis' values where it gives one (its section in brackets) and design decisions otherwise.
`load_config`: defaults <- settings files <- TOML presets <- `--set section.key=value`. Unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lipdub.errors import InputError

PRESETS = Path(__file__).parent / "presets"

Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Log-mel spectrogram and the window that a frame sees [3.1, 3.7]."""

    sample_rate: int = 16_000  # Hz, mono
    n_fft: int = 800  # samples, 50 ms
    hop: int = 200  # samples, 12.5 ms: 16 steps = 5 frames of 25 fps
    n_mels: int = 80
    f_min: float = 55.0  # Hz
    f_max: float = 7600.0  # Hz
    floor_db: float = -100.0  # digital silence becomes this; the log is never of zero
    level_db: float = -20.0  # RMS that the audible parts are scaled to before the mel, relative to full scale
    max_gain_db: float = 40.0  # a fainter recording is not raised further: hiss is not speech
    window: int = 16  # mel steps per frame, centred on the frame's middle [3.7]


@dataclass(frozen=True, kw_only=True)
class FaceConfig:
    """Detection, tracking, crop. Pixels are those of the upright display frame unless said otherwise."""

    size: int = 96  # crop side S in pixels [3.1]
    detect_every: int = 5  # frames between two detections of the same shot
    detect_side: int = 320  # longest side that the builtin detector sees
    min_score: float = 0.5  # detector score below which a box is dropped
    min_face: float = 20.0  # box side in pixels below which a face is left alone
    min_confidence: float = 0.5  # landmark confidence below which a frame passes through
    link_iou: float = 0.3  # least overlap that links boxes of neighbouring detections
    max_gap_s: float = 0.5  # longest gap in a track that is filled by interpolation
    min_track_s: float = 0.2  # shorter tracks are left alone
    smooth_s: float = 0.28  # span of the zero-phase smoothing of the crop, inside a shot
    shot_threshold: float = 0.22  # distance in [0, 1] between neighbours that makes a cut (faces/shots.py)
    fade_frames: int = 3  # cross-fade where a track comes or goes


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """Which frames of an identity the generator may look at [3.5]."""

    sampling: str = "kmeans"  # random | neighbourhood | kmeans  (Table 4.1, column 1)
    augment: bool = True  # fill free places with affine copies ("KMeans + Aug")
    count: int = 10  # K clusters
    neighbourhood: int = 30  # frames around the target, for "neighbourhood"
    exclude: int = 5  # frames around the target that are never its reference [3.6]
    pool: int = 120  # most candidate crops an identity keeps while a video is read; up to 250 kB each
    closed_mouth: bool = True  # the most closed mouth is always among them (not in the thesis)
    draw_open: bool = True  # a mouth that never opens wide is drawn open: bending cannot part lips or teeth (likewise)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """g(X, A, R) [3.4]. Widths are channels at S, S/2, S/4, ... ; the last scale is S / 2**(len - 1)."""

    size: int = 96
    widths: tuple[int, ...] = (32, 64, 128, 192, 224, 240)  # 24.6 M parameters, 4.2 GFLOP a frame
    residual_blocks: int = 10  # per image encoder, spread over the scales [3.4]
    audio_blocks: int = 7  # residual blocks of the audio encoder [3.4]
    audio_widths: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 512
    n_mels: int = 80
    window: int = 16
    residual: bool = True  # Table 4.1 "ResNet": shortcuts in the residual blocks
    attention: bool = True  # Table 4.1 "Attn.": references weighed by the audio (5); off: their mean
    attention_score: str = "scaled"  # sigma of (5): "sigmoid" as printed, or "scaled": a.r / sqrt(embedding)
    attention_sign: int = 1  # +1 or -1 in exp(sign * a.r). Thesis (5) prints -1: see models/generator.py
    audio_skips: bool = True  # Table 4.1 "Audio skips": embedding fed to every decoder scale
    mask_head: bool = True  # Table 4.1 "Mask": predicted mask and blend (10)
    skip_free_scales: int = 1  # finest decoder scales without image skips [3.6]
    shape_code: int = 0  # length of the mouth-shape bottleneck between sound and decoder; 0 = thesis (none)
    whole_references: bool = False  # references show the whole face; thesis: the mouth region alone [3.6]
    warp: bool = False  # bend references into place instead of painting anew (thesis 4.3, "future work")
    own_frame: bool = False  # in sync the frame itself is one more reference, its old mouth to be bent; needs `warp`
    audio_context: str = "window"  # thesis: a mel window a frame; "track": shapes come from an audio encoder of its own
    fine_paint: bool = False  # beside a warp: paint at S instead of S / 2, with a head wide enough for teeth
    margin: float = 1.0  # side of the crop over the unit crop's, about the same centre; 4/3 shows the neck


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Audio encoder over a whole track (not in the thesis): mel -> mouth shape and phone at every mel step."""

    width: int = 96  # channels
    kernel: int = 5
    dilations: tuple[int, ...] = (1, 2, 4, 8, 4, 2)  # of the residual blocks; with these a step sees 1.1 s
    dropout: float = 0.2
    members: int = 4  # networks of their own random start, whose answers are averaged
    n_phones: int = 96  # places of the phone head; a corpus of synthetic speech says what stands at each


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Lip-sync expert [3.3]: lower half of `frames` faces + their mel window -> two embeddings."""

    size: int = 96
    frames: int = 5  # T_v
    n_mels: int = 80
    window: int = 16  # T_a mel steps
    context: int = 0  # thesis: none; mel steps before and behind the window, read by the layers of an audio encoder
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    audio_widths: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 512

    @property
    def mel_steps(self) -> int:
        """What it is given: the window with its context."""
        return self.window + 2 * self.context


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Multi-frame discriminator [3.7]."""

    size: int = 96
    margin: float = 1.0  # side of the crop over the unit crop's
    frames: int = 5
    region: str = "lower"  # what it sees: the lower half [3.7], or "mouth", the lips and a little around them
    widths: tuple[int, ...] = (32, 64, 128, 256)
    slope: float = 0.2  # LeakyReLU


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and constants of the total loss (15); see losses.py for each equation."""

    l1: float = 1.0
    mouth_weight: float = 0.0  # extra weight of the mouth in l1, not in the thesis
    lips_weight: float = 0.0  # extra weight in l1 of what shows between parted lips, not in the thesis
    vgg: float = 0.5
    vgg_share: float = 1.0  # share of a batch's frames that the perceptual loss looks at; it costs most of a step
    expert: float = 0.0  # stage 1 switches .01 on when validation L1 falls below `expert_at_l1`; stage 2: .1
    mask: float = 1.0
    adversarial: float = 0.0  # stage 2: .01
    expert_on: float = 0.01  # the weight that `expert` jumps to
    expert_at_l1: float = 0.045  # masked L1 in [0, 1] units. Thesis: 1.1, of an unstated scale
    expert_floor: float = 1e-3  # d is clipped to [floor, 1] (8)
    r1_gamma: float = 10.0  # (14)
    r1_every: int = 16  # steps from one penalty of the discriminator to the next, which weighs as many times
    shape: float = 0.0  # mouth-shape loss of the sound, and of the expert's embeddings; not in the thesis
    correlation: float = 0.0  # 1 - correlation of mouth shapes over a run of frames; not in the thesis
    phones: float = 0.0  # cross-entropy of phones in synthetic speech, beside mouth shapes; stage phones has it alone
    gradient_l1: float = 0.0  # masked L1 of neighbouring pixels' differences, not in the thesis
    painted_share: float = 0.0  # penalty on painting where no lips are parted (warp)
    unpainted_lips: float = 0.0  # penalty on not painting between lips that no reference shows parted as far (warp)
    painted_l1: float = 0.0  # L1 of the painted picture itself (warp): what has no share in a face is not learnt by it
    blur_kernel: int = 5  # (10)
    blur_sigma: float = 3.0  # (10)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of one stage."""

    stage: str = "1"  # detector | landmarks | occlusion | expert | phones | audio | 1 | 2
    steps: int = 100_000
    minutes: float = 0.0  # wall-clock budget; the run ends at whichever comes first; 0 = none
    negatives: int = 1  # wrong audio windows for each right one (expert); audio costs far less than faces
    audio_only_steps: int = 0  # first steps, which train audio -> mouth shape alone (shape_code > 0)
    audio_clips: int = 6  # audio-only runs of 16 frames a step (loss.shape, loss.correlation); cheap beside faces
    batch_clips: int = 4  # clips of `frames` faces [3.7] of a process; pictures, where a face network is trained
    accumulate: int = 1  # batches whose gradients are summed before a step
    frames: int = 5  # T_v
    fresh: tuple[str, ...] = ()  # parts of the generator that begin anew where a run begins with other weights
    learning_rate: float = 2e-4  # Adam, both networks [3.7]
    warm_up: float = 0.0  # first share of the steps over which the rate rises linearly from 0; not in the thesis
    anneal: float = 0.3  # last share of the steps over which the rate falls linearly to 0 [3.7]
    clip_norm: float = 1.0
    ema: float = 0.999
    references: int = 10  # references a training clip carries
    aligned_references: int = 0  # of them cut out exactly as the target is, as `generator.own_frame` will be
    closed_references: float = 0.0  # share of samples whose references, the own frame too, all have closed mouths
    same_frame: float = 0.0  # share of samples whose aligned reference is the target itself: what is right stays
    drawn_targets: float = 0.0  # share of the samples with closed references alone whose target is drawn open, too
    wide_targets: float = 0.0  # share of samples whose target is among the clip's widest openings
    dark: float = 0.0  # share of samples seen in a fade: as dark as a twentieth
    augment: float = 0.0  # strength of lens distortion, stretching and side light on faces; 1 = strong, 0 = off
    reference_blur: float = 0.5  # Gaussian on training references [3.6], sigma in pixels at size 96; 0 = off
    precision: str = "no"  # no | bf16 | fp16, of the networks' forward pass
    compile: bool = False  # torch.compile; minutes at the start, for a faster step
    channels_last: bool = True  # memory format of convolutions
    patience: int = 0  # validations without a better one after which an expert's run ends; 0 = never
    speaker_cap: float = 0.15  # largest share of samples that one speaker may have
    workers: int = 2  # threads that read the clips, then make the samples of coming steps; 0 = none
    validate_every: int = 1000
    checkpoint_every_s: float = 60.0
    sample_every: int = 1000  # steps between two sample pictures
    log_every: int = 20
    max_bad_steps: int = 5  # non-finite steps in a row that stop the run


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """What `lipdub sync` does around the network."""

    batch_size: int = 16  # faces per generator call
    audio_encoder: str = "audio"  # weights that read mouth shapes off a track, for generators that ask for them
    precision: str = "auto"  # auto | no | bf16 | fp16, of the networks (dub/precision.py); auto: what is fast here
    strength: float = 1.0  # movement over that of the person's own mouth in the video (dub/speaking_style.py)
    smooth_s: float = 0.023  # standard deviation of the smoothing of mouth shapes in time, heard and seen; 0 = none
    references_per_cluster: int = 5  # references of each mouth cluster, spread over poses; a frame takes the nearest
    detail: int = 3  # most times that a warp works finer than the generator's faces, where the picture is that fine
    blend_power: float = 3.0  # exponent of a warp's blend weights: 1 as in training; more favours the best reference
    source_lips: float = 0.0  # weight of the frame itself at the lips; with 1 the source's lips stay visible
    top: float = 0.53  # y in the unit crop above which nothing is painted: the nose stays as it is (its base: .55)
    feather: float = 0.06  # softness of the mask's edge, share of the crop side
    occlusion: bool = True  # whether hands, microphones and the like before a mouth stay as they are
    min_far_side: float = 0.05  # least share of a face's width beyond its nose; turned farther, it is left alone
    silence_db: float = -45.0  # below this, relative to the track's loud parts, the mouth rests ...
    pause_db: float = -35.0  # ... or below this, relative to what is loudest within a second ...
    silence_hold_s: float = 0.2  # ... once it has lasted this long (hysteresis)
    silence_fade_s: float = 0.08  # time in which the mouth closes or leaves rest


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """Reading and writing of files."""

    max_pixels: int = 8192 * 8192  # larger pictures are refused: a header of a few bytes could ask for gigabytes
    still_lines: int = 2160  # shorter side to which a larger picture is scaled when it is the source; the longer: 16/9
    crf_h264: int = 18  # constant quality of the one encode, per encoder: all about as good as x264's 18
    crf_hevc: int = 20
    crf_vp9: int = 24
    crf_av1: int = 24
    preset: str = "medium"  # of x264 and x265
    audio_bitrate: str = "192k"  # of a dub that the container cannot take as it is
    on_damage: str = "stop"  # at damaged pictures, or skip: show the one before in their place, and go on
    max_missing_s: float = 0.5  # picture that may be absent at the end, measured by the header, before it is damage
    audio_gap_s: float = 0.05  # jump of audio timestamps that is taken as a gap, not as rounding
    queue: int = 4  # pictures decoded ahead of the work on them, and as many that wait for the encoder
    label_height: float = 0.05  # of the label's capital letters, as a share of the picture's shorter side
    bounce_mib: int = 256  # pictures that `--extend bounce` holds at a time, on its way back
    ffmpeg: str = ""  # path of another ffmpeg than the tested one that comes with lipdub; it is tried first
    error_lines: int = 6  # last lines of FFmpeg's stderr in a message


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is kept from one run to the next."""

    max_mib: int = 1024  # analyses of videos; the one that was not used for longest goes first


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """What `lipdub eval FILE` and `lipdub sync --report` find fault with; real footage stays inside."""

    segment_s: float = 10.0  # longest segment of a shot
    max_offset_ms: float = 130.0  # three frames of 25 a second: viewers notice
    min_confidence: float = 0.5  # of an offset by loudness over 4 s; scales with 1 / sqrt(seconds)
    min_expert_confidence: float = 0.15  # of an offset by the expert
    max_silence: float = 200.0  # percent: motion in silence over that in speech
    max_jitter: float = 6.0  # times the cheeks' own
    max_seam: float = 7.5  # grey levels


@dataclass(frozen=True, kw_only=True)
class Config:
    """All sections."""

    mel: MelConfig = field(default_factory=MelConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)


def to_dict(section: Any) -> dict[str, Any]:
    """A section or a whole Config as plain data (tuples become lists), fit for TOML or JSON."""
    data = dataclasses.asdict(section)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


def from_dict(section: type[Section], data: Mapping[str, Any]) -> Section:
    """A section from plain data.

    Raises:
        InputError: unknown key or a value of the wrong type; names both.
    """
    hints = get_type_hints(section)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            raise InputError(f"unknown setting {key!r} in {section.__name__}", f"known: {', '.join(sorted(hints))}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            values[key] = from_dict(hint, value)  # type: ignore[arg-type]
        else:
            values[key] = _checked(key, value, hint)
    return section(**values)


def load_config(
    presets: str | Path | Sequence[str] | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Defaults, changed by `settings`, by presets, and by `section.key=value` texts, in this order.

    Args:
        presets: a name in lipdub/presets, or the path of a TOML file; of several the later ones win, key by key.
        overrides: for example ["generator.size=128"].
        settings: tables by section, as a settings file has them.

    Raises:
        InputError: no such preset, unreadable TOML, unknown key, wrong type.
    """
    data: dict[str, Any] = {}
    names = [str(presets)] if isinstance(presets, str | Path) else presets or []
    for layer in (settings or {}, *map(load_tables, names)):
        for section, table in layer.items():
            if not isinstance(table, Mapping):
                raise InputError(
                    f"setting {section!r} must be a table, got {table!r}", f"write its keys below a line [{section}]"
                )
            data.setdefault(section, {}).update(table)
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise InputError(f"--set {text!r} is not section.key=value", "for example --set generator.size=128")
        data.setdefault(section, {})[name] = _parse(value.strip())
    return from_dict(Config, data)


def keep_settings(
    path: Path, settings: Mapping[str, Mapping[str, Any]], *, option: str, free: Collection[str] = ()
) -> None:
    """Write settings, by section and key, to a JSON file in the output folder; an existing file must agree.

    Keys that the file lacks are newer than the file, and are added.

    Args:
        path: its folder exists.
        settings: section -> key -> value.
        option: of the command line that sets the folder, for messages.
        free: "section.key" of settings that may change.

    Raises:
        InputError: another value, or a file that cannot be read.
    """
    expected = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    if path.exists():
        try:
            stored = {section: dict(table) for section, table in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"cannot read {path}: {error}", f"give another {option} folder") from error
        for section, values in expected.items():
            for key, value in values.items():
                was = stored.get(section, {}).get(key, value)
                if was != value and f"{section}.{key}" not in free:
                    raise InputError(
                        f"{path.parent} was made with {section}.{key} = {was!r}, not {value!r}",
                        f"give the same settings to continue, or another {option} folder",
                    )
    path.write_text(json.dumps(expected, indent=1), encoding="utf-8")


def load_tables(name: str) -> dict[str, Any]:
    """What a preset says, by section; `name` as `load_config` takes it.

    Raises:
        InputError: no such preset, or unreadable TOML.
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        names = sorted(p.relative_to(PRESETS).with_suffix("").as_posix() for p in PRESETS.rglob("*.toml"))
        raise InputError(f"no preset {name!r}", f"there are: {', '.join(names)}; or give a .toml file") from error
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read preset {path}: {error}", "fix it, or use one of lipdub's presets") from error


def _parse(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(key: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_checked(key, item, get_args(hint)[0]) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    type_name = getattr(hint, "__name__", str(hint))
    raise InputError(
        f"setting {key!r} must be {type_name}, got {value!r}", "see `lipdub config show --all` for values that fit"
    )
