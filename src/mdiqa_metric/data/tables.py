"""Tables of rated images: read and checked, written, and split by scene."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import atomic_write
from ..optional import import_optional

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SPLITS = ("train", "val", "test")
SUFFIXES = (".csv", ".parquet")

_NAMES = ("image", "reference", "content", "distortion", "split")
_NUMBERS = ("mos", "raw", "std")
_NO_ATTRIBUTES = {*_NAMES, *_NUMBERS, "level"}

_NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI]nf(?:inity)?|INF)"
# What programs write where a column of numbers has none. In a column of text each of them is text.
_GAPS = {"", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>"}
# Columns without a name, and the index of Arrow's tables: pandas writes them, and they count rows.
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*|__index_level_\d+__|")


class TableError(ValueError):
    """A table, or a data set to make one of, is not as it should be; the text says what was expected, what came and the
    mend."""


def read_table(
    path: str | os.PathLike[str], split: str | None = None, root: str | os.PathLike[str] | None = None
) -> DataFrame:
    """A .csv or .parquet table of rated images, checked; of `split` only, where one is named.

    Columns, of which `image` and `mos` are required:

    * `image`, `reference`: paths, relative to `root`, which is the table's own folder where none is given.
    * `mos`: the mean opinion, higher is better; `std`: the standard deviation of opinions, in the same unit;
      `raw`: the published number, in its own unit and direction.
    * `split`: "train", "val", "test", or empty.
    * `content` (the scene), `distortion`, `level`: groups.
    * `ratings_V`, as `ratings_1` and `ratings_1.5`: how many, or which fraction, rated V.
    * Any other column of numbers is an attribute. Any other column of text is kept, one of truth values as "True" and
      "False". A row index that pandas wrote is left out, but for levels that have a name.

    Numbers are float64, the names above are text as it stands ("None" and "NA" too, and 0042), and what is empty in a
    column of text is "". Of the other columns, those are of numbers whose cells all are, however the file keeps them;
    "", "NA", "nan" and the like are gaps there. So a .csv and a .parquet of the same rows are the same table.

    Raises:
        TableError: no such file, another suffix, or unreadable; a required column is missing; `mos`, `raw`, `std`,
            ratings or an attribute are not finite numbers throughout; an image is named twice, not named or not there
            (one listing a folder, nothing is decoded); an unknown split, or one without rows.
        ImportError: pandas, or pyarrow for Parquet, is not installed.
    """
    path = Path(path)
    return check_table(_read(path), split, path.parent if root is None else Path(root), str(path))


def write_table(table: DataFrame, path: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Writes .csv or .parquet, whole or not at all; paths that were relative to `root` become so to the file's folder.

    Raises:
        TableError: another suffix.
        ImportError: pyarrow, for Parquet, is not installed.
    """
    path = Path(path)
    _check_suffix(path)
    table = table.copy()
    for role in {"image", "reference"} & {*table.columns}:
        table[role] = [
            name if os.path.isabs(name) else Path(os.path.relpath(Path(root) / name, path.parent)).as_posix()
            for name in table[role]
        ]
    with atomic_write(path) as partial:
        if path.suffix == ".csv":
            table.to_csv(partial, index=False, lineterminator="\n")
        else:
            import_optional("pyarrow")
            table.to_parquet(partial, index=False)


def split_by_content(table: DataFrame, fractions: Mapping[str, float], seed: int) -> DataFrame:
    """A copy of the table whose `split` is drawn anew by scene, so that no scene is in two splits.

    The scene is `content`; `reference` where there is no such column; the image itself where neither is. Fractions,
    as `{"train": 0.6, "val": 0.2, "test": 0.2}`, are of scenes. The order is that of a hash of the seed and the scene:
    the same on every machine and in every version, whatever the order of the rows.

    Raises:
        TableError: fractions that are not of `SPLITS`, not positive or do not add up to 1, too few scenes to give each
            split one, or rows without a scene.
    """
    if (
        not {*fractions} <= {*SPLITS}
        or min(fractions.values(), default=0) <= 0
        or abs(sum(fractions.values()) - 1) > 1e-9
    ):
        raise TableError(
            f"Fractions are positive, add up to 1 and are named {', '.join(SPLITS)}, got {dict(fractions)}: correct "
            "them."
        )
    by = next(name for name in ("content", "reference", "image") if name in table.columns)
    scenes = table[by].fillna("").astype(str)
    if (scenes == "").any():
        raise TableError(
            f"Splitting needs the {by} of every row, got none for {few(table['image'][scenes == ''])}: fill it in, or "
            "drop the column to split without it."
        )
    order = sorted(scenes.unique(), key=lambda scene: hashlib.sha256(f"{seed}/{scene}".encode()).digest())
    split_of, start, total = {}, 0, 0.0
    for name, fraction in fractions.items():
        total += fraction
        stop = round(total * len(order))
        if stop == start:
            raise TableError(
                f"{len(order)} scenes are too few to give {name} a fraction of {fraction}: use a larger fraction."
            )
        split_of.update(dict.fromkeys(order[start:stop], name))
        start = stop
    return table.assign(split=scenes.map(split_of))


def check_table(table: DataFrame, split: str | None, root: Path, source: str) -> DataFrame:
    """A copy with numbers and text as `read_table` says, rows of `split` only; errors as there, naming the `source`."""
    table = _without_index(table)
    if absent := [name for name in ("image", "mos") if name not in table.columns]:
        raise TableError(
            f"{source} has no column {' and no column '.join(absent)}, only {', '.join(map(str, table.columns))}: "
            "rename the one that is meant, or add it."
        )
    if table.empty:
        raise TableError(f"{source} has no rows: expected one an image.")
    ratings = ratings_columns(table)
    for name in table.columns:
        if name in _NAMES:
            table[name] = _text(table[name])
        else:
            table[name] = _numbers_or_text(table[name], must=name in _NUMBERS or name in ratings)
    _check_images(table, source)
    for name in [*(name for name in _NUMBERS if name in table.columns), *ratings, *attribute_columns(table)]:
        table[name] = _check_numbers(
            table, name, at_least=0.0 if name == "std" or name in ratings else -np.inf, source=source
        )
    if ratings and (unrated := table[[*ratings]].sum(axis=1) == 0).any():
        raise TableError(f"{source} has no ratings for {few(table['image'][unrated])}: correct or remove these rows.")
    table = _of_split(table, split, source).reset_index(drop=True)
    _check_files(table, root, source)
    return table


def ratings_columns(table: DataFrame) -> dict[str, float]:
    """The columns of the ratings distribution, each with the value that it counts, ascending."""
    found = {str(name): re.fullmatch(r"ratings_(-?\d+(?:\.\d+)?)", str(name)) for name in table.columns}
    values = {name: float(match[1]) for name, match in found.items() if match}
    return dict(sorted(values.items(), key=lambda item: item[1]))


def attribute_columns(table: DataFrame) -> list[str]:
    """The columns of numbers that no other meaning is set for, in the table's order."""
    is_numeric = import_optional("pandas").api.types.is_numeric_dtype
    reserved = _NO_ATTRIBUTES | {*ratings_columns(table)}
    return [str(name) for name in table.columns if name not in reserved and is_numeric(table[name])]


def few(names: Iterable[Any]) -> str:
    """The first five names and how many there are, for a complaint."""
    names = [*map(str, names)]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") + f" ({len(names)})"


def _read(path: Path) -> DataFrame:
    pandas = import_optional("pandas")
    _check_suffix(path)
    if not path.is_file():
        raise TableError(f"There is no table {path}: check the path.")
    try:
        if path.suffix == ".csv":
            return pandas.read_csv(path, dtype=str, keep_default_na=False)  # what is a number is told later
        import_optional("pyarrow")
        return pandas.read_parquet(path)
    except ImportError:
        raise
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise TableError(f"{path} is empty, damaged or no {path.suffix} table: {reason}. Write it again.") from error


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise TableError(f"A table ends in {' or '.join(SUFFIXES)}, got {path}: save it as one of these.")


def _check_images(table: DataFrame, source: str) -> None:
    for role in ("image", "reference"):
        if role in table.columns and (nameless := table[role].isna() | (table[role] == "")).any():
            raise TableError(
                f"{source} names no {role} in rows {few(table.index[nameless])}, counted from 0: fill it in."
            )
    if (again := table["image"].duplicated()).any():
        raise TableError(f"{source} has several rows for {few(table['image'][again].unique())}: keep one row an image.")


def _without_index(table: DataFrame) -> DataFrame:
    """A copy whose named index levels are columns, as in a .csv, without what pandas counts rows by."""
    named = [name for name in table.index.names if name is not None and name not in table.columns]
    table = table.reset_index(level=named) if named else table
    counting = [name for name in table.columns if _UNNAMED.fullmatch(str(name)) or _is_count(str(name), table[name])]
    return table.drop(columns=counting).reset_index(drop=True)


def _is_count(name: str, column: Series) -> bool:
    """Whether a column is what pandas' `reset_index` makes of row numbers."""
    if not re.fullmatch(r"index|level_\d+", name):
        return False
    return column.is_unique and all(re.fullmatch(r"\d+", cell) for cell in _text(column))


def _text(column: Series) -> Series:
    """As text, as `to_csv` writes it; "" where nothing is."""
    return column.astype(str).astype(object).where(column.notna(), "")


def _numbers_or_text(column: Series, must: bool) -> Series:
    """Float64 with NaN in the gaps where a column is of numbers, else text; wrong cells stay where it must be."""
    types = import_optional("pandas").api.types
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and column.notna().any():
        return column.astype(float)
    text = _text(column)
    cells = text.str.strip()
    gaps, numbers = cells.str.lower().isin(_GAPS), cells.str.fullmatch(_NUMBER)
    if must:
        return cells.mask(gaps, np.nan).where(~numbers, cells.where(numbers, "nan").map(float))
    # A leading zero belongs to a name: no program writes a number so.
    numbers &= ~cells.str.match(r"[+-]?0\d")
    return cells.mask(gaps, "nan").map(float) if numbers.any() and (numbers | gaps).all() else text


def _check_numbers(table: DataFrame, name: str, at_least: float, source: str) -> Series:
    numbers = import_optional("pandas").to_numeric(table[name], errors="coerce").astype(float)
    if (wrong := ~np.isfinite(numbers) | (numbers < at_least)).any():
        found = few(
            f"{image} ({value})" for image, value in zip(table["image"][wrong], table[name][wrong], strict=True)
        )
        kind = "a finite number" if at_least == -np.inf else f"a number from {at_least:g} up"
        raise TableError(
            f"{source} must have {kind} as {name} in every row, got {found}: correct or remove these rows."
        )
    return numbers


def _of_split(table: DataFrame, split: str | None, source: str) -> DataFrame:
    there = table["split"] if "split" in table.columns else import_optional("pandas").Series("", table.index)
    if unknown := sorted({*there} - {*SPLITS, ""}):
        raise TableError(
            f"{source} has the splits {few(unknown)}, expected {', '.join(SPLITS)} or nothing: rename them, or leave "
            "the cells empty."
        )
    if split is None:
        return table
    if not (there == split).any():
        found = ", ".join(name for name in SPLITS if (there == name).any()) or "none"
        raise TableError(
            f"{source} has no rows of the split {split!r}, the splits in it are: {found}. Choose one of these, or make "
            "them with split_by_content."
        )
    return table[there == split]


def _check_files(table: DataFrame, root: Path, source: str) -> None:
    listings: dict[str, set[str]] = {}

    def missing(name: str) -> bool:
        folder, file = os.path.split(os.path.join(root, name))
        if folder not in listings:
            try:
                listings[folder] = {*os.listdir(folder or ".")}
            except OSError:
                listings[folder] = set()
        return file not in listings[folder]

    for role in ("image", "reference"):
        if role in table.columns and (absent := [*filter(missing, table[role].unique())]):
            raise TableError(
                f"{source} names {role}s that are not in {root}: {few(absent)}. Check the folder, and that capitals "
                "and suffixes are the files' own."
            )
