"""Concepts and their random counterparts, found, checked, and brought to what the model takes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils.data import TensorDataset

from lightning_xai.attempt import attempt
from lightning_xai.batches import Inputs, join_samples
from lightning_xai.concept import Concept
from lightning_xai.example_sources.folders import images_in
from lightning_xai.example_sources.indexed import pool_length, random_sets, set_size
from lightning_xai.flow.loaders import copied
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.probe import Probe
from lightning_xai.tensors import map_tensors, tensors

BATCH = 32
FEW = 20
"""Examples of a concept, below which the user is told."""


class Sets(NamedTuple):
    """Prepared examples in batches of at most `BATCH`, on the CPU: by concept, and by random set."""

    concepts: dict[str, list[Inputs]]
    randoms: list[list[Inputs]]


@dataclass(frozen=True, eq=False)
class ExampleSets:
    """What TCAV compares.

    Args:
        concepts: concepts, or folders of images that become some.
        randoms: what random sets are drawn from; None for the samples that pass by.
        number: of random sets.
        seed: of their draw, and of whatever the data draw while they are prepared.
    """

    concepts: Sequence[Concept | str]
    randoms: Any
    number: int
    seed: int

    @property
    def names(self) -> list[str]:
        return [Path(concept).name if isinstance(concept, str) else concept.name for concept in self.concepts]

    @property
    def sizes(self) -> list[int]:
        """Examples of each concept."""
        return [len(images_in(concept) if isinstance(concept, str) else concept) for concept in self.concepts]

    def set_size(self, available: int) -> int:
        """Examples of each random set: of the smallest concept, or fewer; see `set_size` in `example_sources`."""
        return set_size(available, self.number, min(self.sizes))

    @property
    def batches(self) -> int:
        """Forwards that all sets take, where the random ones are not smaller than the smallest concept."""
        return sum(-(-size // BATCH) for size in self.sizes) + self.number * -(-min(self.sizes) // BATCH)

    def check(self, probe: Probe | None) -> None:
        """Raises what can be known to be wrong before there is a model to run, or a captured probe."""
        for concept in self.concepts:
            if isinstance(concept, str):
                _check_folder(concept)
            elif probe is not None and concept.prepared == probe.prepared:
                _check_shapes(concept.name, concept.examples, probe)
        if isinstance(self.randoms, str):
            _check_folder(self.randoms)

    def notices(self, samples: int) -> Iterator[str]:
        """What the user is told before training starts: the cost of a reading of so many samples, small concepts."""
        count = len(self.concepts)
        yield (
            f"a reading takes at most {self.batches} forwards of up to {BATCH} examples ({count} "
            f"concept{'s' * (count != 1)}, {self.number} random sets), and a forward and a backward of {samples} "
            "samples"
        )
        for name, examples in zip(self.names, self.sizes, strict=True):
            if examples < FEW:
                yield f"concept {name!r} has {examples} examples: its direction is uncertain, about 50 are enough"

    def size_notice(self, size: int) -> str | None:
        """What the user is told of random sets of this size; None where they are as large as the smallest concept."""
        smallest = min(self.sizes)
        if size >= smallest:
            return None
        return (
            f"each random set has {size} examples, the smallest concept {smallest}: there are not enough for "
            f"{self.number} sets without common examples. More as randoms=, or fewer random_sets, make the "
            "band of random concepts narrower"
        )

    def draw(self) -> list[Probe]:
        """Random sets of ``randoms``, which are tensors or a dataset: of that a copy is read, no RNG moves.

        Raises:
            ValueError: for a dataset that cannot be copied and read, or too few examples.
        """
        with _seeded(self.seed):
            # to index tensors changes nothing
            if tensors(self.randoms) or type(self.randoms) is TensorDataset:
                return self._sets_of(self.randoms)
            pool, error = attempt(partial(copied, self.randoms))
            if error is None:
                self.set_size(pool_length(pool))
                sets, error = attempt(partial(self._sets_of, pool))
                if sets is not None:
                    return sets
        raise ValueError(
            f"randoms= is a {type(self.randoms).__name__}, of which a copy made by pickle is read, never itself, and "
            f"that failed: {type(error).__name__}: {error}. Give randoms= the examples as tensors"
        ) from error

    def join(self, samples: Sequence[Probe]) -> list[Probe]:
        """Random sets of samples that have passed by, which are in random order already."""
        size = self.set_size(len(samples))
        starts = range(0, self.number * size, size)
        return [
            Probe(join_samples([sample.inputs for sample in samples[start : start + size]]), prepared=True)
            for start in starts
        ]

    def prepare(self, run: ModelRun, probe: Probe, randoms: Sequence[Probe] | None) -> Sets:
        """All examples through the path of a batch. Called inside the guarded pass: it seeds every RNG.

        Args:
            run: of the model.
            probe: is what examples have to look like.
            randoms: the random sets; None draws them from the folder ``randoms``.
        """
        for set_seed in (random.seed, numpy.random.seed, torch.manual_seed):
            set_seed(self.seed)
        concepts = [_load(concept, probe) for concept in self.concepts]
        if randoms is None:
            folder = _load(self.randoms, probe)
            randoms = self._sets_of(folder.examples, prepared=folder.prepared)

        def batches(name: str, examples: Probe) -> list[Inputs]:
            inputs = [run.prepare(chunk).to("cpu").inputs for chunk in chunks(examples)]
            _check_shapes(name, inputs[0], probe)
            return inputs

        return Sets(
            {c.name: batches(f"concept {c.name!r}", Probe(c.examples, prepared=c.prepared)) for c in concepts},
            [batches(f"random set {i}", examples) for i, examples in enumerate(randoms)],
        )

    def _sets_of(self, pool: Any, prepared: bool = False) -> list[Probe]:
        sets = random_sets(pool, self.number, self.set_size(pool_length(pool)), self.seed)
        return [Probe(inputs, prepared=prepared) for inputs in sets]


def chunks(probe: Probe) -> Iterator[Probe]:
    """The probe in parts of at most `BATCH` samples."""
    return (probe[start : start + BATCH] for start in range(0, len(probe), BATCH))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The CPU's RNG streams from ``seed``, and afterwards as they were."""
    before = random.getstate(), numpy.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the accelerator's too
    try:
        yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def on_device(batches: Sequence[Inputs], device: torch.device) -> Iterator[Inputs]:
    """The batches one by one where the model is."""
    return (map_tensors(batch, lambda tensor: tensor.to(device)) for batch in batches)


def _check_folder(path: str) -> None:
    """Raises ValueError for a folder of folders, or of one image."""
    if Concept.folders_in(path) != [Path(path)]:
        raise ValueError(f"{path} holds folders of images: give one of them, or this one alone as concepts=")
    if len(images_in(path)) < 2:
        raise ValueError(f"{path} holds one image: a direction needs two or more, better 50")


def _load(concept: Concept | str, probe: Probe) -> Concept:
    if isinstance(concept, Concept):
        return concept
    _check_folder(concept)
    loaded = Concept.from_folder(concept, like=probe)
    assert isinstance(loaded, Concept)
    return loaded


def _check_shapes(name: str, examples: Inputs, probe: Probe) -> None:
    # tokens may be padded to another length; activations are compared when CAVs are fitted
    for example, sample in zip(tensors(examples), tensors(probe.inputs), strict=False):
        if example.is_floating_point() and example.shape[1:] != sample.shape[1:]:
            raise ValueError(
                f"the examples of {name} have the shape {tuple(example.shape[1:])}, the probe's samples "
                f"{tuple(sample.shape[1:])}: prepare both alike"
            )
