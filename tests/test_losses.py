import math

import pytest
import torch
from torch.autograd import gradcheck

from lipdub.losses import (
    correlation_loss,
    discriminator_adversarial,
    expert_bce,
    expert_loss,
    generator_adversarial,
    gradient_l1,
    mask_bce,
    masked_l1,
    mouth_emphasis,
    painted_share,
    perceptual,
    r1_penalty,
    unpainted_lips,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def doubles(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, requires_grad=True)


class TestMaskedL1:
    def test_known_value(self):
        real = torch.zeros(1, 3, 2, 2)
        fake = torch.tensor([[0.1, 0.2], [0.3, 0.4]]).expand(1, 3, 2, 2)
        mask = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]]]])
        assert masked_l1(fake, real, mask).item() == pytest.approx((0.1 + 0.5 * 0.3) / 1.5)

    def test_is_the_mean_over_images(self):
        fake, real, mask = torch.rand(3, 3, 4, 4), torch.rand(3, 3, 4, 4), torch.rand(3, 1, 4, 4)
        singles = [masked_l1(fake[i : i + 1], real[i : i + 1], mask[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(masked_l1(fake, real, mask), torch.stack(singles).mean())

    def test_empty_mask_is_zero_with_zero_gradient(self):
        fake = torch.rand(2, 3, 4, 4, requires_grad=True)
        loss = masked_l1(fake, torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
        loss.backward()
        assert loss.item() == 0
        assert torch.all(fake.grad == 0)

    def test_mask_gets_no_gradient(self):
        mask = torch.rand(1, 1, 4, 4, requires_grad=True)
        masked_l1(torch.rand(1, 3, 4, 4, requires_grad=True), torch.rand(1, 3, 4, 4), mask).backward()
        assert mask.grad is None

    def test_gradcheck(self):
        real, mask = torch.rand(2, 3, 3, 3, dtype=torch.float64), torch.rand(2, 1, 3, 3, dtype=torch.float64)
        assert gradcheck(lambda fake: masked_l1(fake, real, mask), doubles(2, 3, 3, 3))

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="mask must be"):
            masked_l1(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))
        with pytest.raises(ValueError, match="shapes differ"):
            masked_l1(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5), torch.rand(1, 1, 4, 4))


class TestPerceptual:
    def test_sums_the_layers_means(self):
        fake = (torch.full((2, 4, 3, 3), 0.5), torch.full((2, 8, 1, 1), 2.0))
        real = (torch.zeros(2, 4, 3, 3), torch.full((2, 8, 1, 1), -1.0))
        assert perceptual(fake, real).item() == pytest.approx(0.25 + 9.0)

    def test_gradcheck_and_no_gradient_of_the_real(self):
        real = doubles(1, 2, 3, 3)
        assert gradcheck(lambda fake: perceptual((fake,), (real.detach(),)), doubles(1, 2, 3, 3))
        perceptual((doubles(1, 2, 3, 3),), (real,)).backward()
        assert real.grad is None

    def test_wrong_layers(self):
        with pytest.raises(ValueError, match="same layers"):
            perceptual((), ())
        with pytest.raises(ValueError, match="same layers"):
            perceptual((torch.rand(1, 2, 3, 3),), (torch.rand(1, 2, 3, 3),) * 2)
        with pytest.raises(ValueError, match="shapes differ"):
            perceptual((torch.rand(1, 2, 3, 3),), (torch.rand(1, 1, 3, 3),))


class TestExpert:
    def test_bce_known_value(self):
        loss = expert_bce(torch.tensor([0.8, 0.3]), torch.tensor([1.0, 0.0]))
        assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 2)

    def test_bce_is_finite_at_the_ends(self):
        d = torch.tensor([0.0, 1.0], requires_grad=True)
        loss = expert_bce(d, torch.tensor([1.0, 0.0]))
        loss.backward()
        assert loss.item() == pytest.approx(-math.log(1e-6), rel=0.01)
        assert torch.isfinite(d.grad).all()

    def test_bce_gradcheck(self):
        y = torch.tensor([1.0, 0.0, 1.0])
        assert gradcheck(
            lambda d: expert_bce(d, y), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
        )

    def test_bce_wrong_shape(self):
        with pytest.raises(ValueError, match="shapes differ"):
            expert_bce(torch.rand(2), torch.rand(3))

    def test_loss_known_value_and_clip(self):
        loss = expert_loss(torch.tensor([0.5, 1e-9, 1.0]), floor=1e-3)
        assert loss.item() == pytest.approx((math.log(2) + math.log(1000)) / 3)

    def test_loss_gradient_stops_below_the_floor(self):
        d = torch.tensor([0.5, 1e-9], requires_grad=True)
        expert_loss(d, floor=1e-3).backward()
        assert d.grad.tolist() == pytest.approx([-1.0, 0.0])

    def test_loss_gradcheck(self):
        assert gradcheck(lambda d: expert_loss(d, floor=1e-3), doubles(4))

    @pytest.mark.parametrize("floor", [0.0, 1.0, -1.0])
    def test_loss_refuses_a_useless_floor(self, floor):
        with pytest.raises(ValueError, match="floor"):
            expert_loss(torch.rand(2), floor=floor)


class TestMask:
    def test_known_value(self):
        logits = torch.tensor([[[[0.0, math.log(3)]]]])  # M = 1/2, 3/4
        loss = mask_bce(logits, torch.tensor([[[[1.0, 0.0]]]]))
        assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_extreme_logits_stay_finite(self):
        loss = mask_bce(torch.tensor([[[[1000.0, -1000.0]]]]), torch.tensor([[[[0.0, 0.0]]]]))
        assert loss.item() == pytest.approx(500.0)

    def test_empty_mask_and_gradcheck(self):
        mask = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
        assert gradcheck(lambda logits: mask_bce(logits, mask), doubles(1, 1, 2, 2))

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match="shapes differ"):
            mask_bce(torch.rand(2, 1, 4, 4), torch.rand(2, 4, 4))


class TestAdversarial:
    def test_known_values(self):
        assert generator_adversarial(torch.tensor([0.0, math.log(3)])).item() == pytest.approx(
            (math.log(2) + math.log(4 / 3)) / 2
        )
        loss = discriminator_adversarial(torch.tensor([math.log(3)]), torch.tensor([math.log(3)]))
        assert loss.item() == pytest.approx(math.log(4 / 3) + math.log(4))

    def test_does_not_saturate_where_the_fake_is_found_out(self):
        logits = torch.tensor([-50.0], requires_grad=True)
        generator_adversarial(logits).backward()
        assert logits.grad.item() == pytest.approx(-1.0)

    def test_gradcheck(self):
        assert gradcheck(generator_adversarial, doubles(3))
        assert gradcheck(discriminator_adversarial, (doubles(3), doubles(3)))


class TestR1:
    def test_known_value_and_gradient_of_the_weights(self):
        weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
        real = torch.rand(4, 3, requires_grad=True)
        penalty = r1_penalty(real @ weight, real)  # gradient at every sample is the weight itself
        assert penalty.item() == pytest.approx(14.0)
        penalty.backward()
        assert weight.grad.tolist() == pytest.approx([2.0, -4.0, 6.0])

    def test_is_a_mean_over_the_batch(self):
        real = torch.tensor([[1.0], [3.0]], requires_grad=True)
        assert r1_penalty(real.square().sum(1), real).item() == pytest.approx((4 + 36) / 2)

    def test_against_finite_differences(self):
        """The penalty by differences of D; its gradient in a weight of D by differences of the penalty."""
        network = torch.nn.Sequential(
            torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(48, 1)
        ).double()
        real = doubles(2, 2, 4, 4)

        def penalty() -> torch.Tensor:
            return r1_penalty(network(real)[:, 0], real)

        step, slopes = 1e-5, []
        with torch.no_grad():
            for number in range(real[0].numel()):
                moved = torch.zeros(32, dtype=torch.float64)
                moved[number] = step
                moved = moved.view(1, 2, 4, 4)
                slopes.append((network(real + moved) - network(real - moved))[:, 0] / (2 * step))
        torch.testing.assert_close(penalty(), torch.stack(slopes).square().sum(0).mean())
        weight = network[0].weight
        (found,) = torch.autograd.grad(penalty(), weight)
        for place in ((0, 0, 1, 1), (1, 1, 0, 2), (2, 0, 2, 0)):
            values = []
            for change in (step, -step):
                with torch.no_grad():
                    weight[place] += change
                values.append(float(penalty().detach()))
                with torch.no_grad():
                    weight[place] -= change
            assert float(found[place]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-9)

    def test_its_gradient_in_the_real_clips(self):
        weight = doubles(3).detach()
        assert gradcheck(lambda real: r1_penalty((real**3) @ weight, real), doubles(4, 3))

    def test_needs_a_real_that_requires_grad(self):
        real = torch.rand(2, 3)
        with pytest.raises(ValueError, match="require grad"):
            r1_penalty(real.sum(1), real)


def test_mouth_emphasis_peaks_at_the_mouth_of_an_aligned_face() -> None:
    weights = mouth_emphasis(torch.zeros(2, 1, 100, 100), 8.0)
    assert weights.shape == (1, 1, 100, 100)
    assert divmod(int(weights.argmax()), 100)[0] in (69, 70)
    assert weights[0, 0, 69, 49].item() == pytest.approx(9.0, abs=0.02)
    assert weights[0, 0, 5, 5].item() == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(mouth_emphasis(torch.zeros(1, 1, 8, 8), 0.0), torch.ones(1, 1, 8, 8))


class TestEdgeL1:
    def test_known_value(self):
        real, fake = torch.zeros(1, 1, 2, 3), torch.tensor([[[[0.0, 0.6, 0.6], [0.0, 0.6, 0.6]]]])
        ones = torch.ones(1, 1, 2, 3)
        assert gradient_l1(fake, real, ones).item() == pytest.approx(
            (0.3 + 0.0) / 2
        )  # half of the steps in x, none in y

    def test_brightness_does_not_matter_and_softness_does(self):
        real, ones = torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
        assert gradient_l1(real + 0.2, real, ones).item() == pytest.approx(0, abs=1e-6)
        soft = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
        assert gradient_l1(soft, real, ones).item() > 0.05

    def test_only_the_mask_counts(self):
        mask = torch.zeros(1, 1, 4, 4)
        assert gradient_l1(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), mask).item() == 0

    def test_gradient(self):
        assert gradcheck(
            lambda x: gradient_l1(x, doubles(1, 2, 3, 3).detach() * 0 + 0.5, torch.ones(1, 1, 3, 3)),
            doubles(1, 2, 3, 3),
        )


class TestPaintedShare:
    def test_known_value(self):
        share = torch.tensor([[[[0.2, 0.4, 0.9, 0.7]]]])
        mouth, lips = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]]), torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]])
        assert painted_share(share, mouth, lips).item() == pytest.approx(0.3)

    def test_gradcheck(self):
        mouth, lips = torch.rand(2, 1, 3, 3, dtype=torch.float64), torch.rand(2, 1, 3, 3, dtype=torch.float64)
        assert gradcheck(lambda share: painted_share(share, mouth, lips), doubles(2, 1, 3, 3))

    def test_nothing_to_count_is_zero(self):
        one = torch.ones(1, 1, 2, 2)
        assert painted_share(one, one, one).item() == 0

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match="shapes differ"):
            painted_share(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 3))


class TestUnpaintedLips:
    def test_known_value(self):
        share = torch.tensor([[[[0.5, 0.1]]], [[[0.2, 0.3]]], [[[0.25, 0.01]]]])
        lips = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]], [[[1.0, 0.0]]]])
        unseen = torch.tensor([1.0, 0.0, 0.5])  # by the second frame's references there is nothing to paint
        wanted = (math.log(2) + 0.5 * math.log(4)) / 1.5
        assert unpainted_lips(share, lips, unseen).item() == pytest.approx(wanted)

    def test_a_share_of_nothing_has_a_gradient(self):
        logit = torch.full((1, 1, 1, 1), -12.0, requires_grad=True)
        unpainted_lips(logit.sigmoid(), torch.ones(1, 1, 1, 1), torch.ones(1)).backward()
        assert logit.grad.item() == pytest.approx(-1, abs=1e-3)

    def test_nothing_unseen_is_zero(self):
        assert unpainted_lips(torch.rand(2, 1, 3, 3), torch.ones(2, 1, 3, 3), torch.zeros(2)).item() == 0

    def test_gradcheck(self):
        lips, unseen = torch.rand(2, 1, 3, 3, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
        assert gradcheck(lambda share: unpainted_lips(0.2 + 0.5 * share.sigmoid(), lips, unseen), doubles(2, 1, 3, 3))

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match="shapes differ"):
            unpainted_lips(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 3), torch.ones(1))


class TestFollow:
    def test_a_mouth_that_moves_less_or_rests_elsewhere_follows_as_well(self):
        seen = torch.randn(3, 16, 8)
        assert correlation_loss(seen, seen).item() == pytest.approx(0, abs=0.01)
        assert correlation_loss(0.5 * seen + 2, seen).item() == pytest.approx(0, abs=0.02)
        assert correlation_loss(-seen, seen).item() == pytest.approx(2, abs=0.01)

    def test_known_value(self):
        heard, seen = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, -1.0, 0.0])
        wanted = 1 - 1 / (2 + 4 * 0.05**2)
        assert correlation_loss(heard[None, :, None], seen[None, :, None]).item() == pytest.approx(wanted, rel=1e-4)

    def test_what_hardly_moves_counts_little(self):
        seen = torch.randn(2, 16, 3)
        assert correlation_loss(0.01 * seen, 0.01 * seen).item() > 0.9

    def test_still_mouths_have_a_gradient_that_is_finite(self):
        heard = torch.zeros(1, 16, 2, requires_grad=True)
        correlation_loss(heard, torch.zeros(1, 16, 2)).backward()
        assert heard.grad is not None and torch.isfinite(heard.grad).all()

    def test_gradcheck(self):
        seen = torch.rand(2, 5, 3, dtype=torch.float64)
        assert gradcheck(lambda heard: correlation_loss(heard, seen), doubles(2, 5, 3))

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match="shapes differ"):
            correlation_loss(torch.ones(1, 4, 2), torch.ones(1, 5, 2))
