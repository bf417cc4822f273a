"""What a fused attention kernel never shows: its weights, computed from its arguments, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# weights in one chunk: smaller ones are slower, by short matrix products, larger ones hold more
_CHUNK = {"cpu": 2**22}
_CHUNK_ELSEWHERE = 2**25


@dataclass(frozen=True)
class Fused:
    """One call of `scaled_dot_product_attention`: (..., L, E), (..., S, E), (..., S, V), as the kernel casts them."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scale: float

    @classmethod
    def from_call(
        cls,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Fused:
        """From the arguments of `scaled_dot_product_attention`; heads that share keys get a copy each."""
        device = query.device.type
        if torch.is_autocast_enabled(device) and query.dtype != torch.float64:
            query, key, value = (t.to(torch.get_autocast_dtype(device)) for t in (query, key, value))
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        return cls(query, key, value, attn_mask, is_causal, scale)

    def chunks(self) -> Iterator[slice]:
        """The queries, in slices whose weights are a chunk."""
        length, per_query = self.query.shape[-2], self.query[..., 0].numel() // self.query.shape[-2]
        size = _CHUNK.get(self.query.device.type, _CHUNK_ELSEWHERE)
        step = max(1, size // max(1, per_query * self.key.shape[-2]))
        return (slice(start, min(start + step, length)) for start in range(0, length, step))

    def weights(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """(..., rows, S), at least float32; a row whose keys are all masked is zero."""
        with torch.autocast(self.query.device.type, enabled=False):
            dtype = torch.promote_types(self.query.dtype, torch.float32)
            query = self.query[..., rows, :].to(dtype) * self.scale
            scores = query @ self.key.to(dtype).mT
            if self.causal:
                length, keys = self.query.shape[-2], self.key.shape[-2]
                positions = torch.arange(max(length, keys), device=scores.device)
                scores = scores.masked_fill_(positions[:keys] > positions[:length][rows, None], -math.inf)
            if self.mask is None:
                return scores.softmax(-1)
            mask = self.mask if self.mask.ndim < 2 or self.mask.shape[-2] == 1 else self.mask[..., rows, :]
            # from the mask, which is smaller than the scores: often the same for all heads and queries
            if mask.dtype == torch.bool:
                dead = ~mask.any(-1, keepdim=True)
                weights = scores.masked_fill_(~mask, -math.inf).softmax(-1)
            else:
                dead = (mask == -math.inf).all(-1, keepdim=True)
                weights = (scores + mask.to(dtype)).softmax(-1)
            return weights.masked_fill(dead, 0) if dead.any() else weights
