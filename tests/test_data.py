"""Tables of rated images, as people and programs write them, and what a DataLoader makes of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.data.images import read_image
from mdiqa_metric.data.pairing import ImageError
from mdiqa_metric.data.tables import TableError, read_table, split_by_content, write_table

RATED = pd.DataFrame(
    {
        "image": ["out/1.png", "out/2.png", "out/10.png"],
        "reference": ["in/a.png", "in/a.png", "in/b.png"],
        "mos": [0.25, 1.0, 1 / 3],
        "raw": [75.0, 0.0, 200 / 3],
        "std": [0.125, 0.0, 0.1],
        "split": ["train", "", "test"],
        "content": ["0042", "0042", "shroom"],
        "distortion": ["JPEG", "blur", "JPEG"],
        "level": [1, 2, 5],
        "ratings_10": [0, 9, 1],
        "ratings_1.5": [3, 0, 1],
        "ratings_2": [1, 0, 0],
        "sharpness": [0.5, 1.0, 0.1],
        "prompt": ["a cat, asleep", "", "2020"],
        "color": [0, 1, 0],
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the images of `RATED`, each of random pixels."""
    random = np.random.default_rng(0)
    for name in {*RATED["image"], *RATED["reference"]}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 6, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def save(folder: Path, table: pd.DataFrame, name: str = "table.csv") -> Path:
    write_table(table, folder / name, folder)
    return folder / name


def test_csv_and_parquet_give_the_same_table(folder: Path) -> None:
    from_csv = read_table(save(folder, RATED))
    pd.testing.assert_frame_equal(from_csv, read_table(save(folder, RATED, "table.parquet")))
    assert [*from_csv.columns] == [*RATED.columns]
    for name in ("mos", "raw", "std", "ratings_10", "ratings_1.5", "sharpness", "color"):
        assert from_csv[name].dtype == np.float64
        assert from_csv[name].tolist() == RATED[name].tolist(), name
    for name in ("image", "reference", "split", "content", "distortion", "prompt", "level"):
        assert from_csv[name].tolist() == RATED[name].tolist(), name


def both_ways(folder: Path, table: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """What is read of a table that pandas wrote, the same from .csv, .parquet and memory."""
    table.to_csv(folder / "t.csv", **options)
    table.to_parquet(folder / "t.parquet", **options)
    read = read_table(folder / "t.csv")
    pd.testing.assert_frame_equal(read, read_table(folder / "t.parquet"), check_exact=True)
    pd.testing.assert_frame_equal(read, QualityDataset(table, root=folder).table, check_exact=True)
    return read


WORDS = ["None", "NA", "nan", "null", "N/A", "1e5", "0042", "True", "inf"]


def test_text_is_text_whatever_it_says(tmp_path: Path) -> None:
    files = [word.replace("/", "-") for word in WORDS]
    for name in files:
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    named = {"image": files, "reference": files, "content": WORDS, "distortion": WORDS}
    level, mos = ["None", "NA", *["low"] * 7], np.arange(9) / 7
    table = pd.DataFrame({**named, "mos": mos, "tag": WORDS, "none": ["None"] * 8 + [""], "level": level})
    read = both_ways(tmp_path, table, index=False)
    for name in table.columns:
        assert read[name].tolist() == table[name].tolist(), name
    assert QualityDataset(table, root=tmp_path).attributes == ()
    table = table.assign(content=[None, *WORDS[1:]], tag=[*WORDS[:8], None])
    read = both_ways(tmp_path, table, index=False)
    assert read["content"].tolist() == ["", *WORDS[1:]]
    assert read["tag"].tolist() == [*WORDS[:8], ""]
    with pytest.raises(TableError, match=r"splits None \(1\), expected train, val, test or nothing"):
        both_ways(tmp_path, table.assign(split="None"), index=False)


def test_leading_zeros_are_kept_and_truth_values_are_text(folder: Path) -> None:
    truth = pd.array([True, None, False], dtype="boolean")
    columns = {"code": ["01", "02", "10"], "flag": [True, False, True], "truth": truth, "said": ["True", "", "False"]}
    columns |= {"level": ["01", "02", "02"], "mos": [1, 2, 3]}
    read = both_ways(folder, RATED.assign(**columns), index=False)
    assert read["code"].tolist() == ["01", "02", "10"]
    assert read["level"].tolist() == ["01", "02", "02"]
    assert read["flag"].tolist() == ["True", "False", "True"]
    assert read["truth"].tolist() == read["said"].tolist() == ["True", "", "False"]
    assert QualityDataset(folder / "t.csv").attributes == ("sharpness", "color")
    for mos in ([True, False, True], ["True", "False", "True"]):
        with pytest.raises(TableError, match=r"a finite number as mos .*out/1\.png \(True\)"):
            both_ways(folder, RATED.assign(mos=mos), index=False)


def test_numbers_are_numbers_however_they_are_kept(folder: Path) -> None:
    columns = {"mos": ["007", "1E5", " 2 "], "share": ["0.5", "1e-05", "-3"], "whole": pd.array([1, 2, 3], "Int64")}
    read = both_ways(folder, RATED.assign(**columns, level=[1, np.nan, 2.5]), index=False)
    assert read["mos"].tolist() == [7, 1e5, 2]
    assert read["share"].tolist() == [0.5, 1e-5, -3]
    assert read["level"].tolist()[::2] == [1, 2.5]
    assert np.isnan(read["level"][1])
    assert {*read[["mos", "share", "whole", "level"]].dtypes} == {np.dtype(np.float64)}
    assert QualityDataset(folder / "t.csv").attributes == ("sharpness", "color", "share", "whole")


@pytest.mark.parametrize("gap", ["", "NA", "nan", "N/A", "null", "None"])
def test_a_gap_in_a_column_of_numbers_is_an_error(folder: Path, gap: str) -> None:
    for name in ("mos", "std", "sharpness", "ratings_2"):
        with pytest.raises(TableError, match=rf"number.* as {name} in every row, got out/2\.png \(nan\) \(1\)"):
            both_ways(folder, RATED.assign(**{name: ["0.5", gap, "1"]}), index=False)


def test_an_index_that_pandas_wrote_is_left_out(folder: Path) -> None:
    want = both_ways(folder, RATED, index=False)
    twice = pd.read_csv(folder / "t.csv", index_col=False, keep_default_na=False).reset_index()
    twice.to_csv(folder / "once.csv")
    for table in (
        RATED,
        RATED.set_index(pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])),
        RATED.set_index(pd.Index([7, 3, 5])).reset_index(),
        RATED.reset_index().reset_index(),
        RATED.assign(__index_level_0__=[7, 3, 5]),
        pd.read_csv(folder / "once.csv", keep_default_na=False, dtype={"content": str}),
    ):
        pd.testing.assert_frame_equal(both_ways(folder, table), want)
    # A named level is a column like any other, as is an `index` that counts nothing.
    by_name = both_ways(folder, RATED.set_index("image"))
    pd.testing.assert_frame_equal(by_name[want.columns], want)
    both_ways(folder, RATED.assign(index=[0.5, 1.0, 2.0]))
    assert QualityDataset(folder / "t.csv").attributes == ("sharpness", "color", "index")


def test_a_table_of_two_columns_is_enough(folder: Path) -> None:
    (folder / "table.csv").write_text("\ufeffmos,image\r\n3.5,out/1.png\r\n-2,out/2.png\r\n", encoding="utf-8")
    table = read_table(folder / "table.csv")
    assert table["mos"].tolist() == [3.5, -2]
    dataset = QualityDataset(folder / "table.csv")
    assert (dataset.attributes, dataset.rating_values, dataset.full_reference) == ((), (), False)
    assert {*dataset[0]} == {"image", "mos", "index"}


def test_a_split_has_its_rows_numbered_anew(folder: Path) -> None:
    table = read_table(save(folder, RATED), split="test")
    assert table["image"].tolist() == ["out/10.png"]
    assert [*table.index] == [0]
    (folder / "out/1.png").unlink()  # an image of another split may be missing
    assert len(read_table(folder / "table.csv", split="test")) == 1


FAULTS = {
    "no mos": (RATED.drop(columns="mos"), r"has no column mos, only image, reference, raw, std, .*: rename"),
    "neither": (RATED[["raw", "std"]], r"no column image and no column mos, only raw, std"),
    "no rows": (RATED[:0], "has no rows"),
    "text": (
        RATED.assign(mos=["good", "1", "bad"]),
        r"a finite number as mos .* got out/1.png \(good\), out/10.png \(bad",
    ),
    "gap": (RATED.assign(mos=[0.5, None, 1]), r"mos in every row, got out/2.png \(nan\) \(1\): correct or remove"),
    "infinite": (RATED.assign(mos=[0.5, np.inf, 1]), r"out/2.png \(inf\)"),
    "raw": (RATED.assign(raw=[1, 2, None]), r"a finite number as raw .*out/10.png"),
    "negative std": (RATED.assign(std=[1, -0.5, 1]), r"a number from 0 up as std .*out/2.png \(-0.5\)"),
    "negative count": (RATED.assign(ratings_2=[1, 0, -1]), r"a number from 0 up as ratings_2 .*out/10.png"),
    "no ratings": (RATED.assign(ratings_10=0), r"has no ratings for out/2.png \(1\)"),
    "attribute": (RATED.assign(sharpness=[1, np.nan, 1]), r"a finite number as sharpness .*out/2.png"),
    "twice": (RATED.assign(image="out/1.png"), r"several rows for out/1.png \(1\): keep one row an image"),
    "unnamed": (RATED.assign(image=["out/1.png", "", "out/2.png"]), r"names no image in rows 1 \(1\)"),
    "no reference": (RATED.assign(reference=["in/a.png", None, ""]), r"names no reference in rows 1, 2 \(2\)"),
    "split": (
        RATED.assign(split=["train", "testing", ""]),
        r"splits testing \(1\), expected train, val, test or nothing",
    ),
    "missing": (
        RATED.assign(image=["out/1.PNG", "gone/2.png", "out/10.png"]),
        r"images that are not in .*: out/1.PNG, gone/2.png \(2\)\. Check the folder, and that capitals",
    ),
    "missing reference": (RATED.assign(reference="in/c.png"), r"references that are not in .*: in/c.png \(1\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_table_is_an_error(folder: Path, fault: str) -> None:
    table, complaint = FAULTS[fault]
    table.to_csv(folder / "table.csv", index=False)
    table.to_parquet(folder / "table.parquet", index=False)
    for name in ("table.csv", "table.parquet"):
        with pytest.raises(TableError, match=complaint):
            read_table(folder / name)
    with pytest.raises(TableError, match=f"^The table .*{complaint}"):
        QualityDataset(table, root=folder)


def test_many_missing_images_are_counted(folder: Path) -> None:
    table = pd.DataFrame({"image": [f"out/{index}.png" for index in range(100)], "mos": 1.0})
    with pytest.raises(TableError, match=r"out/0.png, out/3.png, out/4.png, out/5.png, out/6.png, \.\.\. \(97\)"):
        read_table(save(folder, table))


def test_images_are_looked_for_with_one_listing_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(folder, RATED)
    listed: list[Any] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: listed.append(Path(place).name) or listdir(place))
    read_table(path)
    assert sorted(listed) == ["in", "out"]


def test_what_is_no_table_is_an_error(folder: Path) -> None:
    with pytest.raises(TableError, match=r"There is no table .*gone\.csv: check the path"):
        read_table(folder / "gone.csv")
    for name in ("empty.csv", "empty.parquet", "damaged.parquet"):
        (folder / name).write_bytes(b"PAR1 and no more" if "damaged" in name else b"")
        with pytest.raises(
            TableError, match=rf"{name} is empty, damaged or no .{name.partition('.')[2]} table: .*Write"
        ):
            read_table(folder / name)
    with pytest.raises(TableError, match=r"A table ends in .csv or .parquet, got .*table\.xlsx"):
        read_table(folder / "table.xlsx")
    with pytest.raises(TableError, match=r"A table ends in"):
        write_table(RATED, folder / "table.txt", folder)


def test_a_split_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(TableError, match=r"no rows of the split 'val', the splits in it are: train, test\. Choose"):
        read_table(save(folder, RATED), split="val")
    with pytest.raises(TableError, match=r"the splits in it are: none\..*split_by_content"):
        QualityDataset(RATED.drop(columns="split"), split="test", root=folder)


def test_without_pandas_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(folder, RATED, "table.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pyarrow is needed.*pip install 'mdiqa_metric\[evaluate\]'"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pandas is needed"):
        read_table(path)


def test_importing_loads_no_pandas() -> None:
    heavy = "{'pandas', 'pyarrow', 'scipy', 'openpyxl'}"
    code = f"import sys, mdiqa_metric.data, mdiqa_metric.data.converters; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_table_can_be_written_elsewhere(folder: Path) -> None:
    (folder / "tables").mkdir()
    path = folder / "tables/t.csv"
    write_table(RATED.assign(image=[str(folder / "out/1.png"), *RATED["image"][1:]]), path, folder)
    written = read_table(path)
    assert written["image"].tolist() == [str(folder / "out/1.png"), "../out/2.png", "../out/10.png"]
    assert written["reference"].tolist() == ["../in/a.png", "../in/a.png", "../in/b.png"]
    assert RATED["image"].tolist() == ["out/1.png", "out/2.png", "out/10.png"]  # its argument stays as it was
    assert [file.name for file in path.parent.iterdir()] == ["t.csv"]


def test_an_item_has_what_its_row_has(folder: Path) -> None:
    dataset = QualityDataset(save(folder, RATED))
    assert len(dataset) == 3
    assert dataset.attributes == ("sharpness", "color")
    assert dataset.rating_values == (1.5, 2, 10)
    assert dataset.full_reference
    assert dataset.root == folder
    item = dataset[2]
    assert torch.equal(item["image"], read_image(folder / "out/10.png")[0])
    assert torch.equal(item["reference"], read_image(folder / "in/b.png")[0])
    assert {name: value.tolist() for name, value in item.items() if name not in ("image", "reference", "index")} == {
        "mos": np.float32(1 / 3),
        "std": np.float32(0.1),
        "attributes": [np.float32(0.1), 0],
        "ratings": [1, 0, 1],
    }
    assert item["mos"].shape == ()
    assert {value.dtype for name, value in item.items() if name != "index"} == {torch.float32}
    assert item["index"] == 2
    assert dataset.path(2) == folder / "out/10.png"
    assert dataset.path(2, "reference") == folder / "in/b.png"


def test_an_index_is_a_list_s(folder: Path) -> None:
    dataset = QualityDataset(save(folder, RATED))
    assert dataset[-1]["index"] == 2
    assert dataset[np.int64(1)]["mos"] == 1
    assert [item["index"] for item in dataset] == [0, 1, 2]
    with pytest.raises(IndexError):
        dataset[3]


def test_an_item_can_be_changed_in_place(folder: Path) -> None:
    dataset = QualityDataset(save(folder, RATED))
    dataset[0]["attributes"].zero_()
    assert dataset[0]["attributes"].tolist() == [0.5, 0]


def test_image_and_reference_get_the_same_crop(folder: Path) -> None:
    for name in {*RATED["image"], *RATED["reference"]}:  # every pixel says where it is
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6)).save(folder / name)

    def crop(stack: torch.Tensor) -> torch.Tensor:
        assert stack.shape == (2, 3, 8, 6)
        top, left = (int(torch.randint(0, room, ())) for room in (5, 3))
        return stack[:, :, top : top + 4, left : left + 4]

    items = [item for _ in range(4) for item in QualityDataset(save(folder, RATED), transform=crop)]
    assert all(torch.equal(item["image"], item["reference"]) for item in items)
    assert len({item["image"].sum().item() for item in items}) > 1


def test_a_table_in_memory_is_read_like_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    dataset = QualityDataset(RATED, split="train")
    assert dataset.root == Path()
    pd.testing.assert_frame_equal(dataset.table, read_table(save(folder, RATED), split="train"))
    assert dataset[0]["image"].shape == (3, 8, 6)
    moved = folder / "elsewhere.csv"
    moved.write_text("image,mos\n1.png,1\n")
    assert QualityDataset(moved, root=folder / "out").path(0) == folder / "out/1.png"


def test_nothing_is_decoded_before_it_is_asked_for(folder: Path) -> None:
    (folder / "out/2.png").write_bytes(b"")
    dataset = QualityDataset(save(folder, RATED))
    assert dataset[0]["image"].shape == (3, 8, 6)
    with pytest.raises(ImageError, match=r"2\.png is empty"):
        dataset[1]


def test_a_reference_of_another_size_is_an_error(folder: Path) -> None:
    Image.new("RGB", (6, 9)).save(folder / "in/b.png")
    with pytest.raises(TableError, match=r"out/10\.png is 8x6 and its reference .*in/b\.png is 9x6, expected one size"):
        QualityDataset(save(folder, RATED))[2]


def corner(stack: torch.Tensor) -> torch.Tensor:
    return stack[:, :, :4, :4]


def test_a_plain_data_loader_with_workers_takes_it(folder: Path) -> None:
    Image.new("RGB", (16, 12)).save(folder / "out/10.png")
    Image.new("RGB", (16, 12)).save(folder / "in/b.png")  # sizes are mixed, and crops make a batch
    dataset = QualityDataset(save(folder, RATED), transform=corner)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="spawn")
    batches = [*loader]
    shapes = {name: tuple(value.shape) for name, value in batches[0].items()}
    assert shapes == {
        **{"image": (2, 3, 4, 4), "reference": (2, 3, 4, 4), "mos": (2,), "std": (2,)},
        **{"attributes": (2, 2), "ratings": (2, 3), "index": (2,)},
    }
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 2]
    assert torch.cat([batch["mos"] for batch in batches]).tolist() == [np.float32(mos) for mos in RATED["mos"]]
    assert torch.equal(batches[0]["image"][1], read_image(folder / "out/2.png")[0, :, :4, :4])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0]["image"], dataset[0]["image"])


def scenes(count: int) -> pd.DataFrame:
    names = [f"scene{scene}" for scene in range(count) for _ in range(4)]
    return pd.DataFrame({"image": [f"{row}.png" for row in range(4 * count)], "mos": 1.0, "content": names})


def test_no_scene_is_in_two_splits() -> None:
    table = scenes(25)
    split = split_by_content(table, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=0)
    assert (split.groupby("content")["split"].nunique() == 1).all()
    assert split.groupby("split")["content"].nunique().to_dict() == {"test": 5, "train": 15, "val": 5}
    assert "split" not in table


def test_a_split_depends_on_the_seed_alone() -> None:
    table = scenes(25)
    fractions = {"train": 0.8, "test": 0.2}
    split = split_by_content(table, fractions, seed=1)
    pd.testing.assert_frame_equal(split, split_by_content(table[::-1], fractions, seed=1)[::-1])
    assert not split["split"].equals(split_by_content(table, fractions, seed=2)["split"])
    # The same on every machine and in every version.
    test = split["content"][split["split"] == "test"].unique()
    assert [*test] == ["scene4", "scene13", "scene14", "scene20", "scene22"]


def test_scenes_are_references_or_images_where_nothing_names_them() -> None:
    table = scenes(25).rename(columns={"content": "reference"})
    split = split_by_content(table, {"train": 0.8, "test": 0.2}, seed=0)
    assert (split.groupby("reference")["split"].nunique() == 1).all()
    alone = split_by_content(table.drop(columns="reference"), {"train": 0.8, "test": 0.2}, seed=0)
    assert alone["split"].value_counts().to_dict() == {"train": 80, "test": 20}


@pytest.mark.parametrize("fractions", [{}, {"train": 0.8}, {"train": 0.8, "dev": 0.2}, {"train": 1.2, "test": -0.2}])
def test_bad_fractions_are_an_error(fractions: dict[str, float]) -> None:
    with pytest.raises(TableError, match=r"positive, add up to 1 and are named train, val, test, got"):
        split_by_content(scenes(5), fractions, seed=0)


def test_too_few_or_nameless_scenes_are_an_error() -> None:
    with pytest.raises(TableError, match=r"2 scenes are too few to give test a fraction of 0.2"):
        split_by_content(scenes(2), {"train": 0.8, "test": 0.2}, seed=0)
    table = scenes(5)
    table.loc[3, "content"] = None
    with pytest.raises(TableError, match=r"needs the content of every row, got none for 3.png \(1\)"):
        split_by_content(table, {"train": 0.8, "test": 0.2}, seed=0)
