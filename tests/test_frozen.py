"""That a metric stays as it was created, whatever holds it, moves it or is set in the process."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

import mdiqa_metric
from mdiqa_metric import DimensionMean, Loss, WeightedLoss, create
from mdiqa_metric.layers.convolution import FrozenConv2d, FrozenConv2dReLU
from mdiqa_metric.registry import manifest, metric_class, metric_classes
from tests.rows import METRICS, build_row, metric_of, pair_of

each_metric = pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
WITH_WEIGHTS = [row for row in METRICS if not row.wrapper and "weights" in manifest()["metrics"][row.name]]
each_network = pytest.mark.parametrize("row", WITH_WEIGHTS, ids=lambda row: row.name)


class Holder(nn.Module):
    """A network that holds a metric in every way there is, and two losses that share it."""

    def __init__(self, metric):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        if metric.differentiable:
            self.loss, self.other = Loss(metric), WeightedLoss({"a": (Loss(metric, 0.5), 1.0)})
        self.metrics_inside = nn.ModuleDict({"first": metric})
        self.several = nn.Sequential(nn.Identity(), metric)
        self.metric_inside = metric


def spoil(holder):
    """What trainers, wrappers and users do to a whole network."""
    holder.train()
    holder.requires_grad_(True)
    holder.apply(lambda module: [nn.init.normal_(w) for w in module.parameters(recurse=False)])
    for module in holder.modules():
        module.training = True
    for parameter in holder.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(holder.parameters(), lr=0.1)
    for parameter in holder.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(5):
        optimizer.step()


@each_metric
def test_no_holder_trains_saves_or_initializes_a_metric(row):
    metric = copy.deepcopy(metric_of(row))
    image, reference = pair_of(row)
    line, score = metric.fingerprint(), metric(image, reference)
    holder = Holder(metric)
    assert [name for name, _ in holder.named_parameters()] == ["body.weight", "body.bias"]
    assert list(holder.state_dict()) == ["body.weight", "body.bias"]
    assert not list(holder.buffers())
    spoil(holder)
    assert metric.fingerprint() == line
    assert torch.equal(metric(image, reference), score)
    assert not any(module.training for module in metric.modules())
    assert not any(weight.requires_grad for weight in metric.parameters())
    other = Holder(copy.deepcopy(metric))
    other.load_state_dict(holder.state_dict(), strict=True)
    foreign = {f"metric_inside.{key}": torch.zeros_like(value) for key, value in metric.state_dict().items()}
    other.load_state_dict(holder.state_dict() | foreign, strict=True)
    assert other.metric_inside.fingerprint() == line, "weights that an older checkpoint held do not come in"
    lacking = {"body.weight": holder.body.weight}
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "body.bias"'):
        other.load_state_dict(lacking)


@each_metric
def test_train_mode_scores_the_same(row):
    metric = copy.deepcopy(metric_of(row)).train()
    image, reference = pair_of(row)
    expected = metric_of(row)(image, reference)
    assert not metric.training
    for _ in range(3):
        assert torch.equal(metric(image, reference), expected)


@each_network
def test_a_metric_is_trained_where_that_is_asked_for_by_name(row):
    metric = copy.deepcopy(metric_of(row))
    holder = nn.Sequential(metric)
    assert not list(holder.parameters())
    metric.unfreeze()
    assert len(list(holder.parameters())) == len(list(metric.parameters())) > 0
    assert all(weight.requires_grad for weight in holder.parameters())
    assert holder.train()[0].training
    assert holder.state_dict()
    metric.freeze()
    assert not metric.training
    assert not list(holder.parameters())


def test_the_forms_of_a_metric_are_frozen_with_it():
    lite = create("mdiqa-lite")
    form = DimensionMean(lite.unfreeze().train())
    assert form.training
    Loss(form)
    assert not lite.training
    assert not any(weight.requires_grad for weight in lite.parameters())


# --- where and how it is made and moved -------------------------------------------------------------------------------


@pytest.fixture
def bfloat16_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(before)


@each_metric
def test_the_process_default_dtype_changes_nothing(row, request):
    image, reference = pair_of(row)
    expected, line = metric_of(row)(image, reference), metric_of(row).fingerprint()
    request.getfixturevalue("bfloat16_by_default")
    assert torch.equal(metric_of(row)(image, reference), expected)
    if row.wrapper:
        return
    metric = build_row(row)
    assert torch.get_default_dtype() == torch.bfloat16
    assert metric.fingerprint() == line
    assert torch.equal(metric(image, reference), expected)


@pytest.mark.parametrize("name", ["mdiqa-lite", "stlpips-alex", "psnr"])
def test_a_loss_built_on_the_meta_device_survives_to_empty(name):
    image = torch.rand(1, 3, 72, 72, generator=torch.Generator().manual_seed(0))
    references = [image.roll(1, 3)] if create(name).full_reference else []
    expected = Loss(create(name))(image, *references)
    with torch.device("meta"):
        model = nn.Module()
        model.body = nn.Conv2d(3, 3, 1)
        model.loss = WeightedLoss({"a": (Loss(create(name)), 0.3)})
    assert model.body.weight.is_meta
    model.to_empty(device="cpu")
    model.load_state_dict(nn.ModuleDict({"body": nn.Conv2d(3, 3, 1)}).state_dict())
    torch.testing.assert_close(model.loss(image, *references), 0.3 * expected)


def test_a_metric_that_lost_its_weights_says_so():
    loss = Loss(create("stlpips-alex")).to("meta")
    with pytest.raises(RuntimeError, match="create it once more, after to_empty"):
        loss.to_empty(device="cpu")


@pytest.mark.parametrize("row", [row for row in WITH_WEIGHTS if row.trainable], ids=lambda row: row.name)
def test_moving_in_inference_mode_leaves_weights_that_a_loss_can_save(row):
    image, reference = pair_of(row)
    metric = copy.deepcopy(metric_of(row))
    with torch.inference_mode():
        metric.double().float()
    image = image.clone().requires_grad_()
    Loss(metric)(image, reference).backward()
    assert image.grad.isfinite().all()


def test_what_the_user_weighs_keeps_its_digits_in_half_precision():
    lite = create("mdiqa-lite").bfloat16().set_weights(sharpness=1.001)
    assert lite.dimension_weights.tolist()[-1] == pytest.approx(1.001, abs=1e-7)
    lite.half().set_weights(sharpness=70000.0)
    image = torch.rand(1, 3, 64, 64)
    assert DimensionMean(lite)(image).isfinite().all()
    assert lite(image).isfinite().all()
    loss = WeightedLoss({"lite": (Loss(lite), 0.3)}).bfloat16().float()
    assert loss.weights.tolist() == pytest.approx([0.3], abs=1e-7)
    with torch.inference_mode():
        loss.set_weights(lite=0.7)
        lite.set_weights(sharpness=2.0)
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    loss.float()(image).backward()
    assert image.grad.isfinite().all()


# --- untrained networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(metric_classes()))
def test_a_class_called_by_itself_scores_once_it_has_weights(name):
    metric = getattr(mdiqa_metric, name)()
    size = max(metric.min_size, 32)
    image = torch.rand(1, 3, size, size)
    references = [image] if metric.full_reference else []
    if next(metric.parameters(), None) is None:
        assert metric(image, *references).isfinite()
        assert "no weights" in metric.fingerprint()
        return
    assert "weights untrained sha256:" in metric.fingerprint()
    asks = [lambda: metric(image, *references)]
    asks += [lambda: Loss(metric)(image, *references)] if metric.differentiable else []
    asks += [lambda: metric.encode(image)] if metric.full_reference else []
    asks += [lambda: metric.dimensions(image), lambda: metric.explain(image)] if hasattr(metric, "dimensions") else []
    for ask in asks:
        with pytest.raises(RuntimeError, match=r"has no trained weights.*create\(name\)"):
            ask()
    twin = metric_class(metric_classes()[name])()
    twin.load_state_dict(metric.state_dict())
    assert re.search(r"weights sha256:", twin.fingerprint())
    assert twin(image, *references).isfinite().all()
    assert not twin.training


def test_weights_that_lack_some_are_no_training():
    state = create("stlpips-alex").state_dict()
    metric = mdiqa_metric.STLPIPS()
    metric.load_state_dict({f"module.{key}": value for key, value in state.items()}, strict=False)
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(RuntimeError, match="has no trained weights"):
        metric(image, image)
    assert "untrained" in create("lpips-alex", weights=None).unfreeze().freeze().fingerprint()


def test_an_untrained_network_that_was_asked_for_scores_and_says_so():
    metric = create("lpips-alex", weights=None)
    image = torch.rand(1, 3, 64, 64)
    assert metric(image, image.flip(3)).isfinite()
    assert "weights untrained sha256:" in metric.fingerprint()
    assert "untrained" not in create("stlpips-alex").fingerprint()


# --- convolutions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 2, "dilation": 2},
        {"stride": (2, 1)},
        {"padding": (0, 2)},
        {"padding": "same"},
        {"padding": "valid"},
        {"groups": 3},
        {"padding": 1, "padding_mode": "reflect"},
        {"stride": 2, "padding": 1},
        {"bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [FrozenConv2d, FrozenConv2dReLU])
def test_frozen_convolutions_take_what_torch_takes(kind, options):
    torch.manual_seed(0)
    ours = kind(3, 6, 3, **options).double().requires_grad_(False)
    plain = nn.Conv2d(3, 6, 3, **options).double().requires_grad_(False)
    plain.load_state_dict(ours.state_dict())
    image = torch.rand(2, 3, 11, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(image).relu() if kind is FrozenConv2dReLU else plain(image)
    torch.testing.assert_close(ours(image), expected)
    assert torch.autograd.gradcheck(ours, image.requires_grad_())
