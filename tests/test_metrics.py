import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from skimage.metrics import peak_signal_noise_ratio

from lipdub.metrics import laplacian_variance, psnr_masked


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
