"""Metrics saved to folders and to the Hugging Face Hub, and loaded from there.

The Hub's client is imported by the methods that need it, so that a metric's class can be imported without it.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ..metric import Metric
from .download import first_line, reason
from .files import WeightsError
from .states import cpu_float32, load, read_state

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

Self = TypeVar("Self", bound="HubMixin")

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
# Licenses that the Hub knows by these names; a card has to call any other "other" and name it beside.
LICENSES = {"mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "openrail", "unlicense"} | {
    f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nc", "-nd", "-nc-sa", "-nc-nd")
}

_log = logging.getLogger("mdiqa_metric")


class HubMixin(Metric):
    """Gives a `MultiDimensional` `save_pretrained`, `push_to_hub` and `from_pretrained`.

    `class MDIQA(MultiDimensional, HubMixin)` is all it takes. A folder or repository holds `model.safetensors`,
    `config.json` (the constructor's options, each of which the metric has as an attribute) and a model card.
    `dimension_weights` are the user's setting and no part of the model: they are not saved, and are 1 after loading.

    What only the caller knows goes into the card through `model_card_kwargs`, see `generate_model_card`:

        metric.save_pretrained("folder", model_card_kwargs={"license": "mit", "commercial": True})
        metric.push_to_hub("someone/model", model_card_kwargs={"scores": {"KonIQ-10k test": {"SRCC": srcc}}})
    """

    dimension_names: tuple[str, ...]
    dimension_weights: Tensor

    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """The metric of a folder or a repository on the Hub, on the CPU, in eval mode and frozen.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or "owner/name" on the Hub.
            force_download, token, cache_dir, local_files_only: see `huggingface_hub.snapshot_download`.
            revision: a branch, tag or commit of the repository; its main branch by default.
            options: what the constructor takes, in place of what was saved.

        Raises:
            WeightsError: a file is missing, unreachable or damaged, an option is unknown or wrong, or the weights are
                not of this metric; the text names what.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _download(
                str(pretrained_model_name_or_path),
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise WeightsError(
                    f"{pretrained_model_name_or_path} has no {name}: give a folder or repository that "
                    f"{cls.__name__}.save_pretrained or push_to_hub has written."
                )
        with cpu_float32():
            try:
                metric = cls(**json.loads((folder / CONFIG).read_text(encoding="utf-8")) | options)
            except (TypeError, ValueError) as error:
                raise WeightsError(
                    f"{CONFIG} of {pretrained_model_name_or_path}, with the options given, makes no {cls.__name__}: "
                    f"{first_line(error)}."
                ) from error
            load(metric, read_state(folder / WEIGHTS), ())
        return metric

    def save_pretrained(self, folder: str | Path, *, model_card_kwargs: Mapping[str, Any] | None = None) -> None:
        """Writes `model.safetensors`, `config.json` and, where there is none yet, a model card to a folder.

        Args:
            folder: made where it is not there; its weights and config are replaced, its card is kept.
            model_card_kwargs: what `generate_model_card` takes.

        Raises:
            TypeError: the card takes no such fact.
            OSError: the folder cannot be written to.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in self.state_dict().items()}, folder / WEIGHTS)
        options = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        (folder / CONFIG).write_text(json.dumps(options, sort_keys=True, indent=2), encoding="utf-8")
        card = folder / CARD
        if not card.is_file():
            self.generate_model_card(**model_card_kwargs or {}).save(card)
        elif self._own_fingerprint() not in card.read_text(encoding="utf-8"):
            _log.warning("%s is kept, but its fingerprint is not this metric's: delete it to have a new one.", card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Save the metric",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Saves the metric to a repository on the Hub, made where there is none; returns the commit's URL.

        Args:
            repo_id: "owner/name".
            private: whether a repository that is made is private; by default the account's setting.
            token: one that may write there; by default HF_TOKEN or that of `hf auth login`.
            commit_message, branch, create_pr: see `huggingface_hub.HfApi.upload_folder`, whose errors pass.
            model_card_kwargs: what `generate_model_card` takes.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, model_card_kwargs={"place": repo_id} | dict(model_card_kwargs or {}))
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
            )

    def generate_model_card(
        self,
        *,
        training_data: str | None = None,
        license: str | None = None,
        commercial: bool | None = None,
        scores: Mapping[str, Mapping[str, float]] | None = None,
        place: str = "path/to/this/folder",
    ) -> ModelCard:
        """The card that goes with the weights. What is not given, it calls "not stated".

        Args:
            training_data: what the weights were trained on, in words.
            license: that of the weights, as "cc-by-nc-sa-4.0".
            commercial: whether it lets the weights be used commercially.
            scores: by test set, then by figure, as `{"KonIQ-10k test": {"SRCC": 0.93}}`.
            place: the folder or repository that the card says to load from.
        """
        from huggingface_hub import ModelCard, ModelCardData

        known: dict[str, Any] = {} if license is None else _hub_license(license)
        # The Hub has no task of scoring an image, hence no pipeline tag.
        tags = ["image-quality-assessment"]
        data = ModelCardData(library_name="mdiqa_metric", tags=tags, **known)
        kind = type(self)
        package = "mdiqa_metric" if kind.__module__.startswith("mdiqa_metric.") else kind.__module__
        use = {None: "not stated", True: "allowed", False: "**forbidden**"}[commercial]
        rows = [
            f"| {test} | {name} | {value:g} |" for test, row in (scores or {}).items() for name, value in row.items()
        ]
        lines = [
            f"# {self.name}",
            "",
            f"Image quality without a reference: an overall score, and one for each of {len(self.dimension_names)} "
            "dimensions, higher is better.",
            "",
            "```python",
            f"from {package} import {kind.__name__}",
            f'metric = {kind.__name__}.from_pretrained("{place}")',
            "score, dimensions = metric(image), metric.dimensions(image)  # RGB (N, 3, H, W) in [0, 1]",
            "```",
            "",
            "## Dimensions, in order",
            "",
            *(f"{index}. {name}" for index, name in enumerate(self.dimension_names, 1)),
            "",
            "What each counts (`metric.set_weights`) is the user's setting and no part of the model: 1 after loading.",
            "",
            "## Facts",
            "",
            f"- Training data: {training_data or 'not stated'}",
            f"- License of the weights: {license or 'not stated'}",
            f"- Commercial use: {use}",
            f"- Fingerprint: `{self._own_fingerprint()}`",
            "",
            "## Scores",
            "",
            *(["| Test | Figure | Value |", "|---|---|---|", *rows] if rows else ["not stated"]),
        ]
        return ModelCard("\n".join(["---", data.to_yaml(), "---", "", *lines, ""]))

    def _own_fingerprint(self) -> str:
        """The fingerprint that the metric has once it is loaded, when its dimension weights are all 1."""
        before = self.dimension_weights, self._trained
        try:
            self.dimension_weights, self._trained = torch.ones(len(self.dimension_names)), True
            return self.fingerprint()
        finally:
            self.dimension_weights, self._trained = before


def _download(repo: str, **options: Any) -> Path:
    """Config and weights of one commit in the Hub's cache, fetched where the server answers and has newer ones."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=[CONFIG, WEIGHTS], **options))
    except Exception as error:
        raise WeightsError(
            f"There is no folder {repo}, and from the Hub it cannot be had: {reason(error)}. Check the path or the "
            "repository's name."
        ) from error


def _hub_license(license: str) -> dict[str, str]:
    """The card's metadata for a license."""
    name = re.sub(r"[^a-z0-9.]+", "-", license.lower()).strip("-")
    return {"license": name} if name in LICENSES else {"license": "other", "license_name": name}
