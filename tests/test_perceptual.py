"""LPIPS, ST-LPIPS and DISTS: the hand-written gradients, and what goes wrong in their peers."""

from __future__ import annotations

import copy

import pytest
import torch

import mdiqa_metric
from mdiqa_metric import Loss, WeightsError
from mdiqa_metric.ops.compare import moments, unit_distance
from mdiqa_metric.ops.convolution import conv
from mdiqa_metric.ops.pooling import blur_pool, l2_pool, max_pool
from tests.rows import ROWS, content, filled, metric_of, pair_of

ON_TRUNKS = [row for row in ROWS if any(True for _ in metric_of(row).parameters())]
each_trunk = pytest.mark.parametrize("row", ON_TRUNKS, ids=lambda row: row.name)
WINDOW = torch.tensor([0.25, 0.5, 0.25]).double()


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()


def frozen(*shape):
    return maps(*shape, seed=9).detach()


HAND_WRITTEN = {
    "conv": lambda x: conv(x, frozen(4, 3, 3, 3), frozen(4), 1, 1, False),
    "conv, relu": lambda x: conv(x, frozen(4, 3, 3, 3), frozen(4), 1, 1, True),
    "conv, stride 4": lambda x: conv(x, frozen(4, 3, 5, 5), None, 4, 2, True),
    "max pool": lambda x: max_pool(x, 3, 2, True),
    "L2 pool": lambda x: l2_pool(x, WINDOW.outer(WINDOW)),
    "blur pool": lambda x: blur_pool(x, WINDOW.outer(WINDOW)),
    "unit distance": lambda x: unit_distance(x, frozen(2, 3, 9, 10), frozen(3).abs()),
    "moments": lambda x: moments(x, frozen(2, 3, 9, 10)),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_gradients_are_right_twice(name):
    function = HAND_WRITTEN[name]
    x = maps(2, 3, 9, 10)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_functions_keep_the_layout_out_of_it(name):
    function = HAND_WRITTEN[name]
    x = maps(2, 3, 9, 10)
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.testing.assert_close(function(last), function(x))


def test_a_vector_without_active_features_has_a_finite_gradient():
    """The peers divide by a norm whose slope at zero is NaN."""
    x = torch.zeros(1, 4, 3, 3, requires_grad=True)
    for y in (torch.zeros(1, 4, 3, 3), torch.ones(1, 4, 3, 3)):
        (gradient,) = torch.autograd.grad(unit_distance(x, y, torch.ones(4)).sum(), x)
        assert gradient.isfinite().all()


@each_trunk
def test_an_encoded_reference_saves_a_trunk_pass(row):
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    passes = []
    first = next(module for module in metric.trunk.features if any(True for _ in module.parameters()))
    first.register_forward_hook(lambda *_: passes.append(1))
    metric(image, reference)
    encoded = metric.encode(reference)
    assert len(passes) == 3
    metric(image, encoded)
    assert len(passes) == 4


@each_trunk
def test_the_reference_builds_no_graph_and_one_picture_keeps_its_dimension(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    assert not metric(image, reference).requires_grad
    assert metric(image.requires_grad_(), reference).shape == (1,)


@each_trunk
def test_equal_pictures_score_zero_and_never_less(row):
    image, _ = pair_of(row, count=2)
    scores = metric_of(row)(image, image)
    assert (scores >= 0).all()
    assert (scores < 1e-6).all()


def test_the_gradient_of_dists_is_whole():
    """DISTS-pytorch's default delivers the picture's own term alone, at a cosine of 0.29 with the truth."""
    row = next(row for row in ROWS if row.name == "dists")
    loss = Loss(copy.deepcopy(metric_of(row)).double())
    image, reference = (picture.double() * 0.8 + 0.1 for picture in pair_of(row))
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image, reference), image)
    step = 1e-7 * gradient / gradient.abs().max()
    with torch.no_grad():
        rise = loss(image + step, reference) - loss(image - step, reference)
    torch.testing.assert_close(rise, 2 * (gradient * step).sum(), rtol=1e-3, atol=0)


def test_dists_says_how_it_resizes():
    data = content("dists")
    trunk = filled(data["backbone"]["keys"], data)
    native, resized = (mdiqa_metric.create("dists", weights={"trunk": trunk}, resize=on) for on in (False, True))
    assert "resize none" in native.fingerprint()
    assert "shorter side to 256" in resized.fingerprint()
    picture = torch.rand(1, 3, 256, 300, generator=torch.Generator().manual_seed(0))
    darker = picture * 0.9
    torch.testing.assert_close(native(darker, picture), resized(darker, picture))
    larger = torch.nn.functional.interpolate(picture, scale_factor=1.5)
    assert native(larger * 0.9, larger) != resized(larger * 0.9, larger)


def test_versions_of_lpips_have_heads_of_their_own():
    new, old = (metric_of(next(row for row in ROWS if row.name == name)) for name in ("lpips-vgg", "lpips-vgg-v0.0"))
    assert all(not torch.equal(x, y) for x, y in zip(new.heads, old.heads, strict=True))


def test_files_of_another_net_are_refused():
    alex, vgg = content("lpips-alex-standin"), content("lpips-vgg-standin")
    trunk, heads = filled(alex["backbone"]["keys"], alex), filled(vgg["checkpoint"], vgg)
    with pytest.raises(WeightsError, match="not lpips-alex's"):
        mdiqa_metric.create("lpips-alex", weights={"trunk": trunk, "heads": heads})
    with pytest.raises(WeightsError, match="foreign"):
        mdiqa_metric.create("lpips-alex", weights={"trunk": trunk | {"features.99.weight": torch.ones(1)}})


@pytest.mark.parametrize(("seed", "height", "width", "score"), [(1, 256, 256, 0.1960355), (4, 256, 256, 0.1821474)])
def test_the_embedded_file_gives_the_authors_scores(seed, height, width, score):
    from tests.golden import golden

    metric = mdiqa_metric.create("stlpips-alex")
    pair = (torch.from_numpy(draw(seed, height, width))[None] for draw in (golden.degraded, golden.picture))
    assert metric(*pair).item() == pytest.approx(score, abs=2e-6)
