"""Libraries that only some parts of this package need."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(name: str, extra: str = "evaluate") -> Any:
    """The module of that name, which the package's `extra` installs.

    Raises:
        ImportError: it is not installed; the text says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed for this: pip install 'mdiqa_metric[{extra}]'") from error
