"""Image files, tables of ratings, and datasets made of both."""

from .dataset import QualityDataset as QualityDataset
from .images import read_image as read_image
from .pairing import ImageError as ImageError
from .pairing import list_images as list_images
from .pairing import pair_by_stem as pair_by_stem
from .tables import TableError as TableError
from .tables import read_table as read_table
from .tables import split_by_content as split_by_content
from .tables import write_table as write_table
