"""Metrics saved, pushed to a Hub on 127.0.0.1 by the real client, and loaded again.

What touches the Hub runs in a process of its own with a home of its own, for the client reads its settings at import.
"""

from __future__ import annotations

import functools
import json
import math
import re

import pytest
import torch
from torch import nn

from mdiqa_metric import MultiDimensional, WeightsError
from tests.test_hub import home, hub  # noqa: F401  (fixtures)

REPO = "someone/tiny"
FACTS = {
    "training_data": "KonIQ-10k",
    "license": "CC BY-NC-SA 4.0",
    "commercial": False,
    "scores": {"KonIQ-10k test": {"SRCC": 0.93, "PLCC": 0.94}},
}


@functools.cache
def tiny_class():
    """A metric of two dimensions on one convolution; made late, for sharing imports the Hub's client."""
    from mdiqa_metric.checkpoints.hub import HubMixin

    class Tiny(MultiDimensional, HubMixin):
        dimension_names = ("warmth", "coolness")
        score_range = (-math.inf, math.inf)

        def __init__(self, kernel: int = 3) -> None:
            super().__init__()
            if kernel % 2 == 0:
                raise ValueError(f"Tiny takes an odd kernel, got {kernel}.")
            self.kernel = kernel
            self.conv = nn.Conv2d(3, 2, kernel)

        def score(self, image, reference):
            return (self.dimension_scores(image, self.every_dimension) * self.user_weights(image)).mean(1)

        def dimension_scores(self, image, wanted):
            return self.conv(image).mean((2, 3))[:, list(wanted)]

        def dimension_features(self, image, wanted):
            return self.conv(image).flatten(2).unsqueeze(3).transpose(0, 1)[list(wanted)]

        def instance_weights(self, image):
            return torch.ones(len(image), 2)

        def extra_repr(self):
            return f"kernel={self.kernel}"

    return Tiny


def tiny(kernel=5):
    torch.manual_seed(7)
    metric = tiny_class()(kernel)
    metric.load_state_dict(metric.state_dict())
    return metric


def image():
    return torch.linspace(0, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def text(value):
    """An error's text, or the fingerprint of what was loaded."""
    try:
        return value().fingerprint()
    except WeightsError as error:
        return str(error)


@pytest.fixture
def folder(tmp_path):
    """A saved metric."""
    tiny().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_same_metric_frozen_and_on_the_cpu(folder):
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert json.loads((folder / "config.json").read_text()) == {"kernel": 5}
    before = torch.get_rng_state()
    with torch.device("meta"):
        loaded = tiny_class().from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert {tensor.device.type for tensor in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
    assert loaded.fingerprint() == tiny().fingerprint()
    assert torch.equal(loaded(image()), tiny()(image()))
    assert torch.equal(tiny_class().from_pretrained(str(folder))(image()), loaded(image()))


def test_what_the_user_weighs_is_not_shared(tmp_path):
    metric = tiny().set_weights(warmth=3.0, coolness=0.0)
    metric.save_pretrained(tmp_path)
    assert metric.dimension_weights.tolist() == [3, 0]
    assert metric.active == (0,)
    loaded = tiny_class().from_pretrained(tmp_path)
    assert loaded.dimension_weights.tolist() == [1, 1]
    assert loaded.fingerprint() in (tmp_path / "README.md").read_text(), "the card is of the metric as it loads"


def test_a_loaded_metric_is_saved_again_with_its_options(folder, tmp_path):
    tiny_class().from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_metric_from_inference_mode_can_be_trained(folder):
    with torch.inference_mode():
        loaded = tiny_class().from_pretrained(folder)
    loaded.requires_grad_(True)(image()).sum().backward()
    assert loaded.conv.weight.grad.any()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_an_error_that_names_it(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{re.escape(str(folder))} has no {re.escape(name)}.*Tiny.save_pretrained"):
        tiny_class().from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv.extra": torch.ones(1)}, r"1 foreign \(conv\.extra\)"),
        ({"conv.bias": None}, r"1 missing \(conv\.bias\)"),
        ({"conv.bias": torch.ones(3)}, r"conv\.bias is \(3,\), not \(2,\)"),
        ({"conv.bias": torch.tensor([1, math.nan])}, r"conv\.bias holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, message):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors") | change
    save_file({key: value for key, value in state.items() if value is not None}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        tiny_class().from_pretrained(folder)


def test_damaged_weights_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"model\.safetensors is no readable"):
        tiny_class().from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"kernel": 4}', "odd kernel, got 4"),
        ('{"colonel": 5}', "colonel"),
        ('{"kernel": 3}', r"conv\.weight is \(2, 3, 5, 5\), not \(2, 3, 3, 3\)"),
        ('{"kernel": ', r"config\.json of .*tiny"),
        ("[5]", r"config\.json of .*tiny"),
    ],
)
def test_wrong_options_are_named(folder, config, message):
    (folder / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=message):
        tiny_class().from_pretrained(folder)


def test_options_of_the_caller_stand_for_the_saved_ones(folder):
    (folder / "config.json").write_text('{"kernel": 3}')
    assert tiny_class().from_pretrained(folder, kernel=5).fingerprint() == tiny().fingerprint()
    with pytest.raises(WeightsError, match="colonel"):
        tiny_class().from_pretrained(folder, colonel=5)


def test_the_whole_of_mdiqa_with_its_branch(tmp_path):
    """186 million parameters as the constructor draws them."""
    from mdiqa_metric import MDIQA

    metric = MDIQA("resnet50")
    metric.load_state_dict(metric.state_dict())
    metric.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["branch"] == "resnet50"
    loaded = MDIQA.from_pretrained(tmp_path)
    assert loaded.fingerprint() == metric.fingerprint()
    assert 'metric = MDIQA.from_pretrained("' in (tmp_path / "README.md").read_text()


# --- cards ------------------------------------------------------------------------------------------------------------


def test_the_card_states_what_is_given():
    card = tiny().generate_model_card(**FACTS, place=REPO)
    assert card.data.library_name == "mdiqa_metric"
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert "image-quality-assessment" in card.data.tags
    assert card.data.pipeline_tag is None
    for fact in (
        "1. warmth\n2. coolness\n",
        "Training data: KonIQ-10k",
        "License of the weights: CC BY-NC-SA 4.0",
        "Commercial use: **forbidden**",
        "| KonIQ-10k test | SRCC | 0.93 |\n| KonIQ-10k test | PLCC | 0.94 |",
        f'Tiny.from_pretrained("{REPO}")',
        tiny().fingerprint(),
        "1 after loading",
    ):
        assert fact in card.text
    assert "not stated" not in card.text


def test_the_card_invents_nothing():
    card = tiny().generate_model_card()
    assert card.data.license is None
    for fact in ("Training data", "License of the weights", "Commercial use"):
        assert f"{fact}: not stated" in card.text
    assert "## Scores\n\nnot stated" in card.text
    own = tiny().generate_model_card(license="Our own License, v2", commercial=True)
    assert (own.data.license, own.data.license_name) == ("other", "our-own-license-v2")
    assert "Commercial use: allowed" in own.text
    with pytest.raises(TypeError, match="author"):
        tiny().generate_model_card(author="someone")


def test_the_card_on_disk_is_valid_and_a_stale_one_is_said(folder, caplog):
    from huggingface_hub import ModelCard

    assert ModelCard.load(folder / "README.md").data.library_name == "mdiqa_metric"
    tiny().save_pretrained(folder)
    assert not caplog.records
    tiny(3).save_pretrained(folder)
    assert "README.md is kept" in caplog.text


# --- the Hub ----------------------------------------------------------------------------------------------------------


def push(facts=None, kernel=5, **options):
    return tiny(kernel).push_to_hub(REPO, model_card_kwargs=facts, **options)


def pull(repo=REPO, **options):
    return text(lambda: tiny_class().from_pretrained(repo, **options))


def push_twice_then_pull_each():
    first, second = push(), push(kernel=3)
    return second, pull(), pull(revision=first.rpartition("/")[2]), pull(revision="main")


def push_refused():
    from huggingface_hub.errors import HfHubHTTPError

    try:
        push()
    except HfHubHTTPError as error:
        return error.response.status_code


def settings(hub):  # noqa: F811
    """The environment of someone who may push; without Xet, which is another server's protocol."""
    return {"HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}


def test_a_push_and_a_pull_give_the_same_metric_and_then_work_offline(hub, home):  # noqa: F811
    from huggingface_hub import ModelCard

    url = home.run(push, FACTS, **settings(hub)).value
    files = hub.files(REPO)
    assert files.keys() == {"config.json", "model.safetensors", "README.md"}
    assert url == f"{hub.url}/{REPO}/commit/{hub.heads[REPO]}"
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert f'Tiny.from_pretrained("{REPO}")' in card.text
    (upload,) = hub.seen("PUT", "/lfs/")
    assert upload.token is None, "the storage is another origin"
    assert "README.md" not in "".join(request.path for request in hub.seen("GET"))

    expected = tiny().fingerprint()
    assert home.run(pull).value == expected
    hub.requests.clear()
    assert home.run(pull, HF_HUB_OFFLINE="1").value == expected
    assert not hub.requests
    hub.stop()
    assert home.run(pull).value == expected, "a server that is gone is done without"


def test_a_revision_gives_the_metric_of_that_time(hub, home):  # noqa: F811
    url, now, first, main = home.run(push_twice_then_pull_each, **settings(hub)).value
    assert url.endswith(hub.heads[REPO])
    assert first == tiny(5).fingerprint()
    assert now == main == tiny(3).fingerprint()


def test_a_push_without_a_token_is_refused(hub, home):  # noqa: F811
    assert home.run(push_refused, HF_HUB_DISABLE_XET="1").value == 401
    assert not hub.heads


def test_what_the_hub_lacks_is_named(hub, home):  # noqa: F811
    home.run(push, **settings(hub))
    files = hub.files(REPO)
    hub.add("someone/bare", "model.safetensors", files["model.safetensors"], "b" * 40)
    hub.add("someone/hollow", "config.json", files["config.json"], "c" * 40)
    hub.heads |= {"someone/bare": "b" * 40, "someone/hollow": "c" * 40}
    assert "someone/bare has no config.json" in home.run(pull, "someone/bare").value
    assert "someone/hollow has no model.safetensors" in home.run(pull, "someone/hollow").value
    gone = home.run(pull, "someone/gone").value
    assert "There is no folder someone/gone" in gone
    assert "access was refused (401), or the repository is gone" in gone
    unknown = home.run(functools.partial(pull, revision="v9")).value
    assert "no such revision" in unknown
    assert REPO in unknown


def test_a_path_that_does_not_exist_and_a_server_that_is_gone_are_errors_at_once(hub, home, tmp_path):  # noqa: F811
    missing = str(tmp_path / "none" / "here")
    error = home.run(pull, missing).value
    assert f"There is no folder {missing}" in error
    assert not hub.requests
    hub.stop()
    result = home.run(pull)
    assert "refused" in result.value
    assert not result.slept
    assert "HF_HUB_OFFLINE" in home.run(pull, HF_HUB_OFFLINE="1").value
