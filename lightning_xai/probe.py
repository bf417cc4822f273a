"""Probe: the fixed batch that every reading explains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_xai.batches import Inputs, check_targets, collated, is_dense, kind_of, split_batch
from lightning_xai.normalisation import check_channels, pixels
from lightning_xai.tensors import map_tensors, tensors


@dataclass(frozen=True, eq=False, repr=False)
class Probe:
    """The fixed samples that are explained again and again while a model trains.

    Args:
        inputs: what the model takes: a tensor, a tuple or a mapping of tensors with N samples first.
        targets: (N,) class indices, if known.
        masks: name -> (N, H, W) bool: where the evidence is, if known.
        class_names: the name of each class index.
        mean: per channel, undoes the normalisation of image inputs for display, with ``std``.
        std: per channel.
        tokens: per sample its token strings, for text.
        prepared: the inputs have already been through the transfer hooks of the LightningModule.
        positions: (N,) the samples' places in the whole probe, of which this one may be a part. A draw is seeded by
            them, never by the part.

    Raises:
        ValueError: on sizes or shapes that do not fit together.
        TypeError: on targets that are no class indices.
    """

    inputs: Inputs
    targets: Tensor | None = None
    masks: Mapping[str, Tensor] | None = field(default=None, kw_only=True)
    class_names: Sequence[str] | None = field(default=None, kw_only=True)
    mean: Sequence[float] | None = field(default=None, kw_only=True)
    std: Sequence[float] | None = field(default=None, kw_only=True)
    tokens: Sequence[Sequence[str]] | None = field(default=None, kw_only=True)
    prepared: bool = field(default=False, kw_only=True)
    positions: Tensor = field(default=None, kw_only=True)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        odd = next((t for t in tensors(self.inputs) if not is_dense(t)), None)
        if odd is not None:
            raise TypeError(
                f"the Probe's inputs hold a {kind_of(odd)} tensor, which cannot be cut into samples: give dense ones"
            )
        sizes = {len(t) for t in tensors(self.inputs) if t.ndim}
        if not sizes:
            raise TypeError(
                f"a Probe needs tensors as inputs, got {type(self.inputs).__name__}: give a tensor, a tuple or a "
                "mapping of tensors whose first dimension is the samples"
            )
        if len(sizes) > 1:
            raise ValueError(f"the Probe's inputs disagree on the number of samples: {sorted(sizes)}")
        n = sizes.pop()
        if n == 0:
            raise ValueError("a Probe needs at least one sample, got none")
        if self.positions is None or len(self.positions) != n:
            object.__setattr__(self, "positions", torch.arange(n, device="cpu"))
        if self.targets is not None:
            check_targets(self.targets, n)
            if self.class_names is not None and int(self.targets.max()) >= len(self.class_names):
                raise ValueError(
                    f"target {int(self.targets.max())} has no name among {len(self.class_names)} class_names "
                    f"({', '.join(self.class_names)})"
                )
        for name, mask in (self.masks or {}).items():
            self._check_mask(name, mask, n)
        if self.tokens is not None and len(self.tokens) != n:
            raise ValueError(f"{len(self.tokens)} token lists were given for {n} samples")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both or none")
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                check_channels(name, getattr(self, name), self.image)

    def _check_mask(self, name: str, mask: Tensor, n: int) -> None:
        image = self.image
        expected = (n, *image.shape[-2:]) if image is not None else None
        if mask.ndim != 3 or len(mask) != n or (expected and tuple(mask.shape) != expected):
            raise ValueError(
                f"mask {name!r} has shape {tuple(mask.shape)}, expected "
                f"{expected or f'({n}, H, W)'}: one bool map a sample, at the size of its image"
            )
        if mask.dtype != torch.bool:
            raise TypeError(f"mask {name!r} is {mask.dtype}, expected torch.bool: compare it (mask > 0) first")

    @classmethod
    def from_batch(
        cls,
        batch: Any,
        size: int | None = None,
        *,
        labels: Callable[[Any], Tensor] | None = None,
        **fields: Any,
    ) -> Probe:
        """The first ``size`` samples of a batch: a tensor, (inputs, labels, ...) or a mapping with a label key."""
        inputs, targets = split_batch(batch, labels)
        return cls(inputs, targets, **fields)[slice(size)]

    @classmethod
    def from_dataset(cls, dataset: Any, indices: Sequence[int], **fields: Any) -> Probe:
        """The samples ``dataset[i]``, collated as a DataLoader does by default."""
        size = len(dataset)
        outside = [i for i in indices if not -size <= i < size]
        if outside:
            raise ValueError(f"the dataset has {size} samples, so it has none at {outside}: take indices below {size}")
        return cls.from_batch(collated([dataset[i] for i in indices]), **fields)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Probe:
        """The Probe that `save` wrote to ``path``."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no saved Probe at {path}: Probe(...).save(path) writes one")
        return cls.from_state(torch.load(path, map_location="cpu", weights_only=True))

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to one file, on the CPU; loads with ``weights_only``."""
        torch.save(self.state(), path)

    def state(self) -> dict[str, Any]:
        """Tensors and primitives alone, as a checkpoint can hold them: a namedtuple becomes a tuple."""
        state = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "positions"}
        state["inputs"] = _plain(map_tensors(self.inputs, lambda t: t.detach().cpu()))
        state["targets"] = None if self.targets is None else self.targets.cpu()
        state["masks"] = None if self.masks is None else {k: m.cpu() for k, m in self.masks.items()}
        for name in ("class_names", "mean", "std"):
            state[name] = None if state[name] is None else list(state[name])
        state["tokens"] = None if self.tokens is None else [list(row) for row in self.tokens]
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Probe:
        """The Probe whose `state` this is."""
        known = {f.name for f in fields(cls)} - {"positions"}
        if unknown := sorted(set(state) - known):
            raise ValueError(f"this is no Probe's state: it holds {unknown}, a Probe has {sorted(known)}")
        return cls(**state)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, the same for the same inputs and targets on every machine."""
        digest = hashlib.sha256()
        for tensor in tensors([self.inputs, {} if self.targets is None else {"targets": self.targets}]):
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def image(self) -> Tensor | None:
        """The first (N, 1 or 3, H, W) tensor among the inputs, None where there is none."""
        return next((t for t in tensors(self.inputs) if t.ndim == 4 and t.shape[1] in (1, 3)), None)

    def images(self) -> Tensor | None:
        """(N, H, W, 3) uint8 for display, None where the inputs are no images.

        Without ``mean`` and ``std``, values outside [0, 1] are stretched by one range for all samples.
        """
        return None if self.image is None else pixels(self.image, self.mean, self.std)

    def label(self, index: int) -> str:
        """The name of a class index; the index itself where it has no name."""
        names = self.class_names or ()
        return names[index] if 0 <= index < len(names) else str(index)

    def to(self, device: torch.device | str) -> Probe:
        """The same Probe with its inputs and targets on ``device``."""
        return replace(
            self,
            inputs=map_tensors(self.inputs, lambda t: t.to(device)),
            targets=None if self.targets is None else self.targets.to(device),
        )

    def __len__(self) -> int:
        return next(len(t) for t in tensors(self.inputs) if t.ndim)

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors(self.inputs))
        masks = f", masks {', '.join(self.masks)}" if self.masks else ""
        labelled = "" if self.targets is None else f", {len(set(self.targets.tolist()))} classes"
        return f"Probe({len(self)} samples, inputs {shapes}{labelled}{masks})"

    def __getitem__(self, index: slice | Sequence[int]) -> Probe:
        """The samples at ``index``, in its order."""
        indices = range(len(self))[index] if isinstance(index, slice) else index
        rows = torch.tensor(list(indices), dtype=torch.long, device="cpu")
        return replace(
            self,
            inputs=map_tensors(self.inputs, lambda t: t[rows.to(t.device)] if t.ndim else t),
            targets=None if self.targets is None else self.targets[rows.to(self.targets.device)],
            masks=None if self.masks is None else {name: m[rows] for name, m in self.masks.items()},
            tokens=None if self.tokens is None else [self.tokens[i] for i in rows.tolist()],
            positions=None,  # type: ignore[arg-type]
        )

    def part(self, samples: slice) -> Probe:
        """These samples, which know their places in the whole."""
        return replace(self[samples], positions=self.positions[samples])

    @property
    def pairs(self) -> Tensor:
        """(N, 2) which sample and which of its scores each row of a measurement is of: one score a sample."""
        return torch.stack([self.positions, torch.zeros_like(self.positions)], 1)


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return (list if isinstance(tree, list) else tuple)(_plain(item) for item in tree)
    return tree
