"""Whether a dub's mouth follows the new audio, by MediaPipe's mesh (good: opening r 0.61, movement 1).

    python -m benchmarks agreement CLIPS_DIR -o OUT --yunet YUNET.onnx --mesh face_landmarker.task [--pairs FILE]

A pair is a video, an audio file and the audio's own video: a line `video<TAB>audio[<TAB>own video]`, paths below
CLIPS_DIR or absolute; without a third column the audio's file is its own video. The video is dubbed by `lipdub.sync`;
then the landmarks of the dub, of the audio's own video and of the untouched video are compared, frame by frame. Sound
and picture of footage are up to 0.14 s apart; a dub speaks with the sound, so the audio's own video is moved to where
its mouth fits its sound best (`own_offset_s`, which no dub has a part in). The measures are those of
lipdub/metrics/__init__.py and lipdub/metrics/mouth.py:

    opening_r, opening_z    opening against the audio's own video: should be high
    unmoved_r, unmoved_z    the same against that video as it is
    replaced_r, replaced_z  opening against the mouth that was replaced: should be near 0
    alike_r, alike_z        the same of what is heard in the sound, before any picture: what two clips have in common
    movement                how far the mouth moves, over the real one: 1 is right
    width_r                 width (rounding, spreading) against the audio's own video: should be high
    closures, chance        share of the real closures that the dub makes; of shifted curves; gain: their difference
    rank                    rank of the dub's opening at the real closures: 0.07 is best, 0.5 chance
    reach                   90th percentile of the opening over that of the audio's own video: 1 is right
    thickness               median lip thickness over that of the untouched video: 1 is right, more is a swollen lip

`--own` dubs each video with its own sound instead; `--closed` first makes a source that never opens its mouth: the
most closed second of the video, played forth and back for 8 s. `--set` changes config.py. Each pair's values go to
OUT/agreement.tsv and OUT/agreement.jsonl; `--record dubs` writes the means to benchmarks/results/dubs.json. `--reuse`
measures dubs that are already in OUT.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.arguments import add_judge, add_output, judge_of, parser_of
from benchmarks.results import mean_of, names_with_sums, record
from lipdub import SyncOptions, sync
from lipdub.config import Config, MelConfig, load_config
from lipdub.data.offset import shift_correlations, source_offset
from lipdub.data.store import RATE
from lipdub.errors import LipdubError
from lipdub.evaluation.landmark_track import LandmarkTrack, track_landmarks
from lipdub.evaluation.table import interval
from lipdub.faces.mouth_shape import OPENINGS, shape_code
from lipdub.media.audio import load_audio
from lipdub.mel import log_mel
from lipdub.metrics import agreement, articulation, silent_frames
from lipdub.metrics.mouth import closure_rank, closures, lip_thickness, mouth_width, opening_reach
from lipdub.weights import load_audio_encoder

PAIRS = """
grid/brbk7n.mpg grid/lbax4n.mpg
grid/lbax4n.mpg grid/swiz3n.mpg
grid/lwbsza.mpg grid/sbia1a.mpg
grid/pwij3p.mpg grid/sbwe5n.mpg
grid/sbia1a.mpg grid/brbk7n.mpg
grid/sbwe5n.mpg grid/pwij3p.mpg
grid/swiz3n.mpg grid/lwbsza.mpg
grid/lbbc2a.mpg grid/lrwp9a.mpg
grid/lrwp9a.mpg studio/demo1_video.mp4
grid/id2_vcd_swwp2s.mpg in-the-wild/noisy_restaurant.mp4
studio/demo1_video.mp4 in-the-wild/speech.mp4
studio/demo3_video.mp4 studio/demo1_video.mp4
in-the-wild/dinet_test19.mp4 studio/demo1_video.mp4
in-the-wild/noisy_restaurant.mp4 studio/demo3_video.mp4
cued-french/video10.mp4 grid/brbk7n.mpg
selfie/englishvideo.mp4 in-the-wild/noisy_restaurant.mp4
"""
SECONDS = 20.0  # of each video
CLOSED_S, LOOPED_S = 1.0, 8.0  # of a source that never opens its mouth: what is cut, how long it is played
SHOWN = {
    "opening_r": 2,
    "opening_z": 2,
    "unmoved_r": 2,
    "unmoved_z": 2,
    "replaced_r": 2,
    "replaced_z": 2,
    "alike_z": 2,
    "movement": 2,
    "width_r": 2,
}
METRICS = {
    "opening_r": "opening against the sound's own video, r",
    "opening_z": "the same, z above chance",
    "unmoved_r": "the same against that video as it is, its sound's offset not corrected, r",
    "unmoved_z": "the same, z above chance",
    "replaced_r": "opening against the mouth that was replaced, r",
    "replaced_z": "opening against the mouth that was replaced, z",
    "alike_z": "the same of what is heard in the sound, before any picture, z",
    "movement": "movement over that of the sound's own video",
    "width_r": "width against the sound's own video, r",
    "closures": "share of the real closures that are made",
    "chance": "the same by chance",
    "gain": "closures above chance",
    "rank": "rank of the opening at real closures, 0.5 = chance",
    "reach": "wide opening over the real one",
    "thickness": "lip thickness over the source's",
}
SHOWN |= {"closures": 2, "chance": 2, "gain": 2, "rank": 2, "reach": 2, "thickness": 2}
LEFT_OUT = ("replaced_r", "closures", "chance", "reach", "thickness")  # of results: in others, or of closed sources
RECORDED = [key for key in SHOWN if key not in LEFT_OUT]


def own_offset_s(own: LandmarkTrack, heard: NDArray[np.float32], mel: MelConfig, rows: slice = slice(None)) -> float:
    """Seconds that a video's lips come behind its sound; 0 where that is unsure.

    Args:
        own: the video.
        heard: (M, 8) mouth shapes that are heard in its sound (`TrackEncoder.read_track`).
        mel: hop and sample rate.
        rows: frames that are looked at.
    """
    middles = own.times_s[rows] + 0.5 / float(own.info.average_rate)
    regular = np.arange(middles[0], middles[-1], 1 / RATE)
    shapes = np.stack([np.interp(regular, middles, number) for number in shape_code(own.landmarks[rows]).T], 1)
    curve = shift_correlations(heard, shapes.astype(np.float32), float(middles[0]) - 0.5 / RATE, mel)
    return source_offset([(len(regular), curve)]).offset_s


def heard_at(heard: NDArray[np.float32], times_s: NDArray[np.float64], mel: MelConfig) -> NDArray[np.float64]:
    """Mouth shapes (T, 8) at times (T,) of a sound, from those at all of its mel steps (M, 8)."""
    columns = times_s * mel.sample_rate / mel.hop
    return np.stack([np.interp(columns, np.arange(len(heard)), number) for number in heard.T], 1)


def compare(
    dub: LandmarkTrack,
    own: LandmarkTrack,
    replaced: LandmarkTrack,
    audio: Path,
    heard: NDArray[np.float32],
    offset_s: float,
    config: Config,
) -> dict[str, float]:
    """Every measure of one pair, over the frames that all have.

    Args:
        dub: what is judged.
        own: the audio's own video ...
        replaced: ... and the untouched one.
        audio: the driving audio.
        heard: (M, 8) mouth shapes that are heard in it.
        offset_s: of the audio's own video.
        config: sections mel and media.
    """
    inside = (dub.times_s + offset_s >= own.times_s[0]) & (dub.times_s + max(0.0, offset_s) <= own.times_s[-1])
    part = slice(int(inside.argmax()), int(inside.argmax() + inside.sum()))
    times = dub.times_s[part]

    def at(watched: LandmarkTrack, curve: NDArray[np.float64], moved_s: float = 0.0) -> NDArray[np.float64]:
        return np.interp(times + moved_s, watched.times_s, curve)

    made, old = dub.openings[part], at(replaced, replaced.openings)
    real = at(own, own.openings, offset_s)
    waveform = load_audio(audio, sample_rate=config.mel.sample_rate, config=config.media)
    silent = silent_frames(waveform, config.mel.sample_rate, times)
    frame_s = float(np.median(np.diff(times)))
    found = closures(made, real, silent, frame_s)
    row = {"frames": float(len(times)), "offset_s": offset_s, "real_closures": float(found.count)}
    row["opening_r"], row["opening_z"] = agreement(made, real)
    row["unmoved_r"], row["unmoved_z"] = agreement(made, at(own, own.openings))
    row["replaced_r"], row["replaced_z"] = agreement(made, old)
    said = heard_at(heard, times + 0.5 * frame_s, config.mel)
    row["alike_r"], row["alike_z"] = agreement(said[:, OPENINGS].mean(1), old)
    row["movement"] = articulation(made, real)
    row["width_r"], _ = agreement(mouth_width(dub.landmarks)[part], at(own, mouth_width(own.landmarks), offset_s))
    row |= {"closures": found.made, "chance": found.chance, "gain": found.made - found.chance}
    row["rank"] = closure_rank(made, real, silent, frame_s)
    row["reach"] = opening_reach(made, real)
    thickness = (float(np.median(lip_thickness(w.landmarks))) for w in (dub, replaced))
    row["thickness"] = next(thickness) / next(thickness)
    return row


def closed_source(watched: LandmarkTrack, target: Path) -> Path:
    """The most closed CLOSED_S of a video, played forth and back until LOOPED_S are full; without sound."""
    rate = Fraction(watched.info.average_rate).limit_denominator(1001)
    length = min(len(watched.times_s), max(2, round(CLOSED_S * float(rate))))
    means = np.convolve(watched.openings, np.ones(length) / length, "valid")
    first = int(np.argmin(means))
    with av.open(str(watched.path)) as given:
        frames = [frame for i, frame in enumerate(given.decode(video=0)) if first <= i < first + length]
    loop = [*range(length), *range(length - 2, 0, -1)]
    with av.open(str(target), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height = frames[0].width // 2 * 2, frames[0].height // 2 * 2
        stream.pix_fmt = "yuv420p"
        for i in range(round(LOOPED_S * float(rate))):
            picture = frames[loop[i % len(loop)]].to_ndarray(format="rgb24")[: stream.height, : stream.width]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        file.mux(stream.encode())
    return target


def read_pairs(path: Path | None, clips: Path, own: bool) -> list[tuple[Path, Path, Path]]:
    """Video, audio, the audio's own video."""
    text = PAIRS if path is None else path.read_text(encoding="utf-8")
    pairs = []
    for line in text.splitlines():
        names = line.split("\t") if "\t" in line else line.split()
        if not names or names[0].startswith("#") or names[0] == "video":
            continue
        video, audio = clips / names[0], clips / names[1]
        pairs.append((video, video, video) if own else (video, audio, clips / names[2] if len(names) > 2 else audio))
    return pairs


def shown(values: list[float], digits: int) -> str:
    """Mean and 95 % bootstrap interval over the pairs that have a value."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "no value"
    found = interval(known)
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]  (n = {found.n})"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path)
    add_output(parser)
    add_judge(parser)
    parser.add_argument("--pairs", type=Path, help="TSV: video, audio, the audio's own video")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--closed", action="store_true")
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--weights", default="generator")
    parser.add_argument("--strength", type=float)
    parser.add_argument("--record", metavar="NAME", help="write benchmarks/results/NAME.json")
    parser.add_argument("--set", action="append", default=[], help="section.key=value of config.py")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    config = load_config(None, args.set)
    judge = judge_of(args)
    encoder, _ = load_audio_encoder(config.sync.audio_encoder, config)
    cache: dict[Path, LandmarkTrack] = {}
    sounds: dict[Path, NDArray[np.float32]] = {}

    def seen(path: Path) -> LandmarkTrack:
        if path not in cache:
            cache[path] = track_landmarks(path, judge, SECONDS, config.media)
        return cache[path]

    def heard(path: Path) -> NDArray[np.float32]:
        if path not in sounds:
            mel = log_mel(load_audio(path, sample_rate=config.mel.sample_rate, config=config.media), config.mel)
            sounds[path] = encoder.read_track(mel, torch.device("cpu"))
        return sounds[path]

    rows: list[dict[str, object]] = []
    for video, audio, own in read_pairs(args.pairs, args.clips, args.own):
        dub = args.output / f"{video.stem}__{audio.stem}.mp4"
        names = {"video": video.name, "audio": audio.name}
        try:
            if args.closed:
                source = args.output / f"{video.stem}__closed.mp4"
                video = source if source.exists() else closed_source(seen(video), source)
            if not (args.reuse and dub.exists()):
                options = SyncOptions(overwrite=True, generator=args.weights, strength=args.strength)
                sync(video, audio, dub, options, config=config)
            made = track_landmarks(dub, judge, SECONDS, config.media)
            offset_s = own_offset_s(seen(own), heard(own), config.mel)
            values = compare(made, seen(own), seen(video), audio, heard(audio), offset_s, config)
        except (LipdubError, ValueError) as error:
            print(f"FAILED {names['video']} {names['audio']}: {error}", flush=True)
            continue
        rows.append({**names, **values})
        print(*names.values(), *(f"{key} {values[key]:.{digits}f}" for key, digits in SHOWN.items()), flush=True)
    (args.output / "agreement.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rows:
        table = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
        (args.output / "agreement.tsv").write_text("".join("\t".join(line) + "\n" for line in table))
    if args.record:
        known = {key: [row[key] for row in rows if np.isfinite(row[key])] for key in RECORDED}  # type: ignore[call-overload]
        values = [mean_of(key, METRICS[key], numbers) for key, numbers in known.items() if numbers]
        weights = names_with_sums(args.weights)
        print(record(args.record, values, title="Dubs with another speaker's sound", weights=weights))
    for key, digits in SHOWN.items():
        print(f"{key}: {shown([float(row[key]) for row in rows], digits)}")  # type: ignore[arg-type]
