"""Tables of rated images: reading, checking, writing, and splitting by scene."""

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
# What programs write for a missing number. In a column of text these are text.
_GAPS = {"", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>"}
# Row numbers that pandas writes as unnamed columns, or as the index of an Arrow table.
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*|__index_level_\d+__|")


class TableError(ValueError):
    """A table, or a dataset to convert to one, is invalid. The message says what was expected, what was found and how
    to fix it."""


def read_table(
    path: str | os.PathLike[str], split: str | None = None, root: str | os.PathLike[str] | None = None
) -> DataFrame:
    """Reads and checks a .csv or .parquet table of rated images.

    Columns, of which only `image` and `mos` are required:

    * `image`, `reference`: paths, relative to `root`.
    * `mos`: the mean opinion score, higher is better; `std`: the standard deviation of opinions, in the same unit;
      `raw`: the published number, in its own unit and direction.
    * `split`: "train", "val", "test", or empty.
    * `content` (the scene), `distortion`, `level`: groups.
    * `ratings_V`, for example `ratings_1` or `ratings_1.5`: how many raters, or which fraction, chose V.
    * Any other column of numbers is an attribute. Any other column of text is kept; booleans become "True" and "False".
      A row index written by pandas is dropped, except for named levels.

    Numbers are float64. The text columns named above are kept literally (including "None", "NA" and 0042), and an empty
    cell of text is "". Any other column is numeric if all of its cells are numbers or gaps ("", "NA", "nan", ...),
    whatever its type in the file. The same rows therefore give the same table from .csv and from .parquet.

    Args:
        path: the file.
        split: return only the rows of this split; by default all rows.
        root: the folder that paths are relative to; by default the table's folder.

    Raises:
        TableError: the file is missing, unreadable or has another suffix; a required column is missing; `mos`, `raw`,
            `std`, ratings or an attribute has a cell that is not a finite number; an image is listed twice, has no name
            or does not exist (folders are listed, no image is opened); a split is unknown or has no rows.
        ImportError: pandas, or pyarrow for Parquet, is not installed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> _ = (folder / "table.csv").write_text("image,mos\\na.png,0.5\\n")
        >>> read_table(folder / "table.csv")["mos"].tolist()
        [0.5]
    """
    path = Path(path)
    return check_table(_read(path), split, path.parent if root is None else Path(root), str(path))


def write_table(table: DataFrame, path: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Writes a .csv or .parquet table atomically.

    Relative paths are rewritten: from relative to `root` to relative to the folder of the file.

    Raises:
        TableError: the file has another suffix.
        ImportError: pyarrow, for Parquet, is not installed.

    Example:
        >>> import pandas, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> write_table(pandas.DataFrame({"image": ["a.png"], "mos": [0.5]}), path, root=path.parent)
        >>> path.read_text().split()
        ['image,mos', 'a.png,0.5']
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
    """Returns a copy of the table with a new random `split`, in which no scene is in two splits.

    The scene is the `content` column, else `reference`, else `image`. Scenes are ordered by a hash of seed and scene,
    so the split is the same on every machine, in every version and for any order of rows.

    Args:
        table: a table as `read_table` returns it.
        fractions: the fraction of scenes in each split, such as `{"train": 0.6, "val": 0.2, "test": 0.2}`.
        seed: selects the random order.

    Raises:
        TableError: the fractions are not named as in `SPLITS`, not positive or do not add up to 1; there are too few
            scenes to give each split one; or a row has no scene.

    Example:
        >>> import pandas
        >>> table = pandas.DataFrame({"image": ["1.png", "2.png", "3.png", "4.png"], "mos": 0.5})
        >>> split_by_content(table, {"train": 0.5, "test": 0.5}, seed=0)["split"].value_counts().to_dict()
        {'train': 2, 'test': 2}
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
    """Checks a DataFrame as `read_table` does and returns a copy, with only the rows of `split` if one is given.

    `source` is what error messages call the table.

    Raises:
        TableError: as in `read_table`.

    Example:
        >>> import pandas, tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "a.png").touch()
        >>> check_table(pandas.DataFrame({"image": ["a.png"], "mos": [1]}), None, root, "The table")["mos"].tolist()
        [1.0]
    """
    table = _without_index(table)
    if absent := [name for name in ("image", "mos") if name not in table.columns]:
        raise TableError(
            f"{source} has no column {' and no column '.join(absent)}, only {', '.join(map(str, table.columns))}: "
            "rename the right one, or add it."
        )
    if table.empty:
        raise TableError(f"{source} has no rows: expected one per image.")
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
    """The columns of the rating distribution, each with the rating that it counts, ascending.

    Example:
        >>> import pandas
        >>> ratings_columns(pandas.DataFrame(columns=["image", "mos", "ratings_2", "ratings_1"]))
        {'ratings_1': 1.0, 'ratings_2': 2.0}
    """
    found = {str(name): re.fullmatch(r"ratings_(-?\d+(?:\.\d+)?)", str(name)) for name in table.columns}
    values = {name: float(match[1]) for name, match in found.items() if match}
    return dict(sorted(values.items(), key=lambda item: item[1]))


def attribute_columns(table: DataFrame) -> list[str]:
    """The numeric columns without a predefined meaning, in the table's order.

    Example:
        >>> import pandas
        >>> attribute_columns(pandas.DataFrame({"image": ["a.png"], "mos": [0.5], "sharpness": [0.7]}))
        ['sharpness']
    """
    is_numeric = import_optional("pandas").api.types.is_numeric_dtype
    reserved = _NO_ATTRIBUTES | {*ratings_columns(table)}
    return [str(name) for name in table.columns if name not in reserved and is_numeric(table[name])]


def few(names: Iterable[Any]) -> str:
    """The first five names and their total count, for an error message.

    Example:
        >>> few(["a", "b"])
        'a, b (2)'
    """
    names = [*map(str, names)]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") + f" ({len(names)})"


def _read(path: Path) -> DataFrame:
    pandas = import_optional("pandas")
    _check_suffix(path)
    if not path.is_file():
        raise TableError(f"There is no table {path}: check the path.")
    try:
        if path.suffix == ".csv":
            return pandas.read_csv(path, dtype=str, keep_default_na=False)  # check_table converts numbers
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
    """A copy with named index levels as columns, as in a .csv, and without row numbers."""
    named = [name for name in table.index.names if name is not None and name not in table.columns]
    table = table.reset_index(level=named) if named else table
    counting = [name for name in table.columns if _UNNAMED.fullmatch(str(name)) or _is_count(str(name), table[name])]
    return table.drop(columns=counting).reset_index(drop=True)


def _is_count(name: str, column: Series) -> bool:
    """Whether a column holds row numbers from pandas' `reset_index`."""
    if not re.fullmatch(r"index|level_\d+", name):
        return False
    return column.is_unique and all(re.fullmatch(r"\d+", cell) for cell in _text(column))


def _text(column: Series) -> Series:
    """The column as text, as `to_csv` writes it; "" for missing values."""
    return column.astype(str).astype(object).where(column.notna(), "")


def _numbers_or_text(column: Series, must: bool) -> Series:
    """Float64 with NaN for gaps if the column is numeric, else text. With `must`, invalid cells are kept as text."""
    types = import_optional("pandas").api.types
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and column.notna().any():
        return column.astype(float)
    text = _text(column)
    cells = text.str.strip()
    gaps, numbers = cells.str.lower().isin(_GAPS), cells.str.fullmatch(_NUMBER)
    if must:
        return cells.mask(gaps, np.nan).where(~numbers, cells.where(numbers, "nan").map(float))
    # A leading zero marks an identifier: no program writes a number that way.
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
                "and suffixes match the files."
            )
