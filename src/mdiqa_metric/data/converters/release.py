"""A data set as its authors release it: label files read, images found, labels joined to images."""

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
    """What a data set's reader gives: its labels as published, and where the images are that they name.

    `table` has `image` (and `reference`) as the labels name them, `raw` as published, `std` in the unit of `raw`, and
    further columns as the finished table has them. `unrated` names images that have no label by design.
    """

    table: DataFrame
    images: Images
    references: Images | None = None
    unrated: Collection[str] = ()


class Release:
    """A data set's folder. What is wrong with it, short of being unreadable, gathers in `problems`.

    Raises:
        TableError: there is no such folder. The methods raise it for a file that is needed and missing, or not as
            released.
    """

    def __init__(self, name: str, folder: str | os.PathLike[str]) -> None:
        self.name, self.folder = name, Path(folder)
        self.problems: list[str] = []
        if not self.folder.is_dir():
            raise TableError(f"There is no folder {folder} to read {name} from: check the path.")

    def find(self, *places: str) -> Path | None:
        """The first of these files or folders that is there."""
        return next((self.folder / place for place in places if (self.folder / place).exists()), None)

    def need(self, *places: str) -> Path:
        """As `find`, or a TableError that names them all."""
        if (found := self.find(*places)) is None:
            raise TableError(
                f"{self.name} as released has {' or '.join(places)}, got {self.folder} without: name the folder that "
                "holds it, and unpack everything."
            )
        return found

    def csv(self, path: Path, columns: Sequence[str] = (), **options: Any) -> DataFrame:
        """A text table that has these columns."""
        table = self._read(path, import_optional("pandas").read_csv, **options)
        return self._with_columns(path, table, columns)

    def sheet(self, path: Path, columns: Sequence[str]) -> DataFrame:
        """The rows below the first row, of any sheet and in any place, that holds these names; .csv is taken too."""
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
        """The variables of those names in a MATLAB file, flat; of a cell array what is in its cells."""
        content = self._read(path, import_optional("scipy.io").loadmat)
        if absent := [name for name in names if name not in content]:
            raise self._without_columns(path, absent, [name for name in content if not name.startswith("__")])
        return [np.array([_inside(cell) for cell in content[name].ravel()]) for name in names]

    def lines(self, path: Path) -> list[str]:
        """The lines of a text file that are not empty, without surrounding space."""
        text: str = self._read(path, lambda path: path.read_text(encoding="utf-8-sig"))
        return [line.strip() for line in text.splitlines() if line.strip()]

    def whole_numbers(self, column: Series) -> Series:
        """A column's numbers as integers."""
        values = numbers(column)
        if (odd := ~np.isfinite(values) | (values % 1 != 0)).any():
            raise TableError(
                f"{self.name} has whole numbers as {column.name}, got {few(column[odd])}: take the label file as "
                "released."
            )
        return values.astype(int)

    def names(self, images: Series, pattern: str) -> DataFrame:
        """What a pattern's named groups find in image names, whatever their case."""
        found = images.str.extract(f"(?i)^{pattern}$")
        if (odd := found.isna().any(axis=1)).any():
            raise TableError(
                f"{self.name} names its images as {pattern}, got {few(images[odd])}: take the label file as released."
            )
        return found

    def images(self, *bases: str, folders: Sequence[str] = ("",), by_name: bool = False) -> Images:
        """The images below those folders of the first base that is there; by their name alone, if asked."""
        return Images(self.folder, self.need(*bases), folders, by_name)

    def leave_out(self, table: DataFrame, wrong: Series, what: str) -> DataFrame:
        """The table without the wrong rows, which are reported."""
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
    """The image files below some folders, found by their path there or by name, whatever the case or the suffix."""

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
        """What stays of a name when case, suffix and, if images go by name alone, folders don't count."""
        stem, suffix = os.path.splitext(name.replace("\\", "/").removeprefix("./").casefold())
        key = stem if suffix in SUFFIXES else stem + suffix
        return key.rpartition("/")[2] if self.by_name else key

    def candidates(self, name: str) -> list[str]:
        """The files that a name may mean: the one that it spells exactly, where there is one."""
        found = self.places.get(self.key(name), [])
        exact = [place for place in found if f"/{place}".endswith(f"/{name}")]
        return exact if len(exact) == 1 else found


def numbers(column: Series) -> Series:
    """A column as float64, NaN where it has no number."""
    return import_optional("pandas").to_numeric(column, errors="coerce").astype(float)


def join(
    release: Release, labels: Labels, published: int, scale: tuple[float, float] | None, bounded: bool
) -> DataFrame:
    """The finished table: rows that have one number and one image; whatever is left out or odd is reported."""
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
    """The table with the role's names replaced by the files they mean, without the rows that mean none or several."""
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
    """What is in a cell, however deep it lies."""
    while isinstance(cell, np.ndarray) and cell.size:
        cell = cell.ravel()[0]
    return "" if isinstance(cell, np.ndarray) else cell
