"""Nets of every kind with inputs whose features can be taken away, and what it is to take one away, slowly."""

import copy
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import combinations
from math import factorial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.support.attention_nets import Additive, transformer
from tests.support.nets import Plain, ResNet, Text, ViT


class Sequence(nn.Module):
    """An LSTM over (N, L, C), which reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Two(nn.Module):
    """An image and numbers beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.image = nn.Linear(5, 4), Plain(classes=4)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        return self.image(image) * self.numbers(numbers).tanh()


class InPlace(nn.Module):
    """Writes into its inputs, as nets that normalise do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x *= 2
        return self.head(x).tanh()


class InPlaceSignal(nn.Module):
    """The same of a signal, whose channels have to be looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = Plain(classes=4, dimensions=1)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.signal(x)


class Bert(nn.Module):
    """A small BERT with a head, called by keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.body, _ = transformer("bert", "sdpa")
        self.head = nn.Linear(32, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])


def mlp(columns: int = 6, smooth: bool = False) -> nn.Module:
    return nn.Sequential(nn.Linear(columns, 8), nn.Tanh() if smooth else nn.ReLU(), nn.Linear(8, 4))


class Case(NamedTuple):
    """A net, its inputs, and the cells that it is cut into: of tokens and tables none."""

    make: Callable[[], nn.Module]
    draw: Callable[[], Any]
    cells: int = 8
    channels: int | None = None


def bert_inputs() -> dict[str, Tensor]:
    ids = torch.randint(3, 50, (4, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


CASES = {
    "conv": Case(Plain, lambda: torch.randn(4, 3, 15, 11), 3, 1),
    "residual": Case(ResNet, lambda: torch.randn(4, 3, 12, 12), 2, 1),
    "vit": Case(ViT, lambda: torch.randn(4, 3, 16, 16), 4, 1),
    "lstm": Case(Sequence, lambda: torch.randn(4, 9, 6), 4, 2),
    "signal": Case(partial(Plain, dimensions=1), lambda: torch.randn(4, 3, 21), 5, 1),
    "volume": Case(partial(Plain, dimensions=3), lambda: torch.randn(4, 3, 9, 9, 9), 2, 1),
    "table": Case(mlp, lambda: torch.randn(4, 6)),
    "writes into its input": Case(InPlace, lambda: torch.randn(4, 6)),
    "writes into its signal": Case(InPlaceSignal, lambda: torch.randn(4, 3, 21), 5, 1),
    "two inputs": Case(Two, lambda: (torch.randn(4, 3, 12, 12), torch.randn(4, 5)), 2, 1),
    "words": Case(Text, lambda: torch.randint(0, 20, (4, 7))),
    "words of an lstm": Case(Additive, lambda: torch.randint(0, 20, (4, 7))),
    "bert": Case(Bert, bert_inputs),
}
TARGETS = torch.tensor([0, 2, 1, 2])


def prepared(name: str) -> tuple[nn.Module, Any, int, int | None]:
    torch.manual_seed(0)
    case = CASES[name]
    return case.make().eval(), case.draw(), case.cells, case.channels


def explained(inputs: Any) -> Tensor:
    return inputs["input_ids"] if isinstance(inputs, dict) else inputs[0] if isinstance(inputs, tuple) else inputs


def with_explained(inputs: Any, x: Tensor) -> Any:
    if isinstance(inputs, dict):
        return {**inputs, "input_ids": x}
    return (x, *inputs[1:]) if isinstance(inputs, tuple) else x


def one(inputs: Any, row: int) -> Any:
    """Sample number `row` as a batch of its own, in memory of its own."""
    if isinstance(inputs, dict):
        return {key: value[row : row + 1].clone() for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(value[row : row + 1].clone() for value in inputs)
    return inputs[row : row + 1].clone()


@torch.no_grad()
def output_of(model: nn.Module, inputs: Any) -> Tensor:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def places(sample: torch.Size, cells: int, channels: int | None) -> list[Tensor]:
    """Of each feature a mask (*sample) bool of the numbers that belong to it, position by position."""
    positions = [size for axis, size in enumerate(sample, 1) if axis != channels]
    if len(positions) == 1 and channels is None:
        return [torch.arange(positions[0]) == column for column in range(positions[0])]
    found: dict[tuple[int, ...], Tensor] = {}
    for place in torch.cartesian_prod(*map(torch.arange, positions)).view(-1, len(positions)).tolist():
        cell = tuple(at * cells // size for at, size in zip(place, positions, strict=True))
        index: list[Any] = list(place)
        if channels is not None:
            index.insert(channels - 1, slice(None))
        found.setdefault(cell, torch.zeros(sample, dtype=torch.bool))[tuple(index)] = True
    return [found[cell] for cell in sorted(found)]


def shapley(value: Callable[[frozenset[int]], float], players: int) -> list[float]:
    """By the definition: over all coalitions, from one player to the next."""
    value, found = cache(value), []
    for player in range(players):
        others = [p for p in range(players) if p != player]
        total = 0.0
        for size in range(players):
            share = factorial(size) * factorial(players - size - 1) / factorial(players)
            for coalition in map(frozenset, combinations(others, size)):
                total += share * (value(coalition | {player}) - value(coalition))
        found.append(total)
    return found


def with_silence(model: nn.Module) -> tuple[nn.Module, int]:
    """A copy of a model of words that knows one more of them, whose vector is zero; and its id."""
    model = copy.deepcopy(model)
    words = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    vector = torch.zeros(1, words.embedding_dim)
    words.weight = nn.Parameter(torch.cat([words.weight.detach(), vector]))
    words.num_embeddings += 1
    return model, len(words.weight) - 1


class Game:
    """One sample, whose features are the players: what its score is with some of them, one forward at a time."""

    def __init__(self, name: str, row: int, target: int, baseline: Tensor | None = None) -> None:
        self.model, inputs, cells, channels = prepared(name)
        self.inputs, self.target = one(inputs, row), target
        x = explained(self.inputs)[0]
        self.x, self.places = x, places(x.shape, cells, channels)
        if baseline is not None:
            self.stand_in = baseline
        elif x.is_floating_point():
            self.stand_in = torch.zeros_like(x)
        else:
            self.model, silence = with_silence(self.model)
            self.stand_in = torch.full_like(x, silence)

    def __call__(self, kept: Iterable[int]) -> float:
        x = self.stand_in.clone()
        for feature in kept:
            x[self.places[feature]] = self.x[self.places[feature]]
        return float(output_of(self.model, with_explained(self.inputs, x[None]))[0, self.target])

    @property
    def features(self) -> int:
        return len(self.places)

    def spread(self, values: list[float]) -> Tensor:
        """Each value shared evenly by the numbers of its feature, in the sample's shape."""
        found = torch.zeros(self.x.shape)
        for place, value in zip(self.places, values, strict=True):
            found[place] = value / int(place.sum())
        return found
