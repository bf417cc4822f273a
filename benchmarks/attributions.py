"""Attributions beside their floor and their peers: time, memory, and whether the numbers agree.

    python benchmarks/attributions.py [--quick] [--methods lrp smooth_grad] [--rounds 9] [--device cpu]

The peers are optional; zennit needs no torchvision:

    pip install captum
    pip install --no-deps --target PEERS zennit
    PYTHONPATH=PEERS python benchmarks/attributions.py

A ResNet-18 with random weights and BatchNorms that have moved, and a VGG for what captum knows of no other net. One
process, one thread; on a CPU, seconds of CPU time. A round runs each contender once; a ratio is the median of the
ratios within a round, with its 95% interval. The floor is the forwards and backwards that a method cannot do without,
with nothing around them. It runs twice: how far the second is from 1 is the noise. Peers have the same batch size, but
for their memory, which is that of their defaults. A difference is the largest one, as a part of the largest value; `-`
where the numbers are others by design, as captum draws noise of its own. A goal in time is met where the interval
reaches it; small images have none.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from statistics import median

import torch
from attribution_rows import Row, Setting, field_rows
from measure import Contenders, Interval, interleaved, peak_memory, ratio
from nets import NETS
from torch import Tensor, nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, few steps and rounds")
    parser.add_argument("--methods", nargs="*", help="rows whose names start so; all by default")
    parser.add_argument("--rounds", type=int, help="9, with --quick 6 (the fewest that give a 95%% interval)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, rounds = torch.device(args.device), args.rounds or (6 if args.quick else 9)
    torch.set_num_threads(1)
    samples, size, steps, batch = (2, 48, 8, 16) if args.quick else (8, 128, 32, 32)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, one thread, {where}; {rounds} rounds, {samples} images of {size} x {size},")
    print(f"{steps} steps in batches of {batch}; ratios with their 95% intervals")
    head = f"{'ms':>8} {'/ floor':<21} {'A/A':>6} {'off':>6}   {'peer / ours':<21} {'off':>6}   {'MiB':>6} {'peer':>7}"
    print(f"\n{'':<22}{head}")
    settings = [setting(make, samples, size, steps, batch, device) for make in (NETS["resnet18"].build, Vgg)]
    for name, row in field_rows(*settings).items():
        if args.methods is None or name.startswith(tuple(args.methods)):
            compare(name, row, rounds, device, not args.quick)


def compare(name: str, row: Row, rounds: int, device: torch.device, goals: bool) -> None:
    runs: Contenders = {"ours": row.ours, "floor": row.floor, "again": row.floor}
    if row.peer is not None:
        runs = {**runs, "peer": row.peer}
    seconds = interleaved(runs, rounds, device)
    over, again = (ratio(seconds[contender], seconds["floor"]) for contender in ("ours", "again"))
    found = row.ours()
    off = difference(found, row.floor()) if row.exact else "-"
    line = f"{name:<22}{1e3 * median(seconds['ours']):8.1f} {shown(over):<21} {again.median:6.3f} {off:>6}   "
    verdict = f"goal {row.goal}: {'met' if over.low <= row.goal else 'MISSED'}"
    memory, theirs = f"{peak_memory(row.ours, device):6.1f}", ""
    if row.peer is not None:
        slower = ratio(seconds["peer"], seconds["ours"])
        off = difference(found, row.peer()) if row.equal else "-"
        theirs = f"{peak_memory(row.peer_default or row.peer, device):7.1f}"
        line += f"{shown(slower):<21} {off:>6}   {memory} {theirs}"
        if row.faster is not None:
            verdict += f", peer {row.faster}: {'met' if slower.high >= row.faster else 'MISSED'}"
    else:
        line += f"{'':<28}   {memory} {'':>7}"
    print(f"{line}   {verdict if goals else ''}".rstrip(), flush=True)


def difference(found: Tensor, other: Tensor) -> str:
    return f"{float((found - other).abs().max() / other.abs().max()):.0e}"


def shown(ratio: Interval) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def setting(
    make: Callable[[], nn.Module], samples: int, size: int, steps: int, batch: int, device: torch.device
) -> Setting:
    torch.manual_seed(0)
    model, random = make().eval(), torch.Generator("cpu").manual_seed(1)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        mean.copy_(torch.randn(mean.shape, generator=random) * 0.3)
        variance.copy_(torch.rand(variance.shape, generator=random) + 0.5)
    images = torch.randn(samples, 3, size, size, generator=random).to(device)
    return Setting(model.requires_grad_(False).to(device), images, torch.arange(samples, device=device), steps, batch)


class Vgg(nn.Module):
    """Without BatchNorm, and with a ReLU of its own behind each layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, out in ((3, 32), (32, 64), (64, 128), (128, 128)):
            layers += [nn.Conv2d(channels, out, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers, self.pool, self.head = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Linear(128, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.layers(x)).flatten(1))


if __name__ == "__main__":
    main()
