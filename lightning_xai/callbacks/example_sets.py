"""Concepts and their random counterparts, found, checked, and brought to what the model takes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from lightning_xai.callbacks.flow.run import Run
from lightning_xai.concept import Concept, images_in, pool_length, random_sets, set_size
from lightning_xai.probe import Inputs, Probe, collated, map_tensors, tensors

BATCH = 32


class Sets(NamedTuple):
    """Prepared examples in batches of at most `BATCH`, on the CPU: by concept, and by random set."""

    concepts: dict[str, list[Inputs]]
    randoms: list[list[Inputs]]


@dataclass(frozen=True, eq=False)
class ExampleSets:
    """What TCAV compares.

    Args:
        concepts: concepts, or folders of images that become some.
        randoms: what random sets are drawn from; None for the data that are explained.
        number: of random sets.
        seed: of their draw, and of whatever the data draw while they are prepared.
    """

    concepts: Sequence[Concept | str]
    randoms: Any
    number: int
    seed: int

    @property
    def names(self) -> list[str]:
        return [Path(given).name if isinstance(given, str) else given.name for given in self.concepts]

    @property
    def sizes(self) -> list[int]:
        """Examples of each concept."""
        return [len(images_in(given) if isinstance(given, str) else given) for given in self.concepts]

    def set_size(self, dataset: Any) -> int:
        """Examples of each random set: of the smallest concept, or fewer; see `lightning_xai.concept.set_size`.

        Args:
            dataset: is drawn from where there are no ``randoms``.
        """
        pool = dataset if self.randoms is None else self.randoms
        available = len(images_in(pool)) if isinstance(pool, str) else pool_length(pool)
        return set_size(available, self.number, min(self.sizes))

    @property
    def batches(self) -> int:
        """Forwards that all sets take, where the random ones are not smaller than the smallest concept."""
        return sum(-(-size // BATCH) for size in self.sizes) + self.number * -(-min(self.sizes) // BATCH)

    def check(self, probe: Probe | None) -> None:
        """Raises what can be known to be wrong before there is a model to run, or a captured probe."""
        for given in self.concepts:
            if isinstance(given, str):
                _one_folder(given)
            elif probe is not None and given.prepared == probe.prepared:
                _check_shapes(given.name, given.examples, probe)
        if isinstance(self.randoms, str):
            _one_folder(self.randoms)

    def prepared(self, run: Run, probe: Probe) -> Sets:
        """All examples through the path of a batch. Called inside the guarded pass: it seeds every RNG."""
        for seeded in (random.seed, numpy.random.seed, torch.manual_seed):
            seeded(self.seed)
        concepts = [_loaded(given, probe) for given in self.concepts]
        pool, ready = self.randoms if self.randoms is not None else run.dataset, False
        if isinstance(pool, str):
            folder = _loaded(pool, probe)
            pool, ready = folder.examples, folder.prepared
        collate = run.collate if self.randoms is None else collated
        drawn = random_sets(pool, self.number, self.set_size(run.dataset), self.seed, collate=collate)

        def batches(name: str, given: Probe) -> list[Inputs]:
            parts = [run.prepare(part).to("cpu").inputs for part in chunks(given)]
            _check_shapes(name, parts[0], probe)
            return parts

        return Sets(
            {c.name: batches(f"concept {c.name!r}", Probe(c.examples, prepared=c.prepared)) for c in concepts},
            [batches(f"random set {i}", Probe(inputs, prepared=ready)) for i, inputs in enumerate(drawn)],
        )


def chunks(probe: Probe) -> Iterator[Probe]:
    """The probe in parts of at most `BATCH` samples."""
    return (probe[start : start + BATCH] for start in range(0, len(probe), BATCH))


def on_device(batches: Sequence[Inputs], device: torch.device) -> Iterator[Inputs]:
    """The batches one by one where the model is."""
    return (map_tensors(batch, lambda tensor: tensor.to(device)) for batch in batches)


def _one_folder(path: str) -> None:
    found = Concept.folders_in(path)
    if found != [Path(path)]:
        raise ValueError(f"{path} holds folders of images: give one of them, or this one alone as concepts=")
    if len(images_in(path)) < 2:
        raise ValueError(f"{path} holds one image: a direction needs two or more, better 50")


def _loaded(given: Concept | str, probe: Probe) -> Concept:
    if isinstance(given, Concept):
        return given
    _one_folder(given)
    found = Concept.from_folder(given, like=probe)
    assert isinstance(found, Concept)
    return found


def _check_shapes(name: str, examples: Inputs, probe: Probe) -> None:
    # tokens may be padded to another length; activations are compared when CAVs are fitted
    for one, other in zip(tensors(examples), tensors(probe.inputs), strict=False):
        if one.is_floating_point() and one.shape[1:] != other.shape[1:]:
            raise ValueError(
                f"the examples of {name} have the shape {tuple(one.shape[1:])}, the probe's samples "
                f"{tuple(other.shape[1:])}: prepare both alike"
            )
