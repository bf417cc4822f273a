"""How long GradCAM holds the training thread at a reading, beside the floor: forward and backward to the layer.

    python benchmarks/held.py [--quick] [--rounds 20]

ResNet-18 at its last stage, 8 images of 224 x 224, TensorBoard. A round takes one reading of each contender, in an
order of its own; the time is that of the hook from its start to its end. On a CPU it is the training thread's own CPU
time: neither what runs behind it nor others' work counts. A held time is over the floor of the same round, as the
median with its 95% interval; the goal is met where the interval reaches it.
"""

from __future__ import annotations

import random

from nets import NETS
from pytorch_lightning import Callback

from lightning_xai import GradCAM, Probe

NET, SIZE, BATCH, GOAL = NETS["resnet18"], 224, 8, 1.2


class Held(Callback):
    """At the end of an epoch: the floor, and one reading of each explanation, each timed in this thread."""

    def __init__(self, explanations: dict[str, GradCAM], probe: Probe) -> None:
        self.explanations, self.probe = explanations, probe
        self.seconds: dict[str, list[float]] = {name: [] for name in ("floor", *explanations)}
        self.draw = random.Random(0)
