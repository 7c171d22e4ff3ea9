"""`lipdub eval` as a function: dub real clips with `sync_video`, measure dubs and real videos, make the table.

Rows, all on the same pairs of picture and sound:

    real                the sound's own video: the upper bound (r against itself is 1 by definition)
    real, other sound   a third real video with that sound: the score of an unrelated mouth
    source untouched    the original picture with the new sound: the score of doing nothing
    WEIGHTS             the picture, dubbed
    VIDEOS              the picture, dubbed by another tool: files named as in OUTPUT/pairs.tsv

One video and an audio file can be given instead of clips. Without a video of that audio there are no real rows, and
measures that compare mouths with it are left out.

A pair that cannot be dubbed or judged is listed as a failure of that row, with its reason.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from lipdub.config import Config
from lipdub.data.corpora import VIDEO_SUFFIXES, speaker_table
from lipdub.dub.networks import licence_of, load_network, resolve_device
from lipdub.dub.options import SyncOptions
from lipdub.dub.sync import sync_video
from lipdub.errors import InputError, LipdubError, NoFaceError, OutputError, ResourceError
from lipdub.evaluation.ablation import ROWS, Row, export_runs, table_4_1
from lipdub.evaluation.landmark_track import (
    TEACHER_COMMANDS,
    LandmarkTrack,
    LandmarkTracker,
    find_judge,
    track_landmarks,
)
from lipdub.evaluation.measure import Audio, Real, measure
from lipdub.evaluation.networks import file_of, load_networks
from lipdub.evaluation.options import EvalOptions
from lipdub.evaluation.pairs import GIVEN, Clip, Pair, clips_of_split, draw_pairs, find_clips, write_pairs
from lipdub.evaluation.perceptual import FrechetMeter
from lipdub.evaluation.report import EvalReport, json_line, protocol
from lipdub.evaluation.table import Verdict, compare, order, tabulate
from lipdub.events import Done, OnEvent, Progress, Stage, Warning_, ignore
from lipdub.html.gallery import Gallery
from lipdub.html.page import table_page, write_page
from lipdub.html.side_by_side import SideBySide

REAL, FOREIGN, UNTOUCHED = "real", "real, other sound", "source untouched"
VERDICTS, PAIRS = "clips.jsonl", "pairs.tsv"
DUBS, SIDE_BY_SIDE = "dubs", "side-by-side"
CLIP_ERRORS = (InputError, NoFaceError, ResourceError)  # of one clip: the evaluation goes on without it


def evaluate(
    options: EvalOptions,
    config: Config | None = None,
    *,
    judge: LandmarkTracker | None = None,
    on_event: OnEvent = ignore,
) -> EvalReport:
    """Judge weights on real clips.

    The judge is MediaPipe's mesh if its files are here, else our own network, unless another is given.

    Raises:
        InputError: no clips, no pair, or clips that all fail; a data set that does not fit the clips.
        OutputError: results are there already.
        SetupError: no such device, or a judge was named and the extra `teachers` is missing.
        WeightsError: a named network is not available.
    """
    job = _Evaluation(options, config or Config(), judge, on_event)
    report = job.run()
    on_event(Done(report))
    return report


def list_pairs(options: EvalOptions) -> Path:
    """Write only OUTPUT/pairs.tsv: the dubs that another tool has to make for `evaluate`.

    Raises:
        InputError: no clips, or no pair.
        OutputError: the folder cannot be made.
    """
    pairs, _ = _draw_pairs(_clips(options), options)
    _make_folder(options.output)
    return write_pairs(options.output / PAIRS, pairs)


class _Evaluation:
    """One call of `evaluate`: its clips, pairs, networks and judge."""

    def __init__(self, options: EvalOptions, config: Config, judge: LandmarkTracker | None, on_event: OnEvent) -> None:
        self._options, self._config, self._on_event = options, config, on_event
        self._rows = names_of(options.weights, options.videos, alone=options.runs is None)
        # What cannot be loaded stops everything, before the first dub.
        networks = {row: load_network(weights, config)[0] for row, weights in self._rows.items()}
        self._licences = {row: terms for row, network in networks.items() if (terms := licence_of(network))}
        self._ablation: dict[str, Row] = {}
        device = resolve_device(options.device)
        self._networks, self._config_of_networks = load_networks(options, config)
        inception = self._networks.inception
        self._frechet = None if inception is None else FrechetMeter(inception, config)
        self._judge = judge or find_judge(options.yunet, options.mesh, config.face, device)
        self._audio = None if options.audio is None else Audio.of(options.audio, config)
        self._clips = _clips(options)
        self._pairs, self._n_unpaired = _draw_pairs(self._clips, options)
        self._real: dict[Clip, Real | LipdubError] = {}  # what was measured of each real clip, or why it was not
        self._measured: dict[tuple[Pair, Clip], dict[str, float]] = {}  # of real videos with a pair's sound
        self._gallery = None if options.html is None else Gallery((REAL, FOREIGN, UNTOUCHED), config.media)
        self._side_by_side = SideBySide(options.output / SIDE_BY_SIDE, config.media) if options.side_by_side else None

    def run(self) -> EvalReport:
        """Measure the real clips, then every row on every pair; each verdict is written at once."""
        with _result_files(self._options) as (file, dubs):
            write_pairs(self._options.output / PAIRS, self._pairs)
            if self._options.runs is not None:
                self._add_runs(self._options.runs, dubs)
            for row, terms in self._licences.items():
                self._on_event(Warning_("licence", f"{row}: {terms}"))
            if self._judge.ours:
                self._on_event(Warning_("judge", f"the judge is {self._judge.name}. {self._judge.caveat}"))
            self._track_clips()
            verdicts = []
            for verdict in self._verdicts(dubs):
                verdicts.append(verdict)
                print(json_line(verdict), file=file, flush=True)
            if all(verdict.error for verdict in verdicts):
                reasons = Counter(verdict.error for verdict in verdicts)
                commonest = reasons.most_common(1)[0][0]
                raise InputError(
                    f"nothing could be judged; most often: {commonest}", "give clips with a clear face and speech"
                )
            report = self._report(verdicts)
            if self._gallery is not None and self._options.html is not None:  # while the dubs are there
                page = table_page(report, self._gallery.exhibits())
                write_page(self._options.html, page, overwrite=self._options.overwrite)
            if self._side_by_side is not None:
                self._side_by_side.write()
        return report

    def _add_runs(self, runs: Path, folder: Path) -> None:
        """Add rows for the runs of Table 4.1; their weights are exported beside the dubs."""
        folder.mkdir(exist_ok=True)
        for row, path in export_runs(runs, folder).items():
            name = f"4.1 row {ROWS.index(row) + 1}"
            load_network(str(path), self._config)
            self._rows[name], self._ablation[name] = str(path), row

    def _track_clips(self) -> None:
        """Find the landmarks of all real clips."""
        clips = dict.fromkeys(
            clip
            for pair in self._pairs
            for clip in (pair.picture, None if self._audio else pair.sound, pair.foreign)
            if clip is not None
        )
        self._on_event(Stage("clips", 1, 2, len(clips), "clips"))
        for done, clip in enumerate(clips, 1):
            try:
                tracked = self._track(clip.path)
                audio = self._audio or Audio.of(clip.path, self._config)  # a video to be dubbed need not have any
                self._real[clip] = Real(audio.waveform, audio.level, tracked)
            except CLIP_ERRORS as error:
                self._real[clip] = error
            self._on_event(Progress(done))

    def _verdicts(self, dubs: Path) -> Iterator[Verdict]:
        """Judge every row on every pair, pair by pair."""
        real = () if self._audio else (REAL, FOREIGN)
        rows = (*real, UNTOUCHED, *self._options.videos, *self._rows)
        work = [(row, pair) for pair in self._pairs for row in rows if row != FOREIGN or pair.foreign is not None]
        self._on_event(Stage("judge", 2, 2, len(work), "videos"))
        for done, (row, pair) in enumerate(work, 1):
            yield self._verdict(row, pair, dubs)
            self._on_event(Progress(done))

    def _verdict(self, row: str, pair: Pair, dubs: Path) -> Verdict:
        """Judge one row on one pair, and show it on the pages; a failure of the clip is a verdict, too."""
        verdict = Verdict(row=row, pairing=pair.pairing, picture=pair.picture.name, sound=pair.sound.name)
        try:
            video, values = self._judge_pair(row, pair, dubs)
            if self._frechet is not None:
                self._frechet.add(pair.pairing, row, video, self._real_of(pair.picture).tracked)
        except CLIP_ERRORS as error:
            if self._side_by_side is not None and row not in (REAL, FOREIGN):
                self._side_by_side.fail(pair.key, row, error.what)
            return replace(verdict, error=error.what)
        if self._side_by_side is not None and row not in (REAL, FOREIGN):
            self._side_by_side.add(pair.key, row, video.like(self._real_of(pair.picture).tracked))
        verdict = replace(verdict, frames=len(video.seen), seen=float(video.seen.mean()), values=values)
        if self._gallery is not None:
            self._gallery.add(verdict, video)
        elif row in self._rows and not self._options.keep_dubs:
            video.path.unlink()
        return verdict

    def _judge_pair(self, row: str, pair: Pair, dubs: Path) -> tuple[LandmarkTrack, dict[str, float]]:
        """Landmarks of a row's video of a pair, which is made if it is a dub of ours, and its values."""
        for clip in (pair.picture, *([] if self._audio else [pair.sound])):
            self._real_of(clip)  # refuses before the work of a dub
        if row in self._rows:
            video, dubbed = self._dub(row, pair, dubs)
            return video, self._measure(video, pair) | {"dubbed": dubbed}
        if row in self._options.videos:
            video = self._track(find_dub(self._options.videos[row], pair))
            return video, self._measure(video, pair)
        shown = {REAL: pair.sound, FOREIGN: pair.foreign, UNTOUCHED: pair.picture}[row]
        assert shown is not None  # _verdicts
        real = self._real_of(shown).tracked
        if (pair, shown) not in self._measured:  # with its own sound the untouched source is the real video
            self._measured[pair, shown] = self._measure(real, pair, source=real)
        return real, self._measured[pair, shown]

    def _dub(self, row: str, pair: Pair, dubs: Path) -> tuple[LandmarkTrack, float]:
        """Dub a pair with a row's weights: landmarks of the dub, and percent of its frames that were dubbed."""
        path = dubs / row / pair.pairing / f"{pair.stem}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = SyncOptions(
            device=self._options.device, generator=self._rows[row], end_s=self._options.seconds, overwrite=True
        )
        report = sync_video(pair.picture.path, pair.sound.path, path, options, config=self._config)
        video = self._track(path)
        return video, 100 * report.dubbed / len(video.times_s)

    def _measure(self, video: LandmarkTrack, pair: Pair, source: LandmarkTrack | None = None) -> dict[str, float]:
        """Values of a video of a pair; `source` is the real video that it shows, None for a dub of the picture."""
        own, picture = pair.pairing == "own", self._real_of(pair.picture).tracked
        return measure(
            video,
            picture if source is None else source,
            self._audio or self._real_of(pair.sound),
            self._config_of_networks,
            self._networks,
            replaced=None if own else picture,
            has_truth=own and source is None,
        )

    def _track(self, path: Path) -> LandmarkTrack:
        return track_landmarks(path, self._judge, self._options.seconds, self._config.media)

    def _real_of(self, clip: Clip) -> Real:
        """What was measured of a real clip.

        Raises:
            InputError: it could not be measured.
        """
        real = self._real[clip]
        if isinstance(real, LipdubError):
            raise InputError(f"{clip.name} cannot be judged: {real.what}", real.remedy) from real
        return real

    def _report(self, verdicts: list[Verdict]) -> EvalReport:
        made = (*self._options.videos, *self._rows)
        compared = [(row, UNTOUCHED) for row in made] + [(row, made[0]) for row in made[1:]]
        lines = tabulate(verdicts)
        own = [line for line in lines if line.pairing == "own"]
        return EvalReport(
            lines=tuple(lines),
            differences=tuple(difference for rows in compared for difference in compare(verdicts, *rows)),
            failures=tuple(verdict for verdict in verdicts if verdict.error),
            protocol=self._protocol(),
            verdicts=str(self._options.output / VERDICTS),
            order=tuple(order(lines, REAL, FOREIGN, (REAL, FOREIGN, UNTOUCHED))),
            backbone=self._networks.backbone,
            own_landmarks=self._judge.ours,
            frechet=() if self._frechet is None else self._frechet.distances(),
            ablation=tuple(table_4_1(own, self._ablation, REAL)) if self._ablation else (),
        )

    def _protocol(self) -> tuple[str, ...]:
        options, networks = self._options, self._networks
        files = {row: file_of(weights) for row, weights in self._rows.items()}
        files |= {row: f"{files[row]}; {terms}" for row, terms in self._licences.items()}
        files |= {row: f"finished videos in {folder}" for row, folder in options.videos.items()}
        files |= {name: f"{files[name]}: {row.name}" for name, row in self._ablation.items()}
        missing = networks.missing()
        if self._judge.ours:
            missing.append(f"landmarks by a network that is not ours ({TEACHER_COMMANDS})")
        if not find_spec("torchmetrics"):
            missing.append('masked SSIM (pip install "lipdub[teachers]")')
        if options.audio is not None:
            missing.append("opening r, width r, closures, articulation (they need a video of the audio)")
        return protocol(
            options,
            self._clips,
            self._pairs,
            self._n_unpaired,
            judge=f"{self._judge.name}. {self._judge.caveat}",
            size=self._config.face.size,
            by_expert=networks.expert is not None,
            files=files | dict(networks.files),
            missing=missing,
        )


def names_of(weights: Sequence[str], videos: Collection[str] = (), *, alone: bool = True) -> dict[str, str]:
    """Row -> weights: the name in weights.toml or the file's stem; the whole path if stems are equal.

    `videos` are the names of finished videos' rows; `alone` says whether there are no further rows.

    Raises:
        InputError: the same weights twice, or no row at all; a name of finished videos that other rows have.
    """
    if taken := {REAL, FOREIGN, UNTOUCHED} & set(videos):
        raise InputError(f"--videos cannot be called {', '.join(taken)}", "give another NAME=FOLDER")
    if (not weights and not videos and alone) or len(set(weights)) != len(weights):
        what = f"--weights needs one or more different ones, got {', '.join(weights) or 'none'}"
        raise InputError(what, "give each once")
    stems = [Path(name).stem for name in weights]
    reserved = {REAL, FOREIGN, UNTOUCHED, *videos}
    return {
        name if stems.count(stem) > 1 or stem in reserved else stem: name
        for name, stem in zip(weights, stems, strict=True)
    }


def _clips(options: EvalOptions) -> list[Clip]:
    if options.audio is not None:
        return [Clip(options.clips, options.clips.name, options.clips.stem)]
    if options.dataset is not None:
        return clips_of_split(options.clips, options.dataset, options.split)
    return find_clips(options.clips, speaker_table(options.speakers) if options.speakers else {})


def _draw_pairs(clips: Sequence[Clip], options: EvalOptions) -> tuple[list[Pair], dict[str, int]]:
    """Pairs, and for each pairing the number of pictures without one.

    Raises:
        InputError: no pair at all.
    """
    if options.audio is not None:
        return [Pair(GIVEN, clips[0], Clip(options.audio, options.audio.name, ""), None)], {}
    pairs, without = draw_pairs(clips, options.pairings, options.seed, options.limit)
    if not pairs:
        raise InputError(
            f"no picture in {options.clips} has a fitting sound for: {', '.join(options.pairings)}",
            "give more clips, --speakers, or another --pairings",
        )
    return pairs, without


def find_dub(folder: Path, pair: Pair) -> Path:
    """Another tool's video of a pair: PAIRING/NAME.* or NAME.* in its folder, NAME as in pairs.tsv; or the file itself.

    Raises:
        InputError: there is none.
    """
    if folder.is_file():
        return folder
    for place in (folder / pair.pairing, folder):
        for suffix in sorted(VIDEO_SUFFIXES):
            if (path := place / f"{pair.stem}{suffix}").is_file():
                return path
    raise InputError(f"{folder} has no {pair.pairing}/{pair.stem}.mp4", "names are in pairs.tsv, see --pairs-only")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}", "choose another --output") from error


@contextmanager
def _result_files(options: EvalOptions) -> Iterator[tuple[TextIO, Path]]:
    """The per-clip file, open, and a folder for dubs, which is temporary unless they are kept."""
    target = options.output / VERDICTS
    if target.exists() and not options.overwrite:
        raise OutputError(f"{target} exists", "choose another --output, or -y to replace it")
    _make_folder(options.output)
    try:
        file = target.open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", "choose another --output") from error
    with file:
        if options.keep_dubs:
            yield file, options.output / DUBS
        else:
            with tempfile.TemporaryDirectory(prefix=f".{DUBS}-", dir=options.output) as folder:
                yield file, Path(folder)
