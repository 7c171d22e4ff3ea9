import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from lipdub.config import GeneratorConfig, LossConfig
from lipdub.losses import mask_bce, masked_l1
from lipdub.models.generator import Audio, Generated, Generator, References, blend
from lipdub.models.layers import fold_norms, gaussian_blur, mask_lower_half, n_parameters
from lipdub.models.warp import compose, enlarged

TINY = GeneratorConfig(
    size=32, widths=(8, 12, 16, 16), residual_blocks=4, audio_blocks=3, audio_widths=(8, 8, 16), embedding=24, n_mels=20
)
SHAPED = replace(TINY, shape_code=5)
VARIANTS = {
    "tiny": TINY,
    "shape code": SHAPED,
    "no residual": replace(TINY, residual=False),
    "no attention": replace(TINY, attention=False),
    "as printed": replace(TINY, attention_score="sigmoid", attention_sign=-1),
    "no audio skips": replace(TINY, audio_skips=False),
    "no mask head": replace(TINY, mask_head=False),
    "all skips": replace(TINY, skip_free_scales=0),
    "no skips": replace(TINY, skip_free_scales=4),
    "warp": replace(TINY, warp=True, whole_references=True),
    "warp and shape code": replace(SHAPED, warp=True),
    "warp without mask head": replace(SHAPED, warp=True, mask_head=False),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(config: GeneratorConfig) -> Generator:
    """A generator whose running statistics have seen something."""
    generator = Generator(config)
    with torch.no_grad():
        for _ in range(3):
            run(generator, *inputs(config))
    return generator.eval()


def inputs(config: GeneratorConfig, n: int = 4, per_identity: int = 3) -> tuple[torch.Tensor, ...]:
    """Masked faces, mel windows, references of two identities, owner; items take turns between the identities."""
    faces = mask_lower_half(torch.rand(n, 3, config.size, config.size))
    windows = torch.randn(n, config.n_mels, config.window)
    references = torch.rand(2 * per_identity, 3, config.size, config.size)
    whose = torch.arange(2 * per_identity) // per_identity
    return faces, windows, references, whose[None] == (torch.arange(n) % 2)[:, None]


def encode(generator: Generator, references: torch.Tensor) -> References:
    """Each reference with a mouth shape that can be told from its picture."""
    code = generator.config.shape_code
    return generator.encode_references(references, references.mean((1, 2, 3))[:, None].expand(-1, code).contiguous())


def run(generator: Generator, faces, windows, references, owner, **more) -> Generated:
    return generator(faces, windows, encode(generator, references), owner, **more)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_shapes_and_ranges(config):
    out = run(make(config), *inputs(config))
    assert out.face.shape == (4, 3, 32, 32)
    assert 0 <= out.face.min() < out.face.max() <= 1
    assert out.mask is None if not config.mask_head else out.mask.shape == (4, 1, 32, 32)
    assert out.shape is None if not config.shape_code else out.shape.shape == (4, 5)
    assert blend(out, torch.rand(4, 3, 32, 32), LossConfig()).shape == (4, 3, 32, 32)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_parameter_gets_gradient(config):
    generator = Generator(config).train()
    out = run(generator, *inputs(config))
    loss = masked_l1(out.face, torch.rand_like(out.face), torch.ones(4, 1, 32, 32))
    if out.painted is not None:
        loss = loss + out.painted.mean()
    if out.mask is not None:
        loss = loss + mask_bce(out.mask, torch.ones(4, 1, 32, 32))
    loss.backward()
    idle = {name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert idle == set()


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_batch_equals_singles(config):
    generator = make(config)
    faces, windows, references, owner = inputs(config)
    together = run(generator, faces, windows, references, owner)
    for i in range(4):
        own = owner[i]  # this identity's references alone
        single = run(
            generator, faces[i : i + 1], windows[i : i + 1], references[own], torch.ones(1, 3, dtype=torch.bool)
        )
        torch.testing.assert_close(together.face[i : i + 1], single.face, rtol=1e-4, atol=1e-5)
        if together.mask is not None:
            torch.testing.assert_close(together.mask[i : i + 1], single.mask, rtol=1e-4, atol=1e-4)


def test_references_of_others_and_their_order_do_not_matter():
    generator = make(TINY)
    faces, windows, references, owner = inputs(TINY)
    out = run(generator, faces, windows, references, owner)
    others = references.clone()
    others[3:] = torch.rand_like(others[3:])
    torch.testing.assert_close(run(generator, faces, windows, others, owner).face[0], out.face[0], rtol=1e-4, atol=1e-5)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = run(generator, faces, windows, references[order], owner[:, order])
    torch.testing.assert_close(shuffled.face, out.face, rtol=1e-4, atol=1e-5)


def test_channels_last_and_folded_norms_give_the_same_face():
    generator = make(TINY)
    faces, windows, references, owner = inputs(TINY)
    plain = run(generator, faces, windows, references, owner)
    generator = generator.to(memory_format=torch.channels_last)
    fold_norms(generator)
    last = torch.channels_last
    encoded = encode(generator, references.contiguous(memory_format=last))
    assert all(f.is_contiguous(memory_format=last) for f in encoded.features)
    out = generator(faces.contiguous(memory_format=last), windows, encoded, owner)
    torch.testing.assert_close(out.face, plain.face, rtol=1e-3, atol=1e-4)


def test_sound_face_and_references_all_matter():
    generator = make(TINY)
    faces, windows, references, owner = inputs(TINY)
    out = run(generator, faces, windows, references, owner).face
    for changed in (
        (torch.rand_like(faces), windows, references),
        (faces, windows + 1, references),
        (faces, windows, 1 - references),
    ):
        assert (run(generator, *changed, owner).face - out).abs().max() > 1e-4


def test_state_dict_round_trip():
    generator, other = make(SHAPED), Generator(SHAPED).eval()
    other.load_state_dict(generator.state_dict())
    arguments = inputs(SHAPED)
    torch.testing.assert_close(run(other, *arguments).face, run(generator, *arguments).face, rtol=0, atol=0)


class TestAttention:
    """Two references of norm 1 and a sound equal to the first: a.r is 1 and 0."""

    references = References(torch.eye(24)[:3], ())
    sound = torch.eye(24)[:1]
    owner = torch.tensor([[True, True, False]])

    def weights(self, **change) -> list[float]:
        return Generator(replace(TINY, **change)).attend(self.sound, self.references, self.owner)[0].tolist()

    def test_scaled(self):
        odds = math.exp(1 / math.sqrt(24))
        assert self.weights() == pytest.approx([odds / (1 + odds), 1 / (1 + odds), 0.0])

    def test_printed_sign_prefers_the_least_similar(self):
        half, one = math.exp(-0.5), math.exp(-1 / (1 + math.exp(-1)))
        wanted = [one / (one + half), half / (one + half), 0.0]
        found = self.weights(attention_score="sigmoid", attention_sign=-1)
        assert found == pytest.approx(wanted)
        assert found[0] < found[1]

    @pytest.mark.parametrize("score", ["sigmoid", "scaled"])
    def test_the_signs_prefer_opposite_references(self, score):
        first, second, _ = self.weights(attention_score=score, attention_sign=1)
        printed = self.weights(attention_score=score, attention_sign=-1)
        assert first > second
        assert printed == pytest.approx([second, first, 0.0])  # two references: exp(-x) turns the odds round

    @pytest.mark.parametrize("sign", [1, -1])
    def test_gradients_of_sound_and_references(self, sign):
        generator = Generator(replace(TINY, attention_score="sigmoid", attention_sign=sign))
        sound = torch.rand(2, 24, dtype=torch.float64, requires_grad=True)
        embeddings = torch.rand(3, 24, dtype=torch.float64, requires_grad=True)
        owner = torch.tensor([[True, True, False], [True, True, True]])
        assert gradcheck(lambda a, r: generator.attend(a, References(r, ()), owner), (sound, embeddings))

    def test_sigmoid_never_exceeds_odds_of_e(self):
        generator = Generator(replace(TINY, attention_score="sigmoid"))
        far = References(100 * torch.stack([torch.eye(24)[0], -torch.eye(24)[0], torch.eye(24)[1]]), ())
        first, second, _ = generator.attend(self.sound * 100, far, self.owner)[0].tolist()
        assert first / second == pytest.approx(math.e, rel=1e-4)

    def test_off_is_the_mean_of_own(self):
        assert self.weights(attention=False) == [0.5, 0.5, 0.0]

    @pytest.mark.parametrize("attention", [True, False])
    def test_nobody_owned_is_nothing_not_nan(self, attention):
        generator = Generator(replace(TINY, attention=attention))
        weights = generator.attend(self.sound, self.references, torch.zeros(1, 3, dtype=torch.bool))
        assert weights.tolist() == [[0.0, 0.0, 0.0]]


class TestShapeCode:
    def test_given_shape_replaces_the_heard_one(self):
        generator = make(SHAPED)
        faces, windows, references, owner = inputs(SHAPED)
        shape = torch.randn(4, 5)
        taught = run(generator, faces, windows, references, owner, shape=shape)
        deaf = run(generator, faces, windows + 5, references, owner, shape=shape)
        torch.testing.assert_close(taught.face, deaf.face, rtol=0, atol=0)
        assert (taught.shape - deaf.shape).abs().max() > 1e-4  # still told what was heard
        heard = run(generator, faces, windows, references, owner)
        assert (heard.face - taught.face).abs().max() > 1e-4
        again = run(generator, faces, windows, references, owner, shape=heard.shape)
        torch.testing.assert_close(again.face, heard.face)

    def test_encoded_audio_may_be_given(self):
        generator = make(SHAPED)
        faces, windows, references, owner = inputs(SHAPED)
        audio = generator.encode_audio(windows)
        assert isinstance(audio, Audio)
        torch.testing.assert_close(
            run(generator, faces, audio, references, owner).face, run(generator, faces, windows, references, owner).face
        )

    def test_shape_needs_a_shape_code_of_its_length(self):
        with pytest.raises(ValueError, match="no shape code"):
            run(make(TINY), *inputs(TINY), shape=torch.zeros(4, 5))
        with pytest.raises(ValueError, match="shape must be"):
            run(make(SHAPED), *inputs(SHAPED), shape=torch.zeros(4, 6))


class TestWarp:
    config = replace(SHAPED, warp=True, whole_references=True)

    def test_the_upper_half_is_the_face_itself_and_the_mask_leaves_it(self):
        faces, *others = inputs(self.config)
        out = run(make(self.config), faces, *others)
        torch.testing.assert_close(out.face[:, :, :16], faces[:, :, :16], rtol=0, atol=0)
        assert out.mask[:, :, :16].sigmoid().max() < 0.01
        assert out.warp.flow.shape == (4, 3, 2, 8, 16)
        assert out.painted.shape == (4, 3, 8, 16) and out.paint.shape == (4, 1, 8, 16)
        torch.testing.assert_close(out.warp.weights.sum(1), torch.ones(4, 8, 16))
        assert out.warp.indices.tolist() == [[0, 1, 2], [3, 4, 5]] * 2

    def test_the_painted_picture_is_one_more_candidate_in_training_alone(self):
        faces, windows, references, owner = inputs(self.config)[:4]
        generator = make(self.config)
        with torch.no_grad():
            generator.paint_score.weight.zero_()
        for score, share in ((-60.0, 0.0), (60.0, 1.0)):
            generator.paint_score.bias.data.fill_(score)
            out = run(generator, faces, windows, references, owner)
            torch.testing.assert_close(out.paint, torch.full((4, 1, 8, 16), share))
            bent = torch.cat([out.face[:, :, :16], compose(out.warp, references)], 2)
            wanted = bent if share == 0 else torch.cat([faces[:, :, :16], enlarged(out.painted, 32)], 2)
            torch.testing.assert_close(out.face, wanted)

    def test_one_more_reference_for_one_item_changes_nobody_else(self):
        generator = make(self.config)
        faces, windows, references, owner = inputs(self.config)
        out = run(generator, faces, windows, references, owner).face
        more = torch.cat([references, torch.rand(1, 3, 32, 32)])
        own = torch.cat([owner, torch.tensor([[True], [False], [False], [False]])], 1)
        changed = run(generator, faces, windows, more, own).face
        assert (changed[0] - out[0]).abs().max() > 1e-3
        torch.testing.assert_close(changed[1:], out[1:], rtol=1e-4, atol=1e-5)

    def test_what_the_reference_shows_now_matters(self):
        generator = make(self.config)
        faces, windows, references, owner = inputs(self.config)
        shape = torch.randn(4, 5)
        encoded = [generator.encode_references(references, torch.full((6, 5), v)) for v in (0.0, 3.0)]
        first, second = (generator(faces, windows, e, owner, shape=shape).warp.flow for e in encoded)
        assert (first - second).abs().max() > 1e-5

    def test_shapes_of_references_are_needed(self):
        with pytest.raises(ValueError, match="reference shapes"):
            make(self.config).encode_references(torch.rand(2, 3, 32, 32))


class TestBlend:
    def test_known_value(self):
        face, original = torch.full((1, 3, 9, 9), 0.8), torch.full((1, 3, 9, 9), 0.2)
        logits = torch.zeros(1, 1, 9, 9)  # M = 1/2 everywhere, blurred or not
        torch.testing.assert_close(
            blend(Generated(face, logits, None), original, LossConfig()), torch.full((1, 3, 9, 9), 0.5)
        )

    def test_mask_is_blurred_and_gets_no_gradient(self):
        face = torch.ones(1, 3, 9, 9, requires_grad=True)
        logits = torch.full((1, 1, 9, 9), -100.0)
        logits[..., 4, 4] = 100.0
        logits.requires_grad_()
        out = blend(Generated(face, logits, None), torch.zeros(1, 3, 9, 9), LossConfig())
        wanted = gaussian_blur(torch.sigmoid(logits.detach()), 5, 3.0)
        torch.testing.assert_close(out, wanted.expand(1, 3, 9, 9))
        assert 0 < out[0, 0, 4, 4].item() < 0.1
        out.sum().backward()
        assert logits.grad is None
        torch.testing.assert_close(face.grad, wanted.expand(1, 3, 9, 9))

    def test_without_mask_the_face_stays(self):
        face = torch.rand(1, 3, 4, 4)
        assert blend(Generated(face, None, None), torch.zeros(1, 3, 4, 4), LossConfig()) is face

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match="original"):
            blend(Generated(torch.rand(1, 3, 4, 4), None, None), torch.zeros(1, 3, 4, 5), LossConfig())


@pytest.mark.parametrize(
    "change",
    [
        {"size": 36},
        {"widths": (8,)},
        {"skip_free_scales": 5},
        {"attention_score": "x"},
        {"attention_sign": 0},
        {"size": 24, "warp": True},
        {"own_frame": True},
    ],
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"size|skip_free|attention|even|own_frame"):
        Generator(replace(TINY, **change))


def test_wrong_inputs_are_refused():
    generator = make(TINY)
    faces, windows, references, owner = inputs(TINY)
    with pytest.raises(ValueError, match="masked faces"):
        run(generator, faces[..., :16], windows, references, owner)
    with pytest.raises(ValueError, match="references"):
        generator.encode_references(references[:, :2])
    with pytest.raises(ValueError, match="owner"):
        run(generator, faces, windows, references, owner[:, :2])
    with pytest.raises(ValueError, match="owner"):
        run(generator, faces, windows, references, owner.float())


def flops(network: nn.Module, call) -> int:
    """Two operations for each product of every convolution and linear layer that `call` runs."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * layer.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("shape_code", [0, 8])
def test_default_size_stays_within_the_budget(shape_code):
    config = GeneratorConfig(shape_code=shape_code)
    generator = Generator(config).eval()
    faces, windows = torch.rand(1, 3, 96, 96), torch.rand(1, 80, 16)
    with torch.no_grad():
        references = generator.encode_references(torch.rand(10, 3, 96, 96))  # once per identity: not counted
        spent = flops(generator, lambda: generator(faces, windows, references, torch.ones(1, 10, dtype=torch.bool)))
    spent += sum(2 * 10 * f[0].numel() for f in references.features)  # weighted sum of the features
    assert 20e6 < n_parameters(generator) <= 25e6
    assert 3e9 < spent <= 5e9
