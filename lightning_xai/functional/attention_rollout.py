"""Attention rollout: what reaches a token through all layers, if attention and the residual path weigh the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_xai.functional.attention_maps import attention_maps

Fusion = Literal["mean", "max", "min"]
_FUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(1),
    "max": lambda maps: maps.amax(1),
    "min": lambda maps: maps.amin(1),
}


def attention_rollout(
    maps: Mapping[str, Tensor] | Sequence[Tensor], *, fusion: Fusion = "mean", discard: float = 0.0
) -> Tensor:
    """(N, L, L): the product of all layers' 0.5 A + 0.5 I, rows renormalised (Abnar and Zuidema 2020).

    Args:
        maps: (N, heads, L, L) of each layer, the first layer first, as `attention_maps` returns them.
        fusion: how heads become one.
        discard: the share of each fused row, its smallest weights, that is set to zero.

    Raises:
        ValueError: maps of different shapes, as of windows or cross-attention, or an unknown fusion.
    """
    if fusion not in _FUSIONS:
        raise ValueError(f"fusion={fusion!r} is unknown; expected 'mean', 'max' or 'min'")
    if not 0 <= discard < 1:
        raise ValueError(f"discard={discard} is no share of a row; expected 0 <= discard < 1")
    layers = _square(maps)
    rollout = unit_rows(None, layers[0][:, 0])
    for layer in layers:
        fused = _FUSIONS[fusion](layer.float())
        if dropped := int(discard * fused.shape[-1]):
            smallest = fused.topk(dropped, -1, largest=False).indices
            fused = fused.scatter(-1, smallest, 0)
        rollout = (fused @ rollout + rollout) / (fused.sum(-1, keepdim=True) + 1)
    return rollout


def attention_rollout_rows(
    model: nn.Module, inputs: Any, *, rows: Sequence[int], forward: Callable[[Any], Any] | None = None
) -> Tensor:
    """(N, rows, L): these rows of `attention_rollout`, in one forward that holds head means alone.

    A row is carried from the last layer to the first: a vector times a matrix, never a matrix times a matrix.
    Raises as `attention_maps` and `attention_rollout`.
    """
    layers = _square(attention_maps(model, inputs, heads="mean", forward=forward))
    rollout = unit_rows(rows, layers[0][:, 0])
    for layer in reversed(layers):
        fused = layer[:, 0]
        rollout = rollout / (fused.sum(-1) + 1)[:, None]
        rollout = rollout + rollout @ fused
    return rollout


def unit_rows(rows: Sequence[int] | None, like: Tensor) -> Tensor:
    """(N, rows, L): these rows of the identity, None for all, for a matrix (N, L, S).

    Raises:
        IndexError: a row that there is none of.
    """
    samples, length = like.shape[:2]
    for row in rows or ():
        if not -length <= row < length:
            raise IndexError(f"row {row} is out of range: the sequence has {length} tokens")
    identity = torch.eye(length, dtype=torch.float32, device=like.device)
    return (identity if rows is None else identity[list(rows)]).expand(samples, -1, -1)


def _square(maps: Mapping[str, Tensor] | Sequence[Tensor]) -> list[Tensor]:
    named = dict(maps) if isinstance(maps, Mapping) else {f"map {i}": m for i, m in enumerate(maps)}
    if not named:
        raise ValueError("there are no maps to roll out")
    shapes = {name: tuple(m.shape) for name, m in named.items()}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if len(shape) != 4 or shape[2] != shape[3] or (shape[0], shape[2]) != (first[0], first[2]):
            raise ValueError(
                f"{name!r} is {shape}; a rollout needs self-attention over one sequence, (N, heads, L, L) in every "
                f"layer, and the first is {first}. Leave out cross-attention and windows with layers=."
            )
    return list(named.values())
