"""Small models with attention of every kind."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class SelfAttention(nn.Module):
    """Heads over (N, L, width) with sdpa, or written out; keeps what it weighed with, (N, heads, L, L)."""

    def __init__(self, width: int = 16, heads: int = 4, fused: bool = True, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.fused, self.causal = heads, fused, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=0.5 * self.training)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if self.causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            self.weights = scores.softmax(-1)
            out = self.dropout(self.weights) @ v
        return out.transpose(1, 2).flatten(2)


class Stack(nn.Module):
    """Residual self-attention and a head on the first token."""

    def __init__(
        self, depth: int = 3, classes: int = 3, again: bool = False, checkpointed: bool = False, **settings
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SelfAttention(**settings) for _ in range(depth))
        self.again, self.checkpointed = again, checkpointed
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in [*self.blocks, *([self.blocks[0]] if self.again else [])]:
            x = x + (checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x))
        return self.head(x[:, 0])


class Windows(nn.Module):
    """Attention in 4 x 4 windows of an 8 x 8 image, with a bias by place, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.randn(2, 16, 16))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x.unflatten(2, (2, 4)).unflatten(1, (2, 4)).transpose(2, 3).reshape(-1, 16, 8)
        return tuple(t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias).mean((1, 2)).view(len(x), -1)


# (N, L, 1) weights over dim 1 and (N, L, D) values -> (N, D), as people write it
WEIGHINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product and sum": lambda w, h: (w * h).sum(1),
    "torch.sum": lambda w, h: torch.sum(h * w, dim=1),
    "expanded": lambda w, h: torch.sum(h * w.expand_as(h), 1),
    "bmm": lambda w, h: torch.bmm(w.transpose(1, 2), h).squeeze(1),
    "values first": lambda w, h: (h.transpose(1, 2) @ w).squeeze(2),
    "einsum": lambda w, h: torch.einsum("nlx,nld->nd", w, h),
    "einsum with dots": lambda w, h: torch.einsum("nl,nl...->n...", w.squeeze(-1), h),
    "einsum without arrow": lambda w, h: torch.einsum("...i,...id", w.squeeze(-1), h),
    "dropped out": lambda w, h: (F.dropout(w, 0.5, training=True).transpose(1, 2) @ h).squeeze(1),
}


class Additive(nn.Module):
    """An LSTM text classifier with additive attention over its states, and a softmax over classes."""

    def __init__(self, weighing: str = "product and sum") -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 6, batch_first=True)
        self.score, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)), nn.Linear(6, 3)
        self.weighing = WEIGHINGS[weighing]

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        states = self.lstm(self.embedding(tokens))[0]
        return states, self.score(states)

    def forward(self, tokens: Tensor) -> Tensor:
        states, scores = self.states(tokens)
        return self.head(self.weighing(scores.softmax(1), states)).softmax(-1)


def transformer(name: str, attention: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A tiny model of transformers with random weights, and inputs for it: one text of three is padded."""
    import transformers as hf

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    small = {"d_model": 32, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    halves = {
        f"{half}_{key}": value
        for half in ("encoder", "decoder")
        for key, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
    }
    start = {"decoder_start_token_id": 0}
    gpt = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    model, config = {
        "bert": (hf.BertModel, lambda: hf.BertConfig(vocab_size=50, **sizes)),
        "gpt2": (hf.GPT2Model, lambda: hf.GPT2Config(**gpt)),
        "llama": (hf.LlamaModel, lambda: hf.LlamaConfig(vocab_size=50, num_key_value_heads=2, **sizes)),
        "vit": (hf.ViTModel, lambda: hf.ViTConfig(image_size=16, patch_size=4, **sizes)),
        "t5": (
            hf.T5Model,
            lambda: hf.T5Config(d_kv=8, num_heads=4, d_ff=64, num_layers=2, **small, **start),
        ),
        "bart": (
            hf.BartModel,
            lambda: hf.BartConfig(decoder_start_token_id=2, forced_eos_token_id=None, **halves, **small),
        ),
    }[name]
    settings = config()
    settings._attn_implementation = attention
    torch.manual_seed(0)
    built = model(settings).eval()
    if name == "vit":
        return built, {"pixel_values": torch.randn(3, 3, 16, 16)}
    tokens, mask = torch.randint(3, 50, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    mask[1, 5:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    return built, inputs | ({"decoder_input_ids": tokens.flip(1)} if name in ("t5", "bart") else {})
