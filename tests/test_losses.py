"""What a loss admits and promises: images that overshoot, references of all kinds, derivatives of all orders."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mdiqa_metric import DimensionMean, Loss, WeightedLoss, create
from mdiqa_metric.ops.resize import resize
from tests.rows import (
    TRAINABLE,
    class_of,
    encodes,
    hold_detached,
    metric_of,
    pair_of,
    photograph,
    row_of,
)

each_loss = pytest.mark.parametrize("row", TRAINABLE, ids=lambda row: row.name)
PAIRED = [row for row in TRAINABLE if class_of(row).full_reference]
each_paired = pytest.mark.parametrize("row", PAIRED, ids=lambda row: row.name)
ATTENTION = ("topiq", "mdiqa", "clipiqa", "ahiq", "iqt", "tres")


def value_and_gradient(loss, image, reference):
    image = image.clone().requires_grad_()
    value = loss(image, reference)
    (gradient,) = torch.autograd.grad(value, image)
    return value.detach(), gradient


def cosine(one, other):
    return F.cosine_similarity(one.flatten(), other.flatten(), 0).item()


# --- images outside [0, 1] --------------------------------------------------------------------------------------------


@each_loss
def test_images_from_minus_three_to_four_give_finite_losses_that_pull_back(row):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row)
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(3))
    strays = {
        "all over": 7 * noise - 3,
        "bright": image + 1.1,
        "dark": image - 2,
        "contrast": 3 * (image - 0.5) + 0.5,
        "flat": torch.full_like(image, 1.2),
        "flat and dark": torch.full_like(image, -0.3),
        "far": 17 * noise - 8,
    }
    for name, stray in strays.items():
        value, gradient = value_and_gradient(loss, stray, reference)
        assert value.isfinite(), name
        assert gradient.isfinite().all(), name
        assert value > loss(stray.clamp(0, 1), reference), f"{name}: an image outside is never better than inside"
        assert (gradient[stray > 1] > 0).all(), f"{name}: a step goes back"
        assert (gradient[stray < 0] < 0).all(), f"{name}: a step goes back"


@each_loss
def test_a_single_stray_value_does_not_turn_the_gradient(row):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row)
    _, clean = value_and_gradient(loss, image, reference)
    spots = {"pixel": (slice(None), 1, 30, 40), "block": (slice(None), 0, slice(24, 40), slice(24, 40))}
    for place, spot in spots.items():
        for stray in (-3.0, -1.7, -0.1, 1.3, 1.5, 2.7, 4.0):
            spoiled = image.clone()
            spoiled[spot] = stray
            value, gradient = value_and_gradient(loss, spoiled, reference)
            assert value.isfinite()
            assert gradient.isfinite().all()
            if place == "pixel":
                assert cosine(gradient, clean) > 0.85, stray  # on 40 x 48 pixels; see below for 256


@pytest.mark.parametrize("form", [lambda lite: lite, DimensionMean], ids=["overall", "mean"])
def test_mdiqa_lite_takes_what_a_network_overshoots(form):
    """A photograph of 256 px, one value beyond [0, 1]; and bicubic enlargement, sharpened, as networks overshoot."""
    loss = Loss(form(create("mdiqa-lite")))
    image = photograph(256, 256)
    _, clean = value_and_gradient(loss, image, None)
    for stray in (-3.0, -1.7, 1.3, 1.5, 2.7, 3.0, 4.0):
        spoiled = image.clone()
        spoiled[0, 1, 100, 100] = stray
        value, gradient = value_and_gradient(loss, spoiled, None)
        assert value.isfinite()
        assert cosine(gradient, clean) > 0.95
    small = F.interpolate(image, scale_factor=0.25, mode="bicubic", antialias=True)
    large = F.interpolate(small, scale_factor=4, mode="bicubic")
    sharp = large + 1.5 * (large - F.avg_pool2d(large, 5, 1, 2))
    assert sharp.min() < 0 or sharp.max() > 1
    _, gradient = value_and_gradient(loss, sharp, None)
    _, clamped = value_and_gradient(lambda x, _: loss(x.clamp(0, 1)), sharp, None)
    assert cosine(gradient, clamped) > 0.95
    within = (sharp >= 0) & (sharp <= 1)
    torch.testing.assert_close(gradient[within], value_and_gradient(loss, sharp.clamp(0, 1), None)[1][within])


@each_loss
def test_leaving_the_range_never_pays_step_by_step(row):
    loss = Loss(metric_of(row))
    _, reference = pair_of(row)
    like = pair_of(row)[0]
    for flat in (lambda x: 1 + x, lambda x: -x):
        values = [loss(torch.full_like(like, flat(x)), reference).item() for x in (0.0, 0.1, 0.2, 0.5, 1.0)]
        assert values == sorted(values)
        assert len(set(values)) == len(values)


def test_resizing_stays_in_the_range():
    edges = (torch.arange(200)[None, None, None] // 9 % 2).float().expand(1, 3, 200, 200)
    for mode in ("bicubic", "bilinear"):
        small = resize(edges, (96, 133), mode)
        assert 0 <= small.min() <= small.max() <= 1
    lite = create("mdiqa-lite", side=96)
    assert torch.equal(lite(edges), create("mdiqa-lite")(resize(edges, (96, 96), "bicubic")))


# --- a gradient everywhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    # Of an inverted image VIF and VIF-P keep nothing: its covariances are negative, so the score is 0 all around. And
    # ADM's wavelets see no detail in a ramp that could be impaired. To CW-SSIM an inverted image is the same: every
    # phase turns alike. It is a minimum, and its gradient there is rounding.
    [row for row in PAIRED if row.name not in ("vif", "vif-p", "adm-aim", "cw-ssim")],
    ids=lambda row: row.name,
)
def test_an_inverted_image_has_a_gradient(row):
    loss = Loss(metric_of(row))
    _, reference = pair_of(row)
    ramp = torch.linspace(0.2, 0.8, reference.shape[-1]).expand_as(reference)
    value, gradient = value_and_gradient(loss, 1 - ramp, ramp)
    assert (gradient.abs().amax((0, 2, 3)) > 0).all()
    steps = [loss(1 - ramp - size * gradient / gradient.abs().max(), ramp) for size in (1e-4, 1e-3, 1e-2)]
    assert min(steps) <= value + 1e-4 * value.abs()


@pytest.mark.parametrize("name", ["ms-ssim-rgb", "ms-ssim-y-full"])
def test_ms_ssim_leads_out_of_where_its_score_is_zero(name):
    """Negative structure clamps the score to 0; a network that starts there must still learn."""
    loss = Loss(metric_of(row_of(name)))
    ramp = torch.linspace(0.2, 0.8, 176).expand(1, 3, 176, 176)
    image = (1 - ramp).clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(image, ramp)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[0] == pytest.approx(1)
    assert values[-1] < 0.5
    half = (1 - ramp).half().requires_grad_()
    loss(half, ramp.half()).backward()
    assert (half.grad.abs().amax((0, 2, 3)) > 0).all()


def test_untrained_networks_start_to_learn_from_ms_ssim():
    loss = Loss(create("ms-ssim-rgb"))
    reference = photograph(176, 176)
    for seed in range(10):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
        image = network(reference)
        (gradient,) = torch.autograd.grad(loss(image, reference), image)
        assert (gradient.abs().amax((0, 2, 3)) > 0).all()


def test_a_clamped_scale_leaves_the_score_as_it_was():
    image = photograph(176, 176)
    assert create("ms-ssim-y-full")(1 - image, image) == pytest.approx(0, abs=1e-6)


# --- references of all kinds ------------------------------------------------------------------------------------------


@each_loss
def test_references_and_images_made_in_inference_mode_are_taken(row):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row)
    expected = value_and_gradient(loss, image, reference)
    with torch.inference_mode():
        made = None if reference is None else reference.clone()
        given = image.clone()
    value, gradient = value_and_gradient(loss, image, made)
    torch.testing.assert_close((value, gradient), expected)
    loss(given, made)
    if encodes(row):
        with torch.inference_mode():
            encoded = loss.metric.encode(made)
        torch.testing.assert_close(value_and_gradient(loss, image, encoded), expected)
        with torch.inference_mode():
            moved = encoded.to(torch.float64).to(torch.float32)
        torch.testing.assert_close(value_and_gradient(loss, image, moved), expected)


@each_paired
def test_float32_beside_float64_promotes_or_is_refused_in_both_orders(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    wide = image.double(), reference.double()
    if next(metric.parameters(), None) is not None:
        for pair in ((wide[0], reference), (image, wide[1])):
            with pytest.raises(TypeError, match=r"computes in torch\.float32, got"):
                metric(*pair)
        return
    expected = metric(*wide)
    for pair in ((wide[0], reference), (image, wide[1])):
        assert metric(*pair).dtype == torch.float64
        torch.testing.assert_close(metric(*pair), expected, rtol=1e-5, atol=1e-6)
    assert metric(image.bfloat16(), reference).dtype == torch.float32


@each_paired
def test_an_encoded_reference_fits_the_weights_that_made_it_alone(row):
    metric = metric_of(row)
    if not encodes(row):
        return
    image, reference = pair_of(row)
    encoded = metric.encode(reference)
    other = copy.deepcopy(metric)
    other(image, encoded)
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="encode it with this metric"):
        other(image, encoded)
    with pytest.raises(ValueError, match="encode it with this metric"):
        Loss(other)(image, encoded)
    assert other(image, other.encode(reference)).isfinite()
    for changed in (copy.deepcopy(metric).bfloat16(), copy.deepcopy(metric).bfloat16().float()):
        with pytest.raises(ValueError, match="encode it with this metric"):
            changed(image, encoded)
    loaded = copy.deepcopy(metric)
    loaded.encode(reference)
    loaded.load_state_dict(other.state_dict())
    assert loaded._hashed[0] == loaded._versions(), "a compiled graph goes by the hash that is here"
    with pytest.raises(ValueError, match="encode it with this metric"):
        loaded(image, encoded)


def test_two_names_of_one_class_do_not_take_each_others_references():
    from tests.rows import build, content

    kadid = metric_of(row_of("topiq-fr"))
    pipal = build("topiq-fr-pipal", content("topiq-fr"))
    image, reference = pair_of(row_of("topiq-fr"))
    torch.testing.assert_close(pipal(image, kadid.encode(reference)), kadid(image, reference))  # the same stand-ins
    with torch.no_grad():
        next(pipal.parameters()).mul_(1.5)
    with pytest.raises(ValueError, match="encode it with this metric"):
        pipal(image, kadid.encode(reference))


@each_paired
def test_a_border_is_cut_from_both_images(row):
    if row.wrapper or dict(row.options).get("border"):
        return
    metric = copy.deepcopy(metric_of(row)).cut_border(3)
    image, reference = (F.interpolate(x, scale_factor=1.2, mode="nearest") for x in pair_of(row))
    inner = [x[..., 3:-3, 3:-3] for x in (image, reference)]
    assert torch.equal(metric(image, reference), metric_of(row)(*inner))
    assert "crop 3 px a side" in metric.fingerprint()
    assert metric.min_size == metric_of(row).min_size + 6
    if encodes(row):
        torch.testing.assert_close(metric(image, metric.encode(reference)), metric(image, reference))
        with pytest.raises(ValueError, match="encode it with this metric"):
            metric(image, metric_of(row).encode(reference))
    for bad in (-1, 1.5, True, "4"):
        with pytest.raises(ValueError, match="border of 0 pixels or more, got"):
            metric.cut_border(bad)


# --- derivatives ------------------------------------------------------------------------------------------------------


def by_plain_attention(row):
    attends = row.name.startswith(ATTENTION) and not row.name.startswith("mdiqa-lite")
    return sdpa_kernel(SDPBackend.MATH) if attends else contextlib.nullcontext()


def smooth_pair(row):
    """A loss in float64, and a pair that lies inside [0, 1] with room; what has no gradient in it stays as it is."""
    metric = copy.deepcopy(metric_of(row)).double()
    image, reference = pair_of(row)
    image, reference = 0.1 + 0.8 * image.double(), None if reference is None else 0.1 + 0.8 * reference.double()
    if reference is not None:  # an absolute difference has no second derivative at 0
        image = torch.where(image == reference, image + 0.01, image)
    hold_detached(row, metric, image)
    return Loss(metric), image, reference


@pytest.mark.parametrize(
    "row",
    # Of IQT's stand-ins, so many ReLUs lie near 0 that some turn over within the smallest step.
    [row for row in TRAINABLE if row.name != "iqt-pipal"],
    ids=lambda row: row.name,
)
def test_second_derivatives_are_those_of_the_gradient(row):
    """A Hessian-vector product against finite differences of the gradient, asked for in each of torch's ways."""
    loss, image, reference = smooth_pair(row)
    if row.name == "mdiqa":  # its weight branch has a nonlinearity without one
        x = image.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
            first.sum().backward()
        return
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
    direction /= direction.abs().max()

    def gradient(x, graph=False):
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(loss(x, reference), x, create_graph=graph)[0]

    with by_plain_attention(row):
        x = image.clone().requires_grad_()
        first = gradient(x, graph=True)
        torch.testing.assert_close(first.detach(), gradient(image), rtol=1e-6, atol=1e-12)
        (product,) = torch.autograd.grad((first * direction).sum(), x, retain_graph=True)
        x.grad = None
        (first * direction).sum().backward()
        torch.testing.assert_close(x.grad, product)
        step = 1e-7
        expected = (gradient(image + step * direction) - gradient(image - step * direction)) / (2 * step)
    # Along the direction and along the product itself: single entries feel each ReLU that changes sides.
    # A piecewise linear metric has a product of 0.
    for way in (direction, product / product.abs().max().clamp_min(1e-30)):
        along, slope = (product * way).sum(), (expected * way).sum()
        atol = 2e-3 * expected.norm().item() * way.norm().item()
        # Where the second derivative is 0, as of a network of ReLUs, the difference is rounding noise over the step.
        noise = 1e-12 * first.norm().item() * way.norm().item() / step
        torch.testing.assert_close(along, slope, rtol=2e-2, atol=atol + noise)


@pytest.mark.parametrize("name", ["psnr", "ssim-rgb", "ms-ssim-rgb", "mdiqa-lite-mean"])
def test_a_gradient_penalty_reaches_what_made_the_image(name):
    loss, image, reference = smooth_pair(row_of(name))
    scale = torch.ones((), dtype=image.dtype, requires_grad=True)

    def penalty(s, graph=False):
        x = image.clone().requires_grad_()
        return torch.autograd.grad(loss(0.9 * s * x, reference), x, create_graph=graph)[0].square().sum()

    (found,) = torch.autograd.grad(penalty(scale, graph=True), scale)
    step = 1e-6
    expected = (penalty(1 + step) - penalty(1 - step)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * penalty(1.0).item())


@each_loss
def test_torch_func_takes_the_gradient(row):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row, count=2)
    with by_plain_attention(row):
        _, expected = value_and_gradient(loss, image, reference)
        found = torch.func.grad(lambda x: loss(x, reference))(image)
        # In float32 another order of sums turns some ReLUs on or off: 2e-3 of the whole gradient for VGG16.
        assert (found - expected).norm() < 1e-2 * expected.norm()

        def single(x, y):
            return loss(x[None], None if y is None else y[None])

        dims = (0, None if reference is None else 0)
        values = torch.func.vmap(single, in_dims=dims)(image, reference)
        each = [single(x, None if reference is None else reference[i]) for i, x in enumerate(image)]
        torch.testing.assert_close(values, torch.stack(each), rtol=1e-4, atol=1e-6)
        gradients = torch.func.vmap(torch.func.grad(single), in_dims=dims)(image, reference)
        assert cosine(gradients, expected) > 0.9999
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            torch.func.vmap(single, in_dims=dims)(image * 255, reference)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own, for its decompositions
def test_forward_mode_and_hessians_of_torch_func():
    reference = photograph(24, 24).double()
    image = 0.1 + 0.8 * reference.roll(1, 3)
    loss = Loss(create("ssim-rgb"))

    def at(x):
        return loss(x, reference)

    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).double()
    _, slope = torch.func.jvp(at, (image,), (direction,))
    torch.testing.assert_close(slope, (torch.func.grad(at)(image) * direction).sum())
    _, product = torch.func.jvp(torch.func.grad(at), (image,), (direction,))
    step = 1e-5
    ahead, behind = (torch.func.grad(at)(image + sign * step * direction) for sign in (1, -1))
    torch.testing.assert_close(product, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-9)


def test_ssim_is_the_plain_formula_to_the_second_derivative():
    """Five convolutions with the window, as the paper writes it, which autograd differentiates by itself."""
    offsets = torch.arange(11).double() - 5
    taps = (-offsets.square() / (2 * 1.5**2)).exp()
    window = torch.outer(taps, taps) / taps.sum() ** 2

    def plain(x, y):
        def mean(z):
            return F.conv2d(z.flatten(0, 1)[:, None], window[None, None]).unflatten(0, z.shape[:2])[:, :, 0]

        mx, my = mean(x), mean(y)
        vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        luminance, structure = (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * both + c2) / (vx + vy + c2)
        return 1 - (luminance * structure).mean()

    y = photograph(32, 32).double()
    x = (0.1 + 0.8 * y.roll(2, 2)).requires_grad_()
    loss = Loss(create("ssim-rgb"))
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    found = []
    for function in (plain, loss):
        value = function(x, y)
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad((first * direction).sum(), x)
        found.append((value, first, second))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


# --- weights, names and hooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weight",
    [
        0.1,
        1,
        0,
        np.float32(0.1),
        np.float64(2),
        np.int64(1),
        Fraction(1, 3),
        torch.tensor(0.5),
        torch.tensor(2),
        np.array(0.5),
    ],
    ids=repr,
)
def test_numbers_of_every_kind_are_weights(weight):
    psnr = create("psnr")
    assert Loss(psnr, weight).weight == float(weight)
    loss = WeightedLoss({"a": (Loss(psnr), weight)})
    assert loss.set_weights(a=weight).weights.tolist() == pytest.approx([float(weight)])
    assert create("mdiqa-lite").set_weights(sharpness=weight).dimension_weights[-1] == pytest.approx(float(weight))


@pytest.mark.parametrize(
    "weight", [math.nan, math.inf, 1e39, -1, -0.1, np.float32(-1), "1", None, True, torch.ones(2), 1j]
)
def test_what_is_no_weight_is_refused_with_the_mend(weight):
    psnr = create("psnr")
    for ask in (
        lambda: Loss(psnr, weight),
        lambda: WeightedLoss({"a": (Loss(psnr), weight)}),
        lambda: WeightedLoss({"a": (Loss(psnr), 1)}).set_weights(a=weight),
        lambda: create("mdiqa-lite").set_weights(sharpness=weight),
    ):
        refused = r"finite number as weight|a weight from 0 up.*Leave the sign out|finite weights from 0 up"
        with pytest.raises(ValueError, match=refused):
            ask()


def test_any_name_is_a_term():
    image, reference = photograph(32, 32) * 0.9, photograph(32, 32)
    names = ("lpips-v0.1", "keys", "a.b", "weights", "", "forward")
    loss = WeightedLoss({name: (Loss(create("psnr")), 1) for name in names})
    loss(image, reference)
    assert tuple(loss.last_values()) == names
    loss.set_weights(**{"lpips-v0.1": 0.5})
    assert loss.weights[0] == 0.5
    loss(image, dict.fromkeys(names, reference))
    with pytest.raises(ValueError, match=r"References are given for keys, and lpips-v0\.1, a\.b, weights, .* has none"):
        loss(image, {"keys": reference})
    with pytest.raises(ValueError, match=r"References are given for other, and the terms are lpips-v0\.1"):
        loss(image, dict.fromkeys((*names, "other"), reference))


def test_terms_that_are_none_are_refused():
    image = photograph(32, 32).repeat(2, 1, 1, 1)
    with pytest.raises(TypeError, match=r'term "ssim" is a metric, .*wrap it in Loss'):
        WeightedLoss({"ssim": (create("ssim"), 1.0)})
    with pytest.raises(TypeError, match=r'term "a" gave \(2, 3, 32, 32\), expected a scalar tensor: take its mean'):
        WeightedLoss({"a": (nn.L1Loss(reduction="none"), 1.0)})(image, image)
    with pytest.raises(ValueError, match="a name for each term, got 1, 1: rename one"):
        WeightedLoss({"1": (nn.L1Loss(), 1.0), 1: (nn.L1Loss(), 1.0)})
    loss = WeightedLoss({1: (nn.L1Loss(), 1.0), "self": (nn.L1Loss(), 1.0)})
    assert loss(image, {1: image, "self": image}) == 0
    assert loss.set_weights(self=2.0).weights.tolist() == [1, 2]


def test_a_weighted_loss_of_inference_mode_or_torch_func_goes_on():
    image, reference = 0.9 * photograph(32, 32), photograph(32, 32)
    with torch.inference_mode():
        loss = WeightedLoss({"ssim": (Loss(create("ssim")), 1.0)})
    loss(image.clone().requires_grad_(), reference).backward()
    torch.func.grad(lambda x: loss(x, reference))(image)
    copy.deepcopy(loss)
    with pytest.raises(RuntimeError, match="call it once"):
        loss.last_values()


def test_a_term_without_a_reference_needs_none_in_a_dict():
    image, reference = photograph(64, 64), photograph(64, 64)
    loss = WeightedLoss({"lite": (Loss(create("mdiqa-lite")), 1.0), "pixel": (nn.L1Loss(), 1.0)})
    torch.testing.assert_close(loss(image, {"pixel": reference}), loss(image, reference))


@each_loss
def test_hooks_on_the_metric_are_called_through_its_loss(row):
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    seen = []
    metric.register_forward_hook(lambda module, inputs, output: seen.append(output))
    Loss(metric)(image, reference)
    torch.testing.assert_close(seen[0], metric_of(row)(image, reference))


def test_dists_resizes_in_half_precision():
    metric = create("dists", resize=True, weights=None).bfloat16()
    image = photograph(300, 300)
    assert metric(image, image.roll(5, 3)).isfinite()


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_a_weight_of_zero_is_the_one_that_remakes_a_graph():
    torch._dynamo.reset()
    lite = create("mdiqa-lite")
    compiled = torch.compile(Loss(DimensionMean(lite)), fullgraph=True, backend="aot_eager")
    image = photograph(64, 64)
    compiled(image)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled(image)
        lite.set_weights(sharpness=2.0)
        compiled(image)
        lite.set_weights(sharpness=0.0)
        with pytest.raises(torch._dynamo.exc.RecompileError):
            compiled(image)


def graph_case(name):
    """A loss as a plain module, a batch of two to export it with, and one image of another size."""
    row = row_of(name)
    metric = metric_of(row)
    size = max(96, metric.min_size + 40)
    images = [photograph(size, size + 16).repeat(2, 1, 1, 1), photograph(size + 13, size - 8)]
    pairs = [(0.9 * x, x) if metric.full_reference else (x,) for x in images]
    return Loss(metric), *pairs


@pytest.mark.parametrize(
    "name", ["psnr", "ssim-rgb", "ms-ssim-rgb", "stlpips-alex", "lpips-alex", "dists", "mdiqa-lite", "mdiqa-lite-mean"]
)
def test_exports_for_all_sizes(name):
    loss, example, other = graph_case(name)
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(loss, example, dynamic_shapes=(free,) * len(example)).module()
    for given in (example, other):
        torch.testing.assert_close(exported(*given), loss(*given), rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"in \[0, 1\]"):
        exported(*(255 * x for x in example))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes are of the example: trace for one size
@pytest.mark.parametrize("name", ["psnr", "ssim-rgb", "ms-ssim-rgb", "stlpips-alex", "mdiqa-lite"])
def test_traces_and_saves_for_one_size(name):
    loss, example, _ = graph_case(name)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(loss, example), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(*example), loss(*example), rtol=1e-4, atol=1e-6)
