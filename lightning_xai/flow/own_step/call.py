"""The call that a reading makes: of a module by itself, or of the whole step, ended where its output is at hand."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lightning_xai.flow.namespaces import LightningModule
from lightning_xai.flow.own_step.arguments import Fed, Signature
from lightning_xai.flow.own_step.watch import Context, Watched, watch
from lightning_xai.functional.layers import unwrapped_names
from lightning_xai.tensors import Path, at, find

Taken: TypeAlias = Literal["values", "partner", "pair", "calls", "output"]
"""What is taken from the place where the step ends: the loss's input; of each row of it the target's entry, or with
``"pair"`` the cosine with the target's row; the cosine of the outputs of the first two calls; the last call's output.
"""


@dataclass(frozen=True)
class Call:
    """How inputs become an output.

    Args:
        step: the method that was watched.
        module: the name of the module that is fed; ``""`` for the LightningModule.
        number: of its call among those of the model.
        signature: how inputs become its arguments; None where the step makes them anew each time.
        path: where in its output the loss's input is; None where the step is repeated.
        judged: how many losses and metrics come before the one that says what the output means; None without.
        taken: what is taken where the step ends.
        calls: of the model, after which it ends, where no loss or metric says so.
    """

    step: str
    module: str
    number: int
    signature: Signature | None
    path: Path | None
    judged: int | None = None
    taken: Taken = "values"
    calls: int = 1

    @property
    def repeats_step(self) -> bool:
        """Whether the step is run, not the module alone."""
        return self.path is None or self.signature is None

    def output(self, model: LightningModule, inputs: Any, context: Context = nullcontext) -> Any:
        """What the module returns, or what is taken from the step, of these inputs."""
        fed = inputs if isinstance(inputs, Fed) else Fed(inputs)
        arguments = None if self.signature is None else self.signature.arguments(fed.arguments)
        if not self.repeats_step:
            assert arguments is not None
            module = dict(unwrapped_names(model))[self.module]
            with context():
                return module(*arguments[0], **arguments[1])
        return self.taken_from(watch(model, fed.batch, self.step, self.is_over, context=context, fed=arguments))

    def values(self, output: Any) -> Any:
        """What the task is about, in an output."""
        return output if self.repeats_step or self.path is None else at(output, self.path)

    def is_over(self, watched: Watched) -> bool:
        """Whether the step has come to the place."""
        if self.judged is not None:
            return len(watched.judged) > self.judged
        ready = [call for call in watched.of_model if call.output is not None]
        return len(ready) >= self.calls

    def taken_from(self, watched: Watched) -> Any:
        """What is taken from a step that has come to the place.

        Raises:
            ValueError: it has not.
        """
        if not self.is_over(watched):
            raise ValueError(f"{self.step} went another way than before: it ended without {self.place}")
        if self.judged is None:
            outputs = [call.output for call in watched.of_model]
            return cosine(outputs[0], outputs[1]) if self.taken == "calls" else outputs[self.calls - 1]
        judged = watched.judged[self.judged]
        if self.taken == "pair":
            return cosine(judged.values, judged.target)
        if self.taken == "partner":
            return partner(judged.values, judged.target)
        return judged.values

    @property
    def place(self) -> str:
        """Where it ends, in words."""
        return "a call of its model" if self.judged is None else "the loss that says what its output means"


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """(N,) the similarity of each row to its partner's."""
    return torch.cosine_similarity(first.flatten(1), second.flatten(1))


def partner(similarities: Tensor, target: Tensor) -> Tensor:
    """(N,) the entry of each row that its target names."""
    return similarities.gather(1, target[:, None])[:, 0]


def origin_of(values: Tensor, output: Any) -> Path | None:
    """Where in an output a loss's input is, as it is, in another shape or in another precision."""
    return find(output, lambda tensor: _is_same(tensor, values))


def _is_same(tensor: Tensor, values: Tensor) -> bool:
    if tensor.numel() != values.numel() or not tensor.is_floating_point():
        return False
    if tensor.dtype != values.dtype:
        return torch.equal(tensor.flatten().to(values.dtype), values.flatten())
    contiguous = tensor.is_contiguous() and values.is_contiguous()
    return tensor.data_ptr() == values.data_ptr() and (contiguous or tensor.shape == values.shape)
