"""Conversion of published datasets, as their authors release them, to the table of `read_table`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..tables import TableError, split_by_content
from . import full_reference, no_reference
from .release import Labels, Release, join

if TYPE_CHECKING:
    from pandas import DataFrame

FRACTIONS = {"train": 0.8, "test": 0.2}


class Conversion(NamedTuple):
    """The result of `convert`.

    Attributes:
        table: the rows, with paths relative to the dataset's folder.
        problems: what is wrong or missing, one sentence each.
    """

    table: DataFrame
    problems: list[str]


@dataclass(frozen=True)
class Converter:
    """The facts of a dataset.

    Attributes:
        read: reads the labels as published.
        images: the number of rated images published.
        scale: the published numbers of the worst and the best quality, so worst > best for a DMOS. None if the scale
            is open; the lowest and the highest label are used instead.
        source: the paper.
        terms: the license, in words; "not known" if we have not read it.
        bounded: whether every number lies within the scale.
    """

    read: Callable[[Release], Labels]
    images: int
    scale: tuple[float, float] | None
    source: str
    terms: str
    bounded: bool = True


CONVERTERS: dict[str, Converter] = {
    # Realignment takes LIVE's DMOS beyond both ends, to -2.6 and 111.8, and so mos too.
    "live": Converter(
        full_reference.read_live,
        779,
        (100, 0),
        "Sheikh, Sabir, Bovik: A Statistical Evaluation of Recent Full Reference Image Quality Assessment Algorithms, "
        "IEEE TIP 2006 (LIVE release 2)",
        "free for any purpose with the copyright notice and citation",
        bounded=False,
    ),
    "csiq": Converter(
        full_reference.read_csiq,
        866,
        (1, 0),
        "Larson, Chandler: Most apparent distortion: full-reference image quality assessment and the role of strategy, "
        "Journal of Electronic Imaging 2010",
        "not known",
    ),
    "tid2013": Converter(
        full_reference.read_tid2013,
        3000,
        (0, 9),
        "Ponomarenko et al.: Image database TID2013: Peculiarities, results and perspectives, Signal Processing: Image "
        "Communication 2015",
        "education and research only",
    ),
    "kadid10k": Converter(
        full_reference.read_kadid10k,
        10125,
        (1, 5),
        "Lin, Hosu, Saupe: KADID-10k: A Large-scale Artificially Distorted IQA Database, QoMEX 2019",
        "not known",
    ),
    "pipal": Converter(
        full_reference.read_pipal,
        23200,
        None,
        "Gu et al.: PIPAL: a Large-Scale Image Quality Assessment Dataset for Perceptual Image Restoration, ECCV 2020",
        "not known",
    ),
    "clive": Converter(
        no_reference.read_clive,
        1162,
        (0, 100),
        "Ghadiyaram, Bovik: Massive Online Crowdsourced Study of Subjective and Objective Image Quality, IEEE TIP 2016",
        "free for any purpose with the copyright notice and citation",
    ),
    "koniq10k": Converter(
        no_reference.read_koniq10k,
        10073,
        (1, 100),
        "Hosu, Lin, Sziranyi, Saupe: KonIQ-10k: An Ecologically Valid Database for Deep Learning of Blind Image "
        "Quality Assessment, IEEE TIP 2020",
        "not known",
    ),
    "spaq": Converter(
        no_reference.read_spaq,
        11125,
        (0, 100),
        "Fang, Zhu, Zeng, Ma, Wang: Perceptual Quality Assessment of Smartphone Photography, CVPR 2020",
        "education and research only, not commercial",
    ),
    "flive-images": Converter(
        no_reference.read_flive_images,
        39810,
        (0, 100),
        "Ying et al.: From Patches to Images (PaQ-2-PiQ): Mapping the Perceptual Space of Image Quality, CVPR 2020",
        "not known",
    ),
    "flive-patches": Converter(
        no_reference.read_flive_patches,
        119430,
        (0, 100),
        "Ying et al.: From Patches to Images (PaQ-2-PiQ): Mapping the Perceptual Space of Image Quality, CVPR 2020",
        "not known",
    ),
    "bid": Converter(
        no_reference.read_bid,
        586,
        (0, 5),
        "Ciancio et al.: No-Reference Blur Assessment of Digital Images Based on Multifeature Classifiers, IEEE TIP "
        "2011",
        "not known",
    ),
    "para": Converter(
        no_reference.read_para,
        31220,
        (1, 5),
        "Yang et al.: Personalized Image Aesthetics Assessment with Rich Attributes, CVPR 2022",
        "research and learning only, not commercial",
    ),
    "para-aesthetic": Converter(
        no_reference.read_para_aesthetic,
        31220,
        (1, 5),
        "Yang et al.: Personalized Image Aesthetics Assessment with Rich Attributes, CVPR 2022",
        "research and learning only, not commercial",
    ),
    "ava": Converter(
        no_reference.read_ava,
        255530,
        (1, 10),
        "Murray, Marchesotti, Perronnin: AVA: A Large-Scale Database for Aesthetic Visual Analysis, CVPR 2012",
        "the photographs remain their authors' (dpchallenge.com)",
    ),
    "agiqa3k": Converter(
        no_reference.read_agiqa3k,
        2982,
        (0, 5),
        "Li et al.: AGIQA-3K: An Open Database for AI-Generated Image Quality Assessment, IEEE TCSVT 2023",
        "not known",
    ),
}


def convert(name: str, folder: str | os.PathLike[str], seed: int | None = None) -> Conversion:
    """Converts a dataset as released to a table for `write_table` and `QualityDataset`.

    `mos` = (raw - worst) / (best - worst) on the published scale: in [0, 1], higher is better (LIVE slightly exceeds
    it). `std` is in the unit of `mos`, and `raw` is the published number. Labels without exactly one image and images
    with several labels are left out and reported in `problems`; unlabeled images and an unexpected number of labels
    are reported too.

    Args:
        name: a name in `CONVERTERS`.
        folder: the folder that the authors' archives were unpacked to.
        seed: None for the official split, if the release has one. A number draws one by scene, as papers do for
            datasets without: 80% "train" and 20% "test"; see `split_by_content`, which can also draw a "val".

    Raises:
        TableError: the name is unknown (the message suggests similar ones), a file is missing or not as released, or a
            seed is given for a dataset with an official split.
        ImportError: pandas, SciPy or openpyxl is needed and not installed.

    Example:
        >>> try:
        ...     table, problems = convert("koniq10k", "no-such-folder")
        ... except ValueError as error:
        ...     print("not converted")
        not converted
    """
    if name not in CONVERTERS:
        near = difflib.get_close_matches(str(name).lower(), CONVERTERS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(CONVERTERS)}."
        raise TableError(f"There is no converter {name!r}: {hint}")
    facts = CONVERTERS[name]
    release = Release(name, folder)
    table = join(release, facts.read(release), facts.images, facts.scale, facts.bounded)
    if seed is not None:
        if "split" in table.columns:
            raise TableError(f"{name} has an official split: leave the seed out, or draw one with split_by_content.")
        table = split_by_content(table, FRACTIONS, seed)
    return Conversion(table, release.problems)
