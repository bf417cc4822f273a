"""How a batch is laid out: where its inputs and labels are, its samples taken apart and joined again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_xai.tensors import tensors

Inputs: TypeAlias = Any
"""What a model takes: a tensor, a tuple of tensors or a mapping of tensors; the first dimension is the samples."""

LABEL_KEYS = ("labels", "label", "targets", "target", "y")


def is_dense(tensor: Tensor) -> bool:
    """Whether it has samples that can be cut out and kept: neither nested, sparse, quantised nor without values."""
    return tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)


def kind_of(tensor: Tensor) -> str:
    """What a tensor that is not dense is called."""
    names = [name for name in ("nested", "quantized", "meta") if getattr(tensor, f"is_{name}")]
    return names[0] if names else str(tensor.layout).removeprefix("torch.")


def collated(samples: Sequence[Any]) -> Any:
    """A batch of samples as a DataLoader makes it by default, numbers on the CPU whatever the default device is."""
    with torch.device("cpu"):
        return default_collate(list(samples))


def label_key(batch: Any) -> str | int | None:
    """Where a batch keeps its labels: a mapping's key, a sequence's second place, or nowhere."""
    if isinstance(batch, Mapping):
        return next((key for key in LABEL_KEYS if key in batch), None)
    return 1 if isinstance(batch, (tuple, list)) and len(batch) > 1 else None


def split_batch(batch: Any, labels: Callable[[Any], Tensor] | None = None) -> tuple[Inputs, Tensor | None]:
    """A batch's inputs, and its class indices (N,) or None.

    Labels that are no class indices (regression values, one a pixel, multi-hot, of another number) count as none.
    Entries of a mapping that have no N samples are left out.
    """
    key = label_key(batch)
    targets = labels(batch) if labels is not None else None if key is None else batch[key]
    if labels is not None:
        check_targets(targets, None)
    classes = targets if _are_classes(targets) else None
    if isinstance(batch, Mapping):
        entries = {name: value for name, value in batch.items() if name != key and tensors(value)}
        inputs = _of_one_size(entries, None if classes is None else len(classes))
    else:
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    if labels is None and classes is not None and len(classes) not in _sizes(inputs):
        classes = None
    return inputs, classes


def _of_one_size(entries: dict[Any, Any], labelled: int | None) -> dict[Any, Any]:
    """The entries with as many samples as there are labels, else as the first of them has; then the numbers."""
    sizes = {name: _sizes(value) for name, value in entries.items()}
    known = [size for of_entry in sizes.values() if len(of_entry) == 1 for size in of_entry if size is not None]
    size = labelled if labelled in known else next(iter(known), None)
    if size is None:
        return entries
    batched = [name for name, of_entry in sizes.items() if of_entry == {size}]
    numbers = [name for name, of_entry in sizes.items() if not of_entry]
    return {name: entries[name] for name in batched + numbers}


def _sizes(tree: Any) -> set[int | None]:
    """How many samples its tensors have, numbers left out; None for one that cannot be cut into samples."""
    return {len(t) if is_dense(t) else None for t in tensors(tree) if t.ndim}


def join_batch(inputs: Inputs, targets: Tensor, structure: Any) -> Any:
    """Inputs and targets in the structure of the batch ``structure``, as transfer hooks expect it."""
    key = label_key(structure)
    if key is None:
        return inputs
    if isinstance(structure, Mapping):
        named = inputs if isinstance(inputs, Mapping) else {_input_key(structure, key, inputs): inputs}
        return {**named, key: targets}
    return type(structure)((inputs, targets)) if type(structure) in (tuple, list) else (inputs, targets)


def _input_key(structure: Mapping[Any, Any], label: Any, inputs: Inputs) -> Any:
    """The key of the entry that is most like these inputs, the first of several; None without any."""
    shape = inputs.shape if isinstance(inputs, Tensor) else ()
    entries = {name: value for name, value in structure.items() if name != label and isinstance(value, Tensor)}
    return max(
        entries, key=lambda name: (entries[name].shape[1:] == shape[1:], entries[name].ndim == len(shape)), default=None
    )


def join_samples(trees: list[Any]) -> Any:
    """Inputs of one sample each as one batch; what not every sample has is left out."""
    first = trees[0]
    if isinstance(first, torch.Tensor):
        return concatenated(trees) if first.ndim else first
    if isinstance(first, dict):
        shared = [key for key in first if tensors(first[key]) and all(key in tree for tree in trees)]
        return {key: join_samples([tree[key] for tree in trees]) for key in shared}
    if not tensors(first):
        if isinstance(first, (list, tuple)) or any(tree != first for tree in trees):
            raise ValueError(
                f"the inputs hold a {type(first).__name__} beside tensors, which cannot be cut into samples. Give a "
                "Probe of what the model takes"
            )
        return first
    joined = [join_samples(list(items)) for items in zip(*trees, strict=True)]
    return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """The samples of several tensors (n, ...) as one. Whole numbers of different lengths are padded with 0.

    Raises:
        ValueError: samples whose shapes differ otherwise.
    """
    shapes = sorted({tuple(row.shape[1:]) for row in parts})
    if len(shapes) > 1:
        if parts[0].is_floating_point() or len({len(shape) for shape in shapes}) > 1:
            raise ValueError(
                f"the samples of the probe have different shapes, {shapes[0]} and {shapes[-1]}: they cannot be one "
                "batch. Give probe= a Probe of samples that fit together"
            )
        # token ids and masks of batches padded to different lengths: 0 is what the mask ignores
        longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        parts = [_pad(row, longest) for row in parts]
    return torch.cat(list(parts))


def _pad(row: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    widths = [(0, size - have) for size, have in zip(sizes, row.shape[1:], strict=True)]
    return torch.nn.functional.pad(row, [width for pair in reversed(widths) for width in pair])


def _are_classes(labels: Any) -> bool:
    whole = isinstance(labels, Tensor) and is_dense(labels) and not (labels.is_floating_point() or labels.is_complex())
    return whole and labels.ndim == 1 and labels.dtype != torch.bool


def check_targets(targets: Any, n: int | None) -> None:
    """Raises TypeError for what is no class indices (N,), ValueError where there are not ``n`` of them."""
    if not _are_classes(targets):
        kind = (
            f"a {targets.dtype} tensor of shape {tuple(targets.shape)}"
            if isinstance(targets, Tensor)
            else f"a {type(targets).__name__}"
        )
        raise TypeError(
            f"the targets are {kind}, expected class indices: a whole-number tensor of shape (N,). "
            "For other tasks leave them out and give the callback target=, a function of the model's output"
        )
    if n is not None and len(targets) != n:
        raise ValueError(f"{len(targets)} targets were given for {n} samples")
