"""A PyTorch dataset of rated images, for training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .images import read_image
from .tables import TableError as TableError
from .tables import attribute_columns, check_table, ratings_columns
from .tables import read_table as read_table
from .tables import split_by_content as split_by_content
from .tables import write_table as write_table

if TYPE_CHECKING:
    from pandas import DataFrame


class QualityDataset(Dataset[dict[str, Any]]):
    """The rated images of a table as a map-style dataset. Each image is decoded when its item is requested.

    An item is a dict:

    * "image" (3, H, W), float32 RGB in [0, 1], and "reference" likewise if the table has references;
    * "mos" (), float32, in the table's unit, higher is better;
    * "std" (), "attributes" (A,) and "ratings" (B,), float32, each only if the table has it;
    * "index", the row.

    To batch images of different sizes, crop them with `transform` or use `batch_size=1`.

    Args:
        table: a path for `read_table`, or a DataFrame with the same columns, which is checked in the same way.
        split: one of `SPLITS`, or None for all rows.
        transform: maps a stack (K, 3, H, W) to a stack: the image and, if there is one, its reference, so that both
            get the same crop.
        root: the folder that paths are relative to. By default the table's folder, or the working folder for a
            DataFrame.

    Attributes:
        source: the table's path, or "a DataFrame".
        split: the requested split, or None.
        table: the rows, numbered from 0.
        root: the folder that paths are relative to.
        attributes: the A names of the attributes, in the table's order.
        rating_values: the B possible values of a rating, ascending.
        full_reference: whether there are references.

    Raises:
        TableError: as in `read_table`; on item access, if the reference differs from the image in size.
        ImageError: on item access, if an image cannot be read.

    Example:
        >>> import pandas, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "red.ppm").write_bytes(b"P6 1 1 255 " + bytes([255, 0, 0]))
        >>> dataset = QualityDataset(pandas.DataFrame({"image": ["red.ppm"], "mos": [0.5]}), root=folder)
        >>> dataset[0]["image"].flatten(), dataset[0]["mos"]
        (tensor([1., 0., 0.]), tensor(0.5000))
    """

    def __init__(
        self,
        table: str | os.PathLike[str] | DataFrame,
        split: str | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.split = split
        if isinstance(table, str | os.PathLike):
            self.source = str(table)
            self.root = Path(table).parent if root is None else Path(root)
            self.table = read_table(table, split, self.root)
        else:
            self.source = "a DataFrame"
            self.root = Path() if root is None else Path(root)
            self.table = check_table(table, split, self.root, "The table")
        self.transform = transform
        ratings = ratings_columns(self.table)
        self.rating_values = tuple(ratings.values())
        self.attributes = tuple(attribute_columns(self.table))
        self.full_reference = "reference" in self.table.columns
        self._files = {role: self.table[role].tolist() for role in ("image", "reference") if role in self.table.columns}
        columns: dict[str, Any] = {name: name for name in ("mos", "std") if name in self.table.columns}
        columns |= {"attributes": [*self.attributes]} if self.attributes else {}
        columns |= {"ratings": [*ratings]} if ratings else {}
        self._numbers = {
            name: torch.from_numpy(self.table[column].to_numpy(np.float32, copy=True))
            for name, column in columns.items()
        }

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        images = [read_image(self.path(index, role)) for role in self._files]
        if images[0].shape != images[-1].shape:
            height, width, other = *images[0].shape[2:], "x".join(map(str, images[-1].shape[2:]))
            raise TableError(
                f"{self.path(index)} is {height}x{width} and its reference {self.path(index, 'reference')} is {other}, "
                "expected one size: crop or resize one of the files."
            )
        stack = torch.cat(images)
        if self.transform is not None:
            stack = self.transform(stack)
        numbers = {name: values[index].clone() for name, values in self._numbers.items()}
        return {**dict(zip(self._files, stack, strict=True)), **numbers, "index": index}

    def path(self, index: int, role: str = "image") -> Path:
        """The path of a row's image, or of its reference if `role` is "reference"."""
        return self.root / self._files[role][index]
