"""Nets of every kind that is attributed, and what the methods give on them, each with few steps."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_xai import functional
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
    """Writes into its input, as nets that normalise do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x *= 2
        return self.head(x).tanh()


class Segmented(nn.Module):
    """(N, C, H, W) logits, one set a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.net(x)}


class Checkpointed(Plain):
    """Runs again in the backward."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


def mlp(smooth: bool = False) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh() if smooth else nn.ReLU(), nn.Linear(8, 4))


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return make()


# net, a tensor or a tuple of them
Case = tuple[Callable[[], nn.Module], Callable[[], Any]]
CASES: dict[str, Case] = {
    "conv": (Plain, lambda: torch.randn(5, 3, 15, 11)),
    "residual": (ResNet, lambda: torch.randn(5, 3, 12, 12)),
    "in place": (partial(Plain, inplace=True), lambda: torch.randn(5, 3, 15, 11)),
    "writes into its input": (InPlace, lambda: torch.randn(5, 6)),
    "vit": (ViT, lambda: torch.randn(5, 3, 16, 16)),
    "lstm": (Sequence, lambda: torch.randn(5, 9, 6)),
    "signal": (partial(Plain, dimensions=1), lambda: torch.randn(5, 3, 21)),
    "volume": (partial(Plain, dimensions=3), lambda: torch.randn(5, 3, 9, 9, 9)),
    "table": (mlp, lambda: torch.randn(5, 6)),
    "two inputs": (Two, lambda: (torch.randn(5, 3, 12, 12), torch.randn(5, 5))),
}
ALL: dict[str, Case] = {**CASES, "tokens": (Text, lambda: torch.randint(0, 20, (5, 7)))}
TARGETS = [torch.tensor([0, 2, 1, 2, 0]), 1, "predicted", lambda output: output[:, 0] - 2 * output[:, 1].tanh()]


def case(name: str) -> tuple[nn.Module, Any]:
    make, draw = ALL[name]
    return seeded(make).train(), draw()


def evaluated(model: nn.Module) -> nn.Module:
    """A copy for a reference to run."""
    return copy.deepcopy(model).eval()


def explained(model: nn.Module, inputs: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """What is explained by default, and the model as a function of it, from its own parts."""
    model = evaluated(model)
    if isinstance(inputs, tuple):
        return inputs[0], lambda x: model(x.clone(), *inputs[1:])
    if inputs.is_floating_point():
        return inputs, lambda x: model(x.clone())
    table = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    vectors = table(inputs).detach()

    def run(x: Tensor) -> Any:
        handle = table.register_forward_hook(lambda *_: x.clone())
        try:
            return model(inputs)
        finally:
            handle.remove()

    return vectors, run


def chosen_scores(output: Tensor, targets: Any) -> Tensor:
    """(N,) scores of one target each."""
    if callable(targets):
        return targets(output)
    classes = output.argmax(1) if isinstance(targets, str) else torch.as_tensor(targets).expand(len(output))
    return torch.stack([row[target] for row, target in zip(output, classes, strict=True)])


def gradient_by_hand(model: nn.Module, inputs: Any, targets: Any) -> Tensor:
    """Of the scores of the classes, at what is explained."""
    x, run = explained(model, inputs)
    x = x.clone().requires_grad_()
    return torch.autograd.grad(chosen_scores(run(x), targets).sum(), x)[0]


# those that need no ReLU; LRP takes no recurrent nets
METHODS: dict[str, Callable[..., Tensor]] = {
    "saliency": functional.saliency,
    "input_x_gradient": functional.input_x_gradient,
    "smooth_grad": partial(functional.smooth_grad, samples=3),
    "integrated_gradients": partial(functional.integrated_gradients, steps=3),
    "expected_gradients": lambda model, inputs, *args, **settings: functional.expected_gradients(
        model, inputs, *args, background=backgrounds(inputs, settings.get("of")), samples=3, **settings
    ),
    "lrp": functional.lrp,
}


def backgrounds(inputs: Any, of: Any = None) -> Tensor:
    """Three, like the samples."""
    tensor = inputs if isinstance(inputs, Tensor) else inputs[of or 0]
    random = torch.Generator("cpu").manual_seed(7)
    if not tensor.is_floating_point():
        return torch.randint(3, 20, (3, *tensor.shape[1:]), generator=random)
    return torch.randn(3, *tensor.shape[1:], generator=random, dtype=torch.float32).to(tensor.dtype)
