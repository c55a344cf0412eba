"""LIQE's probabilities, and the layouts that its weights come in."""

from __future__ import annotations

import pytest
import torch

from mdiqa_metric import WeightsError, create
from tests.golden import golden
from tests.rows import content, filled, photograph


@pytest.fixture(scope="module")
def clip():
    data = content("liqe-mix")
    return filled(data["checkpoint"], data)


def first_case(stem):
    case = content(stem)["cases"][0]
    image = golden.picture(*(case["picture"][key] for key in ("seed", "height", "width")))
    return torch.from_numpy(image)[None], case["extra"]


def test_joint_texts_tell_scene_and_distortion(clip):
    metric = create("liqe-mix", weights=clip)
    image, extra = first_case("liqe-mix")
    found = metric.explain(image)
    for name in ("quality", "scene", "distortion"):
        torch.testing.assert_close(getattr(found, name)[0], torch.tensor(extra[name]), rtol=1e-4, atol=0)
    with torch.no_grad():
        logits = metric.logits(image)[0, [*map(int, extra["logits"])]]
    torch.testing.assert_close(logits, torch.tensor([*extra["logits"].values()]), rtol=0, atol=1e-4)


def test_every_layout_gives_the_same_metric(clip):
    image, extra = first_case("liqe")
    metric = create("liqe", weights={"params": clip})
    with torch.no_grad():
        torch.testing.assert_close(metric.logits(image)[0], torch.tensor(extra["logits"]), rtol=0, atol=1e-4)
    probabilities = metric.explain(image).quality
    for layout in ({key.removeprefix("clip_model."): value for key, value in clip.items()}, metric.state_dict()):
        assert torch.equal(create("liqe", weights=layout).explain(image).quality, probabilities)
    with pytest.raises(WeightsError, match=r"heads is \(5, 512\), not \(495, 512\)"):
        create("liqe-mix", weights=metric.state_dict())
    with pytest.raises(WeightsError, match="KeyError: 'logit_scale'"):
        create("liqe", weights={key: value for key, value in clip.items() if not key.endswith("logit_scale")})


def test_windows_one_at_a_time_give_the_same_gradient():
    metric = create("liqe", weights=None)
    image, found = photograph(256, 230), []
    for metric.chunk in (1, 64):
        x = image.clone().requires_grad_()
        found.append(torch.autograd.grad(metric(x).sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6 * found[0].abs().max().item())
    with pytest.raises(ValueError, match="got a chunk of 0"):
        create("liqe", chunk=0, weights=None)
