"""Backbones of timm and open_clip give what those libraries give for the normalized image."""

from __future__ import annotations

import copy

import open_clip
import pytest
import timm
import torch
from torch import nn

from mdiqa_metric.backbones.base import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from mdiqa_metric.backbones.clip import CLIP, encode_texts
from mdiqa_metric.backbones.inception_resnet_v2 import InceptionResNetV2
from mdiqa_metric.backbones.swin import Swin
from mdiqa_metric.backbones.vit import ViT
from tests.rows import photograph


def normalize(image, mean, std):
    return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def randomize(module):
    """Statistics and weights that are not what they start from, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def check_use_in_a_loss(backbone, image):
    """A gradient for every pixel's image, bf16, and a copy that gives the same."""
    backbone = backbone.eval().requires_grad_(False)
    image = image.clone().requires_grad_()

    def features(module, x):
        found = module(x)
        return found if isinstance(found, tuple) else (found,)

    first = features(backbone, image)
    sum(x.float().square().mean() for x in first).backward()
    assert image.grad.isfinite().all()
    assert image.grad.any()
    for ours, copied in zip(first, features(copy.deepcopy(backbone), image), strict=True):
        assert torch.equal(ours, copied)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(x.isfinite().all() for x in features(backbone, image))


def test_vit_taps_blocks_at_any_size():
    backbone = ViT("vit_tiny_patch16_224", (1, 3)).eval()
    image = photograph(64, 96)
    found = backbone(image)
    assert [tokens.shape for tokens in found] == [(1, 1 + 4 * 6, 192)] * 2
    plain = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    assert not plain.load_state_dict(backbone.network.state_dict(), strict=False).unexpected_keys  # it has later blocks
    tapped = []
    for index in (1, 3):
        plain.blocks[index].register_forward_hook(lambda module, inputs, output: tapped.append(output))
    plain(normalize(image, IMAGENET_MEAN, IMAGENET_STD))
    for ours, theirs in zip(found, tapped, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(backbone.network.blocks) == 4, "blocks behind the last tap are not there"
    check_use_in_a_loss(backbone, image)
    with pytest.raises(ValueError, match=r"has the blocks 0 to 11, got taps \(12,\)"):
        ViT("vit_tiny_patch16_224", (12,))


def test_swin_gives_four_stages_at_any_size():
    backbone = Swin("swin_tiny_patch4_window7_224").eval()
    image = photograph(96, 128)
    found = backbone(image)
    assert [tuple(x.shape[1:]) for x in found] == [(96, 24, 32), (192, 12, 16), (384, 6, 8), (768, 3, 4)]
    assert backbone.channels == (96, 192, 384, 768)
    for ours, theirs in zip(found, backbone.features(normalize(image, IMAGENET_MEAN, IMAGENET_STD)), strict=True):
        torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    check_use_in_a_loss(backbone, image)


def test_inception_resnet_v2_is_timms():
    backbone = randomize(InceptionResNetV2())
    image = photograph(96, 112)
    found = backbone(image)
    assert tuple(x.shape[1] for x in found) == backbone.channels
    theirs = backbone.network.forward_features(2 * image - 1)
    torch.testing.assert_close(found[-1], theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    assert found[0].shape[-2:] == found[5].shape[-2:]
    check_use_in_a_loss(backbone, image)


@pytest.mark.parametrize("model", ["RN50", "ViT-B-32"])
def test_clip_is_open_clips(model):
    theirs = randomize(open_clip.CLIP(**open_clip.get_model_config(f"{model}-quickgelu")))
    clip = CLIP(model).eval()
    clip.load_state_dict(CLIP.from_published(theirs.state_dict()))
    image = photograph(224, 224)
    with torch.no_grad():
        features = theirs.encode_image(normalize(image, CLIP_MEAN, CLIP_STD), normalize=True)
        torch.testing.assert_close(clip(image), features, rtol=1e-3, atol=1e-5)
        texts = ["Good photo.", "A bad, a really bad photo."]
        encoded = theirs.encode_text(open_clip.get_tokenizer(model)(texts), normalize=True)
    ours = encode_texts(theirs.state_dict(), texts)
    torch.testing.assert_close(ours, theirs.logit_scale.exp() * encoded, rtol=1e-4, atol=1e-5)
    check_use_in_a_loss(clip, image)


def test_clip_without_positions_takes_native_sizes():
    clip, plain = (randomize(CLIP("RN50", positions=positions)) for positions in (False, True))
    assert clip(photograph(64, 96)).shape == (1, 1024)
    image = photograph(224, 224)
    with torch.no_grad():
        plain.load_state_dict(clip.state_dict())
        without = clip(image)
        assert (without - plain(image)).abs().max() > 1e-4
        plain.visual.attnpool.positional_embedding.zero_()
        torch.testing.assert_close(without, plain(image), rtol=1e-3, atol=1e-5)


def test_what_clip_does_not_take_is_refused():
    with pytest.raises(ValueError, match="got 'RN101'"):
        CLIP("RN101")
    with pytest.raises(ValueError, match='Only "RN50"'):
        CLIP("ViT-B-16", positions=False)
