"""Layer-wise relevance propagation as a changed gradient.

At every tensor t of the forward, t x c is its relevance, c being what the backward pass carries there. Of what is
linear through the origin, such as ReLU, pooling, sums and moves, the gradient itself is the rule of LRP; of all else
the rule takes the gradient's place. The calls of torch's functions are seen, not modules: a layer is the same however
it is spelled.
"""

from lightning_xai.functional.propagation.composites import COMPOSITES, Composite, composite_of
from lightning_xai.functional.propagation.first import evenly_spread
from lightning_xai.functional.propagation.mode import Propagating, all_seen

__all__ = ["COMPOSITES", "Composite", "Propagating", "all_seen", "composite_of", "evenly_spread"]
