"""How MDIQA-lite is trained: distortions of known strength, losses, and the program."""

from __future__ import annotations

import csv
import json
import math
import re
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import mdiqa_metric
from mdiqa_metric import MDIQALite
from mdiqa_metric.checkpoints.states import read_state
from mdiqa_metric.cli import app
from mdiqa_metric.train import distortions
from mdiqa_metric.train.losses import pairwise_ranking_loss, plcc_loss, soft_hinge
from mdiqa_metric.train.mdiqa_lite import Recipe, fit_remainder, train
from mdiqa_metric.train.mdiqa_lite_data import Images, Rated, load_images
from mdiqa_metric.train.mdiqa_lite_validation import validate
from tests.rows import photograph

EACH = [pytest.param(each, id=each.name) for some in distortions.DISTORTIONS.values() for each in some]


@pytest.mark.parametrize("distortion", EACH)
def test_a_distortion_is_nothing_at_strength_0_and_grows(distortion):
    image = photograph(96, 128)[0] * 0.8 + 0.1
    steps = [distortion.apply(image, strength, Random(3)) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    apart = [(step - image).square().mean().sqrt().item() for step in steps]
    assert apart[0] < 0.01
    assert apart == sorted(apart)
    assert apart[-1] > 0.03
    for step in steps:
        assert step.shape == image.shape
        assert step.min() >= 0
        assert step.max() <= 1
    assert torch.equal(steps[2], distortion.apply(image, 0.5, Random(3)))
    assert 0 < distortion.severity <= 1


def test_exposure_is_in_stops_of_linear_light():
    image = torch.linspace(0.05, 0.6, 12).expand(3, 4, 12).clone()
    darker = distortions.expose(-3.2)(image, 1.0, Random(0))
    torch.testing.assert_close(
        distortions.to_linear(darker), distortions.to_linear(image) * 2**-3.2, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(distortions.to_srgb(distortions.to_linear(image)), image, rtol=1e-4, atol=1e-5)


def test_noise_has_the_level_that_its_strength_says():
    gray = torch.full((3, 200, 200), 0.5)
    for strength, level in ((0.0, 0.004), (0.5, 0.004 * math.sqrt(60)), (0.9, 0.004 * 60**0.9)):
        noise = distortions.display_noise(gray, strength, Random(1)) - gray
        assert noise.std().item() == pytest.approx(level, rel=0.02)
    light = torch.tensor([0.05, 0.6]).repeat_interleave(100).expand(3, 200, 200)
    noisy = distortions.to_linear(distortions.photon_noise(distortions.to_srgb(light), 0.4, Random(1)))
    dark, bright = (noisy - light).split(100, dim=2)
    expected = math.sqrt((1.2 * 0.6 + 0.35**2) / (1.2 * 0.05 + 0.35**2))  # Poisson's grows with the root of the light
    assert (bright.std() / dark.std()).item() == pytest.approx(expected, rel=0.05)


def test_blurs_keep_the_light_and_saturation_the_gray():
    image = photograph(96, 96)[0]
    for window in (distortions.gaussian(0.3), distortions.gaussian(4.5)):
        assert window.sum().item() == pytest.approx(1)
    point = torch.zeros(3, 65, 65)
    point[:, 32, 32] = 1
    for make in (distortions.motion_blur, distortions.defocus):
        spread = distortions.to_linear(make(point, 0.6, Random(2)))
        assert spread[0].sum().item() == pytest.approx(1, rel=0.02)
    dull = distortions.scale_saturation(0.0)(image, 1.0, Random(0))
    torch.testing.assert_close(distortions.luma(dull), distortions.luma(image), rtol=0, atol=1e-5)
    assert (dull.amax(0) - dull.amin(0)).max() < 1e-5


def test_a_denoiser_smooths_flat_parts_and_shows_what_it_left_of_the_noise():
    clean = torch.full((3, 64, 64), 0.5)
    clean[:, :, 32:] = 0.3 + 0.4 * (torch.arange(32) % 2)  # stripes
    noise = 0.03 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    denoise = distortions.denoiser(clean + noise, noise.square().mean(), Random(1))
    left = denoise(clean + noise) - denoise(clean)
    assert left[..., 4:24].std() < 0.5 * noise[..., 4:24].std()
    assert left[..., 40:60].std() > 0.8 * noise[..., 40:60].std()
    assert (denoise(clean) - clean)[..., 40:60].abs().mean() < 0.02  # the stripes are still there


def test_losses_are_least_where_scores_follow_opinions():
    opinions = torch.tensor([0.1, 0.9, 0.5, 0.3])
    assert plcc_loss(3 * opinions - 1, opinions) < 1e-5
    assert plcc_loss(-opinions, opinions) > 1.99
    order = [pairwise_ranking_loss(scores, opinions).item() for scores in (2 * opinions, opinions * 0 + 0.5, -opinions)]
    assert order == sorted(order)
    assert order[0] < 0.01 < order[1]
    assert pairwise_ranking_loss(opinions, torch.full((4,), 0.5)) == 0
    assert soft_hinge(torch.tensor(1.0), 0.0) < 1e-6
    assert soft_hinge(torch.tensor(-1.0), 0.0).item() == pytest.approx(1, abs=1e-6)


@pytest.fixture
def data(tmp_path):
    """A miniature of the data folder, its LIVE already made, as the work folder has it."""
    random = np.random.default_rng(0)

    def image(path, noise):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = photograph(96, 112)[0].permute(1, 2, 0).numpy() + random.normal(0, noise, (96, 112, 3))
        Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).save(path)

    def table(path, columns, rows):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])

    levels = np.linspace(0, 0.4, 12)
    for number, level in enumerate(levels):
        image(tmp_path / f"data/clive/images/{number}.png", level)
        image(tmp_path / f"work/live/images/{number}.png", level)
    for scene in range(4):
        image(tmp_path / f"work/live/reference/s{scene}.png", 0)
    image(tmp_path / "data/kodak24/kodim01.png", 0)
    opinions = [f"{90 - 200 * level:.3f}" for level in levels]
    clive = [(f"images/{number}.png", mos) for number, mos in enumerate(opinions)]
    table(tmp_path / "data/clive/table.csv", ["image", "mos"], clive)
    live = [
        (f"images/{number}.png", f"reference/s{number % 4}.png", mos, f"s{number % 4}")
        for number, mos in enumerate(opinions)
    ]
    table(tmp_path / "work/live/table.csv", ["image", "reference", "mos", "content"], live)
    return tmp_path


def test_no_scene_is_both_trained_on_and_held_out(data):
    train_images, held_out = load_images(data / "data", data / "work", 0)
    assert len(train_images.photographs) + len(held_out.photographs) == 12
    assert len(train_images.distorted) == 9
    assert len(held_out.distorted) == 3
    assert len(train_images.clean) == 4  # three references and an image of Kodak's
    assert len(held_out.clean) == 1
    assert max(image.mos for image in (*train_images.photographs, *held_out.photographs)) == pytest.approx(0.86)


def test_the_same_seed_trains_the_same_weights(data):
    out = data / "lite.safetensors"
    arguments = ["train", "mdiqa-lite", "--data", str(data / "data"), "--work", str(data / "work"), "--steps", "4"]
    states = []
    for _ in range(2):
        done = CliRunner().invoke(app, [*arguments, "--seed", "5", "--out", str(out)])
        assert done.exit_code == 0, done.output
        states.append(read_state(out))
    assert {value.dtype for value in states[0].values()} == {torch.float16}
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["kept"] == 5
    _, weights, *hashes = out.with_suffix(".images.txt").read_text().splitlines()
    assert (
        weights
        == re.search("weights sha256:[0-9a-f]+", mdiqa_metric.create("mdiqa-lite", weights=out).fingerprint())[0]
    )
    assert hashes[0] == "trained on"
    assert hashes[-1] == "chosen on"  # a single seed is not selected
    assert figures["runs"][0]["recipe"]["steps"] == 4
    assert figures["runs"][0]["distorted"]["n"] == 3
    metric = MDIQALite()
    metric.load_state_dict(states[0])


def test_an_unavailable_device_is_refused_before_anything_is_read(tmp_path):
    arguments = ["train", "mdiqa-lite", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "lite.safetensors")]
    done = CliRunner().invoke(app, [*arguments, "--device", "abacus"])
    assert done.exit_code == 2
    assert "The device abacus cannot be used here: this machine has cpu" in done.stderr


def test_every_loss_takes_part(data):
    recipe = Recipe(steps=4, overall_steps=4, photographs=3, distorted=3, triplets=1, aligned=1)
    reports = []
    metric, figures = train(data / "data", data / "work", recipe, reports.append)
    assert [(facts["stage"], facts["step"]) for facts in reports] == [("dimensions", 4), ("overall score", 4)]
    assert not metric.training
    assert figures["recipe"]["aligned"] == 1
    assert all(weight.isfinite().all() for weight in metric.parameters())


def test_the_remainder_is_fitted_to_opinions_before_the_backbone_moves():
    """On opinions that go with the light alone, which statistics of whole images tell."""
    torch.manual_seed(0)
    image, metric = photograph(64, 64)[0], MDIQALite().unfreeze().freeze()
    opinions = [0.1 + 0.1 * number for number in range(9)]
    rated = [Rated((image * opinion * 255).byte(), opinion) for opinion in opinions]
    backbone = {key: value.clone() for key, value in metric.backbone.state_dict().items()}
    fit_remainder(metric, rated, epochs=200)
    scores = torch.cat([metric.eval()(each.pixels[None] / 255) for each in rated])
    assert plcc_loss(scores, torch.tensor(opinions)) < 0.05
    assert all(torch.equal(value, backbone[key]) for key, value in metric.backbone.state_dict().items())


def test_validation_measures_order_and_cross_talk():
    """Of a metric whose sharpness is the contrast of neighbors, and nothing else."""

    class Known(MDIQALite):
        def dimension_scores(self, image, wanted):
            detail = image.diff(dim=3).abs().mean((1, 2, 3)).clamp(0, 1)
            return torch.stack([*(0 * detail,) * 4, detail], 1)

    images = [Rated((photograph(96, 96)[0] * 255).byte(), number / 12) for number in range(12)]
    figures = validate(Known().unfreeze().freeze(), Images(images, images, [images[0].pixels]))
    assert figures["ladders"]["sharpness"]["Gaussian blur"] == pytest.approx(1)
    assert figures["ladders"]["sharpness"]["halos"] < 0  # more detail, to this metric
    assert figures["ladders"]["brightness"]["under-exposure"] == 0  # it does not respond
    assert figures["cross_talk"]["sharpness"]["sharpness"] > 0.01
    assert figures["cross_talk"]["sharpness"]["brightness"] == 0
    assert figures["photographs"]["n"] == 12
