"""Blocks of an image as a Gaussian scale mixture (Wainwright, Simoncelli, NIPS 2000): one covariance, many energies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Side of a block.
BLOCK = 3
# The discrete cosine transform of three values, but for its scale.
COSINES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
# Least variance of a direction, as a part of the others: without it, vectors that lie in a plane would have no inverse.
# It takes 1e-5 of the score of a photograph.
RIDGE = 1e-6
# And for values in 0..255, where there is no variance at all.
LEAST = 1e-10


def cosine_blocks(maps: Tensor, stride: int = 1) -> Tensor:
    """Blocks of 3x3 values of maps (N, C, H, W), row by row, by their cosine transform: (N, C, 9, L).

    The transform is orthonormal, so that it changes neither energies nor eigenvalues. But it nearly decorrelates the
    values: of pixels, variances in different directions are up to 1e5 apart, and float32 would lose half its digits.

    Example:
        >>> cosine_blocks(torch.ones(1, 2, 6, 7), stride=3).shape
        torch.Size([1, 2, 9, 4])
    """
    cosines = F.normalize(torch.tensor(COSINES, dtype=maps.dtype, device=maps.device))
    blocks = F.unfold(maps.flatten(0, 1).unsqueeze(1), BLOCK, stride=stride)
    return (torch.kron(cosines, cosines) @ blocks).unflatten(0, maps.shape[:2])


def scale_mixture(vectors: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The energy `x^T C^-1 x / D` of each of the vectors x (..., D, L) and the eigenvalues of C, (..., L) and (..., D).

    C is the mean outer product of the samples (..., D, M), for values in 0..255.

    Example:
        >>> energies, values = scale_mixture(torch.full((2, 1), 6.0), torch.eye(2) * 2)
        >>> energies, values
        (tensor([18.0000]), tensor([2., 2.]))
    """
    covariance = samples @ samples.mT / samples.shape[-1]
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    scale = (variance + RIDGE * variance.sum(-1, keepdim=True) + LEAST).rsqrt().unsqueeze(-1)
    ridge = RIDGE * torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    vectors = scale * vectors
    energies = (torch.linalg.solve(scale * covariance * scale.mT + ridge, vectors) * vectors).mean(-2)
    return energies, torch.linalg.eigvalsh(covariance).relu()
