"""Torch has no public way to ask a module for its hooks."""

from torch import nn

KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def hooks_of(model: nn.Module) -> dict[str, int]:
    """The modules that have hooks, and how many."""
    counts = {name: sum(len(getattr(module, kind)) for kind in KINDS) for name, module in model.named_modules()}
    return {name: count for name, count in counts.items() if count}
