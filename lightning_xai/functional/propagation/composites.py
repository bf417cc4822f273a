"""Which rule goes with which layers."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_xai.functional.layers import close_matches
from lightning_xai.functional.propagation.rules import Rule, alpha_beta, flat


@dataclass(frozen=True)
class Composite:
    """A rule for each kind of layer; None is the epsilon rule, which is the layer's own gradient, damped.

    Args:
        convolution: of convolutions.
        dense: of matrix products with constants.
        first: of the first layers that the input passes.
        damped: False for LRP-0: the gradient is not even damped.
    """

    convolution: Rule | None = None
    dense: Rule | None = None
    first: Rule | None = None
    damped: bool = True


COMPOSITES: dict[str, Composite] = {
    "epsilon_plus": Composite(convolution=alpha_beta(1, 0)),
    "epsilon": Composite(),
    "zero": Composite(damped=False),
    "alpha1_beta0": Composite(convolution=alpha_beta(1, 0), dense=alpha_beta(1, 0)),
    "alpha2_beta1": Composite(convolution=alpha_beta(2, 1), dense=alpha_beta(2, 1)),
    "epsilon_plus_flat": Composite(convolution=alpha_beta(1, 0), first=flat),
}


def composite_of(rule: str) -> Composite:
    """The composite of this name. Raises ValueError for one that there is none of, with the close ones."""
    if rule not in COMPOSITES:
        names = ", ".join(COMPOSITES)
        raise ValueError(f"there is no rule {rule!r}.{close_matches(rule, COMPOSITES)} Rules: {names}.")
    return COMPOSITES[rule]
