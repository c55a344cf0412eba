"""What every metric and loss keeps on a GPU too: over the table of rows, where there is one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdiqa_metric import Loss, WeightedLoss, create
from tests.rows import ROWS, encodes, metric_of, pair_of, row_of

if not torch.cuda.is_available():
    pytest.skip("This machine has no CUDA device.", allow_module_level=True)

each_metric = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
each_loss = pytest.mark.parametrize("row", [row for row in ROWS if row.trainable], ids=lambda row: row.name)
paired = [row for row in ROWS if row.trainable and row.name.startswith(("ssim", "lpips-alex", "dists", "topiq-fr"))]

# Attention has second derivatives on its plain path alone.
convolutional = [row for row in paired if not row.name.startswith("topiq")]


@pytest.fixture(autouse=True)
def whole_floats():
    """Convolutions and matrix products in float32, not in TF32's ten bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def on_gpu(row):
    image, reference = pair_of(row)
    metric = copy.deepcopy(metric_of(row)).cuda()
    return metric, image.cuda(), None if reference is None else reference.cuda()


def gradient_of(loss, image, reference):
    image = image.clone().requires_grad_()
    return torch.autograd.grad(loss(image, reference), image)[0]


def cosine(one, other):
    return F.cosine_similarity(one.double().flatten().cpu(), other.double().flatten().cpu(), 0).item()


@each_metric
def test_scores_are_the_cpus(row):
    metric, image, reference = on_gpu(row)
    expected = metric_of(row)(*pair_of(row))
    torch.testing.assert_close(metric(image, reference).cpu(), expected, rtol=2e-4, atol=1e-5)
    last = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(metric(last, reference).cpu(), expected, rtol=2e-4, atol=1e-5)


@each_metric
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_keeps_the_score(row, dtype):
    metric, image, reference = on_gpu(row)
    expected = metric(image, reference)
    with torch.autocast("cuda", dtype):
        score = metric(image, reference)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, expected, rtol=1.5 * row.amp_rtol, atol=max(row.near_zero, 1e-5))


@each_loss
def test_gradients_are_the_cpus_and_finite_far_outside(row):
    metric, image, reference = on_gpu(row)
    loss = Loss(metric)
    expected = gradient_of(Loss(metric_of(row)), *pair_of(row))
    assert cosine(gradient_of(loss, image, reference), expected) > 0.999
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(3)).cuda()
    stray = 7 * noise - 3
    gradient = gradient_of(loss, stray, reference)
    assert gradient.isfinite().all()
    assert (gradient[stray > 1] > 0).all()
    assert (gradient[stray < 0] < 0).all()
    assert loss(stray, reference) > loss(stray.clamp(0, 1), reference)
    with torch.autocast("cuda", torch.bfloat16):
        assert gradient_of(loss, stray, reference).isfinite().all()


@each_loss
def test_a_step_between_range_checks_waits_for_nothing(row):
    metric, image, reference = on_gpu(row)
    loss = Loss(metric)
    for _ in range(2):
        gradient_of(loss, image, reference)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradient_of(loss, image, reference)  # the third call; 1, 2, 4, 8... check
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        loss(image * 255, reference)


@each_loss
def test_a_whole_model_goes_into_half_precision_with_its_loss(row):
    metric, image, reference = on_gpu(row)
    expected = metric(image, reference)
    parent = nn.ModuleList([Loss(metric)]).bfloat16()
    assert gradient_of(parent[0], image.bfloat16(), reference).isfinite().all()
    torch.testing.assert_close(metric(image, reference), expected, rtol=5 * row.amp_rtol, atol=max(row.near_zero, 1e-5))


@pytest.mark.parametrize("row", convolutional, ids=lambda row: row.name)
def test_second_derivatives_are_the_cpus(row):
    products = []
    for metric, image, reference in (on_gpu(row), (copy.deepcopy(metric_of(row)), *pair_of(row))):
        loss = Loss(metric.double())
        image, reference = (0.1 + 0.8 * image.double()).requires_grad_(), reference.double()
        direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        (first,) = torch.autograd.grad(loss(image, reference), image, create_graph=True)
        products.append(torch.autograd.grad((first * direction.to(first.device)).sum(), image)[0])
    assert cosine(*products) > 0.999


@pytest.mark.parametrize("row", paired, ids=lambda row: row.name)
def test_an_encoded_reference_moves_to_the_gpu(row):
    metric, image, reference = on_gpu(row)
    if not encodes(row):
        return
    expected = metric(image, reference)
    for encoded in (metric.encode(reference), metric_of(row).encode(reference.cpu()).to("cuda")):
        torch.testing.assert_close(metric(image, encoded), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["psnr", "ssim-rgb", "ms-ssim-rgb", "stlpips-alex", "mdiqa-lite", "mdiqa-lite-mean"])
def test_compiles_by_inductor_as_one_graph(name):
    torch._dynamo.reset()
    metric, image, reference = on_gpu(row_of(name))
    loss = Loss(metric)
    compiled = torch.compile(loss, fullgraph=True)
    torch.testing.assert_close(compiled(image, reference), loss(image, reference), rtol=1e-3, atol=1e-5)
    assert cosine(gradient_of(compiled, image, reference), gradient_of(loss, image, reference)) > 0.999


def test_models_are_built_on_other_devices():
    image = torch.rand(1, 3, 72, 72, device="cuda")
    expected = Loss(create("mdiqa-lite").cuda())(image)
    for device in ("meta", "cuda"):
        with torch.device(device):
            model = nn.Module()
            model.body = nn.Conv2d(3, 3, 1)
            model.loss = WeightedLoss({"lite": (Loss(create("mdiqa-lite")), 0.3)})
        model.to_empty(device="cuda")
        torch.testing.assert_close(model.loss(image), 0.3 * expected)
        model.loss.set_weights(lite=0.6)
        torch.testing.assert_close(model.loss(image), 0.6 * expected)


def test_devices_that_differ_are_told():
    metric = create("stlpips-alex").cuda()
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r'is on cuda:0, got an image on cpu: move one, as in metric\.to\("cpu"\)'):
        metric(image, image)
