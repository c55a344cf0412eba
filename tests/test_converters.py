"""Miniatures of the field's data sets, laid out as their authors release them, quirks included."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from mdiqa_metric.data.converters import CONVERTERS, Conversion, convert
from mdiqa_metric.data.dataset import QualityDataset
from mdiqa_metric.data.tables import TableError, split_by_content, write_table

LIVE = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
LIVE_NAMES = [f"{folder}/img{number}.bmp" for folder, count in LIVE.items() for number in range(1, count + 1)]


def images(folder: Path, *names: str) -> None:
    """Real image files of those names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = BytesIO()
        Image.new("RGB", (4, 3), (9, 99, 199)).save(content, Image.registered_extensions()[path.suffix.lower()])
        path.write_bytes(content.getvalue())


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def cells(names: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    """A cell array of strings, each of which MATLAB puts into an array of its own."""
    array = np.empty(len(names), object)
    array[:] = [np.array([name]) for name in names]
    return array.reshape(shape)


def live(folder: Path) -> None:
    references = ["womanhat.bmp" if row % 2 else "sailing2.bmp" for row in range(982)]
    copies = np.zeros((1, 982), bool)
    copies[0, [1, 981]] = True
    dmos = np.linspace(-2.64, 111.77, 982)
    dmos[copies[0]] = 0
    scipy.io.savemat(folder / "refnames_all.mat", {"refnames_all": cells(references, (1, 982))})
    values = {"dmos_new": dmos[None], "dmos_std": np.full((1, 982), 5.0), "orgs": copies}
    scipy.io.savemat(folder / "dmos_realigned.mat", values)
    images(folder, *LIVE_NAMES, "refimgs/womanhat.bmp", "refimgs/sailing2.bmp")


def csiq(folder: Path) -> None:
    columns = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")
    rows = [
        (1600, 1, "noise", 1, 0.061, 0.062),
        (1600, 3, "jpeg 2000", 5, 0.1, 0.95),
        ("shroom", 5, "blur", 2, 0.02, 0.25),
        ("shroom", 4, "fnoise", 3, 0.02, 0.5),
    ]
    with pd.ExcelWriter(folder / "csiq.DMOS.xlsx") as book:
        pd.DataFrame({"image": ["1600"], "mean": [1]}).to_excel(book, sheet_name="by_image", index=False)
        table = pd.DataFrame(rows, columns=columns)
        table.to_excel(book, sheet_name="all_by_image", index=False, startrow=3, startcol=3)
    names = ("awgn/1600.AWGN.1", "jpeg2000/1600.jpeg2000.5", "blur/shroom.BLUR.2", "fnoise/shroom.fnoise.3")
    images(folder, *(f"dst_imgs/{name}.png" for name in names), "src_imgs/1600.png", "src_imgs/shroom.png")


def tid2013(folder: Path) -> None:
    text(folder / "mos_with_names.txt", "5.51429 I01_01_1.bmp", "4.5 i01_08_2.bmp", "0.9 I25_24_5.bmp")
    text(folder / "mos_std.txt", "0.13013", "0.18", "0.09")
    images(folder / "distorted_images", "i01_01_1.bmp", "I01_08_2.BMP", "i25_24_5.bmp")
    images(folder / "reference_images", "I01.BMP", "i25.bmp")


def kadid10k(folder: Path) -> None:
    rows = ("I01_01_01.png,I01.png,4.57,0.496", "I01_10_05.png,I01.png,1.0,0.0", "I81_25_03.png,I81.png,3,1.2")
    text(folder / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)
    images(folder / "images", "I01_01_01.png", "I01_10_05.png", "I81_25_03.png", "I01.png", "I81.png")


def pipal(folder: Path) -> None:
    text(folder / "Train_Label/A0001.txt", "A0001_00_00.bmp,1520.0648", "A0001_06_26.bmp,1020.5")
    text(folder / "Train_Label/A0185.txt", "A0185_03_01.bmp,1720.5", "")
    images(folder, "Distortion_1/A0001_00_00.bmp", "Distortion_1/A0001_06_26.bmp")
    images(folder, "Distortion_4/Distortion_4/A0185_03_01.bmp", "Train_Ref/A0001.bmp", "Train_Ref/A0185.bmp")


def clive(folder: Path) -> None:
    names = [*(f"t{number}.bmp" for number in range(1, 8)), "611.JPG", "100.bmp"]
    mos, std = [*[50.0] * 7, 38.489474, 100.0], [*[20.0] * 7, 21.0, 19.124726]
    (folder / "Data").mkdir()
    for name, value in {
        "AllImages_release": cells(names, (9, 1)),
        "AllMOS_release": np.array([mos]),
        "AllStdDev_release": np.array([std]),
    }.items():
        scipy.io.savemat(folder / f"Data/{name}.mat", {name: value})
    images(folder / "Images", "611.jpg", "100.bmp", *(f"trainingImages/t{number}.bmp" for number in range(1, 8)))


KONIQ = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"


def koniq10k(folder: Path) -> None:
    rows = (
        "10004473376.jpg,0.0,0.0,0.238095238095,0.695238095238,0.0666666666667,105,77.3836206897,0.527277894494,training",
        "10007357496.jpg,0.0,0.03125,0.46875,0.489583333333,0.0104166666667,96,1.0,0.58,test",
        "10043785683.jpg,0.0,0.0,0.433962264151,0.566037735849,0.0,106,100.0,0.497974333332,validation",
    )
    text(folder / "koniq10k_distributions_sets.csv", KONIQ, *rows)
    for size in ("1024x768", "512x384"):
        images(folder / size, "10004473376.jpg", "10007357496.jpg", "10043785683.jpg")


def spaq(folder: Path) -> None:
    names = ("Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
    rows = [("00001.jpg", 48.86, 47.43, 55.57, 55.71, 37.86, 42.57), ("00002.jpg", 100, 0, 100, 50, 25, 75)]
    (folder / "Annotations").mkdir()
    path = folder / "Annotations/MOS and Image attribute scores.xlsx"
    pd.DataFrame(rows, columns=names).to_excel(path, index=False)
    images(folder / "TestImage", "00001.jpg", "00002.jpg")


def flive_images(folder: Path) -> None:
    names = ("blur_dataset/motion0044.jpg", "voc_emotic_ava/AVA__1.jpg", "voc_emotic_ava/EMOTIC__big.jpg")
    text(folder / "labels_image.csv", "name,mos", *map(",".join, zip(names, ("75.5", "0.0", "59.6"), strict=True)))
    text(folder / "labels640.csv", "mos_image,name_image", "59.6,voc_emotic_ava/EMOTIC__big.jpg")
    rows = ("blur_dataset/motion0044.jpg,False", "voc_emotic_ava/AVA__1.jpg,True")
    text(folder / "labels<=640_padded.csv", "name_image,is_valid", *rows)
    images(folder / "database", *names)


def flive_patches(folder: Path) -> None:
    names = [f"patches/{name}_patch_{number}.jpg" for name in ("AVA__1", "EMOTIC__big") for number in (1, 2, 3)]
    text(folder / "labels_patch.csv", "name,mos", *(f"{name},{60 + row}" for row, name in enumerate(names)))
    text(folder / "labels640.csv", "mos_image,name_image", "59.6,voc_emotic_ava/EMOTIC__big.jpg")
    images(folder, *names)


def bid(folder: Path) -> None:
    table = pd.DataFrame({"Image Number": [4, 456], "Average Subjective Grade": [5.0, 3.18], "std": [0.5, 1.1]})
    table.to_excel(folder / "DatabaseGrades.xlsx", sheet_name="Plan1", index=False)
    images(folder / "ImageDatabase", "DatabaseImage0004.JPG", "DatabaseImage0456.jpg")


PARA_SCORES = {
    "aesthetic": "aestheticScore",
    "quality": "qualityScore",
    "composition": "compositionScore",
    "color": "colorScore",
    "dof": "dofScore",
    "light": "lightScore",
    "content_score": "contentScore",
    "content_preference": "contentPreference",
    "willingness_to_share": "willingnessToShare",
}


def para(folder: Path) -> None:
    def row(session: int, number: int, first: float) -> dict[str, Any]:
        means = {f"{score}_mean": first + 0.25 * place for place, score in enumerate(PARA_SCORES.values())}
        stds = {f"{score}_std": 0.8 for score in PARA_SCORES.values()}
        counts = {f"aestheticScore_{value / 2:.1f}": value for value in range(2, 11)}
        names = {"imageName": f"iaa_pub{number}_.jpg", "sessionId": f"session{session}", "semantic": "plant"}
        return names | counts | means | stds

    (folder / "annotation").mkdir()
    pd.DataFrame([row(1, 1, 1.0), row(1, 2, 3.0)]).to_csv(folder / "annotation/PARA-GiaaTrain.csv", index=False)
    pd.DataFrame([row(2, 1, 2.0)]).to_csv(folder / "annotation/PARA-GiaaTest.csv", index=False)
    ratings = [
        *(f"session1,iaa_pub1_.jpg,A{rater},3.0,{score},4" for rater, score in enumerate((1.0, 1.0, 2.5))),
        *(f"session1,iaa_pub2_.jpg,A{rater},3.0,{score},4" for rater, score in enumerate((2.5, 4.0))),
        *(f"session2,iaa_pub1_.jpg,A{rater},3.0,{score},4" for rater, score in enumerate((4.0, 1.0))),
    ]
    header = "sessionId,imageName,userId,aestheticScore,qualityScore,compositionScore"
    text(folder / "annotation/PARA-Images.csv", header, *ratings)
    images(folder / "imgs", "session1/iaa_pub1_.jpg", "session1/iaa_pub2_.jpg", "session2/iaa_pub1_.jpg")


def ava(folder: Path) -> None:
    rows = ("1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396", "2 953958 10 0 0 0 0 0 0 0 0 10 15 0 1396")
    text(folder / "AVA.txt", *rows, "3 954184 0 0 0 0 0 0 0 0 0 7 0 0 7")
    text(folder / "tags.txt", "1 Abstract", "15 Nature", "22 Still Life")
    text(folder / "challenges.txt", "1396 The Color Red")
    text(folder / "aesthetics_image_lists/generic_test.jpgl", "954184")
    images(folder / "images", "953619.jpg", "953958.jpg", "954184.jpg")


def agiqa3k(folder: Path) -> None:
    rows = (
        "AttnGAN_normal_000.jpg,statue of a man,,,,0.965602553,0.223270101,0.40889324,0.615607722",
        'sd1.5_lowstep_001.jpg,"a tray of sushi, baroque style",,,baroque style,5,1,2.5,0.5',
    )
    text(folder / "data.csv", "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align", *rows)
    images(folder / "Images", "AttnGAN_normal_000.jpg", "sd1.5_lowstep_001.jpg")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    **{"live": live, "csiq": csiq, "tid2013": tid2013, "kadid10k": kadid10k, "pipal": pipal, "clive": clive},
    **{"koniq10k": koniq10k, "spaq": spaq, "flive-images": flive_images, "flive-patches": flive_patches, "bid": bid},
    **{"para": para, "para-aesthetic": para, "ava": ava, "agiqa3k": agiqa3k},
}


def made(name: str, folder: Path, *odd: str) -> pd.DataFrame:
    """The table of a miniature, of which nothing is odd but its size and what the patterns say, each one problem."""
    conversion = convert(name, folder)
    found = [problem for problem in conversion.problems if " is published with " not in problem]
    assert len(found) == len(odd), found
    for problem, pattern in zip(found, odd, strict=True):
        assert pd.Series([problem]).str.fullmatch(pattern).all(), problem
    return conversion.table


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_release_becomes_a_table_to_learn_from(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    conversion = convert(name, tmp_path)
    table, facts = conversion.table, CONVERTERS[name]
    if name == "live":  # the one that cannot be smaller
        assert conversion.problems == [f"live is published with 779 labels, found {len(table)}."]
    else:
        assert conversion.problems == [f"{name} is published with {facts.images} labels, found {len(table)}."]
    worst, best = facts.scale or (1020.5, 1720.5)
    assert table["mos"].tolist() == pytest.approx([(raw - worst) / (best - worst) for raw in table["raw"]])
    assert not facts.bounded or table["mos"].between(0, 1).all()
    for suffix in (".csv", ".parquet"):
        write_table(table, tmp_path / f"table{suffix}", tmp_path)
        dataset = QualityDataset(tmp_path / f"table{suffix}")
        pd.testing.assert_frame_equal(dataset.table[["image", "mos"]], table[["image", "mos"]], check_dtype=False)
        item = dataset[len(dataset) - 1]
        assert item["image"].shape == (3, 3, 4)
        assert ("reference" in item) == (name in ("live", "csiq", "tid2013", "kadid10k", "pipal"))


def test_every_converter_has_its_facts() -> None:
    assert {*LAYOUTS} == {*CONVERTERS}
    for facts in CONVERTERS.values():
        assert facts.source
        assert facts.terms
        assert facts.images > 500


def test_live(tmp_path: Path) -> None:
    live(tmp_path)
    table = made("live", tmp_path)
    assert len(table) == 980
    assert table["image"].tolist() == [name for row, name in enumerate(LIVE_NAMES) if row not in (1, 981)]
    first, last = table.iloc[0], table.iloc[-1]
    assert (first["image"], first["reference"]) == ("jp2k/img1.bmp", "refimgs/sailing2.bmp")
    assert (first["content"], first["distortion"]) == ("sailing2", "JPEG2000")
    assert (first["raw"], first["mos"]) == (-2.64, pytest.approx(1.0264))  # realigned beyond 0..100
    assert first["std"] == pytest.approx(0.05)
    assert (last["image"], last["distortion"]) == ("fastfading/img173.bmp", "fast fading")
    assert table["distortion"].value_counts().to_dict() == {
        **{"JPEG2000": 226, "JPEG": 233, "white noise": 174, "Gaussian blur": 174, "fast fading": 173}
    }


def test_live_references_of_the_distorted_images_alone_are_in_text_order(tmp_path: Path) -> None:
    live(tmp_path)
    whole = made("live", tmp_path)
    names = dict(zip(whole["image"], whole["reference"].str.removeprefix("refimgs/"), strict=True))
    folders = dict.fromkeys(name.partition("/")[0] for name in LIVE_NAMES)
    as_text = [names[name] for folder in folders for name in sorted(names) if name.startswith(f"{folder}/")]
    assert as_text != [*names.values()]
    scipy.io.savemat(tmp_path / "refnames_all.mat", {"refnames_all": cells(as_text, (980, 1))})
    pd.testing.assert_frame_equal(made("live", tmp_path), whole)


def test_live_references_of_another_number_are_refused(tmp_path: Path) -> None:
    live(tmp_path)
    names = ["womanhat.bmp"] * 779
    scipy.io.savemat(tmp_path / "refnames_all.mat", {"refnames_all": cells(names, (779, 1))})
    with pytest.raises(TableError, match=r"as many or 980, one a distorted image, got 982, 982 and 779"):
        convert("live", tmp_path)


def test_csiq(tmp_path: Path) -> None:
    csiq(tmp_path)
    table = made("csiq", tmp_path)
    assert table["image"].tolist() == [
        *("dst_imgs/awgn/1600.AWGN.1.png", "dst_imgs/jpeg2000/1600.jpeg2000.5.png"),
        *("dst_imgs/blur/shroom.BLUR.2.png", "dst_imgs/fnoise/shroom.fnoise.3.png"),
    ]
    assert table["reference"].tolist() == ["src_imgs/1600.png"] * 2 + ["src_imgs/shroom.png"] * 2
    assert table["mos"].tolist() == pytest.approx([0.938, 0.05, 0.75, 0.5])
    assert table["std"].tolist() == [0.061, 0.1, 0.02, 0.02]
    assert table["content"].tolist() == ["1600", "1600", "shroom", "shroom"]
    assert table["distortion"].tolist() == ["white noise", "JPEG2000", "Gaussian blur", "pink noise"]
    assert table["level"].tolist() == [1, 5, 2, 3]


def test_csiq_as_csv_and_in_one_folder(tmp_path: Path) -> None:
    rows = ("1600,1,AWGN,1,0.061,0.062", "shroom,3,jpeg2000,2,0.1,0.5")
    text(tmp_path / "csiq.DMOS.csv", "image,dst_idx,dst_type,dst_lev,dmos_std,dmos", *rows)
    images(tmp_path, "dst_imgs_all/1600.AWGN.1.png", "dst_imgs_all/shroom.jpeg2000.2.png")
    images(tmp_path, "src_imgs/1600.png", "src_imgs/shroom.png")
    table = made("csiq", tmp_path)
    assert table["image"].tolist() == ["dst_imgs_all/1600.AWGN.1.png", "dst_imgs_all/shroom.jpeg2000.2.png"]
    text(tmp_path / "csiq.DMOS.csv", "image,dst_type,dst_lev,dmos_std,dmos", "1600,sepia,1,0.061,0.062")
    with pytest.raises(TableError, match=r"distortions awgn, blur, .*got \['sepia'\]"):
        convert("csiq", tmp_path)


def test_tid2013(tmp_path: Path) -> None:
    tid2013(tmp_path)
    table = made("tid2013", tmp_path)
    assert table["image"].tolist() == [
        f"distorted_images/{name}" for name in ("i01_01_1.bmp", "I01_08_2.BMP", "i25_24_5.bmp")
    ]
    folder = "reference_images"
    assert table["reference"].tolist() == [f"{folder}/I01.BMP", f"{folder}/I01.BMP", f"{folder}/i25.bmp"]
    assert table["mos"].tolist() == pytest.approx([5.51429 / 9, 0.5, 0.1])
    assert table["std"].tolist() == pytest.approx([0.13013 / 9, 0.02, 0.01])
    assert table["content"].tolist() == ["I01", "I01", "I25"]
    names = ["additive Gaussian noise", "Gaussian blur", "sparse sampling and reconstruction"]
    assert table["distortion"].tolist() == names
    assert table["level"].tolist() == [1, 2, 5]


def test_tid2013_lines_must_agree(tmp_path: Path) -> None:
    tid2013(tmp_path)
    text(tmp_path / "mos_std.txt", "0.1", "0.2")
    with pytest.raises(TableError, match=r"mos_std.txt as many lines, got 3 and 2"):
        convert("tid2013", tmp_path)
    text(tmp_path / "mos_with_names.txt", "5.5 I01_25_1.bmp", "5.5 I01_01_1.bmp")
    with pytest.raises(TableError, match=r"tid2013 has distortions 1 to 24, got I01_25_1.bmp \(1\)"):
        convert("tid2013", tmp_path)
    text(tmp_path / "mos_with_names.txt", "5.5 I01_25_1.bmp", "5.5 lena.bmp")
    with pytest.raises(TableError, match=r"names its images as .*, got lena.bmp \(1\)"):
        convert("tid2013", tmp_path)


def test_kadid10k(tmp_path: Path) -> None:
    kadid10k(tmp_path)
    table = made("kadid10k", tmp_path)
    assert table["image"].tolist() == [f"images/{name}.png" for name in ("I01_01_01", "I01_10_05", "I81_25_03")]
    assert table["reference"].tolist() == ["images/I01.png", "images/I01.png", "images/I81.png"]
    assert table["mos"].tolist() == pytest.approx([0.8925, 0, 0.5])
    assert table["std"].tolist() == pytest.approx([0.124, 0, 0.3])  # `var` is a deviation
    assert table["distortion"].tolist() == ["Gaussian blur", "JPEG", "contrast change"]


def test_pipal(tmp_path: Path) -> None:
    pipal(tmp_path)
    table = made("pipal", tmp_path)
    assert table["image"].tolist() == [
        *("Distortion_1/A0001_00_00.bmp", "Distortion_1/A0001_06_26.bmp"),
        "Distortion_4/Distortion_4/A0185_03_01.bmp",
    ]
    assert table["mos"].tolist() == pytest.approx([499.5648 / 700, 0, 1])
    assert table["raw"].tolist() == [1520.0648, 1020.5, 1720.5]
    assert table["content"].tolist() == ["A0001", "A0001", "A0185"]
    assert table["distortion"].tolist() == ["00", "06", "03"]
    text(tmp_path / "Train_Label/A0002.txt", "A0002_00_00.bmp 1500")
    with pytest.raises(TableError, match=r"a name and a number in each line"):
        convert("pipal", tmp_path)


def test_clive_leaves_the_training_images_out(tmp_path: Path) -> None:
    clive(tmp_path)
    table = made("clive", tmp_path)
    assert table["image"].tolist() == ["Images/611.jpg", "Images/100.bmp"]
    assert table["mos"].tolist() == pytest.approx([0.38489474, 1])
    assert table["std"].tolist() == pytest.approx([0.21, 0.19124726])
    scipy.io.savemat(tmp_path / "Data/AllMOS_release.mat", {"AllMOS_release": np.ones((1, 8))})
    with pytest.raises(TableError, match=r"an entry each an image, got .*'AllMOS_release': 8"):
        convert("clive", tmp_path)
    scipy.io.savemat(tmp_path / "Data/AllMOS_release.mat", {"MOS": np.ones((1, 9))})
    with pytest.raises(TableError, match=r"should have AllMOS_release, got \['MOS'\]"):
        convert("clive", tmp_path)


def test_koniq10k(tmp_path: Path) -> None:
    koniq10k(tmp_path)
    table = made("koniq10k", tmp_path)
    names = ("10004473376", "10007357496", "10043785683")
    assert table["image"].tolist() == [f"1024x768/{name}.jpg" for name in names]
    assert table["mos"].tolist() == pytest.approx([76.3836206897 / 99, 0, 1])
    assert table["std"].tolist() == pytest.approx([0.527277894494 / 4, 0.145, 0.497974333332 / 4])
    assert table["split"].tolist() == ["train", "test", "val"]
    assert table.loc[1, [f"ratings_{value}" for value in range(1, 6)]].tolist() == [
        *(0.0, 0.03125, 0.46875, 0.489583333333, 0.0104166666667)
    ]


def test_koniq10k_without_its_sets(tmp_path: Path) -> None:
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore"
    text(tmp_path / "koniq10k_scores_and_distributions.csv", header, "1.jpg,0,0,25,73,7,105,3.83,0.5,77.38")
    images(tmp_path / "512x384", "1.jpg")
    table = made("koniq10k", tmp_path)
    assert (table["raw"][0], table["image"][0], "split" in table) == (77.38, "512x384/1.jpg", False)
    text(tmp_path / "koniq10k_distributions_sets.csv", KONIQ, "1.jpg,0,0,1,0,0,105,50,0.5,dev")
    with pytest.raises(TableError, match=r"has the sets training, validation, test, got dev"):
        convert("koniq10k", tmp_path)


def test_spaq_has_its_five_attributes(tmp_path: Path) -> None:
    spaq(tmp_path)
    table = made("spaq", tmp_path)
    assert table["mos"].tolist() == pytest.approx([0.4886, 1])
    names = ("brightness", "colorfulness", "contrast", "noisiness", "sharpness")
    assert QualityDataset(table, root=tmp_path).attributes == names
    assert table.loc[1, [*names]].tolist() == [0, 1, 0.5, 0.25, 0.75]


def test_flive_images(tmp_path: Path) -> None:
    flive_images(tmp_path)
    table = made("flive-images", tmp_path)
    assert table["image"][0] == "database/blur_dataset/motion0044.jpg"
    assert table["mos"].tolist() == pytest.approx([0.755, 0, 0.596])
    assert table["split"].tolist() == ["train", "val", "test"]
    (tmp_path / "labels640.csv").unlink()
    missing = r"labels640.csv, which lists the test images, is missing: the official split is not known\."
    assert "split" not in made("flive-images", tmp_path, missing)


def test_flive_patches_follow_their_image(tmp_path: Path) -> None:
    flive_patches(tmp_path)
    table = made("flive-patches", tmp_path)
    assert table["image"][5] == "patches/EMOTIC__big_patch_3.jpg"
    assert table["content"].tolist() == ["AVA__1.jpg"] * 3 + ["EMOTIC__big.jpg"] * 3
    assert table["split"].tolist() == ["train"] * 3 + ["test"] * 3


def test_bid(tmp_path: Path) -> None:
    bid(tmp_path)
    table = made("bid", tmp_path)
    assert table["image"].tolist() == ["ImageDatabase/DatabaseImage0004.JPG", "ImageDatabase/DatabaseImage0456.jpg"]
    assert table["mos"].tolist() == pytest.approx([1, 0.636])
    assert table["std"].tolist() == pytest.approx([0.1, 0.22])


def test_para_counts_the_ratings_of_quality(tmp_path: Path) -> None:
    para(tmp_path)
    table = made("para", tmp_path)
    assert table["image"].tolist() == [
        f"imgs/{name}_.jpg" for name in ("session1/iaa_pub1", "session1/iaa_pub2", "session2/iaa_pub1")
    ]
    assert table["raw"].tolist() == [1.25, 3.25, 2.25]
    assert table["mos"].tolist() == [0.0625, 0.5625, 0.3125]
    assert table["std"].tolist() == pytest.approx([0.2] * 3)
    assert table["split"].tolist() == ["train", "train", "test"]
    assert table["semantic"].tolist() == ["plant"] * 3
    dataset = QualityDataset(table, root=tmp_path)
    assert {*dataset.attributes} == {*PARA_SCORES} - {"quality"}
    assert table["aesthetic"].tolist() == [0, 0.5, 0.25]
    assert table["willingness_to_share"].tolist() == [0.5, 1, 0.75]
    assert dataset.rating_values == (1, 2.5, 4)
    assert [dataset[row]["ratings"].tolist() for row in range(3)] == [[2, 1, 0], [0, 1, 1], [1, 0, 1]]


def test_para_aesthetics_have_their_own_distribution(tmp_path: Path) -> None:
    para(tmp_path)
    dataset = QualityDataset(made("para-aesthetic", tmp_path), root=tmp_path)
    assert {*dataset.attributes} == {*PARA_SCORES} - {"aesthetic"}
    assert dataset.rating_values == tuple(np.arange(1, 5.5, 0.5))
    assert dataset[0]["ratings"].tolist() == [*range(2, 11)]
    assert dataset.table["raw"].tolist() == [1, 3, 2]


def test_para_says_which_files_are_missing(tmp_path: Path) -> None:
    para(tmp_path)
    text(tmp_path / "annotation/PARA-Images.csv", "sessionId,imageName,qualityScore", "session1,iaa_pub1_.jpg,1")
    unrated = r"Images without a rating, left out: session1/iaa_pub2_.jpg, session2/iaa_pub1_.jpg \(2\)\."
    assert len(made("para", tmp_path, unrated, r"Images without a label: .*\(2\)\.")) == 1
    (tmp_path / "annotation/PARA-Images.csv").unlink()
    (tmp_path / "annotation/PARA-GiaaTrain.csv").unlink()
    table = made(
        *("para", tmp_path, r"PARA-GiaaTrain.csv is missing: the table has no rows of the split train\."),
        *(r"PARA-Images.csv is missing: .*no distribution.*", r"Images without a label: .*\(2\)\."),
    )
    assert table["split"].tolist() == ["test"]
    (tmp_path / "annotation/PARA-GiaaTest.csv").unlink()
    with pytest.raises(TableError, match=r"has annotation/PARA-GiaaTrain.csv or annotation/PARA-GiaaTest.csv"):
        convert("para", tmp_path)


def test_ava(tmp_path: Path) -> None:
    ava(tmp_path)
    table = made("ava", tmp_path)
    assert table["image"].tolist() == ["images/953619.jpg", "images/953958.jpg", "images/954184.jpg"]
    counts = [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    opinions = np.repeat(np.arange(1, 11), counts)
    assert table["raw"].tolist() == pytest.approx([opinions.mean(), 5.5, 10])
    assert table["mos"].tolist() == pytest.approx([(opinions.mean() - 1) / 9, 0.5, 1])
    assert table["std"].tolist() == pytest.approx([opinions.std() / 9, 0.5, 0])
    assert table.loc[0, [f"ratings_{value}" for value in range(1, 11)]].tolist() == counts
    assert table["split"].tolist() == ["train", "train", "test"]
    assert table["tags"].tolist() == ["Abstract, Still Life", "Nature", ""]
    assert table["challenge"].tolist() == ["The Color Red", "The Color Red", "challenge 7"]
    assert QualityDataset(table, root=tmp_path).attributes == ()


def test_ava_in_its_own_folder_with_gaps(tmp_path: Path) -> None:
    ava(tmp_path / "AVA_dataset")
    with (tmp_path / "AVA_dataset/AVA.txt").open("a") as file:
        file.write("4 1000 0 0 0 0 0 0 0 0 0 0 1 22 1396\n5 1001 0 0 0 0 0 0 0 0 0 1 3 0 1396\n")
    for name in ("tags.txt", "challenges.txt", "aesthetics_image_lists/generic_test.jpgl"):
        (tmp_path / "AVA_dataset" / name).unlink()
    images(tmp_path, "AVA_dataset/images/1000.jpg")
    table = made(
        *("ava", tmp_path, r"aesthetics_image_lists/generic_test.jpgl is missing: the official split is not known\."),
        *(
            r"Labels without a number, left out: 1000.jpg \(1\)\.",
            r"Labels without an image, left out: 1001.jpg \(1\)\.",
        ),
    )
    assert table["image"][0] == "AVA_dataset/images/953619.jpg"
    assert table["tags"].tolist() == ["tag 1, tag 22", "tag 15", ""]
    assert table["challenge"].tolist() == ["challenge 1396", "challenge 1396", "challenge 7"]
    assert "split" not in table


def test_agiqa3k(tmp_path: Path) -> None:
    agiqa3k(tmp_path)
    table = made("agiqa3k", tmp_path)
    assert table["image"].tolist() == ["Images/AttnGAN_normal_000.jpg", "Images/sd1.5_lowstep_001.jpg"]
    assert table["mos"].tolist() == pytest.approx([0.1931205106, 1])
    assert table["std"].tolist() == pytest.approx([0.0446540202, 0.2])
    assert table["alignment"].tolist() == pytest.approx([0.081778648, 0.5])
    assert table["content"].tolist() == ["statue of a man", "a tray of sushi, baroque style"]


def test_what_does_not_join_is_reported_and_left_out(tmp_path: Path) -> None:
    names = [f"I01_01_0{level}.png" for level in range(1, 6)]
    rows = [f"{name},I01.png,{level},0.5" for level, name in enumerate(names, 1)]
    rows += ["I01_02_01.png,I01.png,3,0.5", "i01_02_01.PNG,I01.png,4,0.5"]  # which of the two?
    rows += ["I01_03_01.png,I01.png,,0.5", "I01_03_02.png,I01.png,good,0.5", "I01_03_03.png,I01.png,3,"]
    rows += ["I02_01_01.png,I02.png,3,0.5", "I01_04_01.png,I01.png,5.5,0.5"]
    text(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)
    images(tmp_path / "images", "I01.png", *names[2:], "i01_01_01.BMP", "I01_01_01.jpg", "I01_02_01.png")
    images(tmp_path / "images", "I02_01_01.png", "I01_04_01.png", "stray.png", "I01_03_01.png")
    text(tmp_path / "images/readme.txt", "no image")
    text(tmp_path / "images/._I01_01_02.png", "what macOS leaves in archives")
    conversion = convert("kadid10k", tmp_path)
    assert conversion.problems == [
        "kadid10k is published with 10125 labels, found 12.",
        "Labels without a number, left out: I01_03_01.png, I01_03_02.png (2).",
        "Labels without a standard deviation, left out: I01_03_03.png (1).",
        "Images with several labels, left out: I01_02_01.png, i01_02_01.PNG (2).",
        "Labels without an image, left out: I01_01_02.png (1).",
        "Labels whose name fits several files as an image, left out: I01_01_01.png (1).",
        "Labels without a reference image, left out: images/I02_01_01.png (1).",
        "Images without a label: images/stray.png (1).",
        "Labels outside the published scale, 1 (worst) to 5: images/I01_04_01.png (1).",
    ]
    table = conversion.table
    assert table["image"].tolist() == [f"images/{name}" for name in (*names[2:], "I01_04_01.png")]
    assert table["mos"].tolist() == [0.5, 0.75, 1, 1.125]


def test_a_name_that_is_spelled_exactly_is_no_riddle(tmp_path: Path) -> None:
    text(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var", "I01_01_01.png,I01.png,3,0.5")
    images(tmp_path / "images", "I01.png", "I01.PNG", "I01_01_01.png", "I01_01_01.bmp")
    table = made("kadid10k", tmp_path, r"Images without a label: images/I01.PNG \(1\)\.")
    assert table[["image", "reference"]].to_numpy().tolist() == [["images/I01_01_01.png", "images/I01.png"]]


def test_an_attribute_without_a_number_is_reported(tmp_path: Path) -> None:
    agiqa3k(tmp_path)
    path = tmp_path / "data.csv"
    path.write_text(path.read_text().replace(",0.40889324,", ",,"))
    lacking = r"Labels that lack a number in an attribute or in their ratings, left out: AttnGAN_normal_000.jpg \(1\)\."
    assert len(made("agiqa3k", tmp_path, lacking)) == 1


def test_numbers_that_are_none_are_reported_or_refused(tmp_path: Path) -> None:
    koniq10k(tmp_path)
    path = tmp_path / "koniq10k_distributions_sets.csv"
    path.write_text(path.read_text().replace(",0.58,", ",wide,").replace(",0.566037735849,", ",most,"))
    table = made(
        *("koniq10k", tmp_path, r"Labels without a standard deviation, left out: 10007357496.jpg \(1\)\."),
        r"Labels that lack a number in an attribute or in their ratings, left out: 10043785683.jpg \(1\)\.",
    )
    assert table["image"].tolist() == ["1024x768/10004473376.jpg"]
    text(tmp_path / "DatabaseGrades.csv", "Image Number,Average Subjective Grade", "4,3.5", "5b,3", "6.5,1")
    with pytest.raises(TableError, match=r"bid has whole numbers as Image Number, got 5b, 6.5 \(2\)"):
        convert("bid", tmp_path)


def test_single_ratings_without_a_number_are_reported(tmp_path: Path) -> None:
    para(tmp_path)
    with (tmp_path / "annotation/PARA-Images.csv").open("a") as file:
        file.write("session2,iaa_pub1_.jpg,A9,3.0,,4\n")
    odd = r"1 single ratings in PARA-Images.csv have no number, and are not counted\."
    assert made("para", tmp_path, odd)["ratings_1"].tolist() == [2, 0, 1]


def test_a_label_without_a_name_is_reported(tmp_path: Path) -> None:
    agiqa3k(tmp_path)
    with (tmp_path / "data.csv").open("a") as file:
        file.write(",a cat,,,,1,1,1,1\n")
    assert len(made("agiqa3k", tmp_path, r"Labels without an image, left out: nan \(1\)\.")) == 2


@pytest.mark.parametrize("name", CONVERTERS)
def test_an_empty_folder_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=rf"{name} as released has .*, got {tmp_path} without: name the folder"):
        convert(name, tmp_path)
    with pytest.raises(TableError, match=r"There is no folder .*gone to read"):
        convert(name, tmp_path / "gone")


@pytest.mark.parametrize("name", CONVERTERS)
def test_damaged_labels_are_an_error(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".mat", ".xlsx", ".csv", ".txt"):
            path.write_bytes(b"\xff\xfe\x00 no labels \x81")
    with pytest.raises(TableError, match=rf"cannot be read as labels of {name}: .*Take the file as released"):
        convert(name, tmp_path)


@pytest.mark.parametrize("name", ["csiq", "kadid10k", "koniq10k", "spaq", "flive-images", "bid", "para", "agiqa3k"])
def test_other_columns_are_an_error(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix == ".xlsx":
            pd.DataFrame({"file": ["a"], "score": [1]}).to_excel(path, index=False)
        elif path.suffix == ".csv":
            text(path, "file,score", "a,1")
    with pytest.raises(TableError, match=rf"should have .*, got .*file.*score.*: take the label file of {name}"):
        convert(name, tmp_path)


def test_labels_without_any_image_are_an_error(tmp_path: Path) -> None:
    agiqa3k(tmp_path)
    for path in (tmp_path / "Images").iterdir():
        path.unlink()
    with pytest.raises(TableError, match=r"None of the 2 labels of agiqa3k has an image below .*AttnGAN_normal_000"):
        convert("agiqa3k", tmp_path)


def test_one_number_for_all_has_no_scale(tmp_path: Path) -> None:
    text(tmp_path / "Train_Label/A0001.txt", "A0001_00_00.bmp,1500", "A0001_00_01.bmp,1500")
    images(tmp_path, "Train_Dist/A0001_00_00.bmp", "Train_Dist/A0001_00_01.bmp", "Train_Ref/A0001.bmp")
    with pytest.raises(TableError, match=r"one number for all images, 1500"):
        convert("pipal", tmp_path)


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no converter 'kadid-10k': did you mean kadid10k"):
        convert("kadid-10k", tmp_path)
    with pytest.raises(TableError, match=r"no converter 'imagenet': the names are live, csiq, .*agiqa3k\."):
        convert("imagenet", tmp_path)


def large(folder: Path) -> Conversion:
    """KADID-10k's layout with ten scenes."""
    names = [f"I{scene:02d}_01_0{level}.png" for scene in range(1, 11) for level in range(1, 4)]
    rows = [f"{name},{name[:3]}.png,3,0.5" for name in names]
    text(folder / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)
    images(folder / "images", *names, *(f"I{scene:02d}.png" for scene in range(1, 11)))
    return convert("kadid10k", folder, seed=7)


def test_a_seed_draws_a_split_by_scene(tmp_path: Path) -> None:
    table = large(tmp_path).table
    assert (table.groupby("content")["split"].nunique() == 1).all()
    assert table["split"].value_counts().to_dict() == {"train": 24, "test": 6}
    again = convert("kadid10k", tmp_path)
    assert "split" not in again.table
    drawn = split_by_content(again.table, {"train": 0.8, "test": 0.2}, seed=7)
    assert drawn["split"].tolist() == table["split"].tolist()


def test_a_seed_and_an_official_split_are_an_error(tmp_path: Path) -> None:
    koniq10k(tmp_path)
    with pytest.raises(TableError, match=r"koniq10k has an official split: leave the seed out"):
        convert("koniq10k", tmp_path, seed=0)


def test_scales_are_the_published_ones() -> None:
    lower = {name for name, facts in CONVERTERS.items() if facts.scale and facts.scale[0] > facts.scale[1]}
    assert lower == {"live", "csiq"}
    assert [name for name, facts in CONVERTERS.items() if facts.scale is None] == ["pipal"]
    assert all(math.isfinite(end) for facts in CONVERTERS.values() for end in facts.scale or ())
