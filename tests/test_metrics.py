import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from skimage.metrics import peak_signal_noise_ratio

from lipdub.evaluation.teachers import MESH_TO_IBUG
from lipdub.faces.crop import TEMPLATE
from lipdub.metrics import (
    FAR,
    HIGH_PASS,
    SHORTEST,
    agreement,
    articulation,
    high_pass,
    landmark_distance,
    laplacian_variance,
    mouth_opening,
    opening_range,
    pearson,
    psnr_masked,
    ring_jitter,
    silence_motion,
    silent_frames,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestPsnr:
    def test_known_value(self):
        real = torch.zeros(1, 3, 2, 2)
        fake = real.clone()
        fake[0, :, 0, 0] = torch.tensor([0.1, 0.01, 0.001])
        mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        assert psnr_masked(fake, real, mask).item() == pytest.approx((20 + 40 + 60) / 3, abs=1e-3)

    def test_ten_grey_levels_of_255(self):
        real = torch.full((1, 3, 4, 4), 100.0)
        found = psnr_masked(real + 10, real, torch.ones(1, 1, 4, 4), peak=255.0)
        assert found.item() == pytest.approx(28.1308, abs=1e-4)  # 20 log10(25.5)

    def test_full_mask_agrees_with_scikit_image(self):
        fake, real = torch.rand(2, 3, 9, 7), torch.rand(2, 3, 9, 7)
        found = psnr_masked(fake, real, torch.ones(2, 1, 9, 7))
        for i in range(2):
            wanted = np.mean(
                [peak_signal_noise_ratio(real[i, c].numpy(), fake[i, c].numpy(), data_range=1.0) for c in range(3)]
            )
            assert found[i].item() == pytest.approx(wanted, abs=1e-4)

    def test_only_the_inside_counts(self):
        fake, real, mask = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
        mask[..., 4:, :] = 1
        changed = fake.clone()
        changed[..., :4, :] = 0
        torch.testing.assert_close(psnr_masked(fake, real, mask), psnr_masked(changed, real, mask))

    def test_peak_is_the_largest_value(self):
        fake, real, mask = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
        torch.testing.assert_close(psnr_masked(fake * 255, real * 255, mask, peak=255.0), psnr_masked(fake, real, mask))

    def test_equal_images_and_empty_masks(self):
        image = torch.rand(2, 3, 4, 4)
        mask = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
        found = psnr_masked(image, image, mask)
        assert found[0].item() == math.inf
        assert math.isnan(found[1].item())

    def test_wrong_shapes(self):
        image = torch.rand(1, 3, 4, 4)
        with pytest.raises(ValueError, match="mask must be"):
            psnr_masked(image, image, torch.ones(1, 4, 4))
        with pytest.raises(ValueError, match="shapes differ"):
            psnr_masked(image, torch.rand(2, 3, 4, 4), torch.ones(1, 1, 4, 4))
        with pytest.raises(ValueError, match="images must be"):
            psnr_masked(image[:, :1], image[:, :1], torch.ones(1, 1, 4, 4))


class TestLaplacianVariance:
    def test_agrees_with_scipy(self):
        images, mask = torch.rand(2, 3, 10, 12), (torch.rand(2, 1, 10, 12) > 0.5).float()
        found = laplacian_variance(images, mask)
        sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8.0
        for i in range(2):
            grey = 255 * np.tensordot([0.299, 0.587, 0.114], images[i].double().numpy(), 1)
            twice = sum(
                convolve(convolve(grey, kernel, mode="nearest"), kernel, mode="nearest") for kernel in (sobel, sobel.T)
            )
            assert found[i].item() == pytest.approx(twice[mask[i, 0].numpy() > 0].var(), rel=1e-4)

    def test_known_value(self):
        # A line of height v: Sobel / 8 twice is (v(x+2) - 2 v(x) + v(x-2)) / 4, here 1, -2, 1 in 11 columns.
        images = torch.zeros(1, 3, 11, 11)
        images[..., 5] = 4 / 255
        assert laplacian_variance(images, torch.ones(1, 1, 11, 11)).item() == pytest.approx(6 / 11, rel=1e-4)
        inside = torch.zeros(1, 1, 11, 11)
        inside[..., 5:8] = 1  # -2, 0, 1
        assert laplacian_variance(images, inside).item() == pytest.approx(14 / 9, rel=1e-4)

    def test_a_ramp_has_no_curvature_and_a_parabola_a_constant_one(self):
        x = torch.arange(12.0).expand(1, 3, 12, 12)
        inside = torch.zeros(1, 1, 12, 12)
        inside[..., 3:-3, 3:-3] = 1
        assert laplacian_variance(x / 12, inside).item() == pytest.approx(0, abs=1e-6)
        assert laplacian_variance((x / 12) ** 2, inside).item() == pytest.approx(0, abs=1e-6)

    def test_blur_lowers_it(self):
        sharp = torch.rand(1, 3, 16, 16)
        blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
        mask = torch.ones(1, 1, 16, 16)
        assert laplacian_variance(blurred, mask) < 0.2 * laplacian_variance(sharp, mask)

    def test_empty_mask_has_no_value(self):
        assert math.isnan(laplacian_variance(torch.rand(1, 3, 6, 6), torch.zeros(1, 1, 6, 6)).item())

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="mask must be"):
            laplacian_variance(torch.rand(1, 3, 6, 6), torch.zeros(1, 1, 6, 5))


class TestRingJitter:
    def test_known_value(self):
        faces, ring = torch.zeros(3, 3, 4, 4), torch.zeros(3, 1, 4, 4)
        ring[:, :, 0, :2] = 1
        faces[1, :, 0, 0] = 10 / 255  # 10 and 0 levels: mean 5
        faces[2, :, 0, 0] = 10 / 255
        faces[2, :, 0, 1] = 2 / 255  # 0 and 2: mean 1
        faces[2, :, 3, 3] = 1  # outside
        faces[2, :, 2, 2], ring[2, :, 2, 2] = 1, 1  # inside in one of the two frames only
        assert ring_jitter(faces, ring).item() == pytest.approx(3.0, rel=1e-5)

    def test_no_value(self):
        assert math.isnan(ring_jitter(torch.rand(1, 3, 4, 4), torch.ones(1, 1, 4, 4)).item())
        assert math.isnan(ring_jitter(torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)).item())

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="mask must be"):
            ring_jitter(torch.rand(2, 3, 4, 4), torch.ones(1, 1, 4, 4))


class TestLandmarks:
    def test_opening_known_value(self):
        points = np.zeros((2, 68, 2), np.float32)
        points[:, 45] = (50, 0)
        points[:, 66] = [(3, 4), (0, 10)]
        np.testing.assert_allclose(mouth_opening(points), [0.1, 0.2], rtol=1e-6)

    def test_opening_is_that_of_the_mesh(self):
        mesh = np.random.default_rng(0).uniform(0, 100, (478, 2)).astype(np.float32)
        gap, eyes = (np.linalg.norm(mesh[a] - mesh[b]) for a, b in ((13, 14), (33, 263)))  # of MediaPipe's numbers
        assert mouth_opening(mesh[MESH_TO_IBUG][None])[0] == pytest.approx(gap / eyes, rel=1e-6)

    def test_distance_known_value(self):
        real = np.repeat(100 * TEMPLATE[None], 3, 0)  # eye corners 47 apart
        fake = real.copy()
        fake[:, 48:] += (3, 4)
        assert landmark_distance(fake, real) == pytest.approx(100 * 5 / 47, rel=1e-6)

    def test_a_face_seen_elsewhere_does_not_count(self):
        real = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
        assert landmark_distance(real + np.array([7, -2]), real) == pytest.approx(0, abs=1e-9)

    def test_frames_without_a_face_are_left_out(self):
        real = np.repeat(100 * TEMPLATE[None], 3, 0)
        fake = real.copy()
        fake[1] = np.nan
        assert landmark_distance(fake, real) == pytest.approx(0, abs=1e-9)
        assert math.isnan(landmark_distance(np.full_like(real, np.nan), real))

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="landmarks must be"):
            mouth_opening(np.zeros((68, 2)))
        with pytest.raises(ValueError, match="shapes differ"):
            landmark_distance(np.zeros((2, 68, 2)), np.zeros((3, 68, 2)))


def syllables(n_frames: int, seed: int = 0) -> np.ndarray:
    return np.abs(np.convolve(np.random.default_rng(seed).normal(size=n_frames + 4), np.ones(5) / 5, "valid"))


class TestAgreement:
    def test_pearson_known_values(self):
        a = np.array([0.0, 0.0, 3.0])
        assert pearson(a, np.array([0.0, 3.0, 0.0])) == pytest.approx(-0.5)
        assert pearson(a, 2 * a + 1) == pytest.approx(1)
        assert pearson(a, np.ones(3)) == 0

    def test_high_pass_known_value(self):
        spike = np.zeros(51)
        spike[25] = 17
        found = high_pass(spike)
        assert HIGH_PASS == 17
        np.testing.assert_allclose(found[25], 16, atol=1e-9)
        np.testing.assert_allclose(found[17:25], -1, atol=1e-9)
        np.testing.assert_allclose(found[:17], 0, atol=1e-9)

    def test_agrees_with_an_independent_computation(self):
        curve, reference = syllables(60, 1), syllables(60, 2)

        def slow(x: np.ndarray) -> np.ndarray:
            padded = np.pad(x, 8, mode="edge")
            return x - np.array([padded[i : i + 17].mean() for i in range(60)])

        a, b = slow(curve), slow(reference)
        lags = [np.corrcoef(a, b), np.corrcoef(a[1:], b[:-1]), np.corrcoef(a[:-1], b[1:])]
        null = [np.corrcoef(a, np.concatenate([b[-s:], b[:-s]]))[0, 1] for s in range(6, 55)]
        best = max(lag[0, 1] for lag in lags)
        r, z = agreement(curve, reference)
        assert r == pytest.approx(best, abs=1e-9)
        assert z == pytest.approx((best - np.mean(null)) / np.std(null), abs=1e-6)

    def test_a_mouth_agrees_with_itself_and_with_its_neighbour_frame_only(self):
        curve = syllables(100)
        r, z = agreement(curve, curve)
        assert r == pytest.approx(1) and z > 4
        assert agreement(curve[1:], curve[:-1])[0] > 0.99
        assert agreement(curve[FAR + 2 :], curve[: -FAR - 2])[1] < 2

    def test_a_mouth_that_never_moves_earns_nothing(self):
        moving, still = syllables(50), np.full(50, 0.1)
        assert agreement(still, moving) == (0, 0)
        assert all(math.isnan(value) for value in agreement(moving, still))

    def test_what_cannot_be_compared(self):
        with pytest.raises(ValueError, match=f"need {SHORTEST} frames"):
            agreement(np.zeros(SHORTEST - 1), np.zeros(SHORTEST - 1))
        with pytest.raises(ValueError, match="alike"):
            agreement(np.zeros(50), np.zeros(49))
        with pytest.raises(ValueError, match="finite"):
            agreement(np.full(50, np.nan), np.zeros(50))


def test_opening_range_leaves_out_the_rarest_openings():
    curve = np.linspace(0, 0.2, 101)
    assert opening_range(curve) == pytest.approx(18)
    assert opening_range(np.full(30, 0.1)) == 0
    assert opening_range(np.append(curve, 5.0)) < 19  # one frame that was misread
    with pytest.raises(ValueError, match="curve"):
        opening_range(np.zeros((2, 2)))


def test_articulation_is_the_ratio_of_movements():
    curve = syllables(60)
    assert articulation(0.5 * curve + 0.1, curve) == pytest.approx(0.5)
    assert math.isnan(articulation(curve, np.ones(60)))


class TestSilenceMotion:
    def test_known_value(self):
        curve = np.concatenate([np.tile([0, 1.0], 6), np.tile([0, 0.25], 6)])
        silent = np.arange(24) >= 12
        assert silence_motion(curve, silent) == pytest.approx(25)

    def test_no_value(self):
        moving = np.tile([0, 1.0], 12)
        assert math.isnan(silence_motion(moving, np.zeros(24, bool)))  # no silence
        assert math.isnan(silence_motion(moving, np.ones(24, bool)))  # nothing else
        assert math.isnan(silence_motion(np.ones(24), np.arange(24) >= 12))  # a still mouth

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="silent"):
            silence_motion(np.zeros(4), np.zeros(5, bool))


class TestSilentFrames:
    def test_known_value(self):
        t = np.arange(16000) / 16000
        sound = np.where((t >= 0.4) & (t < 0.6), np.sin(2 * np.pi * 200 * t), 0.001 * np.sin(2 * np.pi * 200 * t))
        times = np.array([0.0, 0.2, 0.28, 0.35, 0.5, 0.65, 0.72, 0.9, 1.5])
        assert silent_frames(sound, 16000, times).tolist() == [True, True, True, *[False] * 3, True, True, True]

    def test_digital_silence_and_steady_sound(self):
        times = np.arange(10) / 10
        assert silent_frames(np.zeros(16000), 16000, times).all()
        assert not silent_frames(0.1 * np.sin(np.arange(16000)), 16000, times).any()
