"""A reading as tensors and primitives: what a file of the store, and a checkpoint, hold of it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_xai.reading import Measured, Reading
from lightning_xai.storage.manifest import FORMAT
from lightning_xai.storage.reading_file import halve, restored


def reading_state(reading: Reading) -> dict[str, Any]:
    """Tensors and primitives alone; maps take half the bytes (float16 beside their largest value)."""
    return {
        "format": FORMAT,
        "epoch": reading.epoch,
        "step": reading.step,
        "index": reading.index,
        "rows": {key: _pack(tensor) for key, tensor in reading.measured.rows.items()},
        "shared": dict(reading.measured.shared),
        "kept": dict(reading.measured.kept),
        "scalars": dict(reading.scalars),
    }


def reading_from_state(state: Mapping[str, Any]) -> Reading:
    """The reading whose `reading_state` this is.

    Raises:
        ValueError: it is none.
    """
    try:
        epoch, step = operator.index(state["epoch"]), operator.index(state["step"])
        rows = {key: _unpack(packed) for key, packed in state["rows"].items()}
        if state.get("format") == 1:
            rows |= _of_samples(state["shared"], max(map(len, rows.values()), default=1))
        measured = Measured(rows, dict(state["shared"]), dict(state.get("kept", {})))
        return Reading(epoch, step, measured, operator.index(state.get("index", 0)), dict(state.get("scalars", {})))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this is no reading's state: {type(error).__name__}: {error}") from error


def _of_samples(shared: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """What format 1 held of attention for all samples at once, as each sample's part of it."""
    rows = {}
    for key, value in shared.items():
        kind = key.partition("/")[0]
        if kind in ("entropy", "distance", "special"):
            rows[key] = torch.tensor([[float(value), 1.0]] * samples, dtype=torch.float64, device="cpu")
        elif kind in ("decoder", "foreign"):
            rows[key] = torch.ones(samples, dtype=torch.bool, device="cpu")
    return rows


def _pack(tensor: Tensor) -> Tensor | dict[str, Any]:
    tensor = tensor.detach().cpu()
    if tensor.dtype != torch.float32 or tensor.ndim < 2:
        return tensor
    values, largest = halve(tensor.numpy())
    return {"values": torch.from_numpy(values), "largest": largest}


def _unpack(packed: Tensor | Mapping[str, Any]) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    return torch.from_numpy(restored(packed["values"].numpy(), packed["largest"]))
