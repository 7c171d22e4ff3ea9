from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lipdub.config import Config
from lipdub.dub.analyze import DubPlan, FaceJob
from lipdub.dub.driving_audio import analyze_audio
from lipdub.dub.inference import FaceCrop, GeneratedFace, GeneratorRunner, opacity
from lipdub.dub.networks import load_network
from lipdub.errors import ResourceError
from lipdub.faces.crop import TEMPLATE, crop_matrix
from lipdub.faces.references import Selection
from lipdub.faces.tracker import Track
from lipdub.models.generator import Generator
from lipdub.weights import load_audio_encoder, load_generator

SIZE, CPU = 32, torch.device("cpu")


def job(number: int, first: int, n_rows: int, weight: np.ndarray | None = None, n_references: int = 3) -> FaceJob:
    rng = np.random.default_rng(number)
    landmarks = np.repeat((TEMPLATE * 60 + 20)[None], n_rows, 0).astype(np.float32)
    track = Track(number, 0, first, landmarks, np.full(n_rows, 0.9, np.float32))
    matrices = np.stack([crop_matrix(rows, SIZE) for rows in landmarks])
    crops = rng.integers(0, 255, (n_references, SIZE, SIZE, 3), np.uint8) // (1 if number % 2 else 20)  # bright, dark
    zeros = np.zeros((n_references, 68, 2), np.float32)
    zero = np.zeros((n_references, 8), np.float32)
    each = np.arange(n_references)
    references = Selection(crops, zeros, zero, each, each, zero[0], each > each)
    shown, weight = np.zeros((n_rows, 8), np.float32), np.ones(n_rows, np.float32) if weight is None else weight
    return FaceJob(track, matrices, weight, {number: references}, shown, np.tile(each, (n_rows, 1)))


def targets(analysis: DubPlan) -> list[FaceCrop]:
    """All faces of all jobs in order of time."""
    rng = np.random.default_rng(7)
    found = [
        FaceCrop(each.track.first + row, number, row, rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8))
        for number, each in enumerate(analysis.jobs)
        for row in range(len(each.weight))
    ]
    return sorted(found, key=lambda target: target.frame)


@pytest.fixture
def runner_of(generator_file: Path):
    """A painter for jobs, and the sizes (faces, references) of the generator's calls."""
    network, config = load_generator(generator_file, Config())
    tone = 0.3 * np.sin(2 * np.pi * 180 * np.arange(32000) / 16000).astype(np.float32)

    def make(
        jobs: list[FaceJob], *, batch_size: int = 4, most: int = 99
    ) -> tuple[GeneratorRunner, list[tuple[int, int]]]:
        calls: list[tuple[int, int]] = []
        real = Generator.draw

        class Watched(Generator):
            def draw(self, masked, windows, references, owner, **kwargs):
                calls.append((len(masked), len(references.embeddings)))
                if len(masked) > most:
                    raise RuntimeError("MPS backend out of memory")
                return real(self, masked, windows, references, owner, **kwargs)

        network.__class__ = Watched
        sync = replace(config.sync, batch_size=batch_size, precision="no")
        speech = analyze_audio(tone, config.mel, sync)
        last = max(each.track.frames.stop for each in jobs)
        analysis = DubPlan((np.arange(last) + 0.5) / 25, jobs, {})
        return GeneratorRunner(network, analysis, [speech], replace(config, sync=sync), CPU), calls

    return make


def close(a: list[GeneratedFace | None], b: list[GeneratedFace | None]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(np.allclose(x.face, y.face, atol=0.01) and np.allclose(x.alpha, y.alpha, atol=1e-5) for x, y in pairs)


def test_a_face_is_painted_from_its_sound_and_its_own_references(runner_of, generator_file: Path) -> None:
    jobs = [job(0, 0, 2), job(1, 0, 2)]
    runner, _ = runner_of(jobs)
    faces = targets(DubPlan(np.zeros(2), jobs, {}))
    painted = runner.run(faces)
    assert [p.face.shape for p in painted] == [(SIZE, SIZE, 3)] * 4 and painted[0].alpha.shape == (SIZE, SIZE)
    assert min(p.face.min() for p in painted) >= 0 and 5 < max(p.face.max() for p in painted) <= 255
    alone, _ = runner_of([jobs[1]])
    own = [replace(face, job=0) for face in faces if face.job == 1]
    together = [p for p, face in zip(painted, faces, strict=True) if face.job == 1]
    assert close(alone.run(own), together)
    other, _ = runner_of([jobs[0]])
    assert not close(other.run(own), together)


def test_a_mouth_that_hardly_opens_says_nothing_of_how_its_person_speaks() -> None:
    moving = np.sin(np.arange(100, dtype=np.float32))[:, None] * np.ones(8, np.float32)
    spoken, shut = (replace(job(0, first, 100), shapes=moving) for first in (0, 100))
    shut = replace(shut, drawn_open=True)
    times_s = np.arange(200) / 25
    both, alone = (DubPlan(times_s, jobs, {}).styles()[0] for jobs in ([spoken, shut], [shut]))
    assert both.seconds == pytest.approx(4.0) and both.known > 0.5
    assert alone.known == alone.seconds == 0


def test_no_call_holds_more_faces_than_a_batch(runner_of) -> None:
    jobs = [job(number, 0, 1) for number in range(7)]
    runner, calls = runner_of(jobs, batch_size=3)
    assert len(runner.run(targets(DubPlan(np.zeros(1), jobs, {})))) == 7
    assert [faces for faces, _ in calls] == [3, 3, 1]


def test_out_of_memory_halves_the_batch_for_good_and_changes_nothing_else(runner_of) -> None:
    jobs = [job(0, 0, 14)]
    faces = targets(DubPlan(np.zeros(14), jobs, {}))
    wanted = runner_of(jobs, batch_size=8)[0].run(faces)
    runner, calls = runner_of(jobs, batch_size=8, most=2)
    got = runner.run(faces[:8]) + runner.run(faces[8:])
    assert [size for size, _ in calls] == [8, 4, 2, 2, 2, 2, 2, 2, 2]
    assert close(got, wanted)


def test_out_of_memory_with_one_face_is_an_error(runner_of) -> None:
    jobs = [job(0, 0, 4)]
    runner, calls = runner_of(jobs, most=0)
    with pytest.raises(ResourceError, match="one face"):
        runner.run(targets(DubPlan(np.zeros(4), jobs, {})))
    assert [size for size, _ in calls] == [4, 2, 1]


def test_references_are_encoded_once_and_only_while_their_track_lasts(runner_of, monkeypatch) -> None:
    jobs = [job(0, 0, 6), job(1, 4, 6), job(2, 12, 4)]
    runner, calls = runner_of(jobs, batch_size=2)
    encoded, real = [], Generator.encode_references
    monkeypatch.setattr(
        Generator, "encode_references", lambda self, *given: (encoded.append(given[0].numpy()), real(self, *given))[1]
    )
    faces = targets(DubPlan(np.zeros(16), jobs, {}))
    for start in range(0, len(faces), 2):
        runner.run(faces[start : start + 2])
    assert len(encoded) == 3
    for each, crops in zip(jobs, encoded, strict=True):  # only the mouth region, as in training
        wanted = each.references.crops.transpose(0, 3, 1, 2) / 255
        wanted[:, :, : SIZE // 2] = 0
        np.testing.assert_allclose(crops, wanted, atol=1e-6)
    assert [references for _, references in calls] == [3, 3, 6, 6, 3, 3, 3, 3]
    assert list(runner._encoded) == [2]


def test_a_generator_of_the_thesis_hears_windows(tiny_config: Config) -> None:
    torch.manual_seed(1)
    network = Generator(replace(tiny_config.generator, mask_head=False)).eval()
    loud = 0.3 * np.sin(2 * np.pi * 180 * np.arange(16000) / 16000).astype(np.float32)
    jobs = [job(0, 0, 2)]
    analysis = DubPlan(np.array([0.3, 0.5]), jobs, {})
    faces = targets(analysis)
    results = []
    for sound in (loud, np.zeros_like(loud)):
        speech = analyze_audio(sound, tiny_config.mel, tiny_config.sync)
        results.append(GeneratorRunner(network, analysis, [speech], tiny_config, CPU).run(faces))
    assert np.abs(results[0][0].face - results[1][0].face).max() > 1e-3
    for painted in results[0]:  # without a mask head the hidden half is what is painted
        hidden = np.repeat([0.0, 1.0], SIZE // 2)[:, None].repeat(SIZE, 1).astype(np.float32)
        np.testing.assert_array_equal(painted.alpha, opacity(hidden, tiny_config))
        assert not painted.alpha[: SIZE // 2].any() and painted.alpha.max() == 1


def bent(config: Config, **change: object) -> Generator:
    """A generator with a warp whose decoder was never trained: it moves next to nothing."""
    torch.manual_seed(2)
    return Generator(replace(config.generator, shape_code=8, warp=True, whole_references=True, **change)).eval()


def detailed(each: FaceJob, times: int) -> FaceJob:
    """The same job, `times` as fine, with noise that only the fine crops show."""
    rng = np.random.default_rng(5)
    crops = rng.integers(0, 255, (len(each.references.crops), times * SIZE, times * SIZE, 3), np.uint8)
    fine = replace(each.references, crops=crops)
    return replace(each, stored={each.track.id: fine}, detail=times)


def fine_target(each: FaceJob, seed: int, number: int = 0) -> FaceCrop:
    rng = np.random.default_rng(seed)
    side = SIZE * each.detail
    return FaceCrop(0, number, 0, rng.integers(0, 255, (side, side, 3), np.uint8))


def runner_for(network: Generator, config: Config, jobs: list[FaceJob], **how: bool) -> GeneratorRunner:
    tone = 0.3 * np.sin(2 * np.pi * 180 * np.arange(16000) / 16000).astype(np.float32)
    speech = analyze_audio(tone, config.mel, config.sync)
    return GeneratorRunner(network, DubPlan(np.array([0.3, 0.5]), jobs, {}), [speech], config, CPU, **how)


def test_a_warp_works_in_the_resolution_of_the_picture(tiny_config: Config) -> None:
    fine = detailed(job(0, 0, 2), 3)
    target = fine_target(fine, 1)
    mixed = replace(tiny_config, sync=replace(tiny_config.sync, blend_power=1.0))
    (painted,) = runner_for(bent(mixed), mixed, [fine]).run([target])
    side = 3 * SIZE
    assert painted.face.shape == (side, side, 3) and painted.alpha.shape == (SIZE, SIZE)
    np.testing.assert_array_equal(np.rint(painted.face[: side // 2]), target.picture[: side // 2])
    coarse = painted.face.reshape(SIZE, 3, SIZE, 3, 3).mean((1, 3), keepdims=True)
    grain = np.abs(painted.face.reshape(SIZE, 3, SIZE, 3, 3) - coarse)[SIZE // 2 :]
    assert grain.mean() > 10  # three noisy references and a soft painted picture, averaged


def test_the_frame_itself_is_a_reference_where_the_weights_say_so(tiny_config: Config) -> None:
    fine = detailed(job(0, 0, 2), 2)
    first, second = (fine_target(fine, seed) for seed in (1, 2))
    half = len(first.picture) // 2
    second.picture[:half] = first.picture[:half]  # the same eyes over another mouth
    for own, differs in ((False, False), (True, True)):
        runner = runner_for(bent(tiny_config, own_frame=own), tiny_config, [fine])
        a, b = runner.run([first, second])
        lips, cheek = (slice(len(a.face) * 7 // 10, None), slice(28, 36)), (slice(half, None), slice(0, 6))
        if own:  # it lends its skin, and not its old lips
            assert np.abs(a.face - b.face)[cheek].mean() > 3 * np.abs(a.face - b.face)[lips][:6].mean()
        assert bool(np.abs(a.face - b.face).max() > 1) is differs
        again = runner.run([second])[0]  # nobody's own frame is a reference of another face
        np.testing.assert_allclose(again.face, b.face, atol=0.05)


def test_a_new_mouth_ends_beside_the_face_of_the_frame(tiny_config: Config) -> None:
    faces = [job(0, 0, 2)]
    narrow = faces[0].track.landmarks.copy()
    narrow[..., 0] = (narrow[..., 0] - 50) * 0.5 + 50  # in the same crop
    faces.append(replace(faces[0], track=replace(faces[0].track, landmarks=narrow)))
    network = bent(tiny_config, own_frame=True)
    with torch.no_grad():
        network.mask_head[-1].bias.fill_(50)  # everything is generated
    wide, thin = (runner_for(network, tiny_config, [each]).run([fine_target(each, 1)])[0].alpha for each in faces)
    row = SIZE * 3 // 4
    assert wide[row, SIZE // 2] == thin[row, SIZE // 2] == 1
    assert 1.6 < wide[row].sum() / thin[row].sum() < 2.6


@pytest.mark.parametrize("own", [False, True])
def test_faces_of_a_job_may_be_put_together_in_one_go(tiny_config: Config, own: bool) -> None:
    jobs = [detailed(job(0, 0, 2), 3), detailed(job(1, 0, 2, n_references=2), 2), detailed(job(2, 0, 2), 3)]
    faces = [fine_target(jobs[number], seed, number) for seed, number in enumerate((0, 1, 0, 2, 2, 1, 0))]
    network = bent(tiny_config, own_frame=own)
    alone, together = (runner_for(network, tiny_config, jobs, together=how).run(faces) for how in (False, True))
    for one, other in zip(alone, together, strict=True):
        assert one.face.shape == other.face.shape
        assert np.abs(one.face - other.face).max() < 1 and np.abs(one.alpha - other.alpha).max() < 1e-5


def smooth_faces(count: int, side: int, seed: int) -> np.ndarray:
    """(N, side, side, 3) pictures with the soft shapes and the little grain of a face."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (count, 6, 6, 3), np.uint8)
    large = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in coarse])
    return np.clip(large + rng.normal(0, 2, large.shape), 0, 255).astype(np.uint8)


def bundled_runner(precision: str, device: torch.device = CPU) -> tuple[GeneratorRunner, list[FaceCrop]]:
    """The bundled generator as sync runs it, with a job of eight faces, twice as fine as its own."""
    network, config = load_network("generator", Config(), device)
    size = config.generator.size
    landmarks = np.repeat((TEMPLATE * size)[None], 8, 0).astype(np.float32)
    track = Track(0, 0, 0, landmarks, np.full(8, 0.9, np.float32))
    shapes = np.random.default_rng(3).normal(0, 0.5, (8, 8)).astype(np.float32)
    each = np.arange(4)
    chosen = Selection(smooth_faces(4, 2 * size, 1), landmarks[:4], shapes[:4], each, each, shapes[0], each > each)
    views = np.tile(each, (8, 1))
    faced = FaceJob(track, np.zeros((8, 2, 3)), np.ones(8, np.float32), {0: chosen}, shapes, views, detail=2)
    analysis = DubPlan((np.arange(8) + 0.5) / 25, [faced], {})
    noise = np.random.default_rng(4).normal(0, 0.1, 16000).astype(np.float32)
    encoder, _ = load_audio_encoder("audio", config)
    speech = analyze_audio(noise, config.mel, config.sync, encoder=encoder)
    config = replace(config, sync=replace(config.sync, precision=precision))
    faces = [FaceCrop(row, 0, row, picture) for row, picture in enumerate(smooth_faces(8, 2 * size, 2))]
    return GeneratorRunner(network, analysis, [speech], config, device), faces


@pytest.mark.parametrize(("precision", "most", "mean"), [("bf16", 25, 0.3)])
def test_half_precision_stays_near(precision: str, most: float, mean: float) -> None:
    runner, faces = bundled_runner("no")
    wanted = runner.run(faces)
    got = bundled_runner(precision)[0].run(faces)
    away = np.abs(np.stack([np.rint(a.face) - np.rint(b.face) for a, b in zip(wanted, got, strict=True)]))
    assert away.max() <= most and away.mean() <= mean
    assert max(np.abs(a.alpha - b.alpha).max() for a, b in zip(wanted, got, strict=True)) <= 0.05 * (most > 0)
    assert (away.max() > 0) == (most > 0)  # else nothing was halved


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "most"), [("no", 1), ("fp16", 2), ("bf16", 10)])
def test_a_gpu_paints_what_a_cpu_does(precision: str, most: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    runner, faces = bundled_runner("no")
    wanted = runner.run(faces)
    got = bundled_runner(precision, torch.device("cuda"))[0].run(faces)
    away = np.abs(np.stack([np.rint(a.face) - np.rint(b.face) for a, b in zip(wanted, got, strict=True)]))
    assert away.max() <= most


def test_what_half_precision_cannot_hold_is_painted_in_full(runner_of, monkeypatch) -> None:
    jobs = [job(0, 0, 6)]
    faces = targets(DubPlan(np.zeros(6), jobs, {}))
    wanted = runner_of(jobs)[0].run(faces)
    runner, _ = runner_of(jobs)
    runner._half = torch.bfloat16
    real = Generator.draw

    def overflowing(self, *given, **kwargs):
        drawn = real(self, *given, **kwargs)
        halved = torch.is_autocast_enabled("cpu")
        return replace(drawn, face=drawn.face + float("inf")) if halved else drawn

    monkeypatch.setattr(Generator, "draw", overflowing)
    runner._generator.__class__ = Generator
    assert close(runner.run(faces), wanted)
