"""The features of NRQM and the perceptual index, and the forests that read them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.io import savemat

from mdiqa_metric.layers.regression_forest import QualityForests, RegressionForest
from mdiqa_metric.ops import upscaling_statistics
from mdiqa_metric.ops.steerable_pyramid import steerable_pyramid
from mdiqa_metric.ops.upscaling_statistics import band_features, frequency_features, normalized_band, singular_values
from mdiqa_metric.registry import create
from tests.golden import golden
from tests.rows import build, content, photograph


@pytest.mark.parametrize("size", [(64, 80), (63, 79)])
def test_the_bands_of_the_finest_scale_keep_the_energy_that_the_residual_lacks(size):
    image = photograph(*size)[:, :1].double()
    high, bands = steerable_pyramid(image, 2, 6)
    spectrum = torch.fft.fft2(image)
    parts = torch.fft.fft2(bands[0]).abs().square().sum(1) + torch.fft.fft2(high)[:, 0].abs().square()
    ratio = parts / spectrum[:, 0].abs().square()
    down, across = (torch.fft.fftfreq(side).abs() for side in size)
    octave_below = torch.hypot(down[:, None], across)
    between = (octave_below > 0.25) & (octave_below < 0.49)  # there the low-pass residual has nothing
    torch.testing.assert_close(ratio[0][between], torch.ones(int(between.sum())).double(), rtol=1e-9, atol=0)


def test_features_are_those_of_the_golden_implementation():
    data = content("nrqm")
    metric = build("nrqm", data)
    case = data["cases"][0]
    shape = [case["picture"][key] for key in ("seed", "height", "width")]
    found = metric.explain(torch.from_numpy(golden.picture(*shape))[None])
    for ours, name in ((found.frequency, "frequency"), (found.bands, "spatial"), (found.patches, "svd")):
        theirs = torch.tensor(case["extra"]["features"][name])
        torch.testing.assert_close(ours[0], theirs, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(found.predictions[0], torch.tensor(case["extra"]["forests"]), rtol=1e-5, atol=0)


def test_block_statistics_are_those_of_scipys_transform():
    blocks = photograph(35, 35)[0, 0].unfold(0, 7, 7).unfold(1, 7, 7).flatten(0, 1).double()
    ours = upscaling_statistics._block_statistics(blocks[None])[0]
    coefficients = np.abs(dctn(blocks.numpy(), axes=(1, 2), norm="ortho").reshape(len(blocks), 49)[:, 1:])
    expected = coefficients.std(1, ddof=1) / (coefficients.mean(1) + 1e-7)
    torch.testing.assert_close(ours[:, 1], torch.from_numpy(expected))


def test_blocks_that_are_flat_along_a_direction_have_exactly_nothing_there():
    stripes = torch.rand(7, generator=torch.Generator().manual_seed(0)).expand(1, 1, 7, 7)
    for blocks in (stripes, stripes.mT):
        exact = upscaling_statistics._block_statistics(blocks.double())
        torch.testing.assert_close(upscaling_statistics._block_statistics(blocks).double(), exact, rtol=1e-3, atol=1e-4)
    assert torch.equal(frequency_features(torch.zeros(1, 1, 30, 30)), torch.tensor([[10.0, 10, 0, 0, 0, 0]]))


def test_chunks_change_nothing():
    image = photograph(90, 100)[:, :1]
    torch.testing.assert_close(frequency_features(image, 40), frequency_features(image))


def test_singular_values_are_those_of_all_patches():
    image = photograph(52, 48)[:, :1]
    padded = np.pad(image[0, 0].numpy(), ((0, 3), (0, 2)))
    patches = padded.reshape(11, 5, 10, 5).transpose(0, 2, 1, 3).reshape(110, 25)
    expected = np.linalg.svd(patches, compute_uv=False)
    torch.testing.assert_close(singular_values(image)[0], torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_a_normalized_band_is_divided_by_its_neighborhoods_energy():
    _, (fine, _) = steerable_pyramid(photograph(40, 44)[:, :1].double(), 2, 6)
    ours = normalized_band(fine, 2, None, 3)[0, 0]
    own, height, width = fine[0, 2], 38, 42
    around = [own[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    around += [fine[0, other, 1:-1, 1:-1] for other in (0, 1, 3, 4, 5)]
    rows = torch.stack(around, -1).flatten(0, 1)
    inverse = torch.linalg.inv(rows.T @ rows / len(rows))
    center = own[1:-1, 1:-1] - own[1:-1, 1:-1].mean()
    ratio = (center / (((rows @ inverse) * rows).sum(1) / 9).sqrt().view(height, width))[3:-3, 3:-3]
    torch.testing.assert_close(ours, ratio - ratio.mean())


def test_features_are_finite_on_images_without_structure():
    stripes = (torch.arange(96) % 8 < 4).float().expand(1, 1, 96, 96)
    for luma in (torch.zeros(1, 1, 96, 96), torch.full((1, 1, 96, 96), 255.0), 255 * stripes):
        assert band_features(luma).isfinite().all()


def test_a_forest_walks_its_trees():
    """Two trees of one split and one tree that is a leaf, against a walk in Python."""
    tables = {
        "left": [[1, 1, 0], [0, 0, 0], [0, 0, 0]],
        "right": [[2, 2, 0], [0, 0, 0], [0, 0, 0]],
        "feature": [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
        "threshold": [[0.5, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        "value": [[9.0, 9.0, 3.0], [1.0, 4.0, 9.0], [2.0, 8.0, 9.0]],
    }
    forest = RegressionForest()
    features = torch.tensor([[0.5, 3.0], [0.6, 2.0]])
    assert torch.equal(forest(features), torch.zeros(2))
    forest.load_state_dict({name: torch.tensor(table) for name, table in tables.items()})
    torch.testing.assert_close(forest(features), torch.tensor([(1 + 8 + 3) / 3, (2 + 4 + 3) / 3]))


def test_the_authors_struct_is_read_from_a_mat_file(tmp_path):
    data = content("nrqm")
    fields = ("lDau", "rDau", "nodestatus", "nrnodes", "upper", "avnode", "mbest")
    forests = np.empty((1, 3), object)
    for index, forest in enumerate(data["forests"]):
        # The authors' integers are unsigned, so that 0 - 1 would wrap.
        kinds = {"lDau": np.uint32, "rDau": np.uint32, "mbest": np.uint32}
        forests[0, index] = {name: np.array(forest.get(name, [[0]]), kinds.get(name)) for name in fields}
    savemat(tmp_path / "NRQM_model.mat", {"model": {"linear": np.array(data["linear"]), "rf": forests}})
    metric = create("nrqm", weights=tmp_path / "NRQM_model.mat")
    expected = build("nrqm", data).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in metric.state_dict().items())
    assert metric.state_dict().keys() == expected.keys()


def test_qualities_are_weighted_sums_of_predictions():
    forests = QualityForests(2)
    with torch.no_grad():
        forests.weight.copy_(torch.tensor([0.5, 2.0, 3.0]))
    assert torch.equal(forests([torch.zeros(1, 4), torch.zeros(1, 2)]), torch.tensor([0.5]))
    assert math.isfinite(create("nrqm", weights=None)(photograph(96, 96)).item())


def test_the_perceptual_index_is_made_of_the_parts_that_the_golden_file_records():
    data = content("pi")
    metric = build("pi", data)
    for case in data["cases"]:
        shape = [case["picture"][key] for key in ("seed", "height", "width")]
        found = metric.explain(torch.from_numpy(golden.picture(*shape))[None])
        assert found.nrqm.item() == pytest.approx(case["extra"]["nrqm"], rel=1e-5)
        assert found.niqe.item() == pytest.approx(case["extra"]["niqe"], rel=1e-5)
