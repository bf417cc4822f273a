"""Which of a model's inputs is masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_xai.functional.layers import close_matches
from lightning_xai.functional.passes.explained import floating_input, token_ids
from lightning_xai.tensors import tensors


def chosen_input(inputs: Any, of: str | int | None) -> Tensor:
    """The first floating-point input, or the token ids where there is none; by its name or place where there is one.

    Raises:
        TypeError: no such tensor, or one that is neither.
        ValueError: an unknown name or place.
    """
    if of is None:
        found = floating_input(inputs)
        found = token_ids(inputs) if found is None else found
        if found is None:
            raise TypeError(
                f"the inputs ({_told(inputs)}) hold neither floating-point numbers nor token ids (N, L) to take away: "
                "give them as floating-point numbers (images.float()), or say with of= which input is explained"
            )
        return found
    parts: Any = inputs if isinstance(inputs, (Mapping, tuple, list)) else [inputs]
    names = list(parts) if isinstance(parts, Mapping) else list(range(len(parts)))
    if of not in names:
        close = close_matches(of, map(str, names)) if isinstance(of, str) else ""
        raise ValueError(f"of={of!r} is none of the inputs.{close} There are {', '.join(map(repr, names))}")
    part = parts[of]
    if not isinstance(part, Tensor) or not (part.is_floating_point() or part is token_ids([part])):
        raise TypeError(
            f"of={of!r} is {_told(part) or type(part).__name__}; expected a floating-point tensor, or token ids (N, L)"
        )
    return part


def _told(inputs: Any) -> str:
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in tensors(inputs))
