"""Attention maps, rollout and relevance beside a plain forward and transformers' eager `output_attentions`.

    python benchmarks/attention.py [--nets vit bert] [--rounds 9] [--device cpu]

Random weights, sdpa attention, one process, one thread; on a CPU, seconds of CPU time. A round runs each contender
once; a ratio is the median of the ratios within a round, with its 95% interval. The plain forward, and the plain
forward and backward, run twice: how far the second row is from 1 is the noise. Memory is the peak beyond the weights
and the input, and how much more that is than the plain one's.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import interleaved, peak_memory, ratio
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from lightning_xai.functional import attention_maps, attention_relevance, attention_rollout_rows

# contender -> (what it is compared with, the goal of the ratio, the goal of the extra MiB)
GOALS = {
    "vit": {"class rows": (1.05, 8), "all maps": (1.15, None), "rollout": (1.15, 150), "relevance": (1.25, 0)},
    "bert": {"class rows": (1.05, 8), "all maps": (1.15, None), "rollout": (1.20, 150), "relevance": (1.25, 0)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="*", choices=GOALS, default=list(GOALS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, one thread, {where}; {args.rounds} rounds")
    for name in args.nets:
        compare(name, args.rounds, device)


def compare(name: str, rounds: int, device: torch.device) -> None:
    torch.manual_seed(0)
    make = {"vit": vit, "bert": bert}[name]
    model, inputs = make("sdpa", device)
    eager, _ = make("eager", device)
    eager.load_state_dict(model.state_dict())
    forwards: dict[str, Callable[[], Any]] = {
        "plain forward": partial(plain, model, inputs),
        "plain forward again": partial(plain, model, inputs),
        "class rows": lambda: attention_maps(model, inputs, queries=[0]),
        "all maps": lambda: attention_maps(model, inputs),
        "rollout": lambda: attention_rollout_rows(model, inputs, rows=[0]),
        "eager maps": partial(plain, eager, {**inputs, "output_attentions": True}),
    }
    backwards: dict[str, Callable[[], Any]] = {
        "forward and backward": partial(trained, model, inputs),
        "forward and backward again": partial(trained, model, inputs),
        "relevance": lambda: attention_relevance(model, inputs, 1, rows=[0]),
        "eager relevance": partial(by_hand, eager, inputs),
    }
    ours, theirs = attention_relevance(model, inputs, 1, rows=[0])[:, 0], by_hand(eager, inputs)
    print(f"\n{name}: relevance differs from the eager one by {float((ours - theirs).abs().max()):.1e}")
    for contenders in (forwards, backwards):
        seconds = interleaved(contenders, rounds, device)
        memory = {contender: peak_memory(run, device) for contender, run in contenders.items()}
        first = next(iter(contenders))
        print(f"{'':28}{'seconds':>8}  {'ratio':>5} {'95%':<13} {'MiB':>7} {'extra':>7}  goal")
        for contender, times in seconds.items():
            found, extra = ratio(times, seconds[first]), memory[contender] - memory[first]
            goal, mib = GOALS[name].get(contender, (None, None))
            wanted = "" if goal is None else f"{goal:.2f} {'met' if found.low <= goal else 'MISSED'}"
            if mib is not None:
                wanted += f", {mib} MiB {'met' if extra <= mib else 'MISSED'}"
            spread = f"{found.low:.3f}-{found.high:.3f}"
            print(
                f"{contender:28}{sorted(times)[len(times) // 2]:8.3f}  {found.median:5.3f} {spread:<13} "
                f"{memory[contender]:7.1f} {extra:7.1f}  {wanted}"
            )


def vit(attention: str, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """A ViT-S: 197 tokens, 12 layers, 6 heads; 8 images."""
    config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=10)  # type: ignore[call-arg]
    config._attn_implementation = attention
    return ViTForImageClassification(config).eval().to(device), {"pixel_values": torch.randn(8, 3, 224, 224).to(device)}


def bert(attention: str, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """A BERT-base: 12 layers, 12 heads; 4 texts of 512 tokens, one of them padded."""
    config = BertConfig(num_labels=2)  # type: ignore[call-arg]
    config._attn_implementation = attention
    mask = torch.ones(4, 512, dtype=torch.long)
    mask[1, 300:] = 0
    inputs = {"input_ids": torch.randint(1000, 30000, (4, 512)), "attention_mask": mask}
    return BertForSequenceClassification(config).eval().to(device), {k: v.to(device) for k, v in inputs.items()}


@torch.no_grad()
def plain(model: nn.Module, inputs: dict[str, Any]) -> Any:
    return model(**inputs)


def trained(model: nn.Module, inputs: dict[str, Any]) -> Any:
    return torch.autograd.grad(model(**inputs).logits[:, 1].sum(), list(model.parameters()), allow_unused=True)


def by_hand(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The class token's row, from the attentions that the model returns."""
    output = model(**inputs, output_attentions=True)
    attentions = output.attentions
    gradients = torch.autograd.grad(output.logits[:, 1].sum(), attentions)
    row = torch.zeros(attentions[0].shape[0], 1, attentions[0].shape[-1], device=attentions[0].device)
    row[:, :, 0] = 1
    for weights, gradient in zip(reversed(attentions), reversed(gradients), strict=True):
        row = row + row @ (gradient * weights).clamp_min(0).mean(1).detach()
    return row[:, 0]


if __name__ == "__main__":
    main()
