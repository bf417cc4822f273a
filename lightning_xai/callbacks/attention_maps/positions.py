"""Where the weights of an attention lie: in an image, in windows of it, or along a sequence with padding.

Nothing is guessed. Where the cells of a layer cannot be told, that is said, and there is no picture of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.explanation.padding import real_positions
from lightning_xai.functional.hooks import Call, trace
from lightning_xai.functional.layers import named_layers
from lightning_xai.functional.metrics.attention import distance_sums
from lightning_xai.functional.passes.explained import token_ids
from lightning_xai.functional.passes.layout import image_size, token_grid
from lightning_xai.probe import Probe
from lightning_xai.reporting.tokens import is_special, unpadded_tokens


@dataclass(frozen=True)
class KeyPositions:
    """Which query of each sample is shown, and where its keys lie: in an image, or along a sequence.

    Args:
        queries: (N,) the query of each sample; None takes the mean over all queries.
        prefix: keys before the first cell.
        grid: rows and columns of the cells; None for a sequence.
    """

    queries: Tensor | None
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def lay_out(self, maps: Tensor) -> Tensor:
        """(N, queries, keys) -> (N, rows, columns), or (N, keys) of a sequence."""
        if self.queries is None:
            weights = maps.mean(1)
        else:
            weights = maps[torch.arange(len(maps), device=maps.device), self.queries.to(maps.device)]
        return weights if self.grid is None else weights[:, self.prefix :].reshape(-1, *self.grid)

    def distances(self, maps: Tensor) -> Tensor | None:
        """(N, 2) sums for the attention distance of (N, 1, queries, keys); None where both are not the same cells."""
        if self.grid is None or maps.shape[2] != maps.shape[3]:
            return None
        return distance_sums(maps, self.grid)


@dataclass(frozen=True)
class Windows:
    """Windows of an image, as Swin has them: what each cell gets from its own window.

    Args:
        window: rows and columns of one window.
        grid: rows and columns of the whole.
        shift: how far the image was rolled, up and to the left, before it was cut.
    """

    window: tuple[int, int]
    grid: tuple[int, int]
    shift: tuple[int, int]

    def lay_out(self, maps: Tensor) -> Tensor:
        """(N * windows, cells, cells) -> (N, rows, columns), the mean over the queries of the whole image."""
        (high, wide), (rows, columns) = self.window, self.grid
        down, across = rows // high, columns // wide
        cells = maps.mean(1).reshape(-1, down, across, high, wide) / (down * across)
        return cells.transpose(2, 3).reshape(-1, rows, columns).roll(self.shift, (1, 2))

    def distances(self, maps: Tensor) -> Tensor:
        """(N, 2) sums for the attention distance, over the diagonal of the whole image."""
        down, across = self.grid[0] // self.window[0], self.grid[1] // self.window[1]
        sums = distance_sums(maps, self.window).reshape(-1, down * across, 2).sum(1)
        sums[:, 0] *= max(_diagonal(self.window), 1.0) / max(_diagonal(self.grid), 1.0)
        return sums


class Placement:
    """What is known of the probe and the model, and with it where the keys of each layer lie.

    Args:
        probe: prepared.
        model: the plain module.
        forward: runs it on the probe's inputs.
        maps: the head means (N, 1, queries, keys) of its layers.
    """

    def __init__(
        self, probe: Probe, model: nn.Module, forward: Callable[[], object], maps: Mapping[str, Tensor]
    ) -> None:
        self.samples = len(probe)
        self.image = None if probe.image is None else image_size(probe.image.shape)
        self.ids = token_ids(probe.inputs)
        self._model, self._forward = model, forward
        lengths = [m.shape[3] for m in maps.values() if len(m) == self.samples]
        self.real = real_positions(probe, model, self.ids, max(lengths, default=0))
        causal = [layer for layer, m in maps.items() if is_causal(m)]
        mixed = any(len(m) == self.samples and m.shape[2] == m.shape[3] > 1 for m in _before(maps, causal))
        self.decoder = list(maps)[list(maps).index(causal[0]) :] if mixed else []
        """The layers of a decoder that reads an encoder: from the first causal layer on, if others come before it."""
        self.decoder_self = [layer for layer in self.decoder if layer in causal]
        """Those of them whose keys are no tokens of the probe, but of the decoder's own sequence."""
        self._real_decoded = _real_decoded(probe.inputs, self.real)
        self.special = self.tokens_error = None
        if probe.tokens is not None and self.real is not None:
            try:
                self.special = _special(probe, self.real)
            except ValueError as error:
                self.tokens_error = str(error)

    def positions(self, layer: str, maps: Tensor) -> KeyPositions | Windows:
        """Where the keys of (N, 1, queries, keys) lie.

        Raises:
            ValueError: windows whose positions the model does not tell.
        """
        n, _, queries, keys = maps.shape
        if n != self.samples:
            return self._windows(layer, n, keys)
        text = self.ids is not None and self.ids.shape[1] == keys
        cells = None if self.image is None or text else token_grid(keys, self.image)
        if cells is None:
            return KeyPositions(self._deciding(layer, maps))
        prefix, grid = cells
        # a class token comes first, and a query of its own decides alone; otherwise every cell counts
        alone = prefix > 0 or queries == 1
        return KeyPositions(torch.zeros(n, dtype=torch.long, device="cpu") if alone else None, prefix, grid)

    def real_queries(self, layer: str, queries: int) -> Tensor | None:
        """(N, queries) bool, False where a query is padding; None where nothing is known of them."""
        real = self._real_decoded if layer in self.decoder else self.real
        return real if real is not None and real.shape[1] == queries else None

    def last(self, layer: str, queries: int) -> Tensor:
        """(N,) the last query of each sample that is no padding."""
        real = self.real_queries(layer, queries)
        if real is None:
            return torch.full((self.samples,), queries - 1, dtype=torch.long, device="cpu")
        return queries - 1 - real.flip(1).long().argmax(1)

    def _deciding(self, layer: str, maps: Tensor) -> Tensor:
        queries, keys = maps.shape[2:]
        if layer in self.decoder or queries != keys or is_causal(maps):
            return self.last(layer, queries)
        real = self.real_queries(layer, queries)
        return torch.zeros(self.samples, dtype=torch.long, device="cpu") if real is None else real.long().argmax(1)

    def _windows(self, layer: str, number: int, keys: int) -> Windows:
        problem = f"{layer!r} attends inside windows, {number} for {self.samples} samples, so there is no picture of it"
        sizes = self._window_sizes(layer)
        if sizes is None or self.image is None:
            raise ValueError(f"{problem}: no module around it tells its window_size and shift_size, as in Swin")
        name, window, shift = sizes
        shape = next((call.shape for call in reversed(self._calls) if call.name == name), ())
        grid: Sequence[int] = shape[1:3] if len(shape) == 4 else ()
        if len(shape) == 3:
            prefix, cells = token_grid(shape[1], self.image) or (1, (0, 0))
            grid = cells if prefix == 0 else ()
        fits = len(grid) == 2 and not (grid[0] % window[0] or grid[1] % window[1])
        if not fits or window[0] * window[1] != keys or grid[0] * grid[1] * self.samples != number * keys:
            raise ValueError(f"{problem}: windows of {window} do not cut its cells {tuple(shape)} evenly")
        down, across = (0 if cells <= side else by for cells, side, by in zip(grid, window, shift, strict=True))
        return Windows(window, (grid[0], grid[1]), (down, across))

    def _window_sizes(self, layer: str) -> tuple[str, tuple[int, int], tuple[int, int]] | None:
        """The name of the module around the layer that tells them, window and shift."""
        modules, name = named_layers(self._model), layer.partition("#")[0]
        while name:
            window, shift = (getattr(modules.get(name), size, None) for size in ("window_size", "shift_size"))
            if window is not None and shift is not None:
                return name, _pair(window), _pair(shift)
            name = name.rpartition(".")[0]
        return None

    @cached_property
    def _calls(self) -> list[Call]:
        return trace(self._model, self._forward)


def is_causal(maps: Tensor) -> bool:
    """Whether no query of (N, heads, L, L) looks at a later key."""
    return maps.shape[2] == maps.shape[3] > 1 and not bool(maps.triu(1).any())


def _before(maps: Mapping[str, Tensor], layers: Sequence[str]) -> list[Tensor]:
    """The maps that come before the first of these layers; none where there are no such layers."""
    names = list(maps)
    return [maps[name] for name in names[: names.index(layers[0])]] if layers else []


def _real_decoded(inputs: Any, real: Tensor | None) -> Tensor | None:
    """(N, L) bool: where the decoder's own sequence is no padding; it is made of the encoder's where none is given."""
    ids = inputs.get("decoder_input_ids") if isinstance(inputs, Mapping) else None
    if not isinstance(ids, Tensor):
        return real
    mask = inputs.get("decoder_attention_mask")
    return torch.ones(ids.shape, dtype=torch.bool, device="cpu") if mask is None else mask.detach().cpu() > 0


def _special(probe: Probe, real: Tensor) -> Tensor:
    special = torch.zeros_like(real)
    for row, (positions, tokens) in zip(special, unpadded_tokens(probe, real), strict=True):
        row[[position for position, token in zip(positions, tokens, strict=True) if is_special(token)]] = True
    return special


def _pair(size: Any) -> tuple[int, int]:
    high, wide = (size, size) if isinstance(size, int) else size
    return int(high), int(wide)


def _diagonal(grid: tuple[int, int]) -> float:
    return float(((grid[0] - 1) ** 2 + (grid[1] - 1) ** 2) ** 0.5)
