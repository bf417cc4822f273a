"""Attention maps of any model, unchanged: what each attention in a forward looks at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_xai.functional.attention.fused import Fused
from lightning_xai.functional.attention.watching import Watching
from lightning_xai.functional.hooks import running_modules
from lightning_xai.functional.layers import close_matches, find_layers, named_layers, torchscript_note
from lightning_xai.functional.passes.request import Request, explaining
from lightning_xai.tensors import Rearrange

Extract = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Tensor]


def attention_maps(
    model: nn.Module,
    inputs: Any,
    *,
    layers: str | nn.Module | Sequence[str | nn.Module] | None = None,
    queries: Sequence[int] | None = None,
    heads: Literal["each", "mean"] = "each",
    extract: Mapping[str, Extract] | None = None,
    forward: Callable[[Any], Any] | None = None,
) -> dict[str, Tensor]:
    """The weights of every attention in one forward, by the name of the module that computes it.

    Seen are `scaled_dot_product_attention`, `flex_attention`, and each softmax whose result weighs values.

    Args:
        model: run in eval mode, whatever its mode is; its output is what it was.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        layers: names, patterns or modules; what runs inside of them counts as theirs. None takes all.
        queries: the rows that are wanted, negative from the end: one row costs next to nothing.
        heads: `"mean"` averages over heads, without holding the maps of all of them at once.
        extract: by layer name, what makes weights of a call's (module, args, kwargs, output), for kernels
            that are not seen; in place of what is seen inside of that layer.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.

    Returns:
        by name, float32 (N, heads, queries, keys), before dropout, in the order of the forward. Rows sum to 1, or
        to 0 where everything is masked. The second attention of a module is `name#1`. Windows count as samples.

    Raises:
        ValueError: a layer that is not there or has no attention, or a model in which none is found.
        IndexError: a query that a map does not have.
    """
    if heads not in ("each", "mean"):
        raise ValueError(f"heads={heads!r} is unknown; expected 'each' or 'mean'")
    with explaining(model, inputs, forward=forward) as request:
        chosen = None if layers is None else list(find_layers(model, layers))
        extracts = {name: f for layer, f in (extract or {}).items() for name in find_layers(model, layer)}
        maps = _watch(request, extracts, layers=chosen, queries=queries, mean=heads == "mean")
    if not maps.found:
        raise ValueError(_none_found(model, maps, chosen))
    return maps.found


def unused_softmaxes(
    model: nn.Module, inputs: Any, *, forward: Callable[[Any], Any] | None = None
) -> list[tuple[str, tuple[int, ...]]]:
    """Module and shape of each softmax that weighs no values: class probabilities, gates, or a missed attention."""
    with explaining(model, inputs, forward=forward) as request:
        maps = _watch(request, {}, layers=[])
    return [(softmax.name, softmax.shape) for softmax in maps.softmaxes if not softmax.used]


def _watch(request: Request, extracts: Mapping[str, Extract], **settings: Any) -> _Maps:
    def returned(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if name in extracts:
            maps.seen.append(name)
            maps.add(maps.move()(extracts[name](module, args, kwargs, output)))

    with running_modules(request.model, returned) as running:
        maps = _Maps(running, request.shape[0], **settings)
        maps.skipped = extracts
        with maps:
            request.run(request.inputs)
    return maps


class _Maps(Watching):
    """Keeps the maps that are asked for; replaces nothing."""

    def __init__(
        self,
        running: list[str],
        samples: int,
        layers: Collection[str] | None = None,
        queries: Sequence[int] | None = None,
        mean: bool = False,
    ) -> None:
        super().__init__(running, samples)
        self.layers, self.queries, self.mean = layers, queries, mean
        self.skipped: Collection[str] = ()
        self.found: dict[str, Tensor] = {}
        self.seen: list[str] = []

    def fused(self, call: Fused) -> None:
        if self._is_chosen():
            rows: Iterable[slice | Tensor] = [slice(None)]
            if self.queries is not None:
                rows = [self._queries(call.query.shape[-2], call.query.device)]
            elif self.mean:
                rows = call.chunks()
            move = self.move()
            self._keep([self._over_heads(move(call.weights(r))) for r in rows])

    def weighted(self, operand: Tensor, clean: Tensor, move: Rearrange) -> None:
        if self._is_chosen():
            self.add(move(clean))

    def add(self, weights: Tensor) -> None:
        """Keep a copy of what is wanted of (N, heads, queries, keys)."""
        if self.queries is not None:
            weights = weights[:, :, self._queries(weights.shape[2], weights.device)]
        self._keep([self._over_heads(weights.detach().to(torch.float32, copy=True))])

    def _keep(self, chunks: list[Tensor]) -> None:
        name = self.running[-1]
        calls = self.seen.count(name) - 1
        weights = chunks[0] if len(chunks) == 1 else torch.cat(chunks, 2)
        self.found[f"{name}#{calls}" if calls else name] = weights.to(torch.float32)

    def _is_chosen(self) -> bool:
        if any(name in self.skipped for name in self.running):
            return False
        self.seen.append(self.running[-1])
        return self.layers is None or any(name in self.layers for name in self.running)

    def _over_heads(self, weights: Tensor) -> Tensor:
        return weights.mean(1, keepdim=True) if self.mean else weights

    def _queries(self, length: int, device: torch.device) -> Tensor:
        assert self.queries is not None
        for query in self.queries:
            if not -length <= query < length:
                raise IndexError(f"query {query} is out of range: {self.running[-1]!r} has {length} queries")
        return torch.tensor([query % length for query in self.queries], dtype=torch.long, device=device)


def _none_found(model: nn.Module, maps: _Maps, layers: Sequence[str] | None) -> str:
    if maps.seen:
        names = list(dict.fromkeys(maps.seen))
        close = close_matches(layers[0], names) if layers else ""
        return f"no attention runs in the chosen layers.{close} Attention was seen in: {_listed(names)}."
    message = f"found no attention in this forward of {type(model).__name__}."
    alike = [f"{n} ({type(m).__name__})" for n, m in named_layers(model).items() if "att" in type(m).__name__.lower()]
    if alike:
        message += f" Modules that look like attention: {_listed(alike)}: give what makes their weights with extract=."
    softmaxes = [f"{softmax.name} {softmax.shape}" for softmax in maps.softmaxes]
    if softmaxes:
        message += f" Softmaxes whose results weigh no values: {_listed(softmaxes)}."
    return message + torchscript_note(model)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
