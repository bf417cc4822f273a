"""The samples of a batch in whatever structure it comes: how many there are, taken out, joined again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from lightning_xai.batches import concatenated, is_dense
from lightning_xai.tensors import items, rebuilt

IMAGE_CHANNELS = (1, 3)


def batch_size(batch: Any) -> int:
    """The number of samples: what most items of a batch agree on, the first where there is a tie.

    Raises:
        TypeError: nothing in it has samples.
    """
    parts = [part for _, part in items(batch)]
    votes = Counter(size for part in parts or [batch] for size in dict.fromkeys(_sizes(part)))
    if not votes:
        raise TypeError(
            f"a {type(batch).__name__} with no tensor or list of samples in it cannot be cut into samples. Give "
            "probe= a Probe of what the model takes"
        )
    return votes.most_common(1)[0][0]


def select(batch: Any, rows: Sequence[int], size: int) -> Any:
    """The samples ``rows`` of a batch of ``size`` samples in its own structure; what has no samples stays."""
    if isinstance(batch, Tensor):
        return batch[torch.tensor(rows, dtype=torch.long, device=batch.device)] if _has(batch, size) else batch
    if isinstance(batch, PackedSequence):
        sequences = _sequences(batch)
        return (
            pack_sequence([sequences[row] for row in rows], enforce_sorted=False) if len(sequences) == size else batch
        )
    if _holds_samples(batch, size):
        return type(batch)(batch[row] for row in rows)
    parts = items(batch)
    return rebuilt(batch, {key: select(part, rows, size) for key, part in parts}) if parts else batch


def join(batches: Sequence[Any], sizes: Sequence[int]) -> Any:
    """One batch of the samples of several; what has no samples, or is not in all of them, is the first one's.

    Whole numbers of different lengths (token ids, masks, labels of words) are padded with 0.

    Raises:
        ValueError: tensors whose samples have different shapes.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        fit = all(isinstance(part, Tensor) and _has(part, size) for part, size in zip(batches, sizes, strict=True))
        return concatenated(batches) if fit else first
    if isinstance(first, PackedSequence):
        return pack_sequence([row for part in batches for row in _sequences(part)], enforce_sorted=False)
    if all(_holds_samples(part, size) for part, size in zip(batches, sizes, strict=True)):
        return type(first)(row for part in batches for row in part)
    parts = [dict(items(part)) for part in batches]
    shared = [key for key in parts[0] if all(key in part for part in parts)]
    joined = {key: join([part[key] for part in parts], sizes) for key in shared}
    if isinstance(first, Mapping) and len(shared) < len(first):
        return joined
    return rebuilt(first, joined) if joined else first


def places(batch: Any, root: str = "batch") -> dict[str, Tensor]:
    """The tensors of a batch by how a program names them: ``batch[0]``, ``batch["image"]``, ``batch.x``."""
    return dict(_places(batch, root))


def _places(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
        return
    fields = getattr(tree, "_fields", ())
    for key, part in items(tree):
        if fields:
            below = f"{name}.{fields[key]}"
        elif isinstance(tree, Mapping) or isinstance(key, int):
            below = f"{name}[{_quoted(key)}]"
        else:
            below = f"{name}.{key}"
        yield from _places(part, below)


def _quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def _sizes(part: Any) -> list[int]:
    """What a part may say about the number of samples, the likeliest first."""
    if isinstance(part, Tensor):
        return [len(part)] if part.ndim and is_dense(part) else []
    if isinstance(part, PackedSequence):
        return [int(part.batch_sizes[0])]
    if _is_list(part) and part:
        if all(isinstance(item, (str, bytes, int, float)) for item in part):
            return [len(part)]
        inner = [set(_sizes(item)) for item in part]
        agreed = set.intersection(*inner)
        nested = [size for size in _sizes(part[0]) if size in agreed]
        tensors = all(isinstance(item, Tensor) for item in part)
        alike = all(isinstance(item, Mapping) and item.keys() == part[0].keys() for item in part)
        if tensors or alike:
            return [*nested, len(part)] if nested and not _are_images(part) else [len(part), *nested]
        return [size for sizes in map(_sizes, part) for size in sizes]
    return [size for _, item in items(part) for size in _sizes(item)]


def _has(tensor: Tensor, size: int) -> bool:
    return tensor.ndim > 0 and is_dense(tensor) and len(tensor) == size


def _is_list(tree: Any) -> bool:
    return isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields")


def _holds_samples(tree: Any, size: int) -> bool:
    """Whether a list has one item a sample, rather than a part of the batch in each item."""
    if not _is_list(tree) or len(tree) != size:
        return False
    if all(item is None or isinstance(item, (Mapping, str, bytes, int, float)) for item in tree):
        return True
    spanning = [_spans(item, size) for item in tree]
    if all(isinstance(item, Tensor) for item in tree):  # sequences of their own lengths, one of which may be the size
        return _are_images(tree) or not all(spanning)
    return not any(spanning)


def _spans(part: Any, size: int) -> bool:
    """Whether a part of a batch has something of each sample."""
    if isinstance(part, Tensor):
        return _has(part, size)
    return _holds_samples(part, size) or any(_spans(item, size) for _, item in items(part))


def _are_images(parts: Sequence[Any]) -> bool:
    """Whether a list's items are images (C, H, W) each, whose number may happen to be that of their channels."""
    return all(isinstance(part, Tensor) and part.ndim == 3 and part.shape[0] in IMAGE_CHANNELS for part in parts)


def _sequences(packed: PackedSequence) -> list[Tensor]:
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    return [row[:length] for row, length in zip(padded, lengths.tolist(), strict=True)]
