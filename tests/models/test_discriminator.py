from dataclasses import replace

import pytest
import torch
from torch import nn

from lipdub.config import DiscriminatorConfig
from lipdub.losses import discriminator_adversarial, r1_penalty
from lipdub.models.discriminator import Discriminator

TINY = DiscriminatorConfig(size=32, frames=3, widths=(8, 12, 16))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_one_logit_per_clip_and_batch_equals_singles():
    discriminator = Discriminator(TINY).eval()
    clips = torch.rand(3, 3, 3, 32, 32)
    logits = discriminator(clips)
    assert logits.shape == (3,)
    torch.testing.assert_close(logits, torch.cat([discriminator(clip[None]) for clip in clips]))


def test_upper_half_is_hidden_and_every_frame_is_seen():
    discriminator = Discriminator(TINY).eval()
    clips = torch.rand(1, 3, 3, 32, 32, requires_grad=True)
    discriminator(clips).sum().backward()
    assert torch.all(clips.grad[..., :16, :] == 0)
    assert torch.all(clips.grad[..., 16:, :].abs().sum((2, 3, 4)) > 0)


@pytest.mark.parametrize("margin", [1.0, 4 / 3])
def test_one_of_mouths_sees_lips_alone(margin: float):
    size = round(96 * margin)
    config = replace(TINY, size=size, margin=margin, region="mouth")
    clips = torch.rand(1, 3, 3, size, size, requires_grad=True)
    Discriminator(config).eval()(clips).sum().backward()
    rows, columns = (clips.grad.abs().sum((0, 1, 2, other)).nonzero() for other in (4, 3))
    edge = (size - 96) / 2
    assert (rows.min() - edge, rows.max() - edge) == pytest.approx((54, 82), abs=1)  # of a unit crop of 96
    assert (columns.min() - edge, columns.max() - edge) == pytest.approx((24, 71), abs=1)


def test_an_unknown_region_is_refused():
    with pytest.raises(ValueError, match="region"):
        Discriminator(replace(TINY, region="eyes"))


def test_every_layer_is_spectrally_normalised():
    discriminator = Discriminator(TINY).train()
    for _ in range(30):  # a step of power iteration each
        discriminator(torch.rand(1, 3, 3, 32, 32))
    discriminator.eval()
    convs = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 4
    for conv in convs:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.05)
    slopes = [m.negative_slope for m in discriminator.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2] * 3


def test_every_parameter_gets_gradient_through_loss_and_penalty():
    discriminator = Discriminator(TINY).train()
    real = torch.rand(2, 3, 3, 32, 32, requires_grad=True)
    logits = discriminator(real)
    loss = discriminator_adversarial(logits, discriminator(torch.rand(2, 3, 3, 32, 32))) + 5 * r1_penalty(logits, real)
    loss.backward()
    # the last bias shifts real and fake alike: at the start its two gradients nearly cancel, but it has one
    idle = {name for name, p in discriminator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert idle == set()


def test_state_dict_round_trip():
    discriminator, other = Discriminator(TINY).eval(), Discriminator(TINY).eval()
    other.load_state_dict(discriminator.state_dict())
    clips = torch.rand(2, 3, 3, 32, 32)
    torch.testing.assert_close(other(clips), discriminator(clips), rtol=0, atol=0)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="clips must be"):
        Discriminator(TINY)(torch.rand(2, 4, 3, 32, 32))
    with pytest.raises(ValueError, match="halved"):
        Discriminator(replace(TINY, widths=(8,) * 5))
