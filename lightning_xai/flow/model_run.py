"""The one place that runs the user's model: it knows the strategy, the precision and how inputs become an output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_xai.batches import join_batch
from lightning_xai.flow.import_paths import import_object
from lightning_xai.flow.namespaces import NAMESPACES, LightningModule, Trainer
from lightning_xai.foreign.lightning import before_transfer
from lightning_xai.functional.passes.outputs import call
from lightning_xai.probe import Probe
from lightning_xai.tensors import map_tensors

Forward: TypeAlias = "str | Callable[[Any, Any], Any] | None"
"""How inputs become an output: None for the module's forward, a method's name, or a function of (model, inputs)."""


class ModelRun:
    """One forward of the model, the way this Trainer needs it: ``run(inputs) -> output``.

    ``run.model`` is the plain module, for names and hooks; ``run.shared`` what `prepare` returned, ``run.aside`` what
    it left there that is no tensor; ``run.rows`` takes rows beside those that `measure` returns; ``run.earlier`` is
    what the last reading kept of the samples that are measured now, empty in the first.

    Args:
        trainer: whose strategy and precision it follows: the shadow's where it is one.
        model: the module that is explained: the one that is trained, or its shadow.
        forward: how inputs become an output.
        structure: a batch of this run, in whose structure the transfer hooks take their batches.
    """

    def __init__(
        self, trainer: Trainer, model: LightningModule, forward: Forward = None, structure: Any = None
    ) -> None:
        self.model: torch.nn.Module = model
        self.device: torch.device = trainer.strategy.root_device
        self._structure = structure
        self._trainer = trainer
        self._forward = find_forward(model, forward)
        self.shared: Mapping[str, Tensor] = {}
        self.aside: dict[str, Any] = {}
        self.rows: dict[str, Tensor] = {}
        self.earlier: Mapping[str, Tensor] = {}
        self._answers: list[Any] = []

    def __call__(self, inputs: Any) -> Any:
        inputs = map_tensors(inputs, torch.clone)  # a forward may write to them, and they are needed again
        with self._trainer.precision_plugin.forward_context():
            return self._forward(self._entrance(), inputs)

    def on_probe(self, inputs: Any) -> Any:
        """The same for all samples that are measured now: of its first output the flow keeps what the model answers."""
        output = self(inputs)
        if not self._answers:
            self._answers.append(output)
        return output

    def answer(self) -> Any:
        """The output of the first `on_probe` since this was last asked, None where there was none."""
        return self._answers.pop() if self._answers else None

    def _entrance(self) -> Any:
        # FSDP1 gathers its weights in the wrapper's forward alone; every other strategy takes the plain module
        sharded = type(self._trainer.strategy.model).__name__ == "FullyShardedDataParallel"
        return self._trainer.strategy.model if sharded else self.model

    def prepare(self, probe: Probe) -> Probe:
        """The probe on the model's device, through the same conversions and hooks as a batch of this run."""
        if probe.prepared:
            return probe.to(self.device)
        unknown = torch.zeros(len(probe), dtype=torch.long, device="cpu")
        batch = join_batch(probe.inputs, unknown if probe.targets is None else probe.targets, self._structure)
        batch = self._trainer.precision_plugin.convert_input(batch)
        batch = before_transfer(self._trainer.lightning_module, batch)
        batch = self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        prepared = Probe.from_batch(batch)
        inputs = map_tensors(prepared.inputs, lambda t: t.detach())
        return replace(probe.to(self.device), inputs=inputs, masks=None, prepared=True)


def find_forward(model: LightningModule, forward: Forward) -> Callable[[Any, Any], Any]:
    """What ``forward=`` means for this model, as a function of (model, inputs).

    Raises:
        ValueError: where the module defines no forward, or has no method of that name.
    """
    if callable(forward):
        return forward
    if forward is None:
        if type(model).forward in {namespace.LightningModule.forward for namespace in NAMESPACES}:
            raise ValueError(
                f"{type(model).__name__} defines no forward(), so its inputs cannot be explained: define one that "
                "returns logits, or give forward= the name of a method that does, or a function of (model, inputs)"
            )
        return call
    if "." in forward or ":" in forward:
        imported: Callable[[Any, Any], Any] = import_object(forward)
        return imported
    method = getattr(type(model), forward, None)
    if not callable(method):
        raise ValueError(
            f"forward={forward!r} is no method of {type(model).__name__}: give the name of one that takes the "
            "probe's inputs, a function of (model, inputs), or its import path as 'module:function'"
        )
    return lambda module, inputs: call(getattr(module, forward), inputs)
