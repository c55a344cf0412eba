"""Downloads of weight files, by huggingface_hub and torch.hub."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def url_of(row: Mapping[str, Any]) -> str:
    """The URL of a manifest row's file, on the Hub (HF_ENDPOINT) or torchvision's server."""
    if row["where"] == "hub":
        from huggingface_hub import hf_hub_url

        return hf_hub_url(row["repo"], row["filename"], revision=row["revision"])
    from torchvision.models import get_weight

    return get_weight(row["tag"]).url


def check_reachable(row: Mapping[str, Any]) -> None:
    """Raises what prevents a download, after one request of at most HF_HUB_ETAG_TIMEOUT (10) seconds.

    `hf_hub_download` by itself retries a refused connection for 23 seconds and then does not say why it failed, and
    torch.hub does not know HF_HUB_OFFLINE.
    """
    from huggingface_hub import constants, get_hf_file_metadata

    token = None if row["where"] == "hub" else False  # the user's token goes to the Hub alone
    get_hf_file_metadata(url_of(row), token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def download(row: Mapping[str, Any], path: Path | None) -> Path:
    """Downloads a file into the Hub's cache, or to `path` if it is torchvision's; returns its path."""
    if row["where"] == "hub":
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(row["repo"], row["filename"], revision=row["revision"]))
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url_of(row), str(path), progress=sys.stderr.isatty())
    return path


def reason(error: Exception) -> str:
    """Why a download failed, in one line, with the mend if there is one."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "its repository is gated; ask for access on its page and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return f"access was refused ({status}), or the repository is gone; set HF_TOKEN if you have access"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the server has no such revision"
    if status == 404:
        return "the server has no such file"
    hint = ", which HF_HUB_DISABLE_XET=1 does without" if "CAS Client" in str(error) else ""
    return f"{first_line(error)} ({type(error).__name__}){hint}"


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
