"""Losses under DistributedDataParallel: two gloo processes on this machine train as one would."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mdiqa_metric import Loss
from tests.rows import Row, metric_of, pair_of, row_of

# `Frozen` and `Loss` hide a metric from DDP, whatever the metric is: one of each kind stands for all.
TRAINABLE = [row_of(name) for name in ("psnr", "ssim-y-full", "stlpips-alex", "mdiqa-lite", "mdiqa-lite-distance")]


class Restorer(nn.Module):
    """A model that holds its loss inside, as trainers do."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.loss = Loss(copy.deepcopy(metric_of(row)))

    def forward(self, image, reference):
        return self.loss(image + 0.1 * self.body(image), reference)


def step_of(model, image, reference):
    """The body's gradients after two forward passes whose mean is trained, and the metric's fingerprint."""
    model.train()
    (
        (model(image, reference) + model(image.flip(-1), None if reference is None else reference.flip(-1))) / 2
    ).backward()
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    return [weight.grad for weight in bare.body.parameters()], bare.loss.metric.fingerprint()


def train_in_two(rank: int, folder: str) -> None:
    """What each process runs: its image of the pair, a trainable row of each class."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    results = {}
    for row in TRAINABLE:
        image, reference = pair_of(row, count=2, least=(72, 88))
        mine = slice(rank, rank + 1)
        model = DistributedDataParallel(Restorer(row))
        results[row.name] = step_of(model, image[mine], None if reference is None else reference[mine])
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    torch.multiprocessing.spawn(train_in_two, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    assert list(ranks[0]) == list(ranks[1]) == [row.name for row in TRAINABLE]
    for row in TRAINABLE:
        gradients, fingerprint = step_of(Restorer(row), *pair_of(row, count=2, least=(72, 88)))
        for result, line in (ranks[0][row.name], ranks[1][row.name]):
            for ours, alone in zip(result, gradients, strict=True):
                torch.testing.assert_close(ours, alone, rtol=1e-3, atol=5e-3 * alone.abs().max().item())
            assert line == fingerprint == metric_of(row).fingerprint()
