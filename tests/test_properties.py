"""What every metric keeps, and every loss made of one: run over the table of rows."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mdiqa_metric import DimensionDistance, Loss, Metric, MultiDimensional, WeightedLoss
from tests.rows import (
    METRICS,
    ROWS,
    TRAINABLE,
    class_of,
    encodes,
    hold_detached,
    metric_of,
    pair_of,
    photograph,
    row_of,
)

# The contract is kept by a class, so it is tested once a class; its other names run their golden files.
each_metric = pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
each_loss = pytest.mark.parametrize("row", TRAINABLE, ids=lambda row: row.name)
each_paired = pytest.mark.parametrize(
    "row", [row for row in METRICS if class_of(row).full_reference], ids=lambda row: row.name
)
each_nearing = pytest.mark.parametrize(
    "row",
    [row for row in TRAINABLE if class_of(row).full_reference and not row.needs_trained_weights],
    ids=lambda row: row.name,
)
each_refused = pytest.mark.parametrize("row", [row for row in ROWS if not row.trainable], ids=lambda row: row.name)


def gradient_of(function, image, reference):
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(image, reference).sum(), image)
    return gradient


# --- facts and scores -------------------------------------------------------------------------------------------------


@each_metric
def test_scores_are_one_per_image_and_in_range(row):
    metric = metric_of(row)
    image, reference = pair_of(row, count=2)
    scores = metric(image, reference)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    lowest, highest = metric.score_range
    assert lowest < highest
    assert all(lowest <= score <= highest for score in scores.tolist())
    assert type(metric).__mro__[1] in (Metric, MultiDimensional), "metrics are final"
    assert metric.differentiable == row.trainable


@each_metric
def test_a_batch_is_its_images_one_by_one(row):
    metric = metric_of(row)
    image, reference = pair_of(row, count=3)
    alone = [metric(image[i : i + 1], None if reference is None else reference[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(metric(image, reference), torch.cat(alone), rtol=1e-5, atol=row.near_zero / 10)


@each_metric
def test_memory_layout_does_not_matter(row):
    metric = metric_of(row)
    image, reference = pair_of(row, count=2)
    expected = metric(image, reference)
    for change in (
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: torch.stack([x, x], -1)[..., 0],
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        moved = metric(change(image), None if reference is None else change(reference))
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


@each_metric
def test_fingerprint_names_what_was_computed(row):
    metric = metric_of(row)
    line = metric.fingerprint()
    assert "\n" not in line
    assert line.startswith(row.name)
    for fact in (metric.color, f"resize {metric.resize}", f"crop {metric.crop}", "mdiqa_metric ", "weights"):
        assert fact in line
    weights = list(copy.deepcopy(metric).parameters())
    if weights:
        other = copy.deepcopy(metric)
        with torch.no_grad():
            next(other.parameters())[0] += 1
        assert other.fingerprint() != line


@each_metric
def test_explain_tells_what_the_score_is_made_of_or_that_there_is_no_more(row):
    metric = metric_of(row)
    image, reference = pair_of(row, count=2)
    if class_of(row).explanation is Metric.explanation:
        with pytest.raises(TypeError, match="nothing to explain"):
            metric.explain(image, reference)
        return
    found = metric.explain(image.clone().requires_grad_(), reference)
    assert all(part.isfinite().all() and not part.requires_grad for part in found)
    alone = metric.explain(image[:1], None if reference is None else reference[:1])
    for name, part in found._asdict().items():
        atol = 1e-4 * part.abs().max().item()
        torch.testing.assert_close(part[:1] if part.ndim else part, getattr(alone, name), rtol=1e-4, atol=atol)
    with pytest.raises(ValueError, match="got values from"):
        metric.explain(image * 255, reference)


@each_metric
def test_float64_works_and_nothing_needs_it(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    exact = copy.deepcopy(metric).double()(image.double(), None if reference is None else reference.double())
    assert exact.dtype == torch.float64
    with _NoFloat64():
        single = metric(image, reference)
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


class _NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim:
                assert tensor.dtype != torch.float64, f"{func} made a float64 tensor, which MPS has not"
        return result


@each_metric
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_keeps_the_score(row, dtype):
    metric = metric_of(row)
    image, reference = pair_of(row)
    expected = metric(image, reference)
    with torch.autocast("cpu", dtype):
        score = metric(image, reference)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, expected, rtol=row.amp_rtol, atol=row.near_zero)


@each_metric
def test_a_parent_in_half_precision_takes_its_metric_along(row):
    """`model.bfloat16()` moves the weights of a loss inside; scores and gradients go on, and come in float32."""
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    expected = metric(image, reference)
    parent = torch.nn.Module()
    if metric.differentiable:
        parent.loss = Loss(metric)
        parent.bfloat16()
        gradient = gradient_of(parent.loss, image.bfloat16(), reference)
        assert gradient.isfinite().all()
        assert gradient.any()
    score = metric.bfloat16()(image, reference)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, expected, rtol=5 * row.amp_rtol, atol=row.near_zero)


@each_metric
def test_half_precision_images_are_taken(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    image = image.to(torch.bfloat16)
    expected = metric(image.float(), reference)
    torch.testing.assert_close(metric(image, reference), expected, rtol=1e-5, atol=1e-6)


@each_metric
def test_no_global_state_is_touched(row):
    def state():
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            list(warnings.filters),
        )

    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    before = state()
    metric(image, reference)
    if metric.differentiable:
        gradient_of(Loss(metric), image, reference)
    assert state() == before


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "uint8": (lambda x: (x * 255).byte(), "torch.uint8", "divide by 255"),
    "int64": (lambda x: (x * 255).long(), "torch.int64", "convert it to float"),
    "0..255": (lambda x: x * 255, "got values from", "divide by 255"),
    "minus one to one": (lambda x: x * 2 - 1, "got values from", "x / 2 + 0.5"),
    "a little too far": (lambda x: x.clamp(max=0.9) + 0.2, "got values from", "clamp"),
    "NaN": (lambda x: torch.where(x > 0.5, math.nan, x), "nan", "find where"),
    "infinite": (lambda x: torch.where(x > 0.5, math.inf, x), "inf", "find where"),
    "no batch": (lambda x: x[0], "3 dimensions", "image[None]"),
    "gray": (lambda x: x[:, :1], "1 channels", "expand"),
    "alpha": (lambda x: torch.cat([x, x[:, :1]], 1), "4 channels", "alpha"),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), "channels", "permute(0, 3, 1, 2)"),
    "empty": (lambda x: x[:0], "empty batch", "leave empty batches out"),
    "numpy": (lambda x: x.numpy(), "ndarray", "read_image"),
    "None": (lambda x: None, "NoneType", "read_image"),
    "another device": (lambda x: x.to("meta"), "meta", ".to("),
}


# Inputs are checked in one place, before a metric sees them: one row without a network, one on a backbone, and one with
# dimensions stand for all.
@pytest.mark.parametrize(
    "row", [row_of(name) for name in ("psnr", "stlpips-alex", "mdiqa-lite")], ids=lambda row: row.name
)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_never_gives_a_number(row, case):
    spoil, came, mend = BAD[case]
    metric = metric_of(row)
    image, reference = pair_of(row)
    keeps_reference = reference is None or case in ("None", "another device")
    with pytest.raises((TypeError, ValueError)) as caught:
        metric(spoil(image), reference if keeps_reference else spoil(reference))
    message = str(caught.value)
    assert metric.name in message
    assert came in message
    assert mend in message


@each_metric
def test_images_that_do_not_fit_are_refused(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    if metric.min_size > 1:
        small = image[..., : metric.min_size - 1, :]
        with pytest.raises(ValueError, match=f"from {metric.min_size}x{metric.min_size} pixels up"):
            metric(small, small if metric.full_reference else None)
        least = image[..., : metric.min_size, : metric.min_size]
        assert metric(least, least if metric.full_reference else None).isfinite().all()
    if metric.full_reference:
        with pytest.raises(ValueError, match="one shape"):
            metric(image, reference[..., 1:])
        with pytest.raises(ValueError, match="got none"):
            metric(image)
    else:
        with pytest.raises(ValueError, match="needs no reference"):
            metric(image, image)


@each_loss
def test_a_loss_lets_the_image_stray_but_not_the_range(row):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row)
    assert loss(image * 1.0001, reference).isfinite()
    assert loss(image * 1.5 - 0.2, reference).isfinite()
    for bad in (image * 255, image * math.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            loss(bad, reference)
    if reference is not None:
        for bad in (reference * 255, reference * 2 - 1):
            with pytest.raises(ValueError, match=r"takes a reference in \[0, 1\]"):
                loss(image, bad)


# --- gradients --------------------------------------------------------------------------------------------------------


@each_refused
def test_a_loss_refuses_a_gradient_that_is_not_honest(row):
    with pytest.raises(ValueError, match="no honest gradient") as caught:
        Loss(metric_of(row))
    assert metric_of(row).no_gradient in str(caught.value)
    assert len(metric_of(row).no_gradient) > 20


@each_nearing
def test_the_loss_falls_towards_the_reference(row):
    metric = metric_of(row)
    loss = Loss(metric, weight=0.5)
    image, reference = pair_of(row)
    values = [loss(torch.lerp(reference, image, share), reference) for share in (1.0, 0.5, 0.2, 0.0)]
    assert all(value.shape == () for value in values)
    assert all(far > near for far, near in itertools.pairwise(values))
    if math.isfinite(metric.score_range[0 if metric.lower_is_better else 1]):
        assert abs(values[-1].item()) < 1e-4


@each_loss
def test_gradient_on_a_photograph_is_finite_and_moves_every_channel(row):
    gradient = gradient_of(Loss(metric_of(row)), *pair_of(row))
    assert gradient.isfinite().all()
    assert (gradient.abs().amax((0, 2, 3)) > 0).all()


@each_loss
def test_gradient_is_finite_where_training_passes_through(row):
    loss = Loss(metric_of(row))
    _, clean = pair_of(row)
    clean = pair_of(row)[0] if clean is None else clean
    black, white, flat = torch.zeros_like(clean), torch.ones_like(clean), torch.full_like(clean, 0.5)
    one_pixel = clean.clone()
    one_pixel[..., 20, 20] = 1 - one_pixel[..., 20, 20]
    half_black = torch.where(torch.arange(clean.shape[-1]) < clean.shape[-1] // 2, 0.0, clean)
    pairs = {
        "black, black": (black, black),
        "white, white": (white, white),
        "flat, flat": (flat, flat),
        "flat, another flat": (flat, 0.7 * white),
        "identical": (clean, clean),
        "one pixel": (one_pixel, clean),
        "black, photograph": (black, clean),
        "photograph, black": (clean, black),
        "white, photograph": (white, clean),
        "flat, photograph": (flat, clean),
        "half black": (half_black, clean),
        "half black, identical": (half_black, half_black),
        "inverted": (1 - clean, clean),
    }
    for name, (image, reference) in pairs.items():
        image = image.clone().requires_grad_()
        value = loss(image, reference if loss.metric.full_reference else None)
        (gradient,) = torch.autograd.grad(value, image)
        assert value.isfinite(), name
        assert gradient.isfinite().all(), name


@each_loss
def test_the_gradient_is_the_finite_difference(row):
    """Directional finite differences in float64: what autograd says is what a small step does."""
    loss = Loss(copy.deepcopy(metric_of(row)).double())
    image, reference = pair_of(row)
    image = 0.1 + 0.8 * image.double()
    reference = None if reference is None else 0.1 + 0.8 * reference.double()
    hold_detached(row, loss.metric, image)
    gradient = gradient_of(loss, image, reference)
    directions = [torch.randn(image.shape, generator=torch.Generator().manual_seed(i)).double() for i in range(2)]
    for direction in (*directions, gradient / gradient.norm()):
        step = 1e-7 / direction.abs().max()  # so short that hardly a ReLU or maximum changes sides
        ahead, behind = loss(image + step * direction, reference), loss(image - step * direction, reference)
        slope = (ahead - behind) / (2 * step)
        along = (gradient * direction).sum()
        torch.testing.assert_close(slope, along, rtol=1e-3, atol=1e-3 * gradient.norm().item())


@each_loss
def test_a_step_against_the_gradient_lowers_the_loss(row):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row)
    gradient = gradient_of(loss, image, reference)
    stepped = image - 1e-3 * gradient / gradient.abs().max()
    assert loss(stepped, reference) < loss(image, reference)


@each_paired
def test_gradients_flow_to_a_reference_that_asks_for_them(row):
    metric = metric_of(row)
    image, reference = pair_of(row)
    reference = reference.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(image, reference).sum(), reference)
    assert gradient.abs().sum() > 0


# --- the frozen metric ------------------------------------------------------------------------------------------------


class Restorer(nn.Module):
    """A trainer's model that holds its loss inside."""

    def __init__(self, loss):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.loss = loss

    def forward(self, image, reference):
        return self.loss(image + 0.1 * self.body(image), reference)


@each_loss
def test_the_metric_stays_frozen_in_a_parent(row):
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    model = Restorer(Loss(metric))
    print_before, score_before = metric.fingerprint(), metric(image, reference)
    assert not [key for key in model.state_dict() if key.startswith("loss")]
    assert len(list(model.parameters())) == 2
    model.train()
    model.requires_grad_(True)
    model.apply(lambda module: [nn.init.normal_(w, std=0.01) for w in module.parameters(recurse=False)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    first = None
    for _ in range(6):
        optimizer.zero_grad()
        value = model(image, reference)
        value.backward()
        optimizer.step()
        first = value.item() if first is None else first
    if row.detached:  # part of the derivative is left out of the gradient, so a step may raise the loss
        assert value.item() != first
    else:
        assert value.item() < first, "six steps train the body"
    assert metric.fingerprint() == print_before
    assert torch.equal(metric(image, reference), score_before)
    assert not any(module.training for module in metric.modules())
    assert not any(weight.requires_grad for weight in metric.parameters())


@each_loss
def test_a_loss_is_moved_copied_and_pickled_with_its_metric(row):
    image, reference = pair_of(row)
    model = Restorer(Loss(metric_of(row)))
    expected = model.loss(image, reference)
    assert torch.equal(pickle.loads(pickle.dumps(model)).loss(image, reference), expected)
    with io.BytesIO() as buffer:
        torch.save(model, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False).loss(image, reference), expected)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.loss(image, reference), expected)
    assert twin.loss.metric is not model.loss.metric
    twin.double()
    assert all(weight.dtype == torch.float64 for weight in twin.loss.metric.parameters())
    twin.to("meta")
    assert all(t.is_meta for t in (*twin.loss.metric.parameters(), *twin.loss.metric.buffers()))
    assert not any(t.is_meta for t in (*model.loss.metric.parameters(), *model.loss.metric.buffers()))


@pytest.fixture
def compile_anew():
    """`torch.compile` into one graph; what it holds is let go afterwards."""
    torch._dynamo.reset()
    yield lambda module, backend="aot_eager": torch.compile(module, fullgraph=True, backend=backend)
    torch._dynamo.reset()


# MDIQA is compiled in test_mdiqa.py.
@pytest.mark.parametrize("row", [row for row in TRAINABLE if row.name != "mdiqa"], ids=lambda row: row.name)
def test_compiles_as_one_graph(row, compile_anew):
    loss = Loss(metric_of(row))
    image, reference = pair_of(row)
    # Deriving a backward graph takes half a minute for each of these, and TOPIQ-FR is made of their blocks.
    backend = "eager" if row.name in ("ahiq", "maniqa", "topiq-nr", "topiq-iaa") else "aot_eager"
    compiled = compile_anew(loss, backend)
    torch.testing.assert_close(compiled(image, reference), loss(image, reference), rtol=1e-4, atol=1e-6)
    ours, plain = gradient_of(compiled, image, reference), gradient_of(loss, image, reference)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())
    with pytest.raises(RuntimeError, match=r"in \[0, 1\]"):
        compiled(image * 255, reference)


@pytest.mark.parametrize("name", ["psnr", "ssim-matlab", "ms-ssim-y-pyiqa", "stlpips-alex", "mdiqa-lite", "distance"])
def test_a_metric_compiles_as_one_graph(name, compile_anew):
    row = row_of("mdiqa-lite" if name == "distance" else name)
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    if name == "distance":
        metric, reference = DimensionDistance(metric), image.flip(3)
    compiled = compile_anew(metric)
    torch.testing.assert_close(compiled(image, reference), metric(image, reference), rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"in \[0, 1\]"):
        compiled(image * 255, reference)


@each_metric
def test_create_gives_a_frozen_metric_in_eval_mode(row):
    metric = metric_of(row)
    assert not metric.training
    assert not any(weight.requires_grad for weight in metric.parameters())


# --- encoded references -----------------------------------------------------------------------------------------------


@each_metric
def test_an_encoded_reference_stands_for_the_image_or_is_refused_with_a_reason(row):
    metric = metric_of(row)
    image, reference = pair_of(row, count=2)
    if not encodes(row):
        with pytest.raises(TypeError, match="nothing to encode"):
            metric.encode(image)
        return
    encoded = metric.encode(reference)
    assert not any(feature.requires_grad for feature in encoded.features)
    torch.testing.assert_close(metric(image, encoded), metric(image, reference))
    loss = Loss(metric)
    torch.testing.assert_close(gradient_of(loss, image, encoded), gradient_of(loss, image, reference))
    moved = encoded.to("cpu", torch.float32)
    torch.testing.assert_close(loss(image, moved), loss(image, reference))
    with pytest.raises(ValueError, match="of one shape"):
        metric(image[:1], encoded)
    with pytest.raises(ValueError, match="encode it with this metric"):
        metric(image, encoded._replace(metric="another"))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        metric.encode(reference * 255)


# --- named weighted terms ---------------------------------------------------------------------------------------------


def test_weighted_terms_add_up_and_can_be_weighed_between_steps():
    psnr, ssim = metric_of(row_of("psnr")), metric_of(row_of("psnr-y-full"))
    image, reference = photograph(64, 64) * 0.9, photograph(64, 64)
    loss = WeightedLoss({"psnr": (Loss(psnr), 1.0), "luma": (Loss(ssim), 0.5), "pixel": (nn.L1Loss(), 10.0)})
    with pytest.raises(RuntimeError, match="call it once"):
        loss.last_values()
    value = loss(image, reference)
    last = loss.last_values()
    assert list(last) == ["psnr", "luma", "pixel"]
    assert value.item() == pytest.approx(last["psnr"] + 0.5 * last["luma"] + 10 * last["pixel"])
    assert loss.set_weights(luma=0.0, pixel=1.0) is loss
    assert loss(image, reference).item() == pytest.approx(last["psnr"] + last["pixel"])
    assert not loss.state_dict()
    with pytest.raises(ValueError, match="psnr, luma, pixel"):
        loss.set_weights(lpips=1.0)
    with pytest.raises(ValueError, match="finite number"):
        loss.set_weights(psnr=math.nan)
    with pytest.raises(ValueError, match="at least one term"):
        WeightedLoss({})
    with pytest.raises(TypeError, match="loss module, weight"):
        WeightedLoss({"psnr": Loss(psnr)})


def test_weighing_between_forward_and_backward_does_not_disturb_the_graph():
    metric = metric_of(ROWS[0])
    loss = WeightedLoss({"psnr": (Loss(metric), 1.0)})
    image = (photograph(64, 64) * 0.9).requires_grad_()
    value = loss(image, photograph(64, 64))
    loss.set_weights(psnr=3.0)
    value.backward()
    assert image.grad.isfinite().all()


def test_weighing_remakes_no_compiled_graph():
    torch._dynamo.reset()
    loss = WeightedLoss({"psnr": (Loss(metric_of(ROWS[0])), 1.0)})
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    image, reference = photograph(64, 64) * 0.9, photograph(64, 64)
    one = compiled(image, reference)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for factor in (2.0, 3.0):
            loss.set_weights(psnr=factor)
            torch.testing.assert_close(compiled(image, reference), factor * one)


def test_weighted_terms_take_each_its_own_reference():
    metric = metric_of(ROWS[0])
    loss = WeightedLoss({"a": (Loss(metric), 1.0), "b": (nn.L1Loss(), 1.0)})
    image, reference = photograph(64, 64) * 0.9, photograph(64, 64)
    torch.testing.assert_close(loss(image, {"a": reference, "b": reference}), loss(image, reference))


def test_loss_refuses_what_is_no_metric_or_weight():
    with pytest.raises(TypeError, match="takes a Metric, got L1Loss"):
        Loss(nn.L1Loss())
    for bad in (math.nan, "1", None, True):
        with pytest.raises(ValueError, match="finite number"):
            Loss(metric_of(ROWS[0]), weight=bad)
