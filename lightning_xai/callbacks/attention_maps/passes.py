"""The passes of a reading of attention beyond its head means: single heads, and what goes through all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.callbacks.attention_maps.positions import KeyPositions, Placement, is_causal
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.functional.attention_maps import Extract, attention_maps
from lightning_xai.functional.attention_relevance import attention_relevance
from lightning_xai.functional.layers import named_layers
from lightning_xai.functional.metrics.attention import entropy_sums

QUERIES = 16


def is_inside(attention: str, layer: str) -> bool:
    """Whether this attention runs in this layer; the second call of a module is called ``name#1``."""
    return f"{attention.partition('#')[0]}.".startswith(f"{layer}.")


def of_real_queries(maps: Tensor, real: Tensor | None) -> Tensor:
    """Maps (N, heads, queries, keys) with the rows of padding set to zero: such rows count nowhere."""
    return maps if real is None or len(real) != len(maps) else maps * real[:, None, :, None].to(maps)


def entropies(
    run: ModelRun,
    inputs: Any,
    placement: Placement,
    logged: Mapping[str, Tensor],
    means: Mapping[str, Tensor],
    extract: Mapping[str, Extract],
) -> dict[str, Tensor]:
    """By layer (N, 2) sums for the entropy of single heads, from a few queries of each.

    Args:
        run: runs the model.
        inputs: of the probe.
        placement: which queries are padding.
        logged: the head means (N, 1, queries, keys) of the layers that are logged.
        means: those of all layers.
        extract: by layer name, a function of a call that returns its weights.
    """
    sums: dict[str, Tensor] = {}
    for number, layers in _same_queries(run.model, logged, means).items():
        names = list(dict.fromkeys(layer.partition("#")[0] for layer in layers))
        within = all(name in named_layers(run.model) for name in names)  # else in the model's own forward
        queries = torch.linspace(0, number - 1, min(number, QUERIES), dtype=torch.float32, device="cpu").round().long()
        maps = attention_maps(
            run.model, inputs, layers=names if within else None, queries=queries.tolist(), extract=extract, forward=run
        )
        for layer in layers:
            real = placement.real_queries(layer, logged[layer].shape[2])
            of_windows = entropy_sums(of_real_queries(maps[layer], None if real is None else real[:, queries]))
            sums[layer] = of_windows.reshape(placement.samples, -1, 2).sum(1)  # windows of a sample are joined
    return sums


def _same_queries(model: nn.Module, logged: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[int, list[str]]:
    """Number of queries -> the layers that have them in each attention that is seen with theirs."""
    named = named_layers(model)
    groups: dict[int, list[str]] = {}
    for layer in logged:
        name = layer.partition("#")[0]
        beside = [maps.shape[2] for key, maps in means.items() if name not in named or is_inside(key, name)]
        groups.setdefault(min(beside), []).append(layer)
    return groups


def one_sequence(means: Mapping[str, Tensor], samples: int) -> bool:
    """Whether all layers may attend to one and the same sequence, judged by their maps alone."""
    kinds = {(maps.shape, is_causal(maps)) for maps in means.values()}
    shape, _ = next(iter(kinds))
    return len(kinds) == 1 and shape[0] == samples and shape[2] == shape[3]


def relevance_rows(
    run: ModelRun, inputs: Any, targets: Any, placement: Placement, means: Mapping[str, Tensor]
) -> tuple[Tensor, bool]:
    """What each key is worth for the deciding query, laid out, and whether it goes through one sequence.

    Args:
        run: runs the model.
        inputs: of the probe.
        targets: what relevance speaks for.
        placement: where keys lie.
        means: the head means (N, 1, queries, keys) of all layers.

    Returns:
        (N, rows, columns), or (N, keys) of a sequence.

    Raises:
        ValueError: a model whose attention has no relevance, or keys whose positions are not known.
    """
    first = next(iter(means.values()))
    if not one_sequence(means, placement.samples):
        relevance = attention_relevance(run.model, inputs, targets, forward=run)
        positions = placement.positions("relevance", relevance[:, None])
        if isinstance(positions, KeyPositions) and positions.grid is None:
            last = placement.last(next(iter(placement.decoder), ""), relevance.shape[1])
            positions = replace(positions, queries=last)
        return positions.lay_out(relevance), False
    positions = placement.positions("relevance", first)
    assert isinstance(positions, KeyPositions)
    queries = positions.queries
    rows = list(range(first.shape[2])) if queries is None else sorted(set(queries.tolist()))
    relevance = attention_relevance(run.model, inputs, targets, rows=rows, forward=run)
    relevance, own = without_own(relevance, rows)
    if queries is not None:
        positions = replace(positions, queries=queries.new_tensor([rows.index(row) for row in queries.tolist()]))
    return positions.lay_out(relevance), own


def without_own(relevance: Tensor, rows: Sequence[int]) -> tuple[Tensor, bool]:
    """Relevance (N, rows, L) without each row's own 1, and whether it had one: between two sequences it has none."""
    queries = torch.tensor(list(rows), dtype=torch.long, device=relevance.device)
    own = nn.functional.one_hot(queries, relevance.shape[2]).to(relevance)
    if bool((relevance[:, own > 0] < 1 - 1e-3).any()):
        return relevance, False
    return (relevance - own).clamp_min(0), True
