from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub.config import Config, load_config
from lipdub.data.store import ClipEntry, write_arrays
from lipdub.errors import InputError
from lipdub.faces.mouth_shape import SHAPE_SCALE, shape_code
from lipdub.mel import mel_windows
from lipdub.models.generator import Generator
from lipdub.training.data import (
    AUDIO_RUN,
    DB_PER_UNIT,
    DRAWN_OPEN,
    HIDDEN_BANDS,
    HIDDEN_LEVEL,
    Batch,
    Clip,
    ClipSet,
    add_noise,
    add_reverb,
    capped,
    masked_faces,
    obscure_speech,
    vary_voice,
)
from lipdub.training.generator import own_references

SIZE, WIDTH = 32, 16


def debug(*overrides: str) -> Config:
    return load_config("debug", overrides)


@pytest.fixture(scope="module")
def clips(made_data: Path) -> ClipSet:
    """The training split with the debug preset; each test reseeds it."""
    return ClipSet(made_data, "train", debug("train.references=4", "reference.count=6"))


@pytest.fixture(scope="module")
def with_settings(made_data: Path, clips: ClipSet) -> Callable[..., ClipSet]:
    """The same clips under other settings, without reading them again."""

    def make(*overrides: str) -> ClipSet:
        other = object.__new__(ClipSet)
        other.__dict__.update(clips.__dict__ | {"config": debug(*overrides)})
        other.reseed(0)
        return other

    return make


class Loaded(np.random.Generator):
    """A generator whose coin and whose start of a sample are given; all else is random."""

    def __init__(self, seed: int, *, coin: float, start: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.coin, self.start = coin, start

    def random(self, *args: object, **kwargs: object) -> object:
        return super().random(*args, **kwargs) if args or kwargs else self.coin

    def integers(self, *args: object, **kwargs: object) -> object:
        return super().integers(*args, **kwargs) if kwargs else self.start


def test_a_batch_has_the_documented_shapes_and_ranges(clips: ClipSet) -> None:
    clips.reseed(1)
    batch = clips.batch(3, SIZE, WIDTH)
    assert batch.real.shape == (3, 5, 3, SIZE, SIZE)
    assert batch.references.shape == (3, 4, 3, SIZE, SIZE)
    assert (batch.known.shape, batch.known.dtype) == ((3, 4), torch.bool)
    assert batch.windows.shape == (3, 5, 80, WIDTH)
    assert batch.expert_mel.shape == (3, 80, 16)
    assert batch.mouth.shape == (3, 5, 1, SIZE, SIZE)
    assert batch.shape.shape == (3, 5, 8)
    for faces in (batch.real, batch.references):
        assert float(faces.min()) >= 0
        assert float(faces.max()) <= 1
    assert float(batch.real.std()) > 0.05
    assert float(batch.windows.min()) >= -1
    assert float(batch.windows.max()) <= 1.2
    assert set(batch.mouth.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("augment", [True, False])
def test_references_show_the_lower_half_only(clips: ClipSet, augment: bool) -> None:
    batch = clips.batch(2, SIZE, WIDTH, augment=augment)
    assert float(batch.references[..., : SIZE // 2, :].max()) == 0
    assert float(batch.references[..., SIZE // 2 :, :].min(2).values.mean()) > 0.1


def test_the_identity_encoder_sees_the_upper_half_only(clips: ClipSet) -> None:
    batch = clips.batch(1, SIZE, WIDTH)
    masked = masked_faces(batch.real)
    assert float(masked[..., SIZE // 2 :, :].max()) == 0
    assert torch.equal(masked[..., : SIZE // 2, :], batch.real[0, ..., : SIZE // 2, :])


def test_the_mouth_mask_lies_on_the_mouth(clips: ClipSet) -> None:
    batch = clips.batch(2, SIZE, WIDTH, augment=False)
    mask = batch.mouth.mean((0, 1, 2))
    assert float(mask[round(0.7 * SIZE), SIZE // 2]) == 1
    assert float(mask[: round(0.35 * SIZE)].max()) == 0


@pytest.mark.parametrize("sampling", ["kmeans", "random", "neighbourhood"])
def test_references_are_never_the_target_or_its_neighbours(
    with_settings: Callable[..., ClipSet], sampling: str
) -> None:
    made = with_settings(f"reference.sampling={sampling}", "train.references=4", "reference.neighbourhood=12")
    for clip in made.clips:
        for first in range(0, len(clip.frames) - 4, 3):
            target = np.arange(first, first + 5)
            picked = made.reference_frames(clip, target)
            away = np.abs(picked[:, None] - target).min(1)
            assert 1 <= len(picked) <= 4
            assert len(set(picked.tolist())) == len(picked)
            assert away.min() > made.config.reference.exclude
            if sampling == "neighbourhood":
                assert np.abs(picked - target.mean()).max() <= 12


def test_kmeans_takes_the_sharpest_frame_of_different_clusters(clips: ClipSet) -> None:
    clip, target = clips.clips[1], np.arange(20, 25)
    picked = clips.reference_frames(clip, target)
    groups = clip.clusters[picked]
    assert len(set(groups.tolist())) == len(picked) == 4
    far = np.abs(np.arange(len(clip.frames))[:, None] - target).min(1) > clips.config.reference.exclude
    for frame, group in zip(picked, groups, strict=True):
        assert clip.sharpness[frame] == clip.sharpness[far & (clip.clusters == group)].max()


def test_random_references_reach_everywhere(with_settings: Callable[..., ClipSet]) -> None:
    made = with_settings("reference.sampling=random", "train.references=4")
    clip, target = made.clips[0], np.arange(5)
    seen = {int(frame) for _ in range(100) for frame in made.reference_frames(clip, target)}
    assert seen == set(range(4 + made.config.reference.exclude + 1, len(clip.frames)))


def test_free_places_are_filled_with_jittered_repeats(with_settings: Callable[..., ClipSet]) -> None:
    made = with_settings("train.references=8", "reference.augment=true")
    batch = made.batch(2, SIZE, WIDTH, augment=False)
    assert bool(batch.known.all())
    faces = batch.references.flatten(2)
    distances = torch.cdist(faces, faces) + 1e9 * torch.eye(8)
    assert float(distances.min()) > 1e-3  # a repeat is never the same picture


def test_without_augmentation_free_places_stay_empty(with_settings: Callable[..., ClipSet]) -> None:
    made = with_settings("train.references=8", "reference.augment=false")
    batch = made.batch(4, SIZE, WIDTH)
    assert int(batch.known.sum(1).min()) >= 1
    assert int(batch.known.sum(1).max()) <= 6  # clusters
    assert float(batch.references[~batch.known].abs().max()) == 0
    assert float(batch.references[batch.known].flatten(1).max(1).values.min()) > 0


def test_an_empty_place_does_not_reach_the_generator(with_settings: Callable[..., ClipSet]) -> None:
    made = with_settings("train.references=8", "reference.augment=false")
    batch = made.batch(2, SIZE, WIDTH)
    torch.manual_seed(0)
    generator = Generator(made.config.generator).eval()
    noise = torch.where(batch.known[..., None, None, None], batch.references, torch.rand_like(batch.references))
    faces = []
    with torch.no_grad():
        for references in (batch.references, noise):
            encoded = generator.encode_references(references.flatten(0, 1))
            owner = own_references(batch.known, 5)
            windows = batch.windows.flatten(0, 1)
            faces.append(generator(masked_faces(batch.real), windows, encoded, owner).face)
    assert torch.allclose(faces[0], faces[1], atol=1e-6)
    assert not torch.equal(noise, batch.references)


def test_a_frame_may_look_at_the_references_of_its_own_clip() -> None:
    owner = own_references(torch.tensor([[True, True], [True, False]]), 3)
    assert owner.int().tolist() == [[1, 1, 0, 0]] * 3 + [[0, 0, 1, 0]] * 3


def test_training_references_are_blurred_and_nothing_else(with_settings: Callable[..., ClipSet]) -> None:
    def detail(faces: torch.Tensor) -> float:
        return float((faces[..., SIZE // 2 :, 1:] - faces[..., SIZE // 2 :, :-1]).abs().mean())

    batches: dict[tuple[float, bool], Batch] = {}
    for blur in (0.0, 2.0):
        for augment in (True, False):
            made = with_settings(f"train.reference_blur={blur}")
            batches[blur, augment] = made.batch(2, SIZE, WIDTH, augment=augment)
    assert detail(batches[2.0, True].references) < 0.93 * detail(batches[0.0, True].references)
    assert torch.equal(batches[2.0, True].real, batches[0.0, True].real)
    assert torch.equal(batches[2.0, False].references, batches[0.0, False].references)


def test_the_blur_is_that_of_the_thesis_and_off_in_the_bundled_models_preset() -> None:
    assert Config().train.reference_blur == 0.5
    assert load_config("small-cpu").train.reference_blur == 0


def test_a_mirrored_sample_is_mirrored_in_everything(clips: ClipSet) -> None:
    batches = []
    for side in (0.9, 0.0):
        clips.rng = Loaded(5, coin=side, start=4)
        batches.append(clips.batch(2, SIZE, WIDTH))
    plain, mirrored = batches
    for name in ("real", "references", "mouth"):
        assert torch.equal(getattr(mirrored, name), getattr(plain, name).flip(-1)), name
    assert torch.equal(mirrored.windows, plain.windows)
    assert torch.equal(mirrored.shape, plain.shape[..., [0, 2, 1, 3, 4, 5, 6, 7]])
    assert float((plain.shape[..., 1] - plain.shape[..., 2]).abs().max()) > 0.1


def test_validation_batches_are_not_augmented(clips: ClipSet) -> None:
    batches = []
    for coin in (0.9, 0.0):  # the second mirrors everything it may
        clips.rng = Loaded(3, coin=coin, start=4)
        batches.append(clips.batch(1, SIZE, WIDTH, augment=False))
    assert torch.equal(batches[0].real, batches[1].real)
    assert torch.equal(batches[0].windows, batches[1].windows)


def test_the_window_of_a_frame_is_the_one_that_sync_uses(clips: ClipSet) -> None:
    clips.rng = Loaded(0, coin=0.9, start=7)
    batch = clips.batch(1, SIZE, WIDTH, augment=False)
    times = (np.arange(7, 12) + 0.5) / 25
    found = 0
    for clip in clips.clips:
        if np.array_equal(batch.real[0].numpy(), clips.faces(clip, 7, 5, SIZE, augment=False)):
            found += 1
            assert np.array_equal(batch.windows[0].numpy(), mel_windows(clip.mel, times, clips.config.mel, width=WIDTH))
            middle = mel_windows(clip.mel, times[2:3], clips.config.mel, width=16)
            assert np.array_equal(batch.expert_mel.numpy(), middle)
            assert np.array_equal(batch.shape[0].numpy(), clip.shape[7:12])
    assert found == 1


def test_the_shape_code_is_zero_at_rest_and_grows_with_the_opening(clips: ClipSet) -> None:
    clip = clips.clips[0]
    openings = clip.landmarks[:, 66, 1] - clip.landmarks[:, 62, 1]
    code = shape_code(clip.landmarks)
    assert np.corrcoef(code[:, 0], openings)[0, 1] > 0.999
    calm = np.argsort(code[:, 0])[: len(code) // 5]
    assert abs(float(code[calm, 0].mean())) < 0.02
    assert float(code[:, 0].max()) > 1


def test_sounds_come_with_the_shapes_that_were_seen(clips: ClipSet) -> None:
    clips.reseed(0)
    windows, shapes = clips.audio_windows(4, WIDTH)
    assert windows.shape == (4, AUDIO_RUN, 80, WIDTH)
    assert shapes.shape == (4, AUDIO_RUN, 8)
    loudness = windows[..., WIDTH // 2 - 1 : WIDTH // 2 + 1].mean((2, 3)).flatten()
    assert float(torch.corrcoef(torch.stack([loudness, shapes[..., 0].flatten()]))[0, 1]) > 0.9
    wide, _ = clips.audio_windows(4, 32)
    torch.testing.assert_close(wide[:, 5, :, :16], wide[:, 0, :, 16:])  # in a row: 5 frames are 16 steps


@pytest.mark.parametrize(
    ("share", "cap", "wanted"),
    [
        ([0.7, 0.2, 0.1], 0.5, [0.5, 1 / 3, 1 / 6]),
        ([0.8, 0.1, 0.1], 0.4, [0.4, 0.3, 0.3]),
        ([0.6, 0.3, 0.1], 0.4, [0.4, 0.4, 0.2]),  # the second goes over only after the first was cut
        ([0.9, 0.1], 0.15, [0.5, 0.5]),  # two shares of .15 cannot make 1
        ([1.0], 0.15, [1.0]),
        ([0.25] * 4, 0.25, [0.25] * 4),
    ],
)
def test_no_share_exceeds_the_cap(share: list[float], cap: float, wanted: list[float]) -> None:
    assert capped(np.array(share), cap) == pytest.approx(wanted)


def test_the_speaker_cap_holds_for_what_is_drawn(made_data: Path) -> None:
    made = ClipSet(made_data, "train", debug("train.speaker_cap=0.4"))
    drawn = [clip.entry.speaker for clip in made.draw(3000)]
    shares = {name: drawn.count(name) / 3000 for name in ("anna", "ben", "cora")}
    assert shares["anna"] == pytest.approx(0.4, abs=0.03)
    assert min(shares.values()) > 0.25
    assert made.weights.sum() == pytest.approx(1)


def test_noise_on_the_sound_spares_its_level_and_range() -> None:
    mel = torch.full((64, 80, 16), 0.1)
    noisy = add_noise(mel, np.random.default_rng(0))
    assert float(noisy.min()) >= -1
    assert abs(float(noisy.mean()) - 0.1) < 0.02
    assert float(noisy.mean((1, 2)).std()) > 0.03  # level: one draw for each
    assert float((noisy[0, 1:] - noisy[0, :-1]).std()) < 0.01  # tilt is smooth


def test_another_voice_keeps_the_level_and_moves_the_middle_least() -> None:
    rng = np.random.default_rng(1)
    flat = torch.full((6, 2, 80, 16), -0.3)
    torch.testing.assert_close(vary_voice(flat, rng), flat)
    step = torch.full((200, 1, 80, 17), -1.0)
    step[..., 8] = 1.0  # a click in the middle of the window
    moved = vary_voice(step, rng)
    assert (moved.mean(2).argmax(2) == 8).all()
    ramp = torch.linspace(-1, 1, 80)[None, None, :, None].expand(200, 3, 80, 17)
    shift = (vary_voice(ramp, rng) - ramp)[:, :, 40, 8] * 40  # in bands
    assert (shift == shift[:, :1]).all()  # one speaker says the whole run
    assert 2.4 < float(shift.std()) < 4.6 and abs(float(shift.mean())) < 0.9


def test_a_room_leaves_a_tail_behind_every_sound_of_half_the_runs() -> None:
    mel = torch.full((200, 2, 60), -4.0)
    mel[:, 0, 10] = 0.5
    room = add_reverb(mel, np.random.default_rng(0))
    changed = (room[:, 0, 11] > -3).numpy()
    assert 0.35 < changed.mean() < 0.65
    torch.testing.assert_close(room[~changed], mel[~changed], atol=1e-5, rtol=0)
    assert room[:, 0, :10].max() < -3.8 and room[:, 1].max() < -3.8  # nothing before it, or in another band
    tail = 50 * room[changed, 0, 11:21].numpy()  # dB
    falls = 60 / (-np.diff(tail, axis=1)[:, 0] * 80)  # seconds until it is 60 dB lower
    assert 0.19 < falls.min() < 0.3 and 0.8 < falls.max() < 0.95
    tail_power = 10 ** (tail[:, 0] / 10) / (1 - 10 ** (-6 / (falls * 80)))
    below = 25 - 10 * np.log10(tail_power)  # all of the tail under the sound
    assert -0.5 < below.min() < 2 and 16 < below.max() < 18.5


def test_sound_that_is_hard_to_hear_lacks_bands_and_has_another_voice_behind_it() -> None:
    mel = torch.linspace(-1, 0.5, 90)[:, None, None, None].expand(90, 2, 80, 4)  # run n is louder than run n - 1
    heard = obscure_speech(mel, np.random.default_rng(0))
    hidden = heard == HIDDEN_LEVEL
    assert torch.equal(hidden, hidden[:, :1, :, :1].expand_as(hidden))  # one draw for a run
    assert (hidden[:, 0, :, 0].sum(1) <= HIDDEN_BANDS).all() and 3 < hidden[:, 0, :, 0].sum(1).float().mean() < 10
    gain = torch.where(hidden, 0, heard - mel)[1:].amax((1, 2, 3))
    behind = gain > 1e-5
    assert 0.15 < behind.float().mean() < 0.45
    assert gain.max() * DB_PER_UNIT <= 3.01  # two equal voices are 3 dB louder than one; here the second is fainter


def test_references_may_show_the_whole_face_in_the_targets_own_crop(with_settings: Callable[..., ClipSet]) -> None:
    made = with_settings(
        "generator.whole_references=true", "train.aligned_references=1", "train.references=3", "train.reference_blur=0"
    )
    batch = made.batch(8, SIZE, WIDTH)
    assert float(batch.references[:, :, :, : SIZE // 2].flatten(2).mean(2).min()) > 0.1
    # drawn faces do not move: with the target's crop and light the eyes are the target's own
    apart = (batch.references - batch.real[:, :1])[..., 4 : SIZE // 2, 4:-4].abs().flatten(2).mean(2)
    assert float(apart[:, 0].max()) < 0.03 < float(apart[:, 1:].mean())


def test_references_come_with_the_mouths_that_they_show(clips: ClipSet) -> None:
    batch = clips.batch(6, SIZE, WIDTH, augment=False)
    assert batch.reference_shapes.shape == (*batch.references.shape[:2], 8)
    # the parted lips of the drawn faces are the dark pixels
    dark = (batch.references.mean(2)[..., SIZE // 2 :, :] < 0.15).float().flatten(2).mean(2)
    opening = batch.reference_shapes[..., 0]
    assert np.corrcoef(dark.flatten(), opening.flatten())[0, 1] > 0.8


def test_the_parted_lips_are_part_of_the_mouth_and_grow_with_the_opening(clips: ClipSet) -> None:
    batch = clips.batch(6, SIZE, WIDTH, augment=False)
    assert float((batch.lips * (1 - batch.mouth)).max()) == 0
    area = batch.lips.flatten(2).sum(2)
    assert np.corrcoef(area.flatten(), batch.shape[..., 0].flatten())[0, 1] > 0.8


def test_a_number_gives_the_same_batch_whatever_was_drawn_before(clips: ClipSet) -> None:
    first, second = (clips.seeded(4, part).batch(1, SIZE, WIDTH) for part in (0, 1))
    clips.batch(1, SIZE, WIDTH)
    again = clips.seeded(4, 1).batch(1, SIZE, WIDTH)
    assert torch.equal(again.real, second.real)
    assert torch.equal(again.windows, second.windows)
    assert not torch.equal(first.real, second.real)
    assert not torch.equal(clips.seeded(5, 1).batch(1, SIZE, WIDTH).real, second.real)


def test_clips_too_short_for_a_reference_are_left_out(
    make_data: Callable[..., list[ClipEntry]], tmp_path: Path
) -> None:
    make_data(tmp_path / "data", [("a", "train", 15), ("b", "train", 16), ("c", "val", 15)])
    assert [clip.entry.speaker for clip in ClipSet(tmp_path / "data", "train", debug()).clips] == ["b"]
    with pytest.raises(InputError, match="16 frames in split 'val'"):
        ClipSet(tmp_path / "data", "val", debug())


def test_an_unknown_sampling_is_refused(made_data: Path) -> None:
    with pytest.raises(InputError, match="nearest"):
        ClipSet(made_data, "train", debug("reference.sampling=nearest"))


def test_damaged_clips_are_left_out_and_counted(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> None:
    made = make_data(tmp_path, [("anna", "train", 40)] * 5 + [("ben", "val", 40)])
    clips = tmp_path / "clips"
    cut = (clips / "0.mp4").read_bytes()
    (clips / "0.mp4").write_bytes(cut[: len(cut) // 3])
    (clips / "1.mp4").write_bytes(b"")
    (clips / "2.npz").write_bytes((clips / "2.npz").read_bytes()[:100])
    write_arrays(clips / "3.npz", np.zeros((3, 68, 2), "f4"), np.ones(3, "f4"), np.zeros((80, 9), "f4"))
    config = load_config("debug")
    left = ClipSet(tmp_path, "train", config)
    assert [clip.entry.id for clip in left.clips] == [made[4].id]
    assert set(left.left_out) == {"0", "1", "2", "3"}
    assert "does not belong to its 40 frames" in left.left_out["3"]
    (clips / "4.mp4").unlink()
    with pytest.raises(InputError, match="no clip in split 'train' can be read"):
        ClipSet(tmp_path, "train", config)


def test_closed_references_show_closed_mouths_alone(with_settings: Callable[..., ClipSet]) -> None:
    clips = with_settings("train.references=4", "reference.count=6", "train.closed_references=1.0")
    clips.reseed(3)
    for clip in clips.clips:
        frames = clips.reference_frames(clip, np.arange(10, 15))
        calm = np.sort(clip.opening)[: round(0.3 * len(clip.opening))]
        assert len(frames) and clip.opening[frames].max() <= calm.max()
        assert (np.abs(frames[:, None] - np.arange(10, 15)).min(1) > clips.config.reference.exclude).all()


DRAWN = ("train.references=4", "reference.count=6", "train.closed_references=1.0", "generator.whole_references=true")


def openings(shapes: torch.Tensor, rest: np.ndarray) -> np.ndarray:
    """Openings over the mouth's width, of codes (N, 8) relative to a mouth at rest."""
    lengths = shapes.numpy() * SHAPE_SCALE + rest
    return lengths[:, 0] / lengths[:, 5]


@pytest.fixture
def calm(with_settings: Callable[..., ClipSet]) -> Callable[..., tuple[ClipSet, Clip]]:
    """A set of one clip, all of whose calm mouths count as closed, which are not closed enough as they are drawn."""

    def make(*more: str) -> tuple[ClipSet, Clip]:
        clips = with_settings(*DRAWN, *more)
        clip = replace(clips.clips[0], closed=clips.clips[0].opening <= 0.6)
        clips.clips, clips.weights = [clip], np.ones(1)
        return clips, clip

    return make


def test_where_all_references_are_closed_the_last_ones_are_drawn_open(
    calm: Callable[..., tuple[ClipSet, Clip]],
) -> None:
    clips, clip = calm()
    batch = clips.batch(6, 32, 16, augment=False)
    shown = np.stack([openings(shapes, clip.rest) for shapes in batch.reference_shapes])
    wider = shown - shown[:, 1:2]
    for place, (least, most) in zip((2, 3), DRAWN_OPEN, strict=True):
        assert (wider[:, place] >= least - 0.01).all() and (wider[:, place] <= most + 0.01).all()
    assert np.ptp(shown[:, :2]) < 0.15
    changed = (batch.references - batch.references[:, 1:2]).abs().amax((2, 3, 4))
    assert (changed[:, 2:] > 0.1).all()
    real = batch.reference_shapes[:, :2, :3].mean(-1).amax(1, keepdim=True)  # drawn ones do not count
    wanted = (batch.shape[..., :3].mean(-1) - real).clamp(0, 1)
    torch.testing.assert_close(batch.unseen, wanted, atol=0.02, rtol=0)
    assert batch.unseen.max() > 0
    plain = calm("reference.draw_open=false")[0].batch(6, 32, 16, augment=False)
    assert np.ptp([openings(shapes, clip.rest) for shapes in plain.reference_shapes]) < 0.15


def test_closed_targets_are_drawn_open_where_asked_for(calm: Callable[..., tuple[ClipSet, Clip]]) -> None:
    clips, clip = calm("train.drawn_targets=1.0", "train.frames=3")
    batch = clips.batch(6, 32, 16, augment=False)
    asked = np.stack([openings(shapes, clip.rest) for shapes in batch.shape])
    assert not batch.unseen.any()
    assert (asked > 0.15).all() and np.ptp(asked, axis=0).max() > 0.1
    seen = batch.lips.sum((2, 3, 4))
    assert seen[asked == asked.max()].min() > 1.2 * seen[asked == asked.min()].max()  # masks follow what is drawn


def test_the_same_frame_stands_first_where_asked_for(with_settings: Callable[..., ClipSet]) -> None:
    aligned = (
        "train.references=4",
        "reference.count=6",
        "train.aligned_references=1",
        "generator.whole_references=true",
    )
    always = with_settings(*aligned, "train.same_frame=1.0", "train.frames=3").batch(4, 32, 16, augment=True)
    never = with_settings(*aligned, "train.same_frame=0.0", "train.frames=3").batch(4, 32, 16, augment=True)
    torch.testing.assert_close(always.references[:, 0], always.real[:, 1])
    torch.testing.assert_close(always.reference_shapes[:, 0], always.shape[:, 1])
    assert (never.references[:, 0] - never.real[:, 1]).abs().mean() > 1e-3


def test_wide_targets_are_among_the_widest_openings(with_settings: Callable[..., ClipSet]) -> None:
    clips = with_settings("train.references=4", "reference.count=6", "train.wide_targets=1.0")
    clips.reseed(4)
    for clip in clips.clips:
        middles = [int(clips._target_frames(clip, 5)[2]) for _ in range(20)]
        possible = clip.opening[2:-2]
        assert clip.opening[middles].min() >= np.sort(possible)[-round(0.2 * len(possible))] - 1e-6


def test_a_margin_shows_the_same_face_in_a_larger_crop(with_settings: Callable[..., ClipSet]) -> None:
    plain = with_settings("train.references=4", "reference.count=6")
    wide = with_settings("train.references=4", "reference.count=6", "generator.margin=1.25")
    batches = []
    for clips, size in ((plain, 32), (wide, 40)):
        clips.reseed(5)
        batches.append(clips.batch(2, size, WIDTH, augment=False))
    inner = batches[1].real[..., 4:36, 4:36]
    assert (inner - batches[0].real).abs().mean() < 0.01
    assert (batches[1].mouth[..., 4:36, 4:36] - batches[0].mouth).abs().mean() < 0.02


def test_what_changes_holds_the_jaw_of_the_own_frame(with_settings: Callable[..., ClipSet]) -> None:
    settings = ("reference.count=6", "train.aligned_references=1", "generator.margin=1.5", "train.wide_targets=0.0")
    clips = with_settings("train.references=4", *settings)
    clips.reseed(6)
    batch = clips.batch(24, 96, WIDTH, augment=False)
    assert (batch.changed >= batch.mouth).all() and batch.changed.sum() > batch.mouth.sum()


def test_a_fade_darkens_target_and_references_alike(with_settings: Callable[..., ClipSet]) -> None:
    clips = with_settings("train.references=4", "reference.count=6", "train.dark=1.0")
    clips.reseed(7)
    dark = clips.batch(8, SIZE, WIDTH)
    levels = dark.real.mean((1, 2, 3, 4))
    assert levels.min() < 0.5 * levels.max()
    ratio = dark.references.flatten(1).mean(1) / dark.real.flatten(1).mean(1)
    assert ratio.max() < 3 * ratio.min()
