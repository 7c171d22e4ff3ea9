import pytest
import torch

from lipdub.models.warp import (
    MAX_FLOW,
    OUTSIDE_WEIGHT,
    Cells,
    Warp,
    compose,
    compose_part,
    enlarged,
    limit_flow,
    reference_indices,
    select,
    sharpen_weights,
    suppress_references_outside_mouth,
    weight_logits,
)

SIDE = 16
ALL = Cells(slice(0, 4), slice(0, 8))


def warp(flow: tuple[float, float], n: int = 1) -> Warp:
    """One reference, the same motion everywhere."""
    field = torch.tensor(flow).view(1, 1, 2, 1, 1).expand(n, 1, 2, 4, 8)
    return Warp(torch.zeros(n, 1, dtype=torch.int64), field, torch.ones(n, 1, 4, 8))


def ramps(side: int = SIDE) -> torch.Tensor:
    """(1, 3, side, side): x, y of each pixel's middle in the unit crop, and 1."""
    line = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)])[None]


def test_no_motion_copies_the_reference():
    picture = torch.rand(1, 3, SIDE, SIDE)
    out = compose(warp((0.0, 0.0)), picture)
    torch.testing.assert_close(out, picture[:, :, SIDE // 2 :])


@pytest.mark.parametrize("side", [16, 48])
def test_flow_is_where_to_look_in_crop_sides_whatever_the_resolution(side: int):
    out = compose(warp((0.125, -0.25)), ramps(side))
    wanted = ramps(side)[:, :, side // 2 :]
    inner = (slice(None), slice(None), slice(None), slice(0, side // 2))  # what lies to the right is beyond the border
    torch.testing.assert_close(out[inner][:, 0], wanted[inner][:, 0] + 0.125)
    torch.testing.assert_close(out[inner][:, 1], wanted[inner][:, 1] - 0.25)


def test_references_are_mixed_by_their_shares():
    shares = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(1, 2, 4, 8)
    pictures = torch.tensor([1.0, 0.4]).view(2, 1, 1, 1).expand(2, 3, SIDE, SIDE)
    out = compose(Warp(torch.tensor([[0, 1]]), torch.zeros(1, 2, 2, 4, 8), shares), pictures)
    torch.testing.assert_close(out, torch.full((1, 3, 8, 16), 0.25 + 0.75 * 0.4))


def test_each_item_looks_into_its_own_reference():
    pictures = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 3, SIDE, SIDE)
    both = warp((0.0, 0.0), n=2)
    out = compose(Warp(torch.tensor([[1], [0]]), both.flow, both.weights), pictures)
    assert out.mean((1, 2, 3)).tolist() == pytest.approx([0.6, 0.2])


def test_places_are_the_own_references_in_order():
    owner = torch.tensor([[False, True, True, False], [True, False, True, True]])
    indices, known = reference_indices(owner)
    assert indices[1].tolist() == [0, 2, 3] and known[1].all()
    assert indices[0, :2].tolist() == [1, 2] and known[0].tolist() == [True, True, False]


def test_shares_known_value_and_nothing_for_the_unknown():
    scores = torch.tensor([1.0, 5.0, 0.0]).view(1, 3, 1, 1)
    found = weight_logits(scores, torch.tensor([[0.25, 0.5, 0.25]]), torch.tensor([[True, False, True]])).softmax(1)
    assert found.flatten().tolist() == pytest.approx([torch.e / (torch.e + 1), 0.0, 1 / (torch.e + 1)])


def test_some_of_leaves_the_others_places_out():
    flow, weights = torch.rand(2, 3, 2, 4, 8), torch.rand(2, 3, 4, 8).softmax(1)
    indices = torch.tensor([[4, 6, 9], [1, 1, 1]])
    alone = select(Warp(indices, flow, weights), slice(0, 1), first=4, views=2)
    assert alone.indices.tolist() == [[0, 2]]
    assert indices.tolist()[0] == [4, 6, 9]  # what was given is left alone
    torch.testing.assert_close(alone.flow, flow[:1, :2])
    torch.testing.assert_close(alone.weights, weights[:1, :2])


def test_each_of_some_has_its_own_frame_behind_the_references_it_looks_at():
    flow, weights = torch.rand(4, 3, 2, 4, 8) - 0.5, torch.rand(4, 3, 4, 8).softmax(1)
    indices = torch.tensor([[0, 9, 0], [3, 10, 3], [1, 11, 1], [2, 12, 2]])
    found = select(Warp(indices, flow, weights), torch.tensor([1, 3]), first=2, views=1, own=True)
    assert found.indices.tolist() == [[1], [0]]
    torch.testing.assert_close(found.flow, flow[[1, 3], :2])
    torch.testing.assert_close(found.weights, weights[[1, 3], :2])
    pictures, own = torch.rand(5, 3, 16, 16), torch.rand(2, 3, 16, 16)
    numbered = Warp(torch.tensor([[1, 5], [0, 6]]), found.flow, found.weights)
    wanted = compose_part(numbered, torch.cat([pictures, own]), ALL)
    torch.testing.assert_close(compose_part(found, pictures, ALL, own=own), wanted)


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.0])
def test_one_reference_lends_its_skin_and_leaves_the_lips_to_the_others(keep: float):
    weights = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).expand(1, 2, 24, 48)
    made = Warp(torch.tensor([[0, 1]]), torch.zeros(1, 2, 2, 24, 48), weights)
    found = suppress_references_outside_mouth(made, 0, keep).weights
    torch.testing.assert_close(found.sum(1), torch.ones(1, 24, 48))
    lips = torch.tensor([0.7 * keep, 0.3])  # the middle of the mouth
    torch.testing.assert_close(found[0, :, 11, 24], lips / lips.sum(), atol=1e-3, rtol=0)
    cheek = torch.tensor([0.7, 0.3 * OUTSIDE_WEIGHT])
    torch.testing.assert_close(found[0, :, 11, 2], cheek / cheek.sum(), atol=1e-3, rtol=0)


def test_a_reference_in_other_light_does_not_take_the_skin_over():
    weights = torch.tensor([0.96, 0.04]).view(1, 2, 1, 1).expand(1, 2, 24, 48)  # the frame itself is the second
    made = Warp(torch.tensor([[0]]), torch.zeros(1, 2, 2, 24, 48), weights)
    found = sharpen_weights(suppress_references_outside_mouth(made, 1, 0.0), 3.0).weights
    assert found[0, 1, 11, 2] > 0.93 and found[0, 1, 23, 24] > 0.93  # cheek and chin
    assert found[0, 0, 11, 24] > 0.93  # lips


def test_a_field_that_reaches_too_far_is_weakened_as_a_whole():
    flow = torch.zeros(1, 2, 2, 4, 8)
    flow[0, :, 0] = torch.linspace(0, 2 * MAX_FLOW, 8)
    weights = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 4, 8)
    made = Warp(torch.tensor([[0, 1]]), flow, weights)
    found = limit_flow(made, [ALL]).flow
    torch.testing.assert_close(found[:, 0], flow[:, 0] / 2)
    torch.testing.assert_close(found[:, 1], flow[:, 1])  # nobody sees it
    near = Cells(slice(0, 4), slice(0, 3))  # nor what is not pasted
    torch.testing.assert_close(limit_flow(made, [near]).flow, flow)


def test_gradient_reaches_flow_and_shares():
    flow, weights = torch.full((1, 2, 2, 4, 8), 0.03).requires_grad_(), torch.full((1, 2, 4, 8), 0.5).requires_grad_()
    compose(Warp(torch.tensor([[0, 1]]), flow, weights), torch.rand(2, 3, SIDE, SIDE)).square().sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in (flow, weights))


def test_enlarged_keeps_a_constant_and_the_shape_of_a_half():
    out = enlarged(torch.full((2, 3, 4, 8), 0.3), 24)
    torch.testing.assert_close(out, torch.full((2, 3, 12, 24), 0.3))


def test_the_reference_that_is_picked_is_seen_more():
    weights = torch.tensor([0.625, 0.375]).view(1, 2, 1, 1).expand(1, 2, 4, 8)
    mixed = Warp(torch.tensor([[0, 1]]), torch.zeros(1, 2, 2, 4, 8), weights)
    found = sharpen_weights(mixed, 3.0).weights
    torch.testing.assert_close(found[:, 0], torch.full((1, 4, 8), 0.5**3 / (0.5**3 + 0.3**3)))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 4, 8))
    torch.testing.assert_close(sharpen_weights(mixed, 1.0).weights, mixed.weights)


def test_cubics_keep_detail_that_bilinear_loses_and_stay_in_range():
    picture = 0.3 + 0.4 * torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    half_a_pixel = warp((0.5 / 48, 0.0))
    coarse, fine = compose(half_a_pixel, picture), compose_part(half_a_pixel, picture, ALL)
    assert fine.std() > 1.1 * coarse.std()
    hard = compose_part(half_a_pixel, (picture > 0.5).float(), ALL)
    assert hard.min() >= 0 and hard.max() <= 1
    still = compose_part(warp((0.0, 0.0)), picture, ALL)
    torch.testing.assert_close(still, picture[:, :, 24:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("cells", [((0, 4), (0, 8)), ((1, 3), (2, 7)), ((3, 4), (7, 8))])
def test_a_part_is_that_part_of_the_whole(cells: tuple[tuple[int, int], tuple[int, int]]):
    torch.manual_seed(0)
    shares = torch.rand(2, 2, 4, 8)
    shares[:, 0, :, :5] = 0  # a reference that is seen on one side alone
    made = Warp(torch.tensor([[0, 1], [2, 0]]), 0.2 * torch.randn(2, 2, 2, 4, 8), shares / shares.sum(1, keepdim=True))
    pictures = torch.rand(3, 3, 48, 48)
    part = Cells(*(slice(*bounds) for bounds in cells))
    rows, columns = part.times(6)
    whole = compose_part(made, pictures, ALL)
    torch.testing.assert_close(compose_part(made, pictures, part), whole[..., rows, columns])


def test_gains_bring_references_to_the_light_of_the_face():
    picture = torch.full((1, 3, SIDE, SIDE), 0.5)
    gains = torch.tensor([0.2, 0.4, 0.6]).view(1, 1, 3)
    out = compose_part(warp((0.0, 0.0)), picture, ALL, gains=gains)
    assert out[0, :, 3, 3].tolist() == pytest.approx([0.5 * gain for gain in (0.2, 0.4, 0.6)])


def test_the_own_frame_keeps_its_light():
    weights = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 8)
    both = Warp(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 2, 2, 4, 8), weights)
    own = torch.full((1, 3, SIDE, SIDE), 0.7)
    black = torch.zeros(1, 3, SIDE, SIDE)
    out = compose_part(both, black, ALL, own=own, gains=torch.zeros(1, 1, 3))
    torch.testing.assert_close(out, own[:, :, SIDE // 2 :])


def test_skin_is_lent_at_the_same_place_of_the_face_whatever_the_margin():
    weights = torch.full((1, 2, 24, 48), 1 / 2)
    flow = torch.zeros(1, 2, 2, 24, 48)
    near = suppress_references_outside_mouth(Warp(torch.zeros(1, 1, dtype=torch.int64), flow, weights), 1, 0.0)
    weights, flow = torch.full((1, 2, 32, 64), 1 / 2), torch.zeros(1, 2, 2, 32, 64)
    wide = suppress_references_outside_mouth(Warp(torch.zeros(1, 1, dtype=torch.int64), flow, weights), 1, 0.0, 4 / 3)
    torch.testing.assert_close(wide.weights[..., 0:24, 8:56], near.weights, atol=1e-5, rtol=0)
