"""Readers of no-reference datasets: photographs and generated images with opinion scores.

Every reader raises TableError if a file is missing or not as released.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ...optional import import_optional
from ..tables import TableError
from .release import Labels, Release, numbers

if TYPE_CHECKING:
    from pandas import DataFrame

_SPAQ = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
# Our attribute names of PARA's scores. Not "content", which names a group column in a table.
_PARA = {
    "quality": "qualityScore",
    "aesthetic": "aestheticScore",
    "composition": "compositionScore",
    "color": "colorScore",
    "dof": "dofScore",
    "light": "lightScore",
    "content_score": "contentScore",
    "content_preference": "contentPreference",
    "willingness_to_share": "willingnessToShare",
}


def read_clive(release: Release) -> Labels:
    """Reads LIVE in the Wild: Data/AllImages_release.mat, AllMOS_release.mat, AllStdDev_release.mat, Images/.

    The first seven entries are the images that raters practiced on (Images/trainingImages). They are left out.
    """
    values = {
        name: release.mat(release.need(f"Data/{name}.mat", f"{name}.mat"), name)[0]
        for name in ("AllImages_release", "AllMOS_release", "AllStdDev_release")
    }
    if len({*map(len, values.values())}) != 1:
        raise TableError(
            f"CLIVE's .mat files have an entry each an image, got { {name: len(v) for name, v in values.items()} }: "
            "take the three as released."
        )
    table = import_optional("pandas").DataFrame(dict(zip(("image", "raw", "std"), values.values(), strict=True)))
    return Labels(table[7:], release.images("Images", by_name=True), unrated=[*table["image"][:7]])


def read_koniq10k(release: Release) -> Labels:
    """Reads KonIQ-10k: koniq10k_distributions_sets.csv (image_name, c1 ... c5, MOS, SD, set), 1024x768/ or 512x384/.

    Without it, koniq10k_scores_and_distributions.csv is read, which has MOS_zscore for MOS and no `set`. `MOS` comes
    from z-scores scaled to 1..100; `SD` and the ratings are on the 1..5 scale that raters used.
    """
    path = release.need("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    counts = [f"c{value}" for value in range(1, 6)]
    columns = ("image_name", *counts, "SD", *(("MOS", "set") if "sets" in path.name else ("MOS_zscore",)))
    labels = release.csv(path, columns)
    table = import_optional("pandas").DataFrame(
        {
            "image": labels["image_name"],
            "raw": labels["MOS" if "sets" in path.name else "MOS_zscore"],
            "std": numbers(labels["SD"]) * (99 / 4),
        }
    )
    if "set" in columns:
        table["split"] = _splits(release, labels["set"], {"training": "train", "validation": "val", "test": "test"})
    return Labels(
        _with_ratings(table, labels, dict(zip("12345", counts, strict=True))), release.images("1024x768", "512x384")
    )


def read_spaq(release: Release) -> Labels:
    """Reads SPAQ: "Annotations/MOS and Image attribute scores.xlsx" (Image name, MOS, five attributes), TestImage/.

    All are from 0 to 100, higher is better, even noisiness, which is high for clean images. There is no split.
    """
    name = "MOS and Image attribute scores"
    path = release.need(*(f"{folder}{name}{end}" for end in (".xlsx", ".csv") for folder in ("Annotations/", "")))
    labels = release.sheet(path, ("Image name", "MOS", *_SPAQ))
    table = import_optional("pandas").DataFrame({"image": labels["Image name"], "raw": labels["MOS"]})
    for attribute in _SPAQ:
        table[attribute.lower()] = numbers(labels[attribute]) / 100
    return Labels(table, release.images("TestImage"))


def read_flive_images(release: Release) -> Labels:
    """Reads the whole images of FLIVE (PaQ-2-PiQ): labels_image.csv (name, mos) and the folders in `name`.

    All may lie in database/. The split needs labels640.csv, which lists the test images (those with a side above 640).
    The others are "train", or "val" if `is_valid` in labels<=640_padded.csv is true.
    """
    labels = release.csv(_flive_file(release, "labels_image.csv"), ("name", "mos"))
    table = labels[["name", "mos"]].set_axis(["image", "raw"], axis=1)
    return _flive(release, table, table["image"].str.rpartition("/")[2])


def read_flive_patches(release: Release) -> Labels:
    """Reads the patches of FLIVE (PaQ-2-PiQ): labels_patch.csv (name, mos) and patches/, possibly in database/.

    A patch has the name of its image, which becomes `content`, followed by _patch_1 to _patch_3. It has the split of
    its image; see `read_flive_images`.
    """
    labels = release.csv(_flive_file(release, "labels_patch.csv"), ("name", "mos"))
    table = labels[["name", "mos"]].set_axis(["image", "raw"], axis=1)
    parents = table["image"].map(lambda name: re.sub(r".*/|_patch_\d(?=\.[^.]*$)", "", name))
    return _flive(release, table.assign(content=parents), parents)


def read_bid(release: Release) -> Labels:
    """Reads BID: DatabaseGrades.xlsx (Image Number, Average Subjective Grade, optionally std), ImageDatabase/.

    Number 7 is DatabaseImage0007.JPG. The first two column names are confirmed by several programs that read the file;
    the third is a guess.
    """
    path = release.need("DatabaseGrades.xlsx", "DatabaseGrades.csv")
    labels = release.sheet(path, ("Image Number", "Average Subjective Grade"))
    images = release.whole_numbers(labels["Image Number"]).map("DatabaseImage{:04d}.JPG".format)
    table = import_optional("pandas").DataFrame({"image": images, "raw": labels["Average Subjective Grade"]})
    if deviations := [name for name in labels if name.casefold() in ("std", "standard deviation")]:
        table["std"] = labels[deviations[0]]
    return Labels(table, release.images("ImageDatabase", "images", ".", by_name=True))


def read_para(release: Release) -> Labels:
    """Reads PARA for quality: annotation/PARA-GiaaTrain.csv and -GiaaTest.csv (the split), imgs/session1/*.jpg ...

    `raw` is the mean of qualityScore, 1..5; the means of the eight other scores are attributes in [0, 1]. The Giaa
    files have no distribution of quality ratings, so it is counted from the single ratings in PARA-Images.csv, if that
    exists.
    """
    labels = _para_means(release)
    table = _para_table(labels, "quality")
    path = release.find("annotation/PARA-Images.csv", "PARA-Images.csv")
    if path is None:
        release.problems.append("PARA-Images.csv is missing: the table has no distribution of quality ratings.")
    else:
        ratings = release.csv(path, ("sessionId", "imageName", "qualityScore"))
        scores = numbers(ratings["qualityScore"])
        if gaps := int(scores.isna().sum()):
            release.problems.append(f"{gaps} single ratings in PARA-Images.csv have no number, and are not counted.")
        counts = import_optional("pandas").crosstab(_para_names(ratings), scores)
        counts = counts.reindex(table["image"])
        unrated = counts.isna().any(axis=1).to_numpy()
        table = table.assign(**{f"ratings_{value:g}": counts[value].to_numpy() for value in counts})
        table = release.leave_out(
            table, import_optional("pandas").Series(unrated, table.index), "Images without a rating"
        )
    return Labels(table, release.images("imgs"))


def read_para_aesthetic(release: Release) -> Labels:
    """Reads PARA for aesthetics: as `read_para`, but with aestheticScore as `raw` and quality as an attribute."""
    labels = _para_means(release)
    values = [name.rpartition("_")[2] for name in labels if name.startswith("aestheticScore_")]
    values = [value for value in values if value not in ("mean", "std")]
    table = _with_ratings(
        _para_table(labels, "aesthetic"), labels, {f"{float(value):g}": f"aestheticScore_{value}" for value in values}
    )
    return Labels(table, release.images("imgs"))


def read_ava(release: Release) -> Labels:
    """Reads AVA: AVA.txt (index, image, ten counts, two tags, challenge), images/ or image/, possibly in AVA_dataset/.

    The images in aesthetics_image_lists/generic_test.jpgl are "test", all others "train". Tags and challenges are text:
    their names if tags.txt and challenges.txt exist, otherwise "tag 15" and "challenge 1396".
    """
    bases = ("", "AVA_dataset/")
    path = release.need(*(f"{base}AVA.txt" for base in bases))
    counts = [f"ratings_{value}" for value in range(1, 11)]
    names = ["index", "number", *counts, "first", "second", "challenge"]
    labels = release.csv(path, sep=r"\s+", header=None, names=names, dtype=int, index_col=False)
    ratings = labels[counts].to_numpy(float)
    values = np.arange(1, 11)
    total = ratings.sum(axis=1)
    with np.errstate(invalid="ignore"):  # without ratings the mean is NaN, and `join` reports the row
        mean = ratings @ values / total
        std = np.sqrt(np.maximum(ratings @ values**2 / total - mean**2, 0))
    table = import_optional("pandas").DataFrame(
        {"image": labels["number"].astype(str) + ".jpg", "raw": mean, "std": std}
    )
    table = table.assign(**labels[counts])
    test = release.find(*(f"{base}aesthetics_image_lists/generic_test.jpgl" for base in bases))
    if test is None:
        release.problems.append("aesthetics_image_lists/generic_test.jpgl is missing: the official split is not known.")
    else:
        listed = {*release.lines(test)}
        table["split"] = np.where(labels["number"].astype(str).isin(listed), "test", "train")
    tags, challenges = (
        _ava_words(release, kind, *(f"{base}{kind}s.txt" for base in bases)) for kind in ("tag", "challenge")
    )
    pairs = zip(labels["first"], labels["second"], strict=True)
    table["tags"] = [", ".join(tags(number) for number in pair if number) for pair in pairs]
    table["challenge"] = labels["challenge"].map(challenges)
    return Labels(table, release.images(*(f"{base}{name}" for base in bases for name in ("images", "image"))))


def read_agiqa3k(release: Release) -> Labels:
    """Reads AGIQA-3k: data.csv (name, prompt, mos_quality, std_quality, mos_align), images in Images/ or next to it.

    The prompt becomes `content`, since several generators drew each prompt. `alignment` of image and prompt, published
    on the 0..5 scale of quality, is an attribute in [0, 1].
    """
    columns = ("name", "prompt", "mos_quality", "std_quality", "mos_align")
    labels = release.csv(release.need("data.csv"), columns)
    table = import_optional("pandas").DataFrame(
        {
            "image": labels["name"],
            "raw": labels["mos_quality"],
            "std": labels["std_quality"],
            "content": labels["prompt"],
            "alignment": numbers(labels["mos_align"]) / 5,
        }
    )
    bases = ("Images", "images", "image", "AGIQA-3K", ".")
    return Labels(table, release.images(*bases, by_name=True))


def _with_ratings(table: DataFrame, labels: DataFrame, columns: dict[str, str]) -> DataFrame:
    """Adds a column `ratings_V` for each rating V, from the labels' column of counts."""
    return table.assign(**{f"ratings_{value}": numbers(labels[column]) for value, column in columns.items()})


def _splits(release: Release, found: Any, names: dict[str, str]) -> Any:
    if unknown := sorted({*map(str, found)} - {*names}):
        raise TableError(
            f"{release.name} has the sets {', '.join(names)}, got {', '.join(unknown)}: take the label file as "
            "released."
        )
    return found.map(names)


def _flive_file(release: Release, name: str) -> Any:
    return release.need(name, f"database/{name}")


def _flive(release: Release, table: DataFrame, parents: Any) -> Labels:
    places = ("{}", "database/{}")
    test = release.find(*(place.format(name) for name in ("labels640.csv", "labels>640.csv") for place in places))
    if test is None:
        release.problems.append(
            "labels640.csv, which lists the test images, is missing: the official split is not known."
        )
    else:
        listed = release.csv(test, ("name_image",))["name_image"].str.rpartition("/")[2]
        table = table.assign(split=np.where(parents.isin(listed), "test", "train"))
        names = ("labels<=640_padded.csv", "labels=640_padded.csv")
        if (path := release.find(*(place.format(name) for name in names for place in places))) is not None:
            rest = release.csv(path, ("name_image", "is_valid"))
            valid = rest["name_image"][rest["is_valid"].astype(str).str.lower() == "true"].str.rpartition("/")[2]
            table.loc[parents.isin(valid) & (table["split"] == "train"), "split"] = "val"
    folders = sorted({*table["image"].str.partition("/")[0]})
    base = "database" if release.find(*(f"database/{folder}" for folder in folders)) else "."
    return Labels(table, release.images(base, folders=folders))


def _para_names(labels: DataFrame) -> Any:
    return labels["sessionId"].astype(str) + "/" + labels["imageName"].astype(str)


def _para_means(release: Release) -> DataFrame:
    """The rows of both Giaa files, with `split`; at least one file must exist."""
    parts = []
    for split, name in (("train", "PARA-GiaaTrain.csv"), ("test", "PARA-GiaaTest.csv")):
        path = release.find(f"annotation/{name}", name)
        if path is None:
            release.problems.append(f"{name} is missing: the table has no rows of the split {split}.")
            continue
        columns = ("imageName", "sessionId", *(f"{score}_mean" for score in _PARA.values()))
        parts.append(
            release.csv(path, (*columns, "qualityScore_std", "aestheticScore_std", "semantic")).assign(split=split)
        )
    if not parts:
        release.need("annotation/PARA-GiaaTrain.csv", "annotation/PARA-GiaaTest.csv")
    return import_optional("pandas").concat(parts, ignore_index=True)


def _para_table(labels: DataFrame, opinion: str) -> DataFrame:
    """A table with one score as `raw` and `std`, and the means of the others as attributes in [0, 1]."""
    score = _PARA[opinion]
    table = import_optional("pandas").DataFrame(
        {
            "image": _para_names(labels),
            "raw": labels[f"{score}_mean"],
            "std": labels[f"{score}_std"],
            "split": labels["split"],
            "semantic": labels["semantic"],
        }
    )
    others = {name: (numbers(labels[f"{other}_mean"]) - 1) / 4 for name, other in _PARA.items() if name != opinion}
    return table.assign(**others)


def _ava_words(release: Release, kind: str, *places: str) -> Any:
    """A function from number to name, read from a file with lines like "15 Nature"."""
    path = release.find(*places)
    pairs = [line.split(maxsplit=1) for line in release.lines(path)] if path else []
    words = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    return lambda number: words.get(str(number), f"{kind} {number}")
