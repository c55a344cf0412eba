"""The house's import order, and what `import mdiqa_metric` may cost."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "mdiqa_metric"

# A module imports only what stands before it. Key remapping is pure, so that backbones and metrics may use it; the Hub
# mixin gives metrics their methods, and imports the Hub's client when one is called.
ORDER = (
    *("atomic", "optional", "ops", "checkpoints.remapping", "layers", "backbones", "validation", "frozen", "metric"),
    *("multidimensional", "checkpoints", "metrics", "loss", "registry", "data", "evaluation", "train", "cli"),
)
OF_CHECKPOINTS = {("checkpoints", "remapping"), ("checkpoints", "hub")}


def rank(parts):
    name = ".".join(parts[:2]) if ".".join(parts[:2]) in ORDER else parts[0]
    assert name in ORDER, f"give {name} its place in ORDER and in the architecture"
    return ORDER.index(name)


def places():
    """Each module as (file, its place in the house)."""
    return [
        (path, path.relative_to(SOURCE).with_suffix("").parts)
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "__init__.py"
    ]


def imported(path, parts):
    """The modules of this package that a file imports anywhere, as tuples of names below the package."""
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1]
                targets = [(*base, *module, alias.name) for alias in node.names]
            elif module[:1] == ("mdiqa_metric",):
                targets = [(*module[1:], alias.name) for alias in node.names]
            else:
                targets = []
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            targets = [name[1:] for name in names if name[0] == "mdiqa_metric"]
        else:
            targets = []
        yield from (target for target in targets if target and target != ("__version__",))


@pytest.mark.parametrize(
    ("path", "parts"), places(), ids=lambda value: "/".join(value) if isinstance(value, tuple) else ""
)
def test_a_module_imports_only_what_stands_before_it(path, parts):
    for target in imported(path, parts):
        between_metrics = parts[0] == target[0] == "metrics" and parts[1] != target[1]
        inside = parts[0] == target[0] and len(parts) > 1 and not between_metrics
        assert rank(target) < rank(parts) or inside, f"{'.'.join(parts)} imports {'.'.join(target)}"
        if parts[0] == "metrics" and target[0] == "checkpoints":
            assert target[:2] in OF_CHECKPOINTS, f"{'.'.join(parts)} imports {'.'.join(target)}"


def test_nothing_but_data_images_knows_pillow():
    for path, parts in places():
        if parts[:2] != ("data", "images"):
            assert not re.search(r"^\s*(from|import) PIL\b", path.read_text(encoding="utf-8"), re.M), path


def test_importing_costs_torch_and_nothing_else():
    """Neither the package nor a metric without weights loads torchvision, timm, open_clip, the Hub, Pillow, typer..."""
    code = """
import json, sys, torch
torch.ones(1)
before = {name.partition(".")[0] for name in sys.modules}
import mdiqa_metric
mdiqa_metric.Loss(mdiqa_metric.create("psnr")), mdiqa_metric.list_metrics(), dir(mdiqa_metric)
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["mdiqa_metric"]


def test_importing_every_metric_class_loads_no_other_library():
    """Neither torchvision, timm, open_clip nor the Hub's client: a network imports its own when it is built."""
    code = """
import sys
from mdiqa_metric.registry import metric_class, metric_classes
for path in metric_classes().values():
    metric_class(path)
loaded = {"torchvision", "timm", "open_clip", "huggingface_hub"} & {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
