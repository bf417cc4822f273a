"""What embeddings make of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.layers import takes_hooks, unwrapped_names


@contextmanager
def embedding(model: nn.Module, ids: Tensor, value: Tensor | None = None) -> Iterator[dict[str, Tensor]]:
    """Inside, each `nn.Embedding` that is given `ids` returns a tensor to differentiate by: these, by its name.

    Used inside `inspecting`. The first returns `value` where there is one. One that is given them again returns the
    same tensor. In no-grad mode at the start, nothing is differentiated by.
    """
    outputs: dict[str, Tensor] = {}
    graph = torch.is_grad_enabled()

    def hook(name: str, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        asked = args[0] if args else kwargs["input"]
        if asked.shape != ids.shape or not bool((asked == ids).all()):
            return None
        if name not in outputs:
            start = output if value is None or outputs else value
            outputs[name] = start.detach().requires_grad_(graph)
        # with grad, since weights that are frozen are often read without; a clone, since an in-place operation may
        # follow
        with torch.set_grad_enabled(graph):
            return outputs[name].clone()

    with ExitStack() as stack:
        for name, module in unwrapped_names(model):
            if isinstance(module, nn.Embedding) and takes_hooks(module):
                stack.callback(module.register_forward_hook(partial(hook, name), with_kwargs=True).remove)
        yield outputs
