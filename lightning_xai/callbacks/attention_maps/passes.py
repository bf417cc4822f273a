"""The passes of a reading of attention beyond its head means: single heads, and what goes through all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.callbacks.attention_maps.places import Place, Placement, is_causal
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
    chosen: Mapping[str, Tensor],
    means: Mapping[str, Tensor],
    extract: Mapping[str, Extract],
) -> dict[str, Tensor]:
    """By layer (N, 2) sums for the entropy of single heads, from a few queries of each of the ``chosen``."""
    found: dict[str, Tensor] = {}
    for queries, layers in _same_queries(run.model, chosen, means).items():
        names = list(dict.fromkeys(layer.partition("#")[0] for layer in layers))
        within = all(name in named_layers(run.model) for name in names)  # else in the model's own forward
        some = torch.linspace(0, queries - 1, min(queries, QUERIES), dtype=torch.float32, device="cpu").round().long()
        maps = attention_maps(
            run.model, inputs, layers=names if within else None, queries=some.tolist(), extract=extract, forward=run
        )
        for layer in layers:
            real = placement.real_queries(layer, chosen[layer].shape[2])
            sums = entropy_sums(of_real_queries(maps[layer], None if real is None else real[:, some]))
            found[layer] = sums.reshape(placement.samples, -1, 2).sum(1)  # windows of a sample are joined
    return found


def _same_queries(model: nn.Module, chosen: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[int, list[str]]:
    """Number of queries -> the layers that have them in each attention that is seen with theirs."""
    named = named_layers(model)
    groups: dict[int, list[str]] = {}
    for layer in chosen:
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
    """What each key is worth for the deciding query, placed, and whether it goes through one sequence.

    Raises:
        ValueError: a model whose attention has no relevance, or none with a place.
    """
    first = next(iter(means.values()))
    if not one_sequence(means, placement.samples):
        relevance = attention_relevance(run.model, inputs, targets, forward=run)
        place = placement.place("relevance", relevance[:, None])
        if isinstance(place, Place) and place.grid is None:
            place = replace(place, rows=placement.last(next(iter(placement.decoder), ""), relevance.shape[1]))
        return place(relevance), False
    place = placement.place("relevance", first)
    assert isinstance(place, Place)
    rows = list(range(first.shape[2])) if place.rows is None else sorted(set(place.rows.tolist()))
    relevance = attention_relevance(run.model, inputs, targets, rows=rows, forward=run)
    relevance, own = without_own(relevance, rows)
    if place.rows is not None:
        place = replace(place, rows=place.rows.new_tensor([rows.index(row) for row in place.rows.tolist()]))
    return place(relevance), own


def without_own(relevance: Tensor, rows: Sequence[int]) -> tuple[Tensor, bool]:
    """Relevance (N, rows, L) without each row's own 1, and whether it had one: between two sequences it has none."""
    places = torch.tensor(list(rows), dtype=torch.long, device=relevance.device)
    own = nn.functional.one_hot(places, relevance.shape[2]).to(relevance)
    if bool((relevance[:, own > 0] < 1 - 1e-3).any()):
        return relevance, False
    return (relevance - own).clamp_min(0), True
