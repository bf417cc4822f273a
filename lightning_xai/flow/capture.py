"""The automatic probe: a balanced choice of samples from the batches that pass by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from lightning_xai.batches import join_samples
from lightning_xai.flow.namespaces import Trainer
from lightning_xai.probe import Probe
from lightning_xai.tensors import map_tensors


class Collector(Protocol):
    """Whatever collects samples of the batches that pass by."""

    def add(self, batch: Any) -> None:
        """Look at a batch."""


@dataclass(eq=False)
class Capture:
    """Keeps the ``size`` samples that are smallest by (occurrence within their class, position in the data).

    The first of every class comes before the second of any, so an unshuffled folder of classes gives a balanced
    probe. Positions are those of the whole data: rank r of R sees every R-th sample. A rank's own choice holds
    whatever of its samples the choice over all ranks needs, because merging only moves a class's later samples
    further back.

    Args:
        size: how many samples to keep.
        classes: of which classes alone; None for all.
        labels: extracts the class indices (N,) of a batch; by default they are found by their place or key.
        rank: of this process.
        world_size: number of processes that share the data.
    """

    size: int
    classes: Collection[int] | None = None
    labels: Callable[[Any], torch.Tensor] | None = None
    rank: int = 0
    world_size: int = 1
    _samples: dict[tuple[int, int], Probe] = field(default_factory=dict)  # by (occurrence, position)
    _offset: int = 0  # samples of this rank before the next batch
    _of_class: Counter[int | None] = field(default_factory=Counter)

    def add(self, batch: Any) -> None:
        """Look at a batch that has been through the transfer hooks; what is kept of it is cloned."""
        # outside inference mode, or the clones could never be part of a graph
        with torch.inference_mode(False), torch.no_grad():
            probe = Probe.from_batch(batch, labels=self.labels, prepared=True)
            labels = [None] * len(probe) if probe.targets is None else probe.targets.tolist()
            rows: dict[tuple[int, int], int] = {}
            for row, label in enumerate(labels):
                if self.classes is not None and label not in self.classes:
                    continue
                position = (self._offset + row) * self.world_size + self.rank
                rows[0 if label is None else self._of_class[label], position] = row
                self._of_class[label] += 1
            self._offset += len(probe)
            best, before = sorted([*self._samples, *rows])[: self.size], self._samples
            self._samples = {key: before[key] if key in before else clone(probe[[rows[key]]]) for key in best}

    def offer(self) -> dict[int, int | None]:
        """The positions that this rank would give, and their classes."""
        return {position: _label(probe) for (_, position), probe in self._samples.items()}

    def merge(self, trainer: Trainer) -> Probe | None:
        """The choice over all ranks, the same on each of them; None where no batch was seen. Collective."""
        broadcast = trainer.strategy.broadcast
        mine = {position: probe for (_, position), probe in self._samples.items()}
        offers: list[dict[int, int | None]] = [broadcast(self.offer(), src=rank) for rank in range(self.world_size)]
        positions = balanced([sample for offer in offers for sample in offer.items()], self.size)
        samples: dict[int, Probe] = {}
        for rank, offer in enumerate(offers):
            if of_rank := offer.keys() & positions:
                samples |= broadcast({position: mine[position] for position in of_rank & mine.keys()}, src=rank)
        with torch.inference_mode(False):
            return _join([samples[position] for position in positions]) if positions else None


def balanced(samples: list[tuple[int, int | None]], size: int) -> list[int]:
    """The ``size`` positions smallest by (occurrence within their class, position), of (position, class) pairs.

    Example:
        >>> balanced([(0, 7), (1, 7), (2, 7), (3, 9)], size=3)
        [0, 3, 1]
    """
    of_class: Counter[int | None] = Counter()
    keys = []
    for position, label in sorted(samples, key=lambda sample: sample[0]):
        keys.append((0 if label is None else of_class[label], position))
        of_class[label] += 1
    return [position for _, position in sorted(keys)[:size]]


def of_classes(probe: Probe, classes: Collection[int] | None) -> Probe:
    """The samples of these classes; None keeps all.

    Raises:
        ValueError: a class without samples.
    """
    if classes is None:
        return probe
    labels = [] if probe.targets is None else probe.targets.tolist()
    if absent := [number for number in classes if number not in labels]:
        present = f"labels {sorted(set(labels))}" if labels else "no labels"
        raise ValueError(
            f"the probe has no sample of the classes {absent}: it has {present}. Give a probe with samples of these "
            "classes, or other classes"
        )
    return probe[[index for index, label in enumerate(labels) if label in classes]]


def _label(probe: Probe) -> int | None:
    return None if probe.targets is None else int(probe.targets[0])


def clone(probe: Probe) -> Probe:
    """The same samples on the CPU, sharing no memory with these."""
    return replace(
        probe,
        inputs=map_tensors(probe.inputs, lambda t: t.detach().clone().cpu()),
        targets=None if probe.targets is None else probe.targets.detach().clone().cpu(),
    )


def _join(samples: list[Probe]) -> Probe:
    targets = [sample.targets for sample in samples if sample.targets is not None]
    return replace(
        samples[0],
        inputs=join_samples([sample.inputs for sample in samples]),
        targets=torch.cat(targets) if len(targets) == len(samples) else None,
    )
