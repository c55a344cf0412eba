"""Caffe's weight files, written here field by field as caffe.proto lays them out."""

from __future__ import annotations

import struct

import pytest
import torch

from mdiqa_metric.checkpoints.files import WeightsError
from mdiqa_metric.checkpoints.states import read_state


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(index, content):
    if isinstance(content, int):
        return number(index << 3) + number(content)
    return number(index << 3 | 2) + number(len(content)) + content


def floats(values):
    return struct.pack(f"<{values.numel()}f", *values.flatten().tolist())


def new_layer(name, *tensors):
    """A LayerParameter: packed dimensions."""
    blobs = [field(7, field(1, b"".join(map(number, x.shape)))) + field(5, floats(x)) for x in tensors]
    return field(100, field(1, name.encode()) + field(2, b"Convolution") + b"".join(field(7, x) for x in blobs))


def old_layer(name, *tensors):
    """A V1LayerParameter: four sizes, ones in front."""
    blobs = []
    for x in tensors:
        sizes = [1] * (4 - x.ndim) + list(x.shape)
        blobs.append(b"".join(field(index, size) for index, size in enumerate(sizes, 1)) + field(5, floats(x)))
    return field(2, field(4, name.encode()) + field(5, 4) + b"".join(field(6, x) for x in blobs))


@pytest.mark.parametrize("layer", [new_layer, old_layer])
def test_weights_are_read_from_new_and_old_files(tmp_path, layer):
    weight, bias, matrix = torch.randn(300, 2, 3, 3), torch.randn(300), torch.randn(5, 7)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(field(1, b"net") + layer("conv", weight, bias) + layer("pool") + layer("fc", matrix))
    state = read_state(path)
    assert state.keys() == {"conv.weight", "conv.bias", "fc.weight"}
    for key, value in {"conv.weight": weight, "conv.bias": bias, "fc.weight": matrix}.items():
        assert torch.equal(state[key], value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no layer"),
        (b"\x80", "in the middle of a number"),
        (new_layer("conv", torch.ones(4))[:-3], "in the middle of a field"),
        (
            field(100, field(1, b"a") + field(7, field(7, field(1, number(3))) + field(5, floats(torch.ones(4))))),
            "holds 4",
        ),
        (number(1 << 3 | 3), "kind 3"),
    ],
)
def test_what_is_no_caffe_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        read_state(path)
