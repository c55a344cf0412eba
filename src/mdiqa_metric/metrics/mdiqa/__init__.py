"""MDIQA: the network in `model`, the authors' files in `checkpoint`."""

from .model import MDIQA as MDIQA
