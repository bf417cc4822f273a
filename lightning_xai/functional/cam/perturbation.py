"""Score-CAM and Ablation-CAM: channel weights from what the scores do when something is changed."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from lightning_xai.functional.hooks import Tail, graph_nodes, operation, record_tail, replaying, tapping
from lightning_xai.functional.passes.request import Request, input_tensor
from lightning_xai.tensors import Rearrange, first_tensor, replace_first

# operations that are affine in their one input that depends on the layer, or in all of them
_ONE_INPUT = {"Addmm", "Mm", "Convolution"}
_ANY_INPUT = {
    *("AccumulateGrad", "Add", "Sub", "Neg", "Cat", "Stack", "Gather", "ToCopy", "Clone", "Mean", "Sum"),
    *("AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D"),
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Permute", "Transpose", "T", "Select", "Slice"),
}


def score_cam(request: Request, name: str, layer: nn.Module, batch_size: int) -> Tensor:
    """Channels weighted by a softmax over the scores of the input masked by each (Wang et al. 2020).

    A mask is the channel, resized to the input and scaled to [0, 1]; zero where the channel is constant.
    """
    request = request.resolved()
    with tapping(request.model, {name: layer}, request.scores) as (taps, scores):
        tap, asked = taps[name].detach(), scores.ndim
        move = request.move(name, layer, tap.shape)
    a = move(tap).float()
    image = input_tensor(request.inputs)
    if not image.is_floating_point() or image.ndim != a.ndim:
        raise ValueError(
            f"score_cam masks the input by the map, cell by cell, but the input is {image.dtype} {tuple(image.shape)} "
            f"and the layer's cells are {tuple(a.shape[2:])}. Expected a float input (N, C, *size) with as many "
            "dimensions; take another variant otherwise."
        )
    weights = []
    for index in range(len(a)):
        found = []
        for channels in torch.split(a[index], batch_size):
            rows = request.some(torch.full((len(channels),), index, dtype=torch.long, device=a.device))
            masked = input_tensor(rows.inputs) * channel_masks(channels, image.shape[2:])[:, None].to(image)
            found.append(replace(rows, inputs=replace_first(rows.inputs, masked)).scores().float())
        weights.append(torch.cat(found).movedim(0, -1).softmax(-1))
    return _weighted(a, torch.stack(weights), asked)


def ablation_cam(request: Request, name: str, layer: nn.Module, batch_size: int) -> Tensor:
    """Channels weighted by the relative drop of the score when their cells are zero (Ramaswamy and Desai 2020).

    Relative to the score's absolute value, so that a negative score does not turn the map around. Only what is
    behind the layer runs again; nothing does where the score is affine in the layer.
    """
    request = request.resolved()
    with tapping(request.model, {name: layer}, request.scores) as (taps, scores):
        tap, plain = taps[name].detach(), scores.detach().float()
        move = request.move(name, layer, tap.shape)
        a = move(tap).float()
        closed = not callable(request.targets) and affine(scores)
        if closed:
            drops = _affine_drops(a, taps[name], scores, move)
    if not closed:
        samples = [request.some(torch.tensor([index], dtype=torch.long, device=a.device)) for index in range(len(a))]
        drops = torch.stack([_drops(sample, name, layer, batch_size) for sample in samples])
    weights = drops / plain.abs().clamp_min(torch.finfo(torch.float32).tiny)[..., None]
    return _weighted(a, weights, scores.ndim)


def channel_masks(channels: Tensor, size: Size) -> Tensor:
    """(K, *cells) -> (K, *size), each scaled to [0, 1]; zero where it is constant."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    masks = F.interpolate(channels[:, None], tuple(size), mode=mode, align_corners=False)[:, 0].flatten(1)
    low, high = masks.amin(1, keepdim=True), masks.amax(1, keepdim=True)
    masks = torch.where(high > low, (masks - low) / torch.where(high > low, high - low, 1), 0)
    return masks.view(-1, *size)


def affine(scores: Tensor) -> bool:
    """Whether the graph says that the scores are affine in its leaves, as behind global pooling and linear layers."""
    gathers = 0
    for node in graph_nodes(scores):
        kind = operation(node)
        gathers += kind == "Gather"
        inputs = sum(following is not None for following, _ in node.next_functions)
        if kind not in _ANY_INPUT and not (kind in _ONE_INPUT and inputs == 1):
            return False
    return gathers <= 1  # more than the choice of the class: an index may depend on the layer


def _affine_drops(a: Tensor, tap: Tensor, scores: Tensor, move: Rearrange) -> Tensor:
    """(N, [T,] C): an affine score loses sum(A * G) with a channel."""
    columns = scores[:, None] if scores.ndim == 1 else scores
    drops = []
    for column in columns.unbind(1):
        (gradient,) = torch.autograd.grad(column.sum(), [tap], retain_graph=True)
        drops.append((a * move(gradient).float()).flatten(2).sum(2))
    return drops[0] if scores.ndim == 1 else torch.stack(drops, 1)


def _drops(sample: Request, name: str, layer: nn.Module, batch_size: int) -> Tensor:
    """([T,] C): what the score of one sample loses with each channel, found by running its tail again."""
    tail = record_tail(sample.model, layer, lambda: sample.run(sample.inputs))
    activation = first_tensor(tail.output)
    assert activation is not None
    positions = _positions(sample, name, layer, activation)
    skip = _skipping_is_exact(sample, tail, activation)
    plain = _tail_scores(sample, tail, activation, skip)
    drops = []
    for chunk in torch.split(positions, batch_size):
        ablated = activation.flatten(1).repeat(len(chunk), 1).scatter_(1, chunk, 0)
        ablated = ablated.view(-1, *activation.shape[1:])
        drops.append(plain - _tail_scores(sample, tail, ablated, skip))
    return torch.cat(drops).movedim(0, -1)


def _tail_scores(sample: Request, tail: Tail, activations: Tensor, skip: bool) -> Tensor:
    copies = sample.some(torch.zeros(len(activations), dtype=torch.long, device=activations.device))
    with replaying(tail, activations, skip=skip):
        return copies.scores().float()


def _skipping_is_exact(sample: Request, tail: Tail, activation: Tensor) -> bool:
    """Whether the tail alone gives the scores of the whole: not where it writes into what it is given, say."""
    twice = torch.cat([activation, activation])
    whole = _tail_scores(sample, tail, twice, False)
    try:
        tail_alone = _tail_scores(sample, tail, twice, True)
    except Exception:  # whatever a model does when modules do not run: the whole way is open
        return False
    close = 1e-3 * whole.nan_to_num().abs().max()
    return torch.allclose(whole, tail_alone, rtol=0, atol=float(close), equal_nan=True)


def _positions(sample: Request, name: str, layer: nn.Module, activation: Tensor) -> Tensor:
    """(C, cells): where each channel's cells are in the flattened output of one sample."""
    move = sample.move(name, layer, activation.shape)
    index = torch.arange(activation.numel(), dtype=torch.float64, device="cpu").view_as(activation)
    positions = move(index)[0].flatten(1).long().to(activation.device)
    exact = activation.shape[0] == 1 and int(positions.min()) >= 0 and int(positions.max()) < activation.numel()
    if exact:
        moved = move(activation)[0].flatten(1)
        exact = torch.allclose(activation.flatten()[positions], moved, rtol=0, atol=0, equal_nan=True)
    if not exact:
        raise ValueError(
            f"ablation_cam sets cells of layer {name!r} to zero, and reshape does more than move them. Give a reshape= "
            "that only selects and moves cells of an output (N, ...), or take another variant."
        )
    return positions


def _weighted(a: Tensor, weights: Tensor, asked: int) -> Tensor:
    """(N, C, *cells) and (N, [T,] C) -> (N, [T,] *cells), rectified."""
    maps = [
        (a * column[(...,) + (None,) * (a.ndim - 2)]).sum(1).relu()
        for column in (weights[:, None] if asked == 1 else weights).unbind(1)
    ]
    return maps[0] if asked == 1 else torch.stack(maps, 1)
