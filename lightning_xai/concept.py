"""Concept: a named set of examples, and the random sets that it is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_xai.probe import Inputs, Probe, collated, split_batch
from lightning_xai.tensors import map_tensors, tensors

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


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
        if _by_index(examples):
            examples = _collated(examples, range(len(examples)))
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
        parts = sorted(part for part in folder.glob("*") if part.is_dir() and images_in(part))
        if not parts:
            raise FileNotFoundError(f"{folder} holds no images, nor folders of images ({', '.join(IMAGES)})")
        return parts

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
        make = transform if transform is not None else _transform_like(like)  # type: ignore[arg-type]
        prepared = transform is None and like is not None and like.prepared
        concepts = [
            cls(part.name, torch.stack([_load(file, make) for file in images_in(part)]), prepared=prepared)
            for part in cls.folders_in(folder)
        ]
        return concepts[0] if images_in(folder) else concepts


def pool_length(pool: Any) -> int:
    """How many examples there are in what random sets are drawn from.

    Raises:
        ValueError: for a pool without a length and an order.
    """
    if held := tensors(pool):
        return len(held[0])
    if not _by_index(pool):
        raise ValueError(
            f"random counterparts are drawn by index, which a {type(pool).__name__} does not allow: give randoms= "
            "a map-style dataset, tensors, or a folder"
        )
    return len(pool)


def set_size(available: int, sets: int, size: int) -> int:
    """Examples of each of ``sets`` random sets: ``size``, or fewer where the pool has not so many for each.

    No two sets share an example: they would differ less than a concept differs from them by chance, and the band
    between them would be too narrow.

    Raises:
        ValueError: for a pool of less than two examples a set.
    """
    if available < 2 * sets:
        raise ValueError(
            f"the random pool has {available} examples, and each of {sets} random sets needs two of its own, better "
            f"{size}: give randoms= a larger one, or fewer random_sets"
        )
    return min(size, available // sets)


def random_sets(pool: Any, sets: int, size: int, seed: int) -> list[Inputs]:
    """Sets of ``size`` examples, all different, drawn from a map-style dataset or from tensors, by index.

    The draw has a generator of its own: the same seed gives the same sets, and no global RNG moves.

    Args:
        pool: what they are drawn from; the labels of a dataset are left out.
        sets: how many.
        size: examples of each; see `set_size`.
        seed: of the draw.

    Raises:
        ValueError: for a pool of fewer examples, or without a length and an order.
    """
    if (available := pool_length(pool)) < sets * size:
        raise ValueError(f"{sets} sets of {size} different examples cannot be drawn from {available}")
    order = torch.randperm(available, generator=torch.Generator().manual_seed(seed), device="cpu")
    chosen = order[: sets * size].view(sets, size)
    if tensors(pool):
        return [map_tensors(pool, lambda t, rows=rows: t[rows]) for rows in chosen]  # type: ignore[misc]
    return [_collated(pool, rows.tolist()) for rows in chosen]


def images_in(path: str | PathLike[str]) -> list[Path]:
    """The image files that lie in a folder itself, in order of their names."""
    files = Path(path).glob("*")
    return sorted(file for file in files if file.suffix.lower() in IMAGES and not file.name.startswith("."))


def _collated(dataset: Any, indices: Sequence[int]) -> Inputs:
    return split_batch(collated([dataset[index] for index in indices]))[0]


def _by_index(data: Any) -> bool:
    plain = isinstance(data, (str, list, tuple, dict, Tensor))
    streams = isinstance(data, IterableDataset)  # it has a __getitem__, which raises
    return not plain and not streams and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _load(file: Path, transform: Callable[[Any], Tensor]) -> Tensor:
    # Pillow only where images are read: tensors and text need none
    from PIL import Image

    try:
        with Image.open(file) as image:
            return transform(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{file} is no image that Pillow can read: {error}") from error


def _transform_like(probe: Probe) -> Callable[[Any], Tensor]:
    image = probe.image
    if image is None or probe.mean is None or probe.std is None:
        raise ValueError("like= needs a Probe of images with mean and std; give transform= instead")
    height, width, channels = *image.shape[-2:], image.shape[1]
    mean, std = (
        torch.tensor(list(values), dtype=torch.float32, device="cpu").view(-1, 1, 1)
        for values in (probe.mean, probe.std)
    )

    def transform(picture: Any) -> Tensor:
        from PIL import ImageOps

        fitted = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height))
        pixels = torch.from_numpy(np.array(fitted)).view(height, width, channels).permute(2, 0, 1).float() / 255
        return (pixels - mean) / std

    return transform


def drawn(kind: str, examples: int, size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """Generated concept images, (examples, 3, H, W) in [0, 1], to begin without collecting anything.

    Args:
        kind: ``"stripes"`` (parallel bars, any angle, width and two colours), ``"checks"`` (a chessboard, likewise),
            ``"noise"`` (independent pixels, any two colours), or a colour: ``"red"``, ``"green"``, ``"blue"``,
            ``"yellow"``, ``"white"``, ``"black"`` (one flat hue, its brightness and grain vary).
        examples: how many.
        size: (H, W).
        seed: of a generator of its own.

    They are crude: a direction learned from them is that of clean patterns, not of their like in photographs. Apply
    the model's own normalisation to them.
    """
    if kind not in _KINDS:
        raise ValueError(f"nothing draws {kind!r}; these are drawn: {', '.join(_KINDS)}")
    random = torch.Generator().manual_seed(seed)
    plain: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    if kind in _COLOURS:
        brightness = 0.6 + 0.4 * torch.rand(examples, 1, 1, 1, generator=random, **plain)
        flat = torch.tensor(_COLOURS[kind], **plain).view(1, 3, 1, 1) * brightness
        return (flat + 0.05 * torch.randn(examples, 3, *size, generator=random, **plain)).clamp(0, 1)
    first, second = torch.rand(2, examples, 3, 1, 1, generator=random, **plain)
    if kind == "noise":
        choice = torch.rand(examples, 1, *size, generator=random, **plain)
        return torch.lerp(first, second, choice)
    y, x = torch.meshgrid(*(torch.arange(length, **plain) for length in size), indexing="ij")
    angle, width, phase = torch.rand(3, examples, 1, 1, generator=random, **plain)
    angle, width = math.pi * angle, min(size) * (0.06 + 0.12 * width)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    bars = ((along / width + 2 * phase).floor() % 2).bool()
    if kind == "checks":
        bars = bars ^ ((across / width).floor() % 2).bool()
    return torch.where(bars[:, None], first, second)


_COLOURS = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.1, 0.2, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "white": (1.0, 1.0, 1.0),
    "black": (0.05, 0.05, 0.05),
}
_KINDS = ("stripes", "checks", "noise", *_COLOURS)
