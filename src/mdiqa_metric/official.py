"""MDIQA's authors' files: how they are named, and their tensors under our keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .backbones import ClipRN50, MobileNetV3, ResNet50, batch_norms
from .files import WeightsError
from .layers.published import Published, State, after_batch_norm, after_norm, named
from .states import read_state

# How the fusion file calls the weight branch and the networks of the local scores.
BRANCH, LOCAL = "instance_specific_weighted_branch.", "local_score_module"


def read_folder(folder: Path, technical_heads: int) -> dict[str, State]:
    """The authors' state dicts "technical" (one file for the backbone, one a head), "aesthetic" and "fusion".

    Raises:
        WeightsError: a file is missing, doubled or unreadable; the text names it.
    """
    files = _files(folder, technical_heads)
    technical = {f"cfanet_backbone.{key}": value for key, value in _params(files["backbone"]).items()}
    for index in range(technical_heads):
        head = _params(files[f"head{index}"])
        technical |= {f"cfanet_heads.{index}.{key}": value for key, value in head.items()}
    return {"technical": technical, "aesthetic": _params(files["aesthetic"]), "fusion": _params(files["fusion"])}


def base(published: Published) -> State:
    """`metrics.mdiqa.Base`: trunk, pyramid and heads."""
    prefix = "cfanet_backbone."
    trunk = ResNet50.folded(published.under(f"{prefix}semantic_model."))
    ours = {f"trunk.{key}": value for key, value in trunk.items()}
    for level in range(len(ResNet50.channels)):
        ours |= {f"pyramid.{key}": value for key, value in published.gated_pooling(level, prefix).items()}
    heads = sorted({int(key.split(".")[1]) for key in published.state if key.startswith("cfanet_heads.")})
    stacked = published.cross_scale([f"cfanet_heads.{head}." for head in heads])
    return ours | {f"heads.{key}": value for key, value in stacked.items()} | published.state


def fusion(published: Published) -> State:
    """`metrics.mdiqa.Fusion`, the weight branch included."""
    with torch.device("meta"):
        norms = batch_norms(ClipRN50.network())
    clip = after_batch_norm(published.under("semantic_model.visual."), norms)
    # CLIP's text tower lies in the file unused; weights of a whole data set are the alternative to the branch.
    published.drop("semantic_model.", "dataset_specific_weights.")
    ours = {f"clip.visual.{key}": value for key, value in clip.items()} | published.conv(
        "semantic_feat_conv", "project"
    )
    every = range(len({key.split(".")[2] for key in published.state if key.startswith(f"{LOCAL}.attn_pools.")}))
    for theirs, name in (("in_ln", "squeeze"), ("out_ln", "expand")):
        layers = [published.take(f"{LOCAL}.fusion_before_attn.{index}.{theirs}.weight") for index in every]
        ours[f"{name}.weight"] = torch.stack(layers)
    ours |= Published.stack([published.attention(f"{LOCAL}.attn_pools.{index}", "attention") for index in every])
    ours |= Published.stack([published.perceptron(f"{LOCAL}.score_linears.{index}", "head") for index in every])
    for index in (0, 2, 4):
        ours |= published.conv(f"{LOCAL}.net.{index}", f"net.{index}")
    branch = _residual_branch(published) if has_residual_branch(published.state) else _mobile_branch(published)
    return ours | {f"branch.{key}": value for key, value in branch.items()} | published.state


def has_residual_branch(state: Mapping[str, Any]) -> bool:
    """Whether the weight branch of a fusion file is the later one."""
    return any(re.match(rf"{BRANCH}.*layer4\.", key) for key in state)


def _mobile_branch(published: Published) -> State:
    with torch.device("meta"):
        norms = batch_norms(MobileNetV3.network())
    trunk = after_batch_norm(published.under(f"{BRANCH}semantic_model."), norms)
    ours = {f"trunk.features.{key}": value for key, value in trunk.items()}
    for level in range(len(MobileNetV3.channels)):
        ours |= published.conv(f"{BRANCH}dim_reduce.{level}.0", f"reduce.{level}")
    keys = ("0.weight", "0.bias", "1.weight", "1.bias")
    layers = [published.take(f"{BRANCH}score_linear.{key}") for key in keys]
    return ours | named("hidden", after_norm(*layers)) | published.conv(f"{BRANCH}score_linear.3", "out")


def _residual_branch(published: Published) -> State:
    """Whatever the trunk is called and whatever the one linear layer beside it is."""
    trunk, rest = {}, {}
    for key, value in published.under(BRANCH).items():
        inner = re.fullmatch(r"(?:\w+\.)?((?:conv1|bn1|layer\d)\..+)", key)
        if inner:
            trunk[inner[1]] = value
        else:
            rest[re.sub(r".*\.(weight|bias)", r"out.\1", key)] = value
    return {f"trunk.{key}": value for key, value in ResNet50.folded(trunk).items()} | rest


def _files(folder: Path, technical_heads: int) -> dict[str, Path]:
    """The authors' eight files by what they hold."""
    patterns = {"backbone": "*freeze_backbone*.pth", "aesthetic": "*PARA*.pth"}
    patterns |= {f"head{index}": f"*_head{index}.pth" for index in range(technical_heads)}
    found: dict[str, list[Path]] = {role: [] for role in (*patterns, "fusion")}
    for path in sorted(folder.rglob("*.pth")):
        found[next((role for role, pattern in patterns.items() if path.match(pattern)), "fusion")].append(path)
    for role, paths in found.items():
        if len(paths) != 1:
            wanted = patterns.get(role, "one other .pth, as mdiqa_shared_5t_4a_clipfeat_localv4_mbv3_koniq_seed1.pth")
            came = ", ".join(path.name for path in paths) or "none"
            raise WeightsError(
                f"MDIQA takes one {role} file ({wanted}) in {folder}, got {came}: keep the eight of one model there."
            )
    return {role: paths[0] for role, paths in found.items()}


def _params(path: Path) -> State:
    state = read_state(path)
    return state.get("params", state)
