"""What `explain` tells, held to what the golden files record beside the scores."""

from __future__ import annotations

import pytest
import torch

from mdiqa_metric import create
from tests.golden import golden
from tests.rows import build, content, photograph


def cases(stem):
    """Each case of a golden file: the image, the reference, and what is recorded beside the score."""
    for case in content(stem)["cases"]:
        shape = [case["picture"][key] for key in ("seed", "height", "width")]
        pair = (torch.from_numpy(draw(*shape))[None] for draw in (golden.degraded, golden.picture))
        if "extra" in case:
            yield *pair, case["extra"]


def test_adm_tells_scales_additive_impairment_and_adm3():
    plain, never_enhanced = create("adm-vmaf"), create("adm-vmaf", gain=1)
    for image, reference, extra in cases("adm"):
        found = plain.explain(image, reference)
        # One luma in a thousand lies halfway between two 8-bit values, and which one it gets is rounding noise.
        torch.testing.assert_close(found.scales[0], torch.tensor(extra["scales"]), rtol=0, atol=5e-4)
        assert found.aim.item() == pytest.approx(extra["aim"], abs=1e-4)
        assert found.adm3.item() == pytest.approx(extra["adm3"], abs=1e-4)
        score = never_enhanced(image, reference).item()
        assert score == pytest.approx(extra["no_enhancement_gain"]["adm2"], abs=1e-4)
    assert create("adm", gain=1).score_range == (0, 1)


def test_adm_pays_for_contrast_only_up_to_the_gain():
    reference = photograph(96, 96) * 0.5 + 0.25
    stronger = ((reference - 0.5) * 1.4 + 0.5).clamp(0, 1)
    assert create("adm")(stronger, reference) > 1.2
    assert create("adm", gain=1)(stronger, reference) < 1
    with pytest.raises(ValueError, match="a gain of 1 or more, got 0"):
        create("adm", gain=0)


def test_flip_at_another_distance():
    metric = create("flip", ppd=30)
    for image, reference, extra in cases("flip"):
        if "ppd_30" in extra:
            assert metric(image, reference).item() == pytest.approx(extra["ppd_30"], rel=1e-4)
            assert metric.explain(image, reference).map.mean().item() == pytest.approx(extra["ppd_30"], rel=1e-4)
    with pytest.raises(ValueError, match="pixels per degree above 0, got 0"):
        create("flip", ppd=0)


def test_milo_tells_the_opinion_that_its_authors_network_expects():
    for image, reference, extra in cases("milo"):
        found = create("milo").explain(image, reference)
        assert found.mos.item() == pytest.approx(extra["mos"], abs=1e-4)
        assert found.map.mean().item() == pytest.approx(create("milo")(image, reference).item(), rel=1e-5)


def test_lpips_tells_where_and_in_which_layers():
    lpips, clean = create("lpips-alex"), photograph(96, 128)
    image = clean.clone()
    image[..., 40:72, 60:100] += 0.2 * torch.randn(32, 40, generator=torch.Generator().manual_seed(0))
    found = lpips.explain(image.clamp(0, 1), clean)
    torch.testing.assert_close(found.layers.sum(1), lpips(image.clamp(0, 1), clean))
    assert found.map.shape == (1, 1, 96, 128)
    assert found.map[..., 40:72, 60:100].mean() > 3 * found.map.mean()


def test_nima_tells_how_ratings_spread():
    metric = build("nima-vgg16", content("nima-vgg16-ava"))
    for _, image, extra in list(cases("nima-vgg16-ava"))[:2]:
        found, shares = metric.explain(image), torch.tensor(extra["distribution"], dtype=torch.float64)
        torch.testing.assert_close(found.distribution[0].double(), shares, rtol=0, atol=1e-5)
        ratings = torch.arange(1, 11)
        assert found.mean.item() == pytest.approx((shares * ratings).sum().item(), rel=1e-5)
        spread = (shares * ratings**2).sum() - (shares * ratings).sum() ** 2
        assert found.std.item() == pytest.approx(spread.sqrt().item(), rel=1e-4)
