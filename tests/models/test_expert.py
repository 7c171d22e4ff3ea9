from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lipdub.config import ExpertConfig
from lipdub.losses import expert_bce
from lipdub.models.expert import Expert, lower_halves

TINY = ExpertConfig(size=32, n_mels=20, widths=(8, 12, 16), audio_widths=(8, 8, 16), embedding=24)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def inputs(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(n, 15, 16, 32), torch.randn(n, 1, 20, 16)


def test_lower_halves_keep_frames_and_colours_in_order():
    faces = torch.rand(2, 5, 3, 8, 8)
    lower = lower_halves(faces)
    assert lower.shape == (2, 15, 4, 8)
    torch.testing.assert_close(lower[1, 3 * 2 + 1], faces[1, 2, 1, 4:], rtol=0, atol=0)


def test_embeddings_are_not_negative_and_of_norm_one():
    expert = Expert(TINY).eval()
    faces, mel = inputs()
    for embedding in (expert.embed_faces(faces), expert.embed_audio(mel)):
        assert embedding.shape == (4, 24)
        assert embedding.min() >= 0
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))


def test_similarity_is_the_cosine():
    expert = Expert(TINY).eval()
    faces, mel = inputs()
    d = expert(faces, mel)
    assert d.shape == (4,)
    assert ((d >= 0) & (d <= 1)).all()
    torch.testing.assert_close(d, F.cosine_similarity(expert.embed_faces(faces), expert.embed_audio(mel)))
    assert (d.max() - d.min()) > 1e-5


def test_mel_may_come_without_its_channel_axis():
    expert = Expert(TINY).eval()
    _, mel = inputs()
    torch.testing.assert_close(expert.embed_audio(mel), expert.embed_audio(mel[:, 0]), rtol=0, atol=0)


def test_every_parameter_gets_gradient_also_in_a_batch_of_one():
    expert = Expert(TINY).train()
    expert_bce(expert(*inputs(1)), torch.ones(1)).backward()
    idle = {name for name, p in expert.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert idle == set()


def test_batch_equals_singles():
    expert = Expert(TINY)
    expert(*inputs())
    expert.eval()
    faces, mel = inputs()
    singles = torch.cat([expert(faces[i : i + 1], mel[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(expert(faces, mel), singles, rtol=1e-4, atol=1e-5)


def test_overfits_a_handful_of_pairs():
    expert = Expert(TINY).train()
    faces, mel = inputs(8)
    labels = torch.tensor([1.0, 0.0]).repeat(4)
    optimizer = torch.optim.Adam(expert.parameters(), 3e-3)
    for _ in range(40):
        loss = expert_bce(expert(faces, mel), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_state_dict_round_trip():
    expert, other = Expert(TINY).eval(), Expert(TINY).eval()
    other.load_state_dict(expert.state_dict())
    arguments = inputs()
    torch.testing.assert_close(other(*arguments), expert(*arguments), rtol=0, atol=0)


def test_wrong_shapes_are_refused():
    expert = Expert(TINY).eval()
    faces, mel = inputs()
    with pytest.raises(ValueError, match="lower halves"):
        expert(faces[:, :12], mel)
    with pytest.raises(ValueError, match="mel windows"):
        expert(faces, mel[..., :8])
    with pytest.raises(ValueError, match="even"):
        Expert(replace(TINY, size=33))


def test_default_sizes_build_and_fit_the_thesis_shapes():
    expert = Expert(ExpertConfig()).eval()
    with torch.no_grad():
        assert expert.embed_faces(torch.rand(1, 15, 48, 96)).shape == (1, 512)
        assert expert.embed_audio(torch.rand(1, 1, 80, 16)).shape == (1, 512)


def test_a_context_counts_and_its_middle_is_the_window():
    torch.manual_seed(0)
    expert = Expert(replace(TINY, context=50)).eval()
    mel = torch.randn(1, 1, 20, 116)
    near, far = mel.clone(), mel.clone()
    near[..., 45] += 1  # five steps before the window
    far[..., 0] += 1  # farther than the layers reach, which is 44 steps
    whole, changed, same = (expert.embed_audio(each) for each in (mel, near, far))
    assert whole.shape == (1, 24) and (whole - changed).abs().max() > 1e-4
    torch.testing.assert_close(whole, same, rtol=0, atol=1e-6)
