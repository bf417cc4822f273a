"""One measurement of the whole probe: on a shadow, in the guarded pass, a chunk of samples at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_xai.flow.explainer import Explainer
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.flow.namespaces import LightningModule, Trainer
from lightning_xai.flow.session import session_of
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.functional.passes.outputs import logits, predict
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured

KEPT_BYTES = 64
"""What every reading of a run may keep of a sample."""


def measure(explainer: Explainer, trainer: Trainer, pl_module: LightningModule) -> Measured:
    """What the explanation measures of its probe now, on the CPU."""
    state = explainer.state
    assert state.probe is not None
    shadows = session_of(trainer).shadows
    with (
        shadows.shadow(trainer, pl_module, explainer.forward, explainer.say) as (stand_in, model, forward),
        inspecting(model),
    ):
        run = ModelRun(stand_in, model, forward, state.batch_structure)
        if state.prepared is None:
            state.prepared = _at_hand(run.prepare(state.probe), explainer.batch_size)
        return measure_with(explainer, run, state.prepared, state.history.kept)


def measure_with(explainer: Explainer, run: ModelRun, probe: Probe, earlier: Mapping[str, Tensor]) -> Measured:
    """What the explanation measures of a prepared probe with this run, on the CPU.

    Args:
        explainer: whose `prepare` and `measure` are called.
        run: runs the model.
        probe: all samples.
        earlier: ``Measured.kept`` of the last reading, (N, ...) each.

    Raises:
        ValueError: rows that are not one a sample, or more than 64 bytes a sample in ``kept``.
    """
    run.shared = explainer.prepare(run, probe)
    parts = []
    for chunk in _chunks(probe, explainer.batch_size):
        parts += list(_measure_in_parts(explainer, run, chunk, earlier))
    rows, kept = (_join([getattr(part, field) for part in parts]) for field in ("rows", "kept"))
    size = sum(tensor[0].numel() * tensor.element_size() for tensor in kept.values())
    if size > KEPT_BYTES:
        raise ValueError(
            f"{type(explainer).__name__} keeps {size} bytes a sample of every reading, {KEPT_BYTES} at most are "
            "kept: return the rest as rows"
        )
    return Measured(rows, _on_cpu(run.shared), kept)


def _measure_in_parts(
    explainer: Explainer, run: ModelRun, chunk: Probe, earlier: Mapping[str, Tensor]
) -> Iterator[Measured]:
    """The chunk's parts: itself, or where memory runs out its halves."""
    try:
        yield _measure_chunk(explainer, run, chunk, earlier)
        return
    except RuntimeError as error:
        if not _out_of_memory(error) or len(chunk) == 1:
            raise
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    half = (len(chunk) + 1) // 2
    explainer.say(f"memory ran out with {len(chunk)} samples at a time, so {half} are tried: batch_size= sets it")
    for part in (chunk.part(slice(half)), chunk.part(slice(half, None))):
        yield from _measure_in_parts(explainer, run, part, earlier)


def _measure_chunk(explainer: Explainer, run: ModelRun, chunk: Probe, earlier: Mapping[str, Tensor]) -> Measured:
    here = chunk.to(run.device)
    run.earlier = {key: tensor[chunk.positions].to(run.device) for key, tensor in earlier.items()}
    run.answer()
    run.rows = {}
    measured = explainer.measure(run, here)
    rows, kept = {**measured.rows, **run.rows}, dict(measured.kept)
    for key, tensor in (*rows.items(), *kept.items()):
        if tensor.ndim == 0 or len(tensor) != len(chunk):
            raise ValueError(
                f"{type(explainer).__name__} measured {key!r} of shape {tuple(tensor.shape)} of {len(chunk)} "
                "samples: the first dimension of rows is the samples, what is computed once belongs to prepare()"
            )
    if (output := run.answer()) is not None:
        answers = _answers(output, here, explicit=callable(explainer.target))
        rows |= {key: answers[key] for key in ("prediction", "confidence")}
        kept |= {"prediction": answers["prediction"].int(), "probability": answers["probability"]}
    return Measured(_on_cpu(rows), {}, _on_cpu(kept))


def _answers(output: Any, probe: Probe, *, explicit: bool) -> dict[str, Tensor]:
    """``prediction``, its ``confidence`` and the ``probability`` of the label, each (N,); -1 and NaN where the output
    has no classes and the user says what is explained."""
    unknown = torch.full((len(probe),), math.nan, device="cpu", dtype=torch.float32)
    try:
        prediction, confidence = predict(output)
    except (TypeError, ValueError):
        if not explicit:
            raise
        return {
            "prediction": torch.full((len(probe),), -1, dtype=torch.long, device="cpu"),
            "confidence": unknown,
            "probability": unknown,
        }
    probability = _label_probability(output, probe, unknown)
    return {"prediction": prediction, "confidence": confidence, "probability": probability}


def _label_probability(output: Any, probe: Probe, unknown: Tensor) -> Tensor:
    if probe.targets is None:
        return unknown
    values = logits(output).detach().float()
    if values.ndim == 1 or values.shape[1] == 1:  # one logit: that of class 1
        positive = values.flatten().sigmoid()
        shares = torch.stack([1 - positive, positive], 1)
    else:
        shares = values.softmax(1)
    inside = (probe.targets >= 0) & (probe.targets < shares.shape[1])
    probability = shares.gather(1, probe.targets.clamp(0, shares.shape[1] - 1)[:, None])[:, 0]
    return torch.where(inside, probability, torch.full_like(probability, math.nan))


def _chunks(probe: Probe, size: int) -> list[Probe]:
    """Parts of at most ``size`` samples, as even as can be: some heads cannot take a last one alone."""
    count = -(-len(probe) // size)
    ends = [round(index * len(probe) / count) for index in range(count + 1)]
    return [probe.part(slice(start, end)) for start, end in pairwise(ends)]


def _at_hand(probe: Probe, batch_size: int) -> Probe:
    """On the device where it is one chunk, else on the CPU: a large probe would take the room of the training."""
    return probe if len(probe) <= batch_size else probe.to("cpu")


def _join(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Rows in the order of the samples; what not every chunk has is left out."""
    keys = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: torch.cat([part[key] for part in parts]) for key in keys}


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu() for key, tensor in tensors.items()}


def _out_of_memory(error: RuntimeError) -> bool:
    # on a CPU the allocator has no class of its own for it
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
