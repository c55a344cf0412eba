"""LPIPS, ST-LPIPS and DISTS: the hand-written gradients, and what goes wrong in their peers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import mdiqa_metric
from mdiqa_metric import Loss, WeightsError
from mdiqa_metric.metrics.stlpips import BlurredConv
from mdiqa_metric.ops import feature_distance
from mdiqa_metric.ops.convolution import add_relu, conv
from mdiqa_metric.ops.feature_distance import moments, unit_distance
from mdiqa_metric.ops.pooling import blur_pool, gated_pool, l2_pool, max_pool, reduced_pool
from tests.golden import golden
from tests.rows import ROWS, content, filled, metric_of, pair_of, photograph, row_of

ON_BACKBONES = [row for row in ROWS if row.name.startswith(("lpips", "stlpips", "dists"))]
each_backbone = pytest.mark.parametrize("row", ON_BACKBONES, ids=lambda row: row.name)
WINDOW = torch.tensor([0.25, 0.5, 0.25]).double()


def of(name):
    return metric_of(row_of(name))


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()


def frozen(*shape):
    return maps(*shape, seed=9).detach()


HAND_WRITTEN = {
    "conv": lambda x: conv(x, frozen(4, 3, 3, 3), frozen(4), 1, 1, False),
    "conv, relu": lambda x: conv(x, frozen(4, 3, 3, 3), frozen(4), 1, 1, True),
    "conv, stride 4": lambda x: conv(x, frozen(4, 3, 5, 5), None, 4, 2, True),
    "conv to one channel": lambda x: conv(x, frozen(1, 3, 3, 3), frozen(1), 1, 1, False),
    "add, relu": lambda x: add_relu(x, frozen(2, 3, 9, 10)),
    "gated pool": lambda x: gated_pool(x, x[:, :1].sigmoid(), (3, 4)),
    "reduced pool": lambda x: reduced_pool(x, frozen(40, 3, 1, 1), frozen(40), (3, 5)),
    "max pool": lambda x: max_pool(x, 3, 2, True),
    "L2 pool": lambda x: l2_pool(x, WINDOW.outer(WINDOW)),
    "L2 pool, stride 1": lambda x: l2_pool(x, WINDOW.outer(WINDOW), 1),
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


# --- hand-written functions beside what they stand for ---------------------------------------------------------------


def unit(x):
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def plain_moments(x, y):
    variance = [z.var((2, 3), correction=0) for z in (x, y, x - y)]
    return x.mean((2, 3)), y.mean((2, 3)) + 0 * x.mean(), variance[0] + variance[1], variance[2]


def plain_blur(x):
    window = WINDOW.outer(WINDOW).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), window, stride=2, groups=x.shape[1])


def plain_l2(x, stride=2):
    window = WINDOW.outer(WINDOW).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=stride, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


PLAIN = {
    "conv": lambda x: F.conv2d(x, frozen(4, 3, 3, 3), frozen(4), 1, 1),
    "conv, relu": lambda x: F.relu(F.conv2d(x, frozen(4, 3, 3, 3), frozen(4), 1, 1)),
    "conv, stride 4": lambda x: F.relu(F.conv2d(x, frozen(4, 3, 5, 5), None, 4, 2)),
    "conv to one channel": lambda x: F.conv2d(x, frozen(1, 3, 3, 3), frozen(1), 1, 1),
    "add, relu": lambda x: F.relu(x + frozen(2, 3, 9, 10)),
    "gated pool": lambda x: F.adaptive_avg_pool2d(F.gelu(x) * x[:, :1].sigmoid(), (3, 4)),
    "reduced pool": lambda x: F.adaptive_avg_pool2d(F.gelu(F.conv2d(x, frozen(40, 3, 1, 1), frozen(40))), (3, 5)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "L2 pool": plain_l2,
    "L2 pool, stride 1": lambda x: plain_l2(x, 1),
    "blur pool": plain_blur,
    "unit distance": lambda x: (
        ((unit(x) - unit(frozen(2, 3, 9, 10))).square() * frozen(3).abs()[:, None, None]).sum(1).mean((1, 2))
    ),
    "moments": lambda x: plain_moments(x, frozen(2, 3, 9, 10)),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
@pytest.mark.parametrize("block", [7, 60, 1 << 18])
def test_hand_written_functions_are_the_plain_ones(name, block, monkeypatch):
    monkeypatch.setattr(feature_distance, "BLOCK", block)
    x = maps(2, 3, 9, 10)
    ours, plain = (out if isinstance(out, tuple) else (out,) for out in (HAND_WRITTEN[name](x), PLAIN[name](x)))
    torch.testing.assert_close(ours, plain)
    upstream = [frozen(*out.shape) for out in ours]
    gradients = [torch.autograd.grad(outs, x, upstream)[0] for outs in (ours, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(11, 4, 2), (11, 1, 2), (3, 1, 1), (3, 2, 0), (5, 3, 2)])
def test_gradients_to_images_fit_every_geometry(kernel, stride, padding):
    weight = frozen(4, 3, kernel, kernel)
    for height, width in ((23, 24), (25, 26), (31, 21)):
        x = maps(2, 3, height, width)
        ours, plain = conv(x, weight, None, stride, padding, False), F.conv2d(x, weight, None, stride, padding)
        upstream = frozen(*plain.shape)
        torch.testing.assert_close(*(torch.autograd.grad(out, x, upstream)[0] for out in (ours, plain)))


@pytest.mark.parametrize(("height", "width"), [(24, 31), (25, 24), (33, 33), (40, 26)])
def test_a_blurred_convolution_is_a_convolution_and_a_blur(height, width):
    module = BlurredConv(3, 4, 11, padding=2).double().requires_grad_(False)
    x = maps(2, 3, height, width)
    ours, plain = module(x), plain_blur(F.conv2d(x, module.weight, module.bias, padding=2))
    torch.testing.assert_close(ours, plain)
    upstream = frozen(*plain.shape)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, upstream)[0] for out in (ours, plain)))


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(12, 16, (3, 4)), (13, 15, (3, 4)), (3, 4, (6, 8)), (12, 12, (5, 4)), (700, 700, (2, 2))],
)
def test_gates_and_reductions_pool_as_the_plain_functions_do(height, width, size):
    x, gate = maps(2, 5, height, width), maps(2, 1, height, width, seed=1)
    weight, bias = frozen(70, 5, 1, 1), frozen(70)
    pairs = [
        (gated_pool(x, gate, size), F.adaptive_avg_pool2d(F.gelu(x) * gate, size), (x, gate)),
        (reduced_pool(x, weight, bias, size), F.adaptive_avg_pool2d(F.gelu(F.conv2d(x, weight, bias)), size), (x,)),
    ]
    for ours, plain, inputs in pairs:
        torch.testing.assert_close(ours, plain)
        upstream = frozen(*plain.shape)
        torch.testing.assert_close(*(torch.autograd.grad(out, inputs, upstream) for out in (ours, plain)))


def test_weights_that_train_get_the_plain_gradient():
    weight, x = maps(4, 3, 3, 3, seed=1), maps(2, 3, 9, 10)
    gradients = torch.autograd.grad(conv(x, weight, None, 1, 1, True).sum(), (x, weight))
    torch.testing.assert_close(gradients, torch.autograd.grad(F.conv2d(x, weight, padding=1).relu().sum(), (x, weight)))
    metric = copy.deepcopy(of("lpips-alex")).requires_grad_(True)
    metric(*pair_of(ROWS[0])).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in metric.parameters())


def test_backward_keeps_less_than_half_of_what_autograd_keeps():
    def kept(function):
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = function(image, reference)  # held, so that no address is used twice
        del result
        return sum(storages.values())

    metric = of("lpips-vgg")
    weights = {weight.untyped_storage().data_ptr(): weight for weight in metric.parameters()}
    own = sum(weight.untyped_storage().nbytes() for weight in weights.values())
    image, reference = (photograph(96, 96) * 0.9).requires_grad_(), photograph(96, 96)
    trained = copy.deepcopy(metric).requires_grad_(True)  # takes the plain functions
    assert 2 * (kept(metric) - own) < kept(trained) - own


def test_a_gradient_penalty_can_be_taken():
    for name in ("lpips-alex", "stlpips-alex", "dists"):
        image = (photograph(48, 48) * 0.9).requires_grad_()
        (gradient,) = torch.autograd.grad(of(name)(image, photograph(48, 48)).sum(), image, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), image)
        assert second.isfinite().all()
        assert second.abs().sum() > 0


# --- where peers fail ------------------------------------------------------------------------------------------------


def test_a_vector_without_active_features_has_a_finite_gradient():
    """The peers divide by a norm whose gradient at zero is NaN."""
    x = torch.zeros(1, 4, 3, 3, requires_grad=True)
    for y in (torch.zeros(1, 4, 3, 3), torch.ones(1, 4, 3, 3)):
        (gradient,) = torch.autograd.grad(unit_distance(x, y, torch.ones(4)).sum(), x)
        assert gradient.isfinite().all()


def test_a_backbone_that_sees_nothing_has_a_finite_gradient():
    """Every unit dead: official LPIPS, pyiqa, piq and piqa give NaN here."""
    metric = copy.deepcopy(of("lpips-alex"))
    with torch.no_grad():
        metric.backbone.features[0].bias.fill_(-100)
        metric.backbone.features[3].bias.fill_(-100)
    image, reference = (photograph(48, 48) * 0.9).requires_grad_(), photograph(48, 48)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            score = metric(image, reference)
        (gradient,) = torch.autograd.grad(score.sum(), image)
        assert score.isfinite().all()
        assert gradient.isfinite().all()


def test_an_infinite_gradient_does_not_pass_a_dead_unit():
    """In half precision a gradient may overflow; infinity times zero would be NaN."""
    x = torch.full((1, 3, 4, 4), -1.0, dtype=torch.float16).requires_grad_()
    y = conv(x, torch.ones(8, 3, 1, 1, dtype=torch.float16), None, 1, 0, True)
    (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, torch.inf))
    assert (gradient == 0).all()


def test_l2_pooling_of_large_halves_does_not_overflow():
    x = torch.full((1, 2, 8, 8), 1000.0, dtype=torch.float16).requires_grad_()
    pooled = l2_pool(x, WINDOW.outer(WINDOW).half())
    assert pooled.dtype == torch.float16
    torch.testing.assert_close(pooled[..., 1:, 1:], torch.full_like(pooled[..., 1:, 1:], 1000.0))
    pooled.sum().backward()
    assert x.grad.isfinite().all()


@each_backbone
def test_an_encoded_reference_saves_a_backbone_pass(row):
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    passes = []
    first = next(module for module in metric.backbone.features if any(True for _ in module.parameters()))
    first.register_forward_hook(lambda *_: passes.append(1))
    metric(image, reference)
    encoded = metric.encode(reference)
    assert len(passes) == 3
    metric(image, encoded)
    assert len(passes) == 4


@each_backbone
def test_the_reference_builds_no_graph_and_one_image_keeps_its_dimension(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    assert not metric(image, reference).requires_grad
    assert metric(image.requires_grad_(), reference).shape == (1,)


@each_backbone
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_equal_images_score_zero_and_never_less(row, bf16):
    """DISTS-pytorch says -6e-5 under bf16, since it subtracts a product of means from a mean of products."""
    image, _ = pair_of(row, count=2)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        scores = metric_of(row)(image, image.clone())
    assert (scores == 0).all()


@each_backbone
def test_both_images_get_the_same_gradient(row):
    metric = metric_of(row)
    image, reference = (photo.requires_grad_() for photo in pair_of(row))
    to_image, to_reference = torch.autograd.grad(metric(image, reference).sum(), (image, reference))
    swapped = torch.autograd.grad(metric(reference, image).sum(), (reference, image))
    torch.testing.assert_close((to_reference, to_image), swapped, rtol=1e-4, atol=1e-7)


def test_st_lpips_feels_a_shift_less_than_noise_as_large():
    whole = photograph(120, 140)
    reference, shifted = whole[..., 8:-8, 8:-8], whole[..., 8:-8, 9:-7]
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    noisy = (reference + (shifted - reference).square().mean().sqrt() * noise).clamp(0, 1)
    metric = of("stlpips-alex")
    assert 20 * metric(shifted, reference) < metric(noisy, reference)


def test_the_gradient_of_dists_is_whole():
    """DISTS-pytorch's default delivers the image's own term alone, at a cosine of 0.29 with the truth."""
    loss = Loss(copy.deepcopy(of("dists")).double())
    reference = photograph(24, 24).double() * 0.8 + 0.1
    image = (0.9 * reference + 0.05 * frozen(*reference.shape).clamp(-1, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image, reference), image)
    pixels = range(0, image.numel(), 29)
    gradients = torch.empty(len(pixels)).double()
    with torch.no_grad():
        for index, pixel in enumerate(pixels):
            step = torch.zeros_like(image)
            step.view(-1)[pixel] = 1e-6
            gradients[index] = (loss(image + step, reference) - loss(image - step, reference)) / 2e-6
    assert torch.cosine_similarity(gradients, gradient.flatten()[::29], 0) > 0.9999


# --- variants and weights --------------------------------------------------------------------------------------------


def test_dists_says_how_it_resizes():
    data = content("dists")
    backbone = filled(data["backbone"]["keys"], data)
    native, resized = (mdiqa_metric.create("dists", weights={"backbone": backbone}, resize=on) for on in (False, True))
    assert "resize none" in native.fingerprint()
    assert "shorter side to 256" in resized.fingerprint()
    image = torch.rand(1, 3, 256, 300, generator=torch.Generator().manual_seed(0))
    darker = image * 0.9
    torch.testing.assert_close(native(darker, image), resized(darker, image))
    larger = torch.nn.functional.interpolate(image, scale_factor=1.5)
    assert native(larger * 0.9, larger) != resized(larger * 0.9, larger)


def test_versions_of_lpips_have_heads_of_their_own():
    new, old = of("lpips-vgg"), of("lpips-vgg-v0.0")
    assert all(not torch.equal(x, y) for x, y in zip(new.heads, old.heads, strict=True))


def test_files_of_another_net_are_refused():
    alex, vgg = content("lpips-alex-standin"), content("lpips-vgg-standin")
    backbone, heads = filled(alex["backbone"]["keys"], alex), filled(vgg["checkpoint"], vgg)
    with pytest.raises(WeightsError, match="not lpips-alex's"):
        mdiqa_metric.create("lpips-alex", weights={"backbone": backbone, "heads": heads})
    with pytest.raises(WeightsError, match="foreign"):
        mdiqa_metric.create("lpips-alex", weights={"backbone": backbone | {"features.99.weight": torch.ones(1)}})


def published(name):
    """The state dict that the authors' module of a metric has, out of ours."""
    state = {}
    for key, value in of(name).state_dict().items():
        if key.startswith("heads.") and name != "dists":
            state |= {f"{prefix}{key[6:]}.model.1.weight": value for prefix in ("lin", "lins.")}
        else:
            state[
                key.removeprefix("heads.").replace("backbone.features", "stage1" if name == "dists" else "net.slice1")
            ] = value
    window = (WINDOW.outer(WINDOW)).float().expand(64, 1, 3, 3)
    if name == "dists":
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        constants = {"mean": mean.view(1, 3, 1, 1), "std": std.view(1, 3, 1, 1), "stage2.4.filter": window}
    else:
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        constants = {"scaling_layer.shift": shift.view(1, 3, 1, 1), "scaling_layer.scale": scale.view(1, 3, 1, 1)}
        constants |= {"net.slice2.4.filt": window} if name == "stlpips-alex" else {}
    return state, constants


@pytest.mark.parametrize("name", ["lpips-squeeze", "stlpips-alex", "dists"])
def test_the_authors_whole_module_loads_unless_its_constants_are_not_ours(name):
    state, constants = published(name)
    loaded = mdiqa_metric.create(name, weights=state | constants).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in of(name).state_dict().items())
    for key, value in constants.items():
        with pytest.raises(WeightsError, match="1 foreign"):
            mdiqa_metric.create(name, weights=state | constants | {key: value * 1.01})
    if name != "dists":
        with pytest.raises(WeightsError, match=r"lins\.0\.model"):
            mdiqa_metric.create(name, weights=state | {"lins.0.model.1.weight": state["lin0.model.1.weight"] + 1})


@pytest.mark.parametrize("name", ["lpips-squeeze", "stlpips-alex", "dists"])
def test_our_own_state_dict_goes_through_a_file(name, tmp_path):
    from safetensors.torch import save_file

    save_file(of(name).state_dict(), tmp_path / "whole.safetensors")
    assert mdiqa_metric.create(name, weights=tmp_path / "whole.safetensors").fingerprint() == of(name).fingerprint()


@pytest.mark.parametrize(
    ("seed", "height", "width", "score"),
    [(1, 256, 256, 0.1960355), (3, 225, 333, 0.1766530), (4, 256, 256, 0.1821474)],
)
def test_the_embedded_file_gives_the_authors_scores(seed, height, width, score):
    metric = mdiqa_metric.create("stlpips-alex")
    pair = (torch.from_numpy(draw(seed, height, width))[None] for draw in (golden.degraded, golden.picture))
    assert metric(*pair).item() == pytest.approx(score, abs=2e-6)
