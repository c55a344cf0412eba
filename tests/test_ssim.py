"""PSNR, SSIM and MS-SSIM: where other libraries' numbers go wrong, ours are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mdiqa_metric import Loss, create
from mdiqa_metric.ops.color import luma_full
from mdiqa_metric.ops.filters import downsample_mean, filter_separable, gaussian_window
from mdiqa_metric.ops.precision import full_precision
from mdiqa_metric.ops.ssim import ssim_maps
from tests.rows import photograph

MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def noisy(clean, deviation=0.05, seed=0):
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return (clean + deviation * noise).clamp(0, 1)


def checkerboard(height, width):
    return (torch.arange(height)[:, None] + torch.arange(width)).remainder(2).float().expand(1, 3, -1, -1)


# The formula, once more and plainly: numpy, float64, values in 0..255 ------------------------------------------------


def plain_maps(image, reference):
    from scipy.ndimage import correlate1d

    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def smooth(plane):
        return correlate1d(correlate1d(plane, taps, 0), taps, 1)[5:-5, 5:-5]

    mean_x, mean_y = smooth(image), smooth(reference)
    var_x, var_y = smooth(image**2) - mean_x**2, smooth(reference**2) - mean_y**2
    covariance = smooth(image * reference) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 2.55**2) / (mean_x**2 + mean_y**2 + 2.55**2)
    return luminance, (2 * covariance + 7.65**2) / (var_x + var_y + 7.65**2)


def plain_downsample(plane, factor):
    """MATLAB's imfilter with an average and mirrored borders, then every factor-th pixel from the first."""
    before = (factor - 1) // 2
    padded = np.pad(plane, ((before, factor), (before, factor)), mode="symmetric")
    height, width = plane.shape
    shifted = [padded[i : i + height, j : j + width] for i in range(factor) for j in range(factor)]
    return np.mean(shifted, 0)[::factor, ::factor]


def plain_ms_ssim(image, reference):
    means = []
    for scale in range(5):
        if scale:
            image, reference = plain_downsample(image, 2), plain_downsample(reference, 2)
        luminance, similarity = plain_maps(image, reference)
        means.append((luminance * similarity if scale == 4 else similarity).mean())
    return means


def planes(image, weights=(0.299, 0.587, 0.114)):
    return np.einsum("c,chw->hw", weights, image[0].double().numpy() * 255)


# The numbers ---------------------------------------------------------------------------------------------------------


def test_ssim_is_scikit_images():
    from skimage.metrics import structural_similarity

    clean = photograph(97, 131)
    image = noisy(clean)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    rgb = structural_similarity(clean[0].double().numpy(), image[0].double().numpy(), channel_axis=0, **options)
    y = structural_similarity(planes(clean) / 255, planes(image) / 255, **options)
    assert create("ssim-rgb")(image, clean).item() == pytest.approx(rgb, abs=1e-6)
    assert create("ssim-y-full")(image, clean).item() == pytest.approx(y, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(384, 401), (403, 640), (641, 645)])
def test_downsampled_ssim_is_the_authors(height, width):
    """Factors of 2 and 3, of even and odd sizes; 640 / 256 is 2.5, which MATLAB rounds up and Python to 2."""
    clean = photograph(256, 256).tile(1, 1, 3, 3)[..., :height, :width]
    image = noisy(clean, 0.1)
    factor = math.floor(min(height, width) / 256 + 0.5)
    luminance, similarity = plain_maps(*(plain_downsample(planes(photo), factor) for photo in (image, clean)))
    ours = create("ssim-y-full-downsample")(image, clean).item()
    assert ours == pytest.approx((luminance * similarity).mean(), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(161, 178), (176, 192), (197, 203)])
def test_ms_ssim_is_the_authors_at_odd_sizes_too(height, width):
    clean = photograph(height, width)
    image = noisy(clean, 0.1)
    means = plain_ms_ssim(planes(image), planes(clean))
    product = np.prod([mean**weight for mean, weight in zip(means, MS_WEIGHTS, strict=True)])
    assert create("ms-ssim")(image, clean).item() == pytest.approx(product, abs=1e-5)

    matlab = (0.298936021293775, 0.587043074451121, 0.114020904255103)
    image = (image * 255).round() / 255
    means = plain_ms_ssim(np.round(planes(image, matlab)), np.round(planes(clean, matlab)))
    weighted = np.average(means, weights=MS_WEIGHTS)
    assert create("ms-ssim-matlab")(image, clean).item() == pytest.approx(weighted, abs=1e-5)


def test_super_resolution_crops_the_border_and_scores_studio_range():
    clean = photograph(72, 88)
    image = noisy(clean)
    cropped = [photo[..., 4:-4, 4:-4].contiguous() for photo in (image, clean)]
    for name in ("psnr-y-studio", "ssim-y-studio"):
        assert torch.equal(create(name, border=4)(image, clean), create(name)(*cropped))
    gap = create("psnr-y-studio")(image, clean) - create("psnr-y-full")(image, clean)
    assert gap.item() == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)  # 1.32 dB
    assert "studio" in create("ssim-y-studio").fingerprint()


# What compares three equal channels as they are.
ON_RGB = {"psnr": "psnr", "ssim": "ssim-rgb"}


def gray_pair(height=72, width=88):
    clean = luma_full(photograph(height, width)).expand(-1, 3, -1, -1).contiguous()
    return noisy(clean[:, :1]).expand(-1, 3, -1, -1).contiguous(), clean


def test_a_gray_pair_is_compared_by_its_one_channel_where_that_is_asked_for():
    image, clean = gray_pair()
    x, y = (photo[0, 0, 4:-4, 4:-4].double().numpy() * 255 for photo in (image, clean))
    luminance, similarity = plain_maps(x, y)
    plain = {
        "psnr-y-studio": 10 * math.log10(255**2 / np.square(x - y).mean()),
        "ssim-y-studio": (luminance * similarity).mean(),
    }
    for name, expected in plain.items():
        metric = create(f"{name}:border=4,gray_as_is=true")
        assert metric(image, clean).item() == pytest.approx(expected, abs=1e-4 if "psnr" in name else 1e-6)
        assert "a gray pair by its one channel" in metric.fingerprint()
    gap = create("psnr-y-studio", border=4)(image, clean).item() - plain["psnr-y-studio"]
    assert gap == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)  # 1.32 dB


@pytest.mark.parametrize("name", ["psnr-y-studio", "psnr-y-full", "psnr", "ssim-y-studio", "ssim-rgb"])
def test_only_pairs_that_are_gray_on_both_sides_are_compared_so(name):
    gray, gray_clean = gray_pair()
    clean = photograph(72, 88)
    image = noisy(clean)
    nearly = gray.clone()
    nearly[0, 2, 0, 0] += 1e-3  # one channel of one pixel
    metric, usual = create(name, gray_as_is=True), create(name)
    images, references = (
        torch.cat([gray, image, gray, image, nearly]),
        torch.cat([gray_clean, clean, clean, gray, gray_clean]),
    )
    mixed = metric(images, references)
    torch.testing.assert_close(mixed[1:], usual(images, references)[1:])
    torch.testing.assert_close(mixed[:1], metric(gray, gray_clean))
    torch.testing.assert_close(mixed[:1], create(ON_RGB[name.partition("-")[0]])(gray, gray_clean))


@pytest.mark.parametrize("name", ["psnr-y-studio", "ssim-y-studio"])
def test_the_gradient_of_a_gray_pair_is_that_of_its_channel(name):
    gray, gray_clean = gray_pair()
    clean = photograph(72, 88)
    color = noisy(clean).requires_grad_()
    channel = gray[:, :1].clone().requires_grad_()
    pair = torch.cat([channel.expand(-1, 3, -1, -1), color]), torch.cat([gray_clean, clean])
    gradients = torch.autograd.grad(create(name, gray_as_is=True)(*pair).sum(), (channel, color))
    plain = create(ON_RGB[name.partition("-")[0]])(channel.expand(-1, 3, -1, -1), gray_clean)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(plain.sum(), channel)[0])
    torch.testing.assert_close(gradients[1], torch.autograd.grad(create(name)(color, clean).sum(), color)[0])
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_psnr_is_per_image():
    """Peers that pool the squared error of a batch give 24.6 dB where the mean of 21.6 and 46.0 dB is 33.8."""
    clean = photograph(72, 88).repeat(2, 1, 1, 1)
    image = torch.cat([noisy(clean[:1], 0.1), noisy(clean[:1], 0.005)])
    metric = create("psnr")
    apart = torch.cat([metric(image[:1], clean[:1]), metric(image[1:], clean[1:])])
    torch.testing.assert_close(metric(image, clean), apart, rtol=0, atol=1e-5)
    pooled = -10 * (image - clean).square().mean().log10()
    assert metric(image, clean).mean() > pooled + 5


@pytest.mark.parametrize("name", ["ssim-y-full", "ssim-rgb", "ssim-matlab", "ms-ssim-y-full", "ms-ssim-rgb"])
def test_equal_images_score_one_and_others_less(name):
    metric = create(name)
    clean = torch.cat([photograph(192, 200), torch.ones(1, 3, 192, 200), torch.zeros(1, 3, 192, 200)])
    assert metric(clean, clean.clone()).tolist() == [1, 1, 1]
    one_step = (clean * 255 + 1).clamp(max=255) / 255
    assert (metric(one_step, clean) <= 1).all()
    assert create("psnr")(clean, clean.clone()).tolist() == pytest.approx([80, 80, 80])


def test_opposed_structure_is_negative_and_dead_in_pyiqas_convention_alone():
    clean = checkerboard(64, 64)
    assert create("ssim-rgb")(1 - clean, clean).item() < -0.99
    assert create("ssim-rgb-pyiqa")(1 - clean, clean).item() == 0


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["psnr", "ssim-rgb", "ssim-y-full", "ms-ssim-y-full"])
def test_autocast_moves_neither_score_nor_gradient(name, dtype):
    """Peers fall from .971 to .637 on this pair: noise of two gray levels."""
    clean = photograph(192, 192)
    image = noisy(clean, 2 / 255).requires_grad_()
    metric = create(name)
    score = metric(image, clean)
    (gradient,) = torch.autograd.grad(score.sum(), image)
    with torch.autocast("cpu", dtype=dtype):
        cast_score = metric(image, clean)
        (cast_gradient,) = torch.autograd.grad(cast_score.sum(), image)
    assert cast_score.dtype == torch.float32
    assert torch.equal(cast_score, score)
    assert torch.equal(cast_gradient, gradient)


@pytest.mark.parametrize("name", ["ssim-rgb", "ms-ssim-rgb"])
@pytest.mark.parametrize("base", [0.0, 0.02, 0.98])
def test_float32_has_the_digits_of_float64_on_faint_texture(name, base):
    """On bright, nearly flat images E[x^2] - E[x]^2 of uncenterd float32 values is noise."""
    texture = photograph(181, 197) * 0.02
    clean = base * (1 - texture) + texture
    image = noisy(clean, 0.003)
    results = []
    for dtype in (torch.float32, torch.float64):
        x = image.to(dtype).requires_grad_()
        score = create(name)(x, clean.to(dtype))
        results.append((score.detach().double(), torch.autograd.grad(score.sum(), x)[0].double()))
    (score, gradient), (exact_score, exact_gradient) = results
    torch.testing.assert_close(score, exact_score, rtol=0, atol=2e-6)
    assert (gradient - exact_gradient).norm() < 1e-4 * exact_gradient.norm()


def test_full_precision_raises_halves_and_leaves_the_rest():
    @full_precision
    def product(x, y, *, factor):
        return factor * (x @ y)

    x = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    exact = 2 * (x @ x)
    half = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        assert torch.equal(product(x, x, factor=2), exact)
        assert product(x.double(), x.double(), factor=2).dtype == torch.float64
        score = product(half, x, factor=2)
    score.sum().backward()
    assert score.dtype == torch.float32
    assert half.grad.dtype == torch.bfloat16


# Gradients and memory ------------------------------------------------------------------------------------------------


def test_the_cores_gradient_is_its_finite_difference():
    """The gradient is written by hand: each way through it is compared with finite differences."""
    generator = torch.Generator().manual_seed(0)
    pair = [torch.rand(2, 2, 14, 13, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(ssim_maps, pair)
    for index in range(2):
        one = [x if position == index else x.detach() for position, x in enumerate(pair)]
        assert torch.autograd.gradcheck(lambda *xs: ssim_maps(*xs)[0], one)
        assert torch.autograd.gradcheck(lambda *xs: ssim_maps(*xs)[1], one)


@pytest.mark.parametrize("name", ["ms-ssim-y-full", "ms-ssim-rgb", "ms-ssim-y-pyiqa"])
def test_ms_ssim_is_finite_where_a_scale_is_opposed(name):
    """A fractional power of a scale's mean has no finite gradient at 0 and no value below."""
    clean = photograph(181, 197)
    image = torch.cat([1 - clean, 1 - checkerboard(181, 197)]).requires_grad_()
    score = create(name)(image, torch.cat([clean, checkerboard(181, 197)]))
    (gradient,) = torch.autograd.grad(score.sum(), image)
    assert score.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["ssim-rgb", "ms-ssim-rgb"])
def test_the_graph_keeps_less_than_nine_images(name):
    """piq's keeps 12 for SSIM and 17 for MS-SSIM."""
    clean = photograph(192, 200)
    image = noisy(clean).requires_grad_()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        create(name).score(image, clean)
    assert sum(kept.values()) < 9 * image.nbytes


@pytest.mark.parametrize("name", ["ssim-matlab", "ssim-y-pyiqa", "ssim-rgb-pyiqa", "ms-ssim-matlab", "ms-ssim-y-pyiqa"])
def test_a_loss_of_a_rounded_metric_is_refused(name):
    metric = create(name)
    assert not metric.differentiable
    with pytest.raises(ValueError, match=r"no honest gradient.*rounds to 8 bits; use (ms-)?ssim-y-full"):
        Loss(metric)


# What is refused -----------------------------------------------------------------------------------------------------


def test_sizes_that_do_not_fit_are_refused_and_the_smallest_are_not():
    for name, options, smallest in (("ssim", {}, 11), ("ssim-y-studio", {"border": 4}, 19), ("ms-ssim", {}, 161)):
        metric = create(name, **options)
        assert metric.min_size == smallest
        assert metric(*[torch.rand(1, 3, smallest, smallest + 1)] * 2).item() == 1
        with pytest.raises(ValueError, match=f"from {smallest}x{smallest} pixels"):
            metric(*[torch.rand(1, 3, smallest - 1, 300)] * 2)


def test_integers_are_refused():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"got torch.uint8: divide by 255"):
        create("ssim")(image, image)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssim", {"channel": "yuv"}, "channel 'rgb', 'y-full', 'y-studio', 'gray', got 'yuv'"),
        ("ssim", {"convention": "piq"}, "convention 'paper' or 'pyiqa', got 'piq'"),
        ("ssim", {"border": -1}, "border of 0 pixels or more, got -1"),
        ("ms-ssim", {"channel": "y"}, "channel 'rgb', 'y-full', 'y-studio', 'gray', got 'y'"),
        ("ms-ssim", {"convention": "sum"}, "convention 'paper', 'weighted-sum' or 'pyiqa', got 'sum'"),
    ],
)
def test_unknown_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


# The filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(("height", "width"), [(12, 13), (17, 30)])
def test_downsampling_is_matlabs(factor, height, width):
    plane = torch.rand(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(factor))
    ours = downsample_mean(plane[None, None], factor)
    torch.testing.assert_close(ours[0, 0], torch.from_numpy(plain_downsample(plane.numpy(), factor)))


def test_a_padded_filter_is_the_adjoint_of_the_valid_one():
    generator = torch.Generator().manual_seed(0)
    maps, spread = torch.rand(2, 3, 20, 15, generator=generator), torch.rand(2, 3, 10, 5, generator=generator)
    taps = gaussian_window(11, 1.5, maps)
    assert taps.sum().item() == pytest.approx(1)
    there = (filter_separable(maps, taps) * spread).sum()
    torch.testing.assert_close(there, (maps * filter_separable(spread, taps, padding=10)).sum())


def test_luma_keeps_gray_levels():
    gray = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8)
    torch.testing.assert_close(luma_full(gray), gray[:, :1])
