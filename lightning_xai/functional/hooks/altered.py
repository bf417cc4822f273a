"""Other vectors in the place of what embeddings make of token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_xai.functional.layers import takes_hooks, unwrapped_names


@contextmanager
def altering(model: nn.Module, ids: Tensor, alter: Callable[[Tensor], Tensor]) -> Iterator[list[nn.Embedding]]:
    """Inside, each `nn.Embedding` that is given `ids` returns `alter(output)`: these, one for each call."""
    altered: list[nn.Embedding] = []

    def hook(module: nn.Embedding, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        asked = args[0] if args else kwargs["input"]
        if asked.shape != ids.shape or not bool((asked == ids).all()):
            return None
        altered.append(module)
        return alter(output)

    with ExitStack() as stack:
        for _, module in unwrapped_names(model):
            if isinstance(module, nn.Embedding) and takes_hooks(module):
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield altered
