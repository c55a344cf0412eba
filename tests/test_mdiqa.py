"""MDIQA: the authors' files, what its scores are made of, and steering."""

from __future__ import annotations

import copy

import pytest
import torch

import mdiqa_metric
from mdiqa_metric import MDIQA, DimensionDistance, DimensionMean, Loss, WeightsError
from mdiqa_metric.layers.attention import slices
from mdiqa_metric.metrics.mdiqa.model import AESTHETIC, BRANCHES, TECHNICAL
from mdiqa_metric.ops.shapley import shapley_values
from tests.golden import golden
from tests.rows import ROWS, content, filled, metric_of, pair_of, photograph

# Beside its rows' tests, so that one worker alone holds the network.
pytestmark = pytest.mark.xdist_group("mdiqa")

FORMS = [row for row in ROWS if row.goldens == ("mdiqa",)]
NAMES = TECHNICAL + AESTHETIC
each_form = pytest.mark.parametrize("row", FORMS, ids=lambda row: row.name)


@pytest.fixture
def mdiqa():
    """MDIQA with stand-in parameters, its weights all 1 before and after: copying it takes 0.7 GB."""
    metric = metric_of(FORMS[0])
    yield metric.set_weights(torch.ones(9))
    metric.set_weights(torch.ones(9))


@pytest.fixture
def image():
    return pair_of(FORMS[0], count=2)[0]


# --- the authors' files -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The eight files of the authors, with stand-in parameters, named and laid out as theirs."""
    folder, data = tmp_path_factory.mktemp("official"), content("mdiqa")
    parts = {part: filled(keys, data, f"{part}.") for part, keys in data["checkpoint"].items()}
    technical = parts["technology"]

    def under(prefix):
        return {key.removeprefix(prefix): value for key, value in technical.items() if key.startswith(prefix)}

    torch.save({"params": under("cfanet_backbone.")}, folder / "net_freeze_backbone.pth")
    for index in range(5):
        head = under(f"cfanet_heads.{index}.")
        torch.save({"params": head}, folder / f"net_best_koniq10k_val_head{index}_head{index}.pth")
    torch.save({"params": parts["aesthetic"]}, folder / "net_best_PARA_val_color.pth")
    # The text tower, which nothing uses: one tensor of it stands for all.
    fusion = parts["fusion"] | {"semantic_model.logit_scale": torch.zeros(())}
    torch.save({"params": fusion}, folder / "mdiqa_shared_5t_4a_clipfeat_localv4_mbv3_koniq_seed1.pth")
    return folder


def test_the_authors_folder_loads_as_it_is(folder, mdiqa):
    loaded = mdiqa_metric.create("mdiqa", weights=folder)
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert loaded.fingerprint() == mdiqa.fingerprint()


def test_a_missing_a_doubled_and_a_damaged_file_are_named(folder):
    head = folder / "net_best_koniq10k_val_head3_head3.pth"
    content = head.read_bytes()
    try:
        head.unlink()
        with pytest.raises(WeightsError, match=r"one head3 file \(\*_head3\.pth\).*got none"):
            mdiqa_metric.create("mdiqa", weights=folder)
        head.write_bytes(content[:1000])
        with pytest.raises(WeightsError, match=r"head3_head3\.pth is no readable"):
            mdiqa_metric.create("mdiqa", weights=folder)
        state = torch.load(folder / "net_best_koniq10k_val_head2_head2.pth")["params"]
        del state["attn_pool.norm1.weight"]
        torch.save({"params": state}, head)
        with pytest.raises(WeightsError, match=r"technical.*lacks 'cfanet_heads\.3\.attn_pool\.norm1\.weight'"):
            mdiqa_metric.create("mdiqa", weights=folder)
    finally:
        head.write_bytes(content)
    other = folder / "net_best.pth"
    torch.save({}, other)
    try:
        with pytest.raises(WeightsError, match=r"got mdiqa_shared.*, net_best\.pth"):
            mdiqa_metric.create("mdiqa", weights=folder)
    finally:
        other.unlink()
    with pytest.raises(WeightsError, match="There is no weight file"):
        mdiqa_metric.create("mdiqa", weights=folder / "elsewhere")


def test_a_foreign_tensor_is_named():
    data = content("mdiqa")
    keys = data["checkpoint"]["technology"] | {"cfanet_heads.0.extra.weight": [3]}
    with pytest.raises(WeightsError, match=r"1 foreign \(technical\.cfanet_heads\.0\.extra\.weight\)"):
        mdiqa_metric.create("mdiqa", weights={"technical": filled(keys, data, "technology.")} | rest(data))


def rest(data):
    return {part: filled(data["checkpoint"][part], data, f"{part}.") for part in ("aesthetic", "fusion")}


def test_the_later_weight_branch_is_found_and_read(mdiqa):
    """timm's ResNet-50 and one linear layer, by whatever name the layer goes."""
    import timm

    data = content("mdiqa")
    prefix = "instance_specific_weighted_branch."
    keys = {key: shape for key, shape in data["checkpoint"]["fusion"].items() if not key.startswith(prefix)}
    fusion = filled(keys, data, "fusion.")
    network = timm.create_model("resnet50", pretrained=False, num_classes=9).eval()
    with torch.no_grad():
        for parameter in network.fc.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    image = photograph(64, 80)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = network((image - mean[:, None, None]) / std[:, None, None]).softmax(1)
    for backbone, linear in (("semantic_model.", "semantic_model.fc."), ("", "score_linear.")):
        branch = {
            prefix + (linear + key[3:] if key.startswith("fc.") else backbone + key): value.detach().clone()
            for key, value in network.state_dict().items()
        }
        ours = MDIQA.from_published("fusion", fusion | branch)
        assert ours.keys() == mdiqa_metric.create("mdiqa", weights=None, branch="resnet50").fusion.state_dict().keys()
        module = BRANCHES["resnet50"](9)
        module.load_state_dict({key[7:]: value for key, value in ours.items() if key.startswith("branch.")})
        torch.testing.assert_close(module(image), expected, rtol=1e-4, atol=1e-6)


def test_pretrained_weights_come_by_hand():
    with pytest.raises(WeightsError, match=r"Download by hand from https://drive.*weights=FOLDER"):
        mdiqa_metric.create("mdiqa")
    with pytest.raises(ValueError, match="got 'x'"):
        MDIQA(branch="x")


# --- what scores are made of ------------------------------------------------------------------------------------------


def test_contributions_and_baseline_add_up_to_the_overall_score(mdiqa, image):
    mdiqa.set_weights(sharpness=2.0, light=0.0)
    found = mdiqa.explain(image)
    torch.testing.assert_close(found.overall, mdiqa(image))
    torch.testing.assert_close(found.contributions.sum(1) + found.baseline, found.overall)
    torch.testing.assert_close(found.scores, mdiqa.dimensions(image))
    torch.testing.assert_close(found.instance_weights.sum(1), torch.ones(2))
    assert found.user_weights[:, NAMES.index("sharpness")].eq(2).all()
    assert found.contributions[:, NAMES.index("light")].eq(0).all()
    assert found.maps.shape == (2, 9, -(-image.shape[2] // 32), -(-image.shape[3] // 32))
    assert found.maps.std((2, 3)).gt(0).all()


def test_shapley_values_of_a_sum_are_its_terms_and_of_a_product_its_halves():
    values = torch.tensor([[2.0, 3.0, 5.0]])
    assert torch.allclose(shapley_values(lambda x: x.sum(-1), values), values)
    halves = shapley_values(lambda x: x[..., 0] * x[..., 1], values)
    assert torch.allclose(halves, torch.tensor([[3.0, 3.0, 0.0]]))


def test_a_map_shows_where_an_image_differs(mdiqa):
    image = photograph(160, 160).clone()
    changed = image.clone()
    changed[..., :32, :32] = 0.5
    moved = (mdiqa.explain(changed).maps - mdiqa.explain(image).maps).abs()[0].mean(0)
    assert moved.argmax() == 0


def test_the_gradient_passes_clip_by_and_reaches_the_weight_branch(mdiqa, image):
    """The authors cut it at CLIP; a cut anywhere else would show in the golden file's gradient."""
    image = image.requires_grad_()
    assert not mdiqa.fusion.meaning(image).requires_grad
    (gradient,) = torch.autograd.grad(mdiqa.instance_weights(image)[:, 0].sum(), image)
    assert gradient.abs().sum() > 0


# --- steering ---------------------------------------------------------------------------------------------------------


def test_weights_by_name_by_tensor_and_by_image(mdiqa, image):
    assert mdiqa.set_weights(sharpness=2.0) is mdiqa
    assert mdiqa.dimension_weights.tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    doubled = mdiqa(image)
    mdiqa.set_weights(noisiness=0.5)
    assert mdiqa.dimension_weights.tolist() == [1, 1, 1, 0.5, 2, 1, 1, 1, 1]
    rows = torch.ones(2, 9)
    rows[1, 4] = 2
    mixed = mdiqa.set_weights(rows)(image)
    torch.testing.assert_close(mixed[1], doubled[1])
    torch.testing.assert_close(mixed[:1], mdiqa.set_weights([1.0] * 9)(image[:1]))
    assert mdiqa.set_weights(rows).set_weights(light=3.0).dimension_weights[:, 8].tolist() == [3, 3]
    with pytest.raises(ValueError, match="batches of 2 images, got 1"):
        mdiqa(image[:1])
    assert "dimension weights 1 1 1 1 1 1 1 1 3; 1 1 1 1 2 1 1 1 3" in mdiqa.fingerprint()
    assert not [key for key in mdiqa.state_dict() if "dimension_weights" in key]


def test_wrong_weights_are_refused_and_change_nothing(mdiqa):
    with pytest.raises(ValueError, match=r'no dimension "sharpnes": the 9 are brightness, .*, light.*mean sharpness'):
        mdiqa.set_weights(noisiness=3.0, sharpnes=2.0)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite weights from 0 up"):
            mdiqa.set_weights(sharpness=bad)
    for bad in (torch.ones(8), torch.ones(2, 3, 9), torch.ones(9, 2)):
        with pytest.raises(ValueError, match=r"weights \(9,\) or \(N, 9\)"):
            mdiqa.set_weights(bad)
    with pytest.raises(ValueError, match="not all 0 for an image"):
        mdiqa.set_weights(torch.tensor([[1.0] * 9, [0.0] * 9]))
    assert mdiqa.dimension_weights.tolist() == [1] * 9


def test_more_weight_is_more_gradient_for_the_dimension(mdiqa):
    """The authors' ratio enters before a network and need not; the mean's share is weight over the sum of weights."""
    image = photograph(64, 64).clone().requires_grad_()
    score = mdiqa.dimension_scores(image, (4,))
    (own,) = torch.autograd.grad(score.sum(), image)
    loss, shares = Loss(DimensionMean(mdiqa)), []
    for weight in (0.5, 1.0, 2.0, 4.0):
        mdiqa.set_weights(sharpness=weight)
        (gradient,) = torch.autograd.grad(-loss(image), image)
        others = weight / (weight + 8) * own
        rest = gradient - others
        shares.append(others.norm() / rest.norm())
    torch.testing.assert_close(shares[1] / shares[0], torch.tensor(2.0), rtol=1e-2, atol=0)
    assert shares == sorted(shares)


def test_a_mean_is_the_weighted_mean_of_dimensions(mdiqa, image):
    scores = mdiqa.dimensions(image)
    mean = DimensionMean(mdiqa)
    torch.testing.assert_close(mean(image), scores.mean(1))
    assert mean.set_weights(sharpness=3.0, color=0.0) is mean
    weights = mdiqa.dimension_weights
    torch.testing.assert_close(mean(image), (scores * weights).sum(1) / weights.sum())


def test_a_distance_is_the_weighted_difference_of_features(mdiqa, image):
    reference = pair_of(FORMS[2], count=2)[1]
    distance = DimensionDistance(mdiqa)
    distance.set_weights(sharpness=3.0, color=0.0)
    every = mdiqa.every_dimension
    features = [mdiqa.dimension_features(photo, every) for photo in (image, reference)]
    weights = (mdiqa.instance_weights(image) * mdiqa.dimension_weights).T[..., None, None]
    expected = (features[0] * weights - features[1] * weights).abs().mean((0, 2, 3))
    torch.testing.assert_close(distance(image, reference), expected, rtol=1e-4, atol=1e-7)
    encoded = distance.encode(reference)
    distance.set_weights(color=1.0, sharpness=0.0)
    torch.testing.assert_close(distance(image, encoded), distance(image, reference))
    assert distance(image, image).eq(0).all()


@pytest.mark.parametrize(
    "weights",
    [{"sharpness": 1.0, "noisiness": 2.0}, {"light": 1.0, "content": 1.0}, {"contrast": 1, "color": 1, "light": 1}],
)
def test_dimensions_of_weight_zero_are_not_run(mdiqa, image, weights):
    names = {name: weights.get(name, 0.0) for name in NAMES}
    expected = mdiqa.dimensions(image)
    ran = []
    hooks = [
        base.backbone.conv1.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, base in (("technical", mdiqa.technical), ("aesthetic", mdiqa.aesthetic))
    ]
    hooks.append(mdiqa.fusion.clip.register_forward_hook(lambda *_: ran.append("clip")))
    hooks.append(mdiqa.fusion.branch.register_forward_hook(lambda *_: ran.append("branch")))
    try:
        mdiqa.set_weights(**names)
        score = DimensionMean(mdiqa)(image)
    finally:
        for hook in hooks:
            hook.remove()
    chosen = torch.tensor(list(names.values()))
    torch.testing.assert_close(score, (expected * chosen).sum(1) / chosen.sum(), rtol=1e-4, atol=1e-5)
    wanted = {"technical" if name in TECHNICAL else "aesthetic" for name in weights}
    assert set(ran) == wanted
    overall = mdiqa(image)
    mdiqa.active = mdiqa.every_dimension
    torch.testing.assert_close(overall, mdiqa(image), rtol=1e-4, atol=1e-6)


def test_slices_take_every_head_once_and_in_order():
    for heads in ((0,), (3, 4), (1, 4), (0, 2, 4), (0, 1, 4), (0, 1, 2, 3, 4)):
        found = [index for part in slices(heads) for index in range(5)[part]]
        assert found == list(heads)
        assert len(slices(heads)) == (len(heads) if heads == (0, 1, 4) else 1)


def test_it_compiles_as_one_graph_that_no_weight_remakes(mdiqa):
    torch._dynamo.reset()
    loss = Loss(mdiqa)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    image = photograph(64, 64)
    compiled(image)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for factor in (2.0, 3.0):
            mdiqa.set_weights(sharpness=factor)
            torch.testing.assert_close(compiled(image), loss(image), rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"in \[0, 1\]"):
        compiled(image * 255)
    torch._dynamo.reset()


def test_copies_are_steered_apart(mdiqa, image):
    loss = Loss(DimensionMean(mdiqa))
    other = copy.deepcopy(loss)
    before = loss(image)
    other.metric.set_weights(sharpness=5.0)
    assert torch.equal(loss(image), before)
    assert not torch.equal(other(image), before)


def test_forms_take_metrics_with_dimensions_alone():
    for form in (DimensionMean, DimensionDistance):
        with pytest.raises(TypeError, match=r'takes a metric with dimensions, got PSNR: pass create\("mdiqa"\)'):
            form(mdiqa_metric.create("psnr"))


# --- sizes ------------------------------------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize(("height", "width"), [(32, 992), (992, 32), (32, 32), (33, 64), (64, 64), (65, 97)])
def test_any_size_from_32_pixels_works(row, height, width, mdiqa):
    metric = metric_of(row)
    image = torch.from_numpy(golden.picture(1, height, width))[None].requires_grad_()
    reference = image.detach().flip(-1) if metric.full_reference else None
    (gradient,) = torch.autograd.grad(metric(image, reference).sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@each_form
def test_a_smaller_image_is_refused_with_the_smallest_size(row):
    image = torch.rand(1, 3, 31, 64)
    with pytest.raises(ValueError, match="from 32x32 pixels up"):
        metric_of(row)(image, image if metric_of(row).full_reference else None)


def test_checkpointing_changes_nothing_but_what_is_kept(mdiqa):
    again = MDIQA(checkpointing=True)
    again.load_state_dict(mdiqa.state_dict())
    again.eval().requires_grad_(False)
    image = photograph(64, 96).clone().requires_grad_()
    scores = [metric(image) for metric in (mdiqa, again)]
    torch.testing.assert_close(*scores)
    torch.testing.assert_close(*(torch.autograd.grad(score.sum(), image)[0] for score in scores))
