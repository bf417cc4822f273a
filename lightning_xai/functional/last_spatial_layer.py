"""The layer to explain when none is named: the last one to run that has cells and whose cells count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, nn

from lightning_xai.functional.hooks import Call, DisconnectedError, tapping, trace
from lightning_xai.functional.layers import find_layers, torchscript_note
from lightning_xai.functional.passes.layout import Layout, recognise
from lightning_xai.functional.passes.outputs import Targets
from lightning_xai.functional.passes.request import explaining


def last_spatial_layer(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    forward: Callable[[Any], Any] | None = None,
) -> str:
    """The name of the last layer to run whose cells, more than one, have a gradient.

    Among token layouts the last norm is preferred; a class token alone does not count: on a ViT that
    reads its class token this is the last block's first norm. Two samples are run, for a callable target all.

    Raises:
        ValueError: there is no such layer.
    """
    with explaining(model, inputs, targets, forward) as whole:
        request = whole if callable(whole.targets) else whole.some(slice(2))
        calls = trace(model, lambda: request.run(request.inputs))
        candidates = _candidates(calls, request.shape)
        layers = find_layers(model, list(candidates)) if candidates else {}
        for name, layout in candidates.items():
            try:
                with tapping(model, {name: layers[name]}, request.scores) as (taps, found):
                    (gradient,) = torch.autograd.grad(found.sum(), [taps[name]])
            except DisconnectedError:
                continue
            if _cells_with_gradient(layout(gradient)) > 1:
                return name
    raise ValueError(
        f"found no layer with more than one cell whose gradient is not zero, among {len(candidates)} with cells: "
        f"{', '.join(list(candidates)[:8]) or 'none'}. Where a head starts at zero nothing has a gradient before the "
        "first step; otherwise name a layer with layer=, and pass reshape= if its layout is not recognised."
        f"{torchscript_note(model)}"
    )


def _candidates(calls: list[Call], input_shape: Size) -> dict[str, Layout]:
    """The layers with more than one cell, the last to run first; of tokens the norms before all others."""
    found: dict[str, Layout] = {}
    for index in reversed(range(len(calls))):
        name = calls[index].name
        if name not in found and (layout := _layout_with_cells(calls, index, input_shape)):
            found[name] = layout
    by_name = {call.name: call for call in calls}
    if found and len(by_name[next(iter(found))].shape) == 3 and next(iter(found.values())).channels_last:
        norms = {name: found[name] for name in found if "norm" in type(by_name[name].module).__name__.lower()}
        return {**norms, **found}
    return found


def _cells_with_gradient(gradient: Tensor) -> int:
    return int((gradient != 0).flatten(2).any(0).any(0).sum())


def _layout_with_cells(calls: list[Call], index: int, input_shape: Size) -> Layout | None:
    name, module, shape = calls[index][:3]
    try:
        layout = recognise(name, module, shape, input_shape, lambda: calls[:index])
    except ValueError:  # no cells, or windows and the like: an earlier layer is recognised
        return None
    return layout if Size(layout.cells(shape)).numel() > 1 else None
