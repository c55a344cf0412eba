"""Caffe's weight files, read without Caffe: the few fields of its protocol buffers that hold weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Field numbers of caffe.proto. Layers have a new message and an old one, each with its own.
LAYERS, OLD_LAYERS = 100, 2
FIELDS = {LAYERS: (1, 7), OLD_LAYERS: (4, 6)}  # the name of a layer, and its blobs
SHAPE, DIMENSIONS, DATA, OLD_SHAPE = 7, 1, 5, (1, 2, 3, 4)


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """Weights and biases of a .caffemodel by layer, as "NAME.weight" and "NAME.bias", in float32.

    Raises:
        ValueError: the file is no protocol buffer, or ends early.
    """
    state: dict[str, Tensor] = {}
    for number, layer in _fields(memoryview(path.read_bytes())):
        if number not in FIELDS or not isinstance(layer, memoryview):
            continue
        of_name, of_blobs = FIELDS[number]
        name = "".join(bytes(value).decode() for value in _parts(layer, of_name))
        blobs = [_tensor(value) for value in _parts(layer, of_blobs)]
        state |= {f"{name}.{leaf}": blob for leaf, blob in zip(("weight", "bias"), blobs, strict=False)}
    if not state:
        raise ValueError("it has no layer with weights")
    return state


def _tensor(blob: memoryview) -> Tensor:
    """A blob's values, in the shape that it states."""
    shape = [size for value in _parts(blob, SHAPE) for size in _sizes(value)]
    if not shape:  # the old message has four sizes, ones in front of those that a bias or a matrix needs
        sizes = {field: value for field, value in _fields(blob) if isinstance(value, int)}
        shape = [sizes.get(field, 1) for field in OLD_SHAPE]
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
    parts = [np.frombuffer(value, "<f4") for value in _parts(blob, DATA)]
    values = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if values.size != math.prod(shape):
        raise ValueError(f"a blob of shape {tuple(shape)} holds {values.size} values")
    return torch.from_numpy(values.copy()).view(shape)


def _sizes(shape: memoryview) -> Iterator[int]:
    """The dimensions of a shape, packed or one by one."""
    for field, value in _fields(shape):
        if field != DIMENSIONS:
            continue
        if isinstance(value, int):
            yield value
        else:
            position = 0
            while position < len(value):
                size, position = _varint(value, position)
                yield size


def _parts(message: memoryview, number: int) -> Iterator[memoryview]:
    """The fields of that number that hold bytes."""
    return (value for field, value in _fields(message) if field == number and isinstance(value, memoryview))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: a number, and an integer or the bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind} is none of a protocol buffer's")
        if position + length > len(message):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, and the position after it."""
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("it ends in the middle of a number")
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
