"""Concept: a named set of examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_xai.batches import Inputs
from lightning_xai.example_sources.folders import IMAGES, images_in, load_image, transform_of
from lightning_xai.example_sources.indexed import examples_at, has_index
from lightning_xai.example_sources.patterns import drawn
from lightning_xai.probe import Probe
from lightning_xai.tensors import tensors

__all__ = ["Concept", "drawn"]


@dataclass(frozen=True, eq=False, repr=False)
class Concept:
    """A human concept, told by examples (Kim et al. 2018).

    Args:
        name: part of every tag it is logged under.
        examples: what the model takes: a tensor, a tuple or a mapping of tensors with two or more examples first;
            or a map-style dataset of them (its labels are left out); or a function without arguments that makes
            them.
        prepared: the examples have already been through the transfer hooks of the LightningModule.

    Raises:
        ValueError: for fewer than two examples, or a name with a slash.
    """

    name: str
    examples: Inputs
    prepared: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"{self.name!r} cannot name a concept: it becomes a part of tags, so leave out slashes")
        examples = self.examples() if callable(self.examples) else self.examples
        if has_index(examples):
            examples = examples_at(examples, range(len(examples)))
        object.__setattr__(self, "examples", examples)
        if not tensors(examples):
            raise TypeError(
                f"concept {self.name!r} was given a {type(self.examples).__name__} as examples: give tensors, a "
                "dataset, or a function that makes them"
            )
        if any(t.is_floating_point() and not t.isfinite().all() for t in tensors(examples)):
            raise ValueError(f"the examples of concept {self.name!r} hold NaN or infinity: leave these out")
        if len(self) < 2:
            raise ValueError(f"concept {self.name!r} has {len(self)} example: a direction needs two or more, better 50")

    def __repr__(self) -> str:
        return f"Concept({self.name!r}, {len(self)} examples)"

    def __len__(self) -> int:
        return len(Probe(self.examples))

    @staticmethod
    def folders_in(path: str | PathLike[str]) -> list[Path]:
        """The folders whose images `from_folder` makes concepts of: this one, or those in it."""
        folder = Path(path)
        if images_in(folder):
            return [folder]
        folders = sorted(inner for inner in folder.glob("*") if inner.is_dir() and images_in(inner))
        if not folders:
            raise FileNotFoundError(f"{folder} holds no images, nor folders of images ({', '.join(IMAGES)})")
        return folders

    @classmethod
    def from_folder(
        cls,
        path: str | PathLike[str],
        *,
        transform: Callable[[Any], Tensor] | None = None,
        like: Probe | None = None,
    ) -> Concept | list[Concept]:
        """A folder of images as a concept of its name; a folder of such folders as a list of concepts.

        Args:
            path: the folder.
            transform: Pillow image -> tensor (C, H, W), the one that the model is validated with.
            like: instead of ``transform``, a Probe with ``mean`` and ``std``: images are cut and scaled to the size
                of its own, normalised as they are, and count as prepared as it is.

        Raises:
            FileNotFoundError: where there are no images.
            ValueError: without a transform or a Probe that tells the normalisation.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder} to take concepts from")
        if transform is None and like is None:
            raise ValueError(
                f"{folder} holds images, and a model sees them normalised: give transform= (the validation transform) "
                "or like= (a Probe with mean and std), or the concept would be silently wrong"
            )
        make = transform if transform is not None else transform_of(like)  # type: ignore[arg-type]
        prepared = transform is None and like is not None and like.prepared
        concepts = [
            cls(inner.name, torch.stack([load_image(file, make) for file in images_in(inner)]), prepared=prepared)
            for inner in cls.folders_in(folder)
        ]
        return concepts[0] if images_in(folder) else concepts
