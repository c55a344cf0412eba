"""CLIP-IQA with prompts of one's own, and the files that its heads are computed from."""

from __future__ import annotations

import pytest
import torch

from mdiqa_metric import DimensionDistance, DimensionMean, WeightsError, create
from tests.rows import content, filled, photograph

PAIRS = [("Sharp photo.", "Blurry photo."), ("Bright photo.", "Dark photo.")]


@pytest.fixture(scope="module")
def clip():
    data = content("clipiqa")
    return filled(data["backbone"]["keys"], data)


@pytest.fixture(scope="module")
def own(clip):
    return create("clipiqa", prompts=PAIRS, weights=clip)


def test_each_pair_of_prompts_is_a_dimension(clip, own):
    image = photograph(64, 80)
    alone = [create("clipiqa", prompts=[pair], weights=clip)(image) for pair in PAIRS]
    torch.testing.assert_close(own.dimensions(image), torch.stack(alone, 1))
    torch.testing.assert_close(own(image), (alone[0] + alone[1]) / 2)
    try:
        torch.testing.assert_close(own.set_weights(sharp_photo=3.0)(image), (3 * alone[0] + alone[1]) / 4)
        torch.testing.assert_close(DimensionMean(own)(image), own(image))
        torch.testing.assert_close(own.set_weights(bright_photo=0.0)(image), alone[0])
        found = own.explain(image)
        assert found.weights.tolist() == [[1, 0]]
        torch.testing.assert_close(found.scores, found.logits.softmax(2)[..., 0])
        distance = DimensionDistance(own)
        assert distance(image, image).item() == 0 < distance(image.flip(1), image).item()
    finally:
        own.set_weights([1.0, 1.0])


def test_a_state_dict_belongs_to_its_prompts(clip, own):
    image = photograph(64, 80)
    assert not any("transformer" in key for key in own.state_dict()), "the text encoder is let go"
    again = create("clipiqa", prompts=PAIRS, weights=own.state_dict())
    assert torch.equal(again(image), own(image))
    with pytest.raises(WeightsError, match=r"missing \(heads\.good_photo-bad_photo"):
        create("clipiqa", weights=own.state_dict())
    with pytest.raises(WeightsError, match=r"foreign \(backbone\.temperature"):
        create("clipiqa", weights=clip | {"temperature": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"KeyError: 'ln_final\.weight'"):
        create("clipiqa", weights={key: value for key, value in clip.items() if key != "ln_final.weight"})


def test_the_authors_context_serves_both_prompts(clip):
    shared = filled({"context": [16, 512]}, {})["context"]
    image = photograph(64, 80)
    score = create("clipiqa+", weights={"backbone": clip, "heads": shared.half()})(image)
    both = {"prompt_learner.ctx": shared.half().float().repeat(2, 1, 1)}
    assert torch.equal(create("clipiqa+", weights={"backbone": clip, "heads": both})(image), score)
    with pytest.raises(WeightsError, match="a learned context is missing"):
        create("clipiqa+", weights=clip)


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ("Sharp photo.", "got 'Sharp photo.'"),
        (["Sharp photo.", "Blurry photo."], "got ['Sharp photo.', 'Blurry photo.']"),
        ([], "got []"),
        ([("Sharp photo.",)], "got the pair ('Sharp photo.',)"),
        ([("Sharp photo.", " .")], "got the pair ('Sharp photo.', ' .')"),
        ([*PAIRS, ("sharp photo", "Soft photo.")], "got sharp_photo twice"),
    ],
)
def test_prompts_that_are_no_pairs_are_refused(prompts, complaint):
    with pytest.raises(ValueError, match="CLIP-IQA") as caught:
        create("clipiqa", prompts=prompts, weights=None)
    assert complaint in str(caught.value)
