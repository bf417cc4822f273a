"""Attention weights as the papers write them, slowly."""

import math

import torch
from torch import Tensor, nn


def textbook(q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale + mask); a bool mask keeps what is True, and a row without keys is zero."""
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores + (torch.where(mask, 0.0, -math.inf) if mask.dtype == torch.bool else mask)
    exponential = torch.where(scores == -math.inf, 0.0, (scores - scores.amax(-1, keepdim=True)).exp())
    return (exponential / exponential.sum(-1, keepdim=True)).nan_to_num()


def multi_head(module: nn.MultiheadAttention, query: Tensor, key: Tensor, mask=None, padding=None) -> Tensor:
    """The weights of an `nn.MultiheadAttention`, from its parameters; masks are True where nothing is seen."""
    if not module.batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    wq, wk, _ = module.in_proj_weight.chunk(3)
    bq, bk, _ = module.in_proj_bias.chunk(3)
    q, k = (
        (x @ w.T + b).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for x, w, b in ((query, wq, bq), (key, wk, bk))
    )
    added = torch.zeros(len(query), 1, query.shape[1], key.shape[1])
    for given in (mask, None if padding is None else padding[:, None, None]):
        if given is not None:
            added = added + (torch.where(given, -math.inf, 0.0) if given.dtype == torch.bool else given)
    return textbook(q, k, added).detach()


def recorded(model: nn.Module, *inputs, **settings) -> dict[str, Tensor]:
    """The textbook weights of every `nn.MultiheadAttention` in a forward, by name."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):

            def hook(module, args, kwargs, output, name=name):
                masks = kwargs.get("attn_mask"), kwargs.get("key_padding_mask")
                found[name] = multi_head(module, args[0], args[1], *masks)

            handles.append(module.register_forward_hook(hook, with_kwargs=True))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            model(*inputs, **settings)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    return found
