from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lipdub.config import GeneratorConfig
from lipdub.errors import InputError
from lipdub.models.generator import Generator
from lipdub.models.layers import mask_lower_half
from lipdub.training.widen import refreshed, widened

SMALL = GeneratorConfig(
    size=32,
    widths=(4, 6, 8),
    residual_blocks=2,
    audio_blocks=2,
    audio_widths=(4, 6, 8),
    embedding=16,
    shape_code=8,
    whole_references=True,
    warp=True,
    own_frame=True,
)
WIDE = replace(SMALL, size=48, margin=1.5, audio_context="track")


def drawn(generator: Generator, pictures: torch.Tensor, shape: torch.Tensor):
    references = generator.encode_references(pictures, torch.zeros(len(pictures), 8))
    owner = torch.eye(len(pictures), dtype=torch.bool)
    windows = None if generator.config.audio_context == "track" else torch.zeros(len(pictures), 80, 16)
    return generator(mask_lower_half(pictures), windows, references, owner, shape=shape)


def test_a_larger_crop_begins_with_what_the_smaller_one_knows() -> None:
    torch.manual_seed(0)
    start = Generator(SMALL).eval()
    with torch.no_grad():
        start.warp_head.out.weight.mul_(20)  # fields worth comparing
    wide = widened(start, WIDE).eval()
    inner = torch.rand(2, 3, 32, 32)
    pictures = torch.nn.functional.pad(inner, (8,) * 4, mode="replicate")
    with torch.inference_mode():
        shape = torch.randn(2, 8)
        old, new = drawn(start, inner, shape), drawn(wide, pictures, shape)
    assert old.warp is not None and new.warp is not None
    # Away from the rim of the smaller crop, which saw padding there, fields agree in pixels.
    middle = new.warp.flow[..., 0:8, 4:20] * 48
    close = (middle - old.warp.flow * 32)[..., 1:5, 4:12]
    assert close.abs().mean() < 0.35 * (old.warp.flow * 32)[..., 1:5, 4:12].std()


def test_weights_that_do_not_depend_on_the_size_carry_over() -> None:
    start = Generator(SMALL)
    wide = widened(start, WIDE)
    assert torch.equal(wide.identity_encoder.stem.conv.weight, start.identity_encoder.stem.conv.weight)
    assert not hasattr(wide, "audio_encoder")
    assert torch.allclose(wide.warp_head.out.weight[2], start.warp_head.out.weight[2])
    assert torch.allclose(wide.warp_head.out.weight[:2] * 1.5, start.warp_head.out.weight[:2])


@pytest.mark.parametrize("change", [{"size": 64}, {"widths": (4, 6, 10)}, {"size": 36, "margin": 1.125}])
def test_crops_that_do_not_line_up_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="cannot grow"):
        widened(Generator(SMALL), replace(WIDE, **change))


def test_parts_of_a_generator_begin_anew_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    start = Generator(SMALL)
    found = refreshed(start, ["mask_head", "warp_head"]).state_dict()
    for name, value in start.state_dict().items():
        if not name.startswith(("mask_head.", "warp_head.")):
            assert torch.equal(found[name], value), name
        elif value.ndim > 1:  # norms begin with ones and zeros either way
            assert not torch.equal(found[name], value), name


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="mouth_head"):
        refreshed(Generator(SMALL), ["mouth_head"])
