"""Nets that do in their forward what a user's might, and a callback's pass must not repeat on the live model."""

from torch import nn


class Trapped(nn.Module):
    """A net that makes its layers in `layers`; a trap adds `setup` after them, and `touch` beside its forward."""

    def __init__(self):
        super().__init__()
        self.layers()
        self.setup()

    def setup(self):
        pass

    def touch(self, x):
        return 0


def trap(kind, setup=None, touch=None, **attributes):
    """A net of this kind with this set-up and this side effect in its forward."""
    methods = {"setup": setup, "touch": touch, **attributes}
    return type("Trap", (kind,), {name: value for name, value in methods.items() if value is not None})()
