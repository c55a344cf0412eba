"""Reading of a released dataset: label files, image files, and the join of the two."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...optional import import_optional
from ..pairing import SUFFIXES
from ..tables import TableError, few

if TYPE_CHECKING:
    from pandas import DataFrame, Series


class Labels(NamedTuple):
    """What the reader of a dataset returns: the labels as published, and the images they refer to.

    Attributes:
        table: `image` (and `reference`) as the labels name them, `raw` as published, `std` in the unit of `raw`, and
            further columns as in the finished table.
        images, references: the files to find those names among.
        unrated: images that have no label by design.
    """

    table: DataFrame
    images: Images
    references: Images | None = None
    unrated: Collection[str] = ()


class Release:
    """The folder of a dataset, with methods to read its files. Problems that do not prevent reading go to `problems`.

    Raises:
        TableError: the folder does not exist. The methods raise it if a required file is missing or not as released.

    Example:
        >>> import tempfile
        >>> release = Release("tid2013", tempfile.mkdtemp())
        >>> _ = (release.folder / "names.txt").write_text("a.png\\n\\nb.png\\n")
        >>> release.lines(release.need("names.txt"))
        ['a.png', 'b.png']
    """

    def __init__(self, name: str, folder: str | os.PathLike[str]) -> None:
        self.name, self.folder = name, Path(folder)
        self.problems: list[str] = []
        if not self.folder.is_dir():
            raise TableError(f"There is no folder {folder} to read {name} from: check the path.")

    def find(self, *places: str) -> Path | None:
        """The first of these files or folders that exists, or None."""
        return next((self.folder / place for place in places if (self.folder / place).exists()), None)

    def need(self, *places: str) -> Path:
        """As `find`, but raises a TableError that lists them if none exists."""
        if (found := self.find(*places)) is None:
            raise TableError(
                f"{self.name} as released has {' or '.join(places)}, got {self.folder} without: name the folder that "
                "contains it, and unpack all archives."
            )
        return found

    def csv(self, path: Path, columns: Sequence[str] = (), **options: Any) -> DataFrame:
        """Reads a text table and checks that it has these columns; `options` go to `pandas.read_csv`."""
        table = self._read(path, import_optional("pandas").read_csv, **options)
        return self._with_columns(path, table, columns)

    def sheet(self, path: Path, columns: Sequence[str]) -> DataFrame:
        """Reads the rows below the header, the first row in any sheet that has these names; also takes a .csv."""
        pandas = import_optional("pandas")
        if path.suffix.lower() == ".csv":
            return self.csv(path, columns)
        import_optional("openpyxl")
        sheets = self._read(path, pandas.read_excel, sheet_name=None, header=None, dtype=object)
        for sheet in sheets.values():
            for number, row in enumerate(sheet.to_numpy()):
                names = [str(cell).strip() for cell in row]
                if {*columns} <= {*names}:
                    body = sheet.iloc[number + 1 :].set_axis(names, axis=1)
                    return body.dropna(how="all", subset=[*columns]).reset_index(drop=True)
        firsts = {name: [str(cell) for cell in sheet.to_numpy().ravel()[:8]] for name, sheet in sheets.items()}
        raise self._without_columns(path, columns, firsts)

    def mat(self, path: Path, *names: str) -> list[np.ndarray]:
        """Reads variables of a MATLAB file as flat arrays; a cell array gives the contents of its cells."""
        content = self._read(path, import_optional("scipy.io").loadmat)
        if absent := [name for name in names if name not in content]:
            raise self._without_columns(path, absent, [name for name in content if not name.startswith("__")])
        return [np.array([_inside(cell) for cell in content[name].ravel()]) for name in names]

    def lines(self, path: Path) -> list[str]:
        """Reads the nonempty lines of a text file, stripped."""
        text: str = self._read(path, lambda path: path.read_text(encoding="utf-8-sig"))
        return [line.strip() for line in text.splitlines() if line.strip()]

    def whole_numbers(self, column: Series) -> Series:
        """Converts a column to integers."""
        values = numbers(column)
        if (odd := ~np.isfinite(values) | (values % 1 != 0)).any():
            raise TableError(
                f"{self.name} has whole numbers as {column.name}, got {few(column[odd])}: take the label file as "
                "released."
            )
        return values.astype(int)

    def names(self, images: Series, pattern: str) -> DataFrame:
        """Matches image names against a pattern, ignoring case, and returns its named groups as columns."""
        found = images.str.extract(f"(?i)^{pattern}$")
        if (odd := found.isna().any(axis=1)).any():
            raise TableError(
                f"{self.name} names its images as {pattern}, got {few(images[odd])}: take the label file as released."
            )
        return found

    def images(self, *bases: str, folders: Sequence[str] = ("",), by_name: bool = False) -> Images:
        """The images below `folders` of the first base that exists; `by_name` ignores the folder in a lookup."""
        return Images(self.folder, self.need(*bases), folders, by_name)

    def leave_out(self, table: DataFrame, wrong: Series, what: str) -> DataFrame:
        """Drops the wrong rows from the table and reports them in `problems`."""
        if wrong.any():
            self.problems.append(f"{what}, left out: {few(table['image'][wrong])}.")
        return table[~wrong]

    def _read(self, path: Path, reader: Callable[..., Any], **options: Any) -> Any:
        try:
            return reader(path, **options)
        except Exception as error:  # a damaged file makes the readers raise nearly anything
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise TableError(
                f"{path} cannot be read as labels of {self.name}: {reason}. Take the file as released."
            ) from error

    def _with_columns(self, path: Path, table: DataFrame, columns: Sequence[str]) -> DataFrame:
        table = table.rename(columns=lambda name: str(name).strip())
        if not {*columns} <= {*table.columns}:
            raise self._without_columns(path, columns, [*table.columns])
        return table

    def _without_columns(self, path: Path, columns: Sequence[str], found: Any) -> TableError:
        return TableError(
            f"{path} should have {', '.join(columns)}, got {found}: take the label file of {self.name} as released."
        )


class Images:
    """The image files below some folders, looked up by path or by name, ignoring case and suffix.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "A.PNG").touch()
        >>> Images(root, root, ("",), by_name=True).candidates("a.bmp")
        ['A.PNG']
    """

    def __init__(self, root: Path, base: Path, folders: Sequence[str], by_name: bool) -> None:
        self.by_name = by_name
        self.places: dict[str, list[str]] = {}
        for folder in folders:
            for place, _, files in os.walk(base / folder):
                below, above = Path(place).relative_to(base).as_posix(), Path(place).relative_to(root).as_posix()
                for file in sorted(files):
                    if os.path.splitext(file)[1].lower() in SUFFIXES and not file.startswith("."):
                        full = file if above == "." else f"{above}/{file}"
                        self.places.setdefault(self.key(f"{below}/{file}"), []).append(full)

    def key(self, name: str) -> str:
        """The lookup key of a name: without case and suffix and, with `by_name`, without folders."""
        stem, suffix = os.path.splitext(name.replace("\\", "/").removeprefix("./").casefold())
        key = stem if suffix in SUFFIXES else stem + suffix
        return key.rpartition("/")[2] if self.by_name else key

    def candidates(self, name: str) -> list[str]:
        """The files that match a name; only the exact match if there is one."""
        found = self.places.get(self.key(name), [])
        exact = [place for place in found if f"/{place}".endswith(f"/{name}")]
        return exact if len(exact) == 1 else found


def numbers(column: Series) -> Series:
    """Converts a column to float64, with NaN for anything that is not a number.

    Example:
        >>> import pandas
        >>> numbers(pandas.Series(["1.5", "n/a"])).tolist()
        [1.5, nan]
    """
    return import_optional("pandas").to_numeric(column, errors="coerce").astype(float)


def join(
    release: Release, labels: Labels, published: int, scale: tuple[float, float] | None, bounded: bool
) -> DataFrame:
    """Joins labels and images into the finished table, and reports what is left out in `release.problems`.

    A row needs a finite number, exactly one image and, if the dataset has references, exactly one reference.

    Args:
        release: the dataset's folder.
        labels: what its reader returned.
        published: the expected number of labels.
        scale, bounded: as in `Converter`.

    Raises:
        TableError: no label has an image, or all labels are equal.
    """
    table = labels.table.reset_index(drop=True)
    table["image"] = table["image"].map(str)
    rated = {*table["image"].map(labels.images.key)}
    table["raw"] = numbers(table["raw"])
    worst, best = scale or (table["raw"].min(), table["raw"].max())
    if len(table) != published:
        release.problems.append(f"{release.name} is published with {published} labels, found {len(table)}.")
    table = release.leave_out(table, ~np.isfinite(table["raw"]), "Labels without a number")
    if "std" in table:
        table["std"] = numbers(table["std"])
        table = release.leave_out(table, ~(table["std"] >= 0), "Labels without a standard deviation")
    complete = np.isfinite(table.select_dtypes("number")).all(axis=1)
    table = release.leave_out(table, ~complete, "Labels that lack a number in an attribute or in their ratings")
    keys = table["image"].map(labels.images.key)
    table = release.leave_out(table, keys.duplicated(keep=False), "Images with several labels")
    for role, images in (("image", labels.images), ("reference", labels.references)):
        if images is not None:
            table = _find(release, table, role, images)
    _report_unlabeled(release, labels, rated, {*table.get("reference", ())})
    if worst == best:
        raise TableError(f"{release.name} has one number for all images, {worst}: take the label files as released.")
    mos = (table["raw"] - worst) / (best - worst) + 0.0  # no -0.0
    if bounded and (outside := (mos < 0) | (mos > 1)).any():
        release.problems.append(
            f"Labels outside the published scale, {worst:g} (worst) to {best:g}: {few(table['image'][outside])}."
        )
    table["mos"] = mos
    if "std" in table:
        table["std"] /= abs(best - worst)
    first = [name for name in ("image", "reference", "mos", "raw", "std", "split") if name in table]
    return table[[*first, *table.columns.difference(first, sort=False)]].reset_index(drop=True)


def _find(release: Release, table: DataFrame, role: str, images: Images) -> DataFrame:
    """Replaces the names in the role's column by paths, and drops rows that match no file or several."""
    candidates = table[role].map(images.candidates)
    what = "an image" if role == "image" else "a reference image"
    if not candidates.map(bool).any():
        raise TableError(
            f"None of the {len(table)} labels of {release.name} has {what} below {release.folder}, for example "
            f"{few(table[role][:1])}: unpack the images where the release has them."
        )
    table = release.leave_out(table, candidates.map(len) == 0, f"Labels without {what}")
    table = release.leave_out(
        table, candidates[table.index].map(len) > 1, f"Labels whose name fits several files as {what}"
    )
    return table.assign(**{role: candidates[table.index].map(lambda places: places[0])})


def _report_unlabeled(release: Release, labels: Labels, rated: set[str], references: set[str]) -> None:
    known = rated | {*map(labels.images.key, labels.unrated)}
    places = [
        place
        for key, places in labels.images.places.items()
        if key not in known
        for place in places
        if place not in references
    ]
    if places:
        release.problems.append(f"Images without a label: {few(places)}.")


def _inside(cell: Any) -> Any:
    """The content of a MATLAB cell, however deeply nested."""
    while isinstance(cell, np.ndarray) and cell.size:
        cell = cell.ravel()[0]
    return "" if isinstance(cell, np.ndarray) else cell
