"""Import of optional dependencies."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(name: str, extra: str = "evaluate") -> Any:
    """Imports a module that the package's `extra` installs.

    Raises:
        ImportError: it is not installed; the message gives the pip command.

    Example:
        >>> import_optional("math").sqrt(4.0)
        2.0
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed for this: pip install 'mdiqa_metric[{extra}]'") from error
