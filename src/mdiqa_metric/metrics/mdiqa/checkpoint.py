"""MDIQA's authors' files: how they are named, and their tensors under our keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch

from ...backbones.base import batch_norms
from ...backbones.clip import ClipRN50
from ...backbones.resnet import ResNet50
from ...backbones.timm import MobileNetV3
from ...checkpoints.remapping import PublishedState, State, fold_batch_norm, fold_norm, named, stack
from ...layers import topiq_checkpoint

# How the fusion file calls the weight branch and the networks of the local scores.
BRANCH, LOCAL = "instance_specific_weighted_branch.", "local_score_module"


def arrange(names: Sequence[str], technical_heads: int) -> dict[str, dict[str, str]]:
    """Which of the authors' eight files hold the state dicts "technical", "aesthetic" and "fusion".

    Args:
        names: the files of their folder, as paths below it.
        technical_heads: how many heads the technical base has, each in a file of its own.

    Returns:
        For each state dict, the name of each of its files with the prefix that its keys get.

    Raises:
        ValueError: a file is missing or there are two of it; the text names it.
    """
    patterns = {"backbone": "*freeze_backbone*.pth", "aesthetic": "*PARA*.pth"}
    patterns |= {f"head{index}": f"*_head{index}.pth" for index in range(technical_heads)}
    found: dict[str, list[str]] = {role: [] for role in (*patterns, "fusion")}
    for name in names:
        if name.endswith(".pth"):
            match = (role for role, pattern in patterns.items() if PurePath(name).match(pattern))
            found[next(match, "fusion")].append(name)
    for role, files in found.items():
        if len(files) != 1:
            wanted = patterns.get(role, "one other .pth, as mdiqa_shared_5t_4a_clipfeat_localv4_mbv3_koniq_seed1.pth")
            raise ValueError(
                f"MDIQA takes one {role} file ({wanted}), got {', '.join(files) or 'none'}: keep the eight of one "
                "model there."
            )
    heads = {found[f"head{index}"][0]: f"cfanet_heads.{index}." for index in range(technical_heads)}
    return {
        "technical": {found["backbone"][0]: "cfanet_backbone."} | heads,
        "aesthetic": {found["aesthetic"][0]: ""},
        "fusion": {found["fusion"][0]: ""},
    }


def base(published: PublishedState) -> State:
    """`metrics.mdiqa.Base`: backbone, pyramid and heads."""
    prefix = "cfanet_backbone."
    backbone = ResNet50.from_torchvision_layout(published.under(f"{prefix}semantic_model."))
    ours = {f"backbone.{key}": value for key, value in backbone.items()}
    for level in range(len(ResNet50.channels)):
        ours |= {
            f"pyramid.{key}": value for key, value in topiq_checkpoint.gated_pooling(published, level, prefix).items()
        }
    heads = sorted({int(key.split(".")[1]) for key in published.state if key.startswith("cfanet_heads.")})
    stacked = topiq_checkpoint.cross_scale(published, [f"cfanet_heads.{head}." for head in heads])
    return ours | {f"heads.{key}": value for key, value in stacked.items()} | published.state


def fusion(published: PublishedState) -> State:
    """`metrics.mdiqa.Fusion`, the weight branch included."""
    with torch.device("meta"):
        norms = batch_norms(ClipRN50.network())
    clip = fold_batch_norm(published.under("semantic_model.visual."), norms)
    # CLIP's text tower lies in the file unused; weights of a whole data set are the alternative to the branch.
    published.drop("semantic_model.", "dataset_specific_weights.")
    ours = {f"clip.visual.{key}": value for key, value in clip.items()} | published.conv(
        "semantic_feat_conv", "project"
    )
    every = range(len({key.split(".")[2] for key in published.state if key.startswith(f"{LOCAL}.attn_pools.")}))
    for theirs, name in (("in_ln", "squeeze"), ("out_ln", "expand")):
        layers = [published.take(f"{LOCAL}.fusion_before_attn.{index}.{theirs}.weight") for index in every]
        ours[f"{name}.weight"] = torch.stack(layers)
    ours |= stack(
        [topiq_checkpoint.attention(published, f"{LOCAL}.attn_pools.{index}", "attention") for index in every]
    )
    ours |= stack([topiq_checkpoint.perceptron(published, f"{LOCAL}.score_linears.{index}", "head") for index in every])
    for index in (0, 2, 4):
        ours |= published.conv(f"{LOCAL}.net.{index}", f"net.{index}")
    branch = _residual_branch(published) if has_residual_branch(published.state) else _mobile_branch(published)
    return ours | {f"branch.{key}": value for key, value in branch.items()} | published.state


def has_residual_branch(state: Mapping[str, Any]) -> bool:
    """Whether the weight branch of a fusion file is the later one."""
    return any(re.match(rf"{BRANCH}.*layer4\.", key) for key in state)


def _mobile_branch(published: PublishedState) -> State:
    with torch.device("meta"):
        norms = batch_norms(MobileNetV3.network())
    backbone = fold_batch_norm(published.under(f"{BRANCH}semantic_model."), norms)
    ours = {f"backbone.features.{key}": value for key, value in backbone.items()}
    for level in range(len(MobileNetV3.channels)):
        ours |= published.conv(f"{BRANCH}dim_reduce.{level}.0", f"reduce.{level}")
    keys = ("0.weight", "0.bias", "1.weight", "1.bias")
    layers = [published.take(f"{BRANCH}score_linear.{key}") for key in keys]
    return ours | named("hidden", fold_norm(*layers)) | published.conv(f"{BRANCH}score_linear.3", "out")


def _residual_branch(published: PublishedState) -> State:
    """Keys of the later branch, whatever the authors' files call its backbone and its one linear layer."""
    backbone, rest = {}, {}
    for key, value in published.under(BRANCH).items():
        inner = re.fullmatch(r"(?:\w+\.)?((?:conv1|bn1|layer\d)\..+)", key)
        if inner:
            backbone[inner[1]] = value
        else:
            rest[re.sub(r".*\.(weight|bias)", r"out.\1", key)] = value
    return {f"backbone.{key}": value for key, value in ResNet50.from_torchvision_layout(backbone).items()} | rest
