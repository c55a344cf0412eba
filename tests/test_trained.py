"""Images that trained a metric are told by their hashes, and said wherever its agreement with people is."""

from __future__ import annotations

import sys

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import mdiqa_metric
from mdiqa_metric import DimensionMean
from mdiqa_metric.checkpoints.files import embedded
from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.data.images import through_jpeg
from mdiqa_metric.evaluation import evaluate
from mdiqa_metric.evaluation import trained_images as trained
from mdiqa_metric.evaluation.report import write_report
from mdiqa_metric.evaluation.trained_images import (
    TrainedImages,
    describe,
    image_hash,
    trained_images,
    write_trained_images,
)
from mdiqa_metric.registry import manifest
from tests.rows import photograph


@pytest.fixture(scope="module")
def lite():
    return mdiqa_metric.create("mdiqa-lite")


def scenes(count: int) -> list[torch.Tensor]:
    """Images of soft blotches, each another."""
    random = torch.Generator().manual_seed(0)
    small = [torch.rand(1, 3, 9, 9, generator=random) for _ in range(count)]
    return [torch.nn.functional.interpolate(each, (96, 128), mode="bicubic").clamp(0, 1) for each in small]


def list_of(*images: torch.Tensor) -> TrainedImages:
    return TrainedImages({"trained on": np.array([image_hash(image) for image in images])})


def test_a_image_is_known_again_however_it_was_saved():
    known, random = list_of(photograph(96, 128), *scenes(20)), torch.Generator().manual_seed(1)
    for image in (photograph(96, 128), *scenes(20)):
        versions = {
            "itself": image,
            "8 bits": (image * 255).round() / 255,
            "JPEG 90": through_jpeg(image[0], 90)[None],
            "JPEG 50": through_jpeg(image[0], 50)[None],
            "half the size": torch.nn.functional.interpolate(image, (48, 64), mode="bilinear", antialias=True),
            "noise": (image + 0.05 * torch.randn(image.shape, generator=random)).clamp(0, 1),
            "half precision": image.half(),
        }
        for name, version in versions.items():
            assert known.kind_of(image_hash(version)) == "trained on", name


def test_other_images_are_not_known():
    known = list_of(photograph(96, 128), *scenes(20))
    for image in [*scenes(60)[20:], photograph(96, 128).flip(3), 1 - photograph(96, 128)]:
        assert known.kind_of(image_hash(image)) is None
    assert TrainedImages({"trained on": np.zeros((0, 128), np.bool_)}).kind_of(image_hash(photograph(96, 128))) is None


def test_flat_images_ramps_and_noise_are_none_of_the_embedded_list(lite):
    known, random = trained_images(lite), torch.Generator().manual_seed(0)
    down, across = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 128), indexing="ij")
    made = [torch.full((1, 3, 64, 64), value) for value in (0.0, 0.3, 1.0)]
    made += [(0.5 + 0.1 * torch.randn(1, 3, 200, 200, generator=random)).clamp(0, 1) for _ in range(20)]
    made += [
        torch.rand(1, 3, height, width, generator=random) for height, width in ((1, 1), (2, 3), (5, 300), (64, 64))
    ]
    for angle in torch.linspace(0, 6.28, 24):
        ramp = angle.cos() * across + angle.sin() * down
        made.append(((ramp - ramp.min()) / (ramp.max() - ramp.min())).expand(1, 3, -1, -1))
    assert known is not None
    assert {known.kind_of(image_hash(image)) for image in made} == {None}
    assert image_hash(made[0]) is image_hash(made[1]) is image_hash(made[2]) is None


def test_the_list_goes_with_the_weights_whatever_they_are_called(lite):
    lists = trained_images(lite)
    assert lists is not None
    assert {kind: len(hashes) for kind, hashes in lists.by_kind.items()} == {"trained on": 791, "chosen on": 186}
    other = mdiqa_metric.create("mdiqa-lite", weights={key: value.clone() for key, value in lite.state_dict().items()})
    assert trained_images(other) is trained_images(DimensionMean(lite)) is lists
    assert trained_images(mdiqa_metric.create("mdiqa-lite", side=96)) is lists
    assert trained_images(mdiqa_metric.create("mdiqa-lite", weights=None)) is None
    assert trained_images(mdiqa_metric.create("psnr")) is None
    path = embedded(manifest()["files"]["mdiqa-lite"]["trained_images"])
    assert path.stat().st_size < 25_000


def test_a_list_is_written_and_read_again(lite, tmp_path, monkeypatch):
    images = scenes(6)
    path = tmp_path / "list.txt"
    again = through_jpeg(images[0][0], 90)[None]
    flat = torch.zeros(1, 3, 64, 64)
    write_trained_images(path, lite, {"trained on": [*images[:3], again, flat], "chosen on": images[3:5]})
    rows = {"lite": {"trained_images": str(path)}}
    monkeypatch.setattr(trained, "manifest", lambda: {"files": rows})
    monkeypatch.setattr(trained, "_lists", trained._lists.__wrapped__)
    known = trained_images(lite)
    assert known is not None
    assert [len(hashes) for hashes in known.by_kind.values()] == [3, 2]
    kinds = [known.kind_of(image_hash(image)) for image in (*images, again, flat)]
    assert kinds == [*["trained on"] * 3, *["chosen on"] * 2, None, "trained on", None]


def test_evaluating_says_how_many_images_trained_the_metric(lite, tmp_path, monkeypatch):
    images, random = scenes(24), np.random.default_rng(0)
    for index, image in enumerate(images):
        samples = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(samples).save(tmp_path / f"{index}.jpg", quality=92)
    (tmp_path / "23.jpg").write_bytes(b"")
    table = pandas.DataFrame({"image": [f"{index}.jpg" for index in range(24)], "mos": random.random(24)})
    table["distortion"] = ["a", "b"] * 12
    known = TrainedImages(
        {
            "trained on": np.array([image_hash(image) for image in images[:10]]),
            "chosen on": np.array([image_hash(image) for image in images[20:]]),
        }
    )
    module = sys.modules["mdiqa_metric.evaluation.evaluate"]  # the package has a function of that name
    monkeypatch.setattr(module, "trained_images", lambda metric: known if metric.name == "mdiqa-lite" else None)
    metrics = {"lite": lite, "mean": DimensionMean(lite)}
    options = {"store": tmp_path / "store", "resamples": 40}
    results = evaluate(metrics, QualityDataset(table, root=tmp_path), **options)
    again = evaluate(metrics, QualityDataset(table, root=tmp_path), **options)
    assert again == results
    facts = results["metrics"]["lite"]
    assert facts["agreement"]["seen"] == {"trained on": 10, "chosen on": 3}  # the last cannot be read
    assert {label: row["seen"]["trained on"] for label, row in facts["groups"]["distortion"].items()} == {
        "a": 5,
        "b": 5,
    }
    assert "seen" not in results["metrics"]["mean"]["agreement"]
    assert [image.get("seen") for image in results["images"]] == [
        *[{"lite": "trained on"}] * 10,
        *[None] * 10,
        *[{"lite": "chosen on"}] * 3,
        None,
    ]
    assert describe(facts["agreement"]["seen"]) == "trained on 10, chosen on 3"
    write_report(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("trained on 10, chosen on 3") == 1
    assert page.count("trained on 5, chosen on") == 2
