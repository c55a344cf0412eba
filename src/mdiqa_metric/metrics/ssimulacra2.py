"""SSIMULACRA 2: structural similarity, ringing and blur at six scales of a perceptual color space."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metric import Metric
from ..ops.color import srgb_to_linear
from ..ops.filters import filter_separable
from ..ops.powers import power
from ..ops.precision import full_precision

# JPEG XL's opsin matrix, from linear RGB to the responses of the eye's cones, and what is added to them.
OPSIN = (
    (0.30, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
BIAS = 0.0037930732552754493
# Half of libjxl's blur, sigma 1.5, from the middle outwards: its recursive filter written out.
TAPS = (0.2646211054881986, 0.21292859201042227, 0.10933537277746035, 0.03601111465836439, 0.009414367809653733)
C2 = 0.0009
SCALES = 6
# Added to the weighted error's polynomial and power: score = 100 - 10 (a e + b e^2 + c e^3)^d with e in these units.
UNIT, POLYNOMIAL, EXPONENT = (
    0.9562382616834844,
    (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05),
    0.6276336467831387,
)
# Of each channel (X, Y, B) and scale, finest first: similarity, ringing and blur, by mean and then by 4-norm.
WEIGHTS = (
    0.0,
    0.0007376606707406586,
    0.0,
    0.0,
    0.0007793481682867309,
    0.0,
    0.0,
    0.0004371155730107379,
    0.0,
    1.1041726426657346,
    0.00066284834129271,
    0.00015231632783718752,
    0.0,
    0.0016406437456599754,
    0.0,
    1.8422455520539298,
    11.441172603757666,
    0.0,
    0.0007989109436015163,
    0.000176816438078653,
    0.0,
    1.8787594979546387,
    10.94906990605142,
    0.0,
    0.0007289346991508072,
    0.9677937080626833,
    0.0,
    0.00014003424285435884,
    0.9981766977854967,
    0.00031949755934435053,
    0.0004550992113792063,
    0.0,
    0.0,
    0.0013648766163243398,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    7.466890328078848,
    0.0,
    17.445833984131262,
    0.0006235601634041466,
    0.0,
    0.0,
    6.683678146179332,
    0.00037724407979611296,
    1.027889937768264,
    225.20515300849274,
    0.0,
    0.0,
    19.213238186143016,
    0.0011401524586618361,
    0.001237755635509985,
    176.39317598450694,
    0.0,
    0.0,
    24.43300999870476,
    0.28520802612117757,
    0.0004485436923833408,
    0.0,
    0.0,
    0.0,
    34.77906344483772,
    44.835625328877896,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0008680556573291698,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0005313191874358747,
    0.0,
    0.00016533814161379112,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0004179171803251336,
    0.0017290828234722833,
    0.0,
    0.0020827005846636437,
    0.0,
    0.0,
    8.826982764996862,
    23.19243343998926,
    0.0,
    95.1080498811086,
    0.9863978034400682,
    0.9834382792465353,
    0.0012286405048278493,
    171.2667255897307,
    0.9807858872435379,
    0.0,
    0.0,
    0.0,
    0.0005130064588990679,
    0.0,
    0.00010854057858411537,
)


class SSIMULACRA2(Metric):
    """Sneyers's SSIMULACRA 2 (libjxl, version 2.1): 100 for equal images, about 90 if no difference is seen.

    `100 - 10 p(e)^0.6276` with a cubic p of the weighted sum e of 108 errors: of three channels (JPEG XL's XYB), at six
    scales, by mean and 4-norm, `1 - similarity`, edges that the image has beyond the reference (ringing), and edges of
    the reference that it lacks (blur). So exchanging image and reference changes the score. Unbounded below. Scales are
    halved in linear light; images under 256 pixels have fewer, to which libjxl gives the weights of others.

    libjxl blurs by a recursion in float32, whose drift moves its own scores by 0.1 to 0.25; here the filter is exact.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 32)
        >>> SSIMULACRA2()(image, image)
        tensor([100.])
    """

    full_reference = True
    lower_is_better = False
    score_range = (-math.inf, 100.0)
    min_size = 8
    color = "XYB of linear RGB"

    def score(self, image: Tensor, reference: Tensor) -> Tensor:
        """Scores (N,), at most 100."""
        return _score(image, reference)


@full_precision
def _score(image: Tensor, reference: Tensor) -> Tensor:
    x, y = srgb_to_linear(image), srgb_to_linear(reference)
    scales = [_errors(_positive_xyb(x), _positive_xyb(y))]
    while len(scales) < SCALES and min(x.shape[-2:]) >= 8:
        x, y = _halve(x), _halve(y)
        scales.append(_errors(_positive_xyb(x), _positive_xyb(y)))
    errors = torch.stack(scales, 2).flatten(1)  # by channel, then by scale
    weights = torch.tensor(WEIGHTS, dtype=errors.dtype, device=errors.device)[: errors.shape[1]]
    error = UNIT * (errors * weights).sum(1)
    a, b, c = POLYNOMIAL
    return 100 - 10 * power((((c * error + b) * error + a) * error).relu(), EXPONENT)


def _positive_xyb(linear: Tensor) -> Tensor:
    """JPEG XL's XYB (N, 3, H, W) of linear RGB, each channel brought to about [0, 1]."""
    matrix = torch.tensor(OPSIN, dtype=linear.dtype, device=linear.device)
    cones = (torch.einsum("ij,njhw->nihw", matrix, linear) + BIAS) ** (1 / 3) - BIAS ** (1 / 3)
    long, middle, short = cones.split(1, 1)
    luma = (long + middle) / 2
    return torch.cat([7 * (long - middle) + 0.42, luma + 0.01, short - luma + 0.55], 1)


def _halve(image: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; an odd last row or column is repeated."""
    odd = [size % 2 for size in image.shape[-2:]]
    return F.avg_pool2d(F.pad(image, (0, odd[1], 0, odd[0]), mode="replicate"), 2)


def _errors(image: Tensor, reference: Tensor) -> Tensor:
    """Mean and 4-norm of each channel's three error maps: (N, C, 6)."""
    pair = [image, reference, image.square() + reference.square(), (image - reference).square()]
    taps = torch.tensor(TAPS[:0:-1] + TAPS, dtype=image.dtype, device=image.device)
    mean, reference_mean, squares, difference = filter_separable(torch.cat(pair, 1), taps, len(TAPS) - 1).chunk(4, 1)
    shift = (mean - reference_mean).square()
    # One minus (1 - shift) (1 - q), with q the difference's variance over both: equal images give exactly 0.
    quotient = (difference - shift) / (squares - mean.square() - reference_mean.square() + C2)
    dissimilarity = (shift + quotient - shift * quotient).relu()
    edge = (reference - reference_mean).abs()
    gain = ((image - mean).abs() - edge) / (1 + edge)
    maps = torch.stack([dissimilarity, gain.relu(), (-gain).relu()], 2).flatten(3)
    return torch.stack([maps.mean(3), power(maps.square().square().mean(3), 0.25)], 2).flatten(2)
