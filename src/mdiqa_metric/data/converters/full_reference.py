"""Readers of full-reference datasets: deliberately distorted images with opinion scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...optional import import_optional
from ..tables import TableError, few
from .release import Labels, Release

if TYPE_CHECKING:
    from pandas import DataFrame

# LIVE's five folders, in the order of its .mat files, with their distortion and number of images.
_LIVE = {
    "jp2k": ("JPEG2000", 227),
    "jpeg": ("JPEG", 233),
    "wn": ("white noise", 174),
    "gblur": ("Gaussian blur", 174),
    "fastfading": ("fast fading", 174),
}
_TID2013 = (
    *("additive Gaussian noise", "additive noise in color components", "spatially correlated noise", "masked noise"),
    *("high frequency noise", "impulse noise", "quantization noise", "Gaussian blur", "image denoising", "JPEG"),
    *("JPEG2000", "JPEG transmission errors", "JPEG2000 transmission errors", "non-eccentricity pattern noise"),
    *("local block-wise distortions", "mean shift", "contrast change", "change of color saturation"),
    *("multiplicative Gaussian noise", "comfort noise", "lossy compression of noisy images"),
    *("color quantization with dither", "chromatic aberrations", "sparse sampling and reconstruction"),
)
_KADID = (
    *("Gaussian blur", "lens blur", "motion blur", "color diffusion", "color shift", "color quantization"),
    *("color saturation 1", "color saturation 2", "JPEG2000", "JPEG", "white noise"),
    *("white noise in color components", "impulse noise", "multiplicative noise", "denoise", "brighten", "darken"),
    *("mean shift", "jitter", "non-eccentricity patch", "pixelate", "quantization", "color block", "high sharpen"),
    *("contrast change",),
)
_CSIQ = {
    "awgn": "white noise",
    "blur": "Gaussian blur",
    "contrast": "contrast",
    "fnoise": "pink noise",
    "jpeg": "JPEG",
    "jpeg2000": "JPEG2000",
}


def read_live(release: Release) -> Labels:
    """Reads LIVE release 2: dmos_realigned.mat (`dmos_new`, `dmos_std`), refnames_all.mat, five folders, refimgs/.

    Entry i of each variable is image i, in the order of `_LIVE` and img1, img2, ... within a folder. The 203 copies of
    references have a DMOS of exactly 0 and are left out. One version of refnames_all.mat in circulation also omits
    them and sorts names as text (img1, img10, img100, ...); it is recognized by its length.

    Raises:
        TableError: a file is missing or not as released.
    """
    dmos, std = release.mat(release.need("dmos_realigned.mat"), "dmos_new", "dmos_std")
    (references,) = release.mat(release.need("refnames_all.mat"), "refnames_all")
    images = [f"{folder}/img{number}.bmp" for folder, (_, count) in _LIVE.items() for number in range(1, count + 1)]
    # Not strict: a wrong number of entries gets a clearer error below.
    distorted = [name for name, value in zip(images, dmos, strict=False) if value != 0]
    as_text = [name for folder in _LIVE for name in sorted(distorted) if name.startswith(f"{folder}/")]
    orders = {len(images): images, len(distorted): as_text}
    if {len(dmos), len(std)} != {len(images)} or len(references) not in orders:
        raise TableError(
            f"LIVE's dmos_realigned.mat has {len(images)} entries, one an image, and refnames_all.mat as many or "
            f"{len(distorted)}, one a distorted image, got {len(dmos)}, {len(std)} and {len(references)}: take both "
            "as released."
        )
    reference_of = dict(zip(orders[len(references)], references, strict=True))
    table = import_optional("pandas").DataFrame({"image": images, "raw": dmos, "std": std})
    table["distortion"] = [name for name, count in _LIVE.values() for _ in range(count)]
    table = table[dmos != 0]
    table["reference"] = table["image"].map(reference_of)
    table["content"] = table["reference"].str.removesuffix(".bmp")
    return Labels(
        table,
        release.images(".", folders=[*_LIVE]),
        release.images("refimgs"),
        unrated=[name for name, value in zip(images, dmos, strict=True) if value == 0],
    )


def read_csiq(release: Release) -> Labels:
    """Reads CSIQ: csiq.DMOS.xlsx, sheet all_by_image (image, dst_type, dst_lev, dmos_std, dmos), dst_imgs/, src_imgs/.

    A .csv with the same columns works too. Distortions may be spelled as in the sheet ("noise", "jpeg 2000") or as in
    the folders (awgn, jpeg2000). Images are found by name, in one folder or in one per distortion.

    Raises:
        TableError: a file is missing or not as released.
    """
    path = release.need("csiq.DMOS.xlsx", "csiq.DMOS.csv", "csiq_dmos.csv")
    table = release.sheet(path, ("image", "dst_type", "dst_lev", "dmos_std", "dmos"))
    kinds = table["dst_type"].astype(str).str.lower().str.replace(" ", "").replace({"noise": "awgn"})
    if unknown := sorted({*kinds} - {*_CSIQ}):
        raise TableError(f"CSIQ has the distortions {', '.join(_CSIQ)}, got {unknown}: take {path.name} as released.")
    scenes = table["image"].astype(str)
    levels = release.whole_numbers(table["dst_lev"])
    table = import_optional("pandas").DataFrame(
        {
            "image": scenes + "." + kinds + "." + levels.astype(str) + ".png",
            "reference": scenes + ".png",
            "raw": table["dmos"],
            "std": table["dmos_std"],
            "content": scenes,
            "distortion": kinds.map(_CSIQ),
            "level": levels,
        }
    )
    bases = ("dst_imgs", "dst_imgs_all", "distorted_images")
    return Labels(
        table, release.images(*bases, by_name=True), release.images("src_imgs", "reference_images", by_name=True)
    )


def read_tid2013(release: Release) -> Labels:
    """Reads TID2013: mos_with_names.txt ("5.51429 I01_01_1.bmp"), mos_std.txt with the same lines, two image folders.

    A name consists of scene, distortion and level. Its case varies, between labels and files and among files.

    Raises:
        TableError: a file is missing or not as released.
    """
    rows = [line.split() for line in release.lines(release.need("mos_with_names.txt"))]
    deviations = release.lines(release.need("mos_std.txt"))
    if {*map(len, rows)} != {2} or len(deviations) != len(rows):
        raise TableError(
            f"TID2013's mos_with_names.txt has a number and a name in each line and mos_std.txt as many lines, got "
            f"{len(rows)} and {len(deviations)}: take both as released."
        )
    table = import_optional("pandas").DataFrame(rows, columns=["raw", "image"]).assign(std=deviations)
    table = _by_name(release, table, r"(?P<content>i\d\d)_(?P<distortion>\d\d)_(?P<level>\d)\.bmp", _TID2013)
    table["content"] = table["content"].str.upper()
    table["reference"] = table["content"] + ".BMP"
    return Labels(table, release.images("distorted_images"), release.images("reference_images"))


def read_kadid10k(release: Release) -> Labels:
    """Reads KADID-10k: dmos.csv (dist_img, ref_img, dmos, var) and images/, which also contains the references.

    Despite their names, `dmos` is a mean opinion score, higher is better, and `var` a standard deviation. In 1,207 rows
    only that is possible: 30 ratings of 1 to 5 with mean 1.03 have variance 0.032, and `var` is its root, 0.18.

    Raises:
        TableError: a file is missing or not as released.
    """
    table = release.csv(release.need("dmos.csv"), ("dist_img", "ref_img", "dmos", "var"))
    table = table[["dist_img", "ref_img", "dmos", "var"]].set_axis(["image", "reference", "raw", "std"], axis=1)
    table = _by_name(release, table, r"(?P<content>I\d\d)_(?P<distortion>\d\d)_(?P<level>\d\d)\.png", _KADID)
    images = release.images("images")
    return Labels(table, images, images)


def read_pipal(release: Release) -> Labels:
    """Reads PIPAL's training part: Train_Label/A0001.txt ... ("A0001_00_00.bmp,1520.0648"), Train_Ref/, Distortion_*/.

    Distorted images are found by name below Distortion_1 to 4 (as the archives unpack), Train_Distort or Train_Dist.
    A name consists of scene, kind of distortion (00 to 06) and number. Elo scores are unbounded: the lowest in the
    files becomes 0 and the highest 1. Validation and test labels of the challenges are not public.

    Raises:
        TableError: a file is missing or not as released.
    """
    pandas = import_optional("pandas")
    files = sorted(release.need("Train_Label", "train_label", "Train_label").glob("*.txt"))
    if not files:
        raise TableError(f"PIPAL has a text file for each reference in Train_Label, got none in {release.folder}.")
    rows = [line.split(",") for file in files for line in release.lines(file)]
    if {*map(len, rows)} != {2}:
        raise TableError("PIPAL's label files have a name and a number in each line: take them as released.")
    table = pandas.DataFrame(rows, columns=["image", "raw"])
    found = release.names(table["image"], r"(?P<content>A\d+)_(?P<distortion>\d\d)_\d\d\.bmp")
    table = table.assign(**found, reference=found["content"] + ".bmp")
    folders = [*(f"Distortion_{number}" for number in range(1, 5)), "Train_Distort", "Train_Dist"]
    return Labels(
        table,
        release.images(".", folders=folders, by_name=True),
        release.images("Train_Ref", "train_ref", by_name=True),
    )


def _by_name(release: Release, table: DataFrame, pattern: str, distortions: tuple[str, ...]) -> DataFrame:
    """Adds what image names encode: content, distortion (a number from 1, here in words) and level."""
    found = release.names(table["image"], pattern)
    numbers = found["distortion"].astype(int)
    if (odd := ~numbers.between(1, len(distortions))).any():
        raise TableError(
            f"{release.name} has distortions 1 to {len(distortions)}, got {few(table['image'][odd])}: take the label "
            "file as released."
        )
    words = numbers.map(lambda number: distortions[number - 1])
    return table.assign(content=found["content"], distortion=words, level=found["level"].astype(int))
