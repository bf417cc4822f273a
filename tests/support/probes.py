"""Probes of `Samples`, and masks for them."""

import torch

from lightning_xai import Probe
from tests.support.data import SIZE, Samples


def make_probe(count=4, **fields):
    """So many images of `Samples` and their labels, none of them in what the other tests train with."""
    return Probe(Samples(count, seed=3).images, Samples(count, seed=3).labels, **fields)


def make_masks(count=4):
    """An object in the middle, and a mark in the corner."""
    object_mask = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    object_mask[:, 3:9, 5:14] = True
    mark = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    mark[:, :2, :2] = True
    return {"object": object_mask, "mark": mark}


def probe_with_rows():
    """Six images whose mask `row` is their upper half."""
    probe = Probe.from_dataset(Samples(8, seed=1), range(6))
    rows = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)
    rows[:, : SIZE // 2] = True
    return Probe(probe.inputs, probe.targets, masks={"row": rows})
