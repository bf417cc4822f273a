"""Occlusion, KernelSHAP and LIME beside their forwards and beside captum: time, memory, agreement, error.

    python benchmarks/masked.py [--quick] [--nets resnet18 resnet50] [--rounds 9]

captum and scikit-learn are optional: without them, the floor alone is compared with.

One process, one thread; on a CPU, seconds of CPU time. A round runs each contender once; a ratio is the median of the
ratios within a round, with its 95% interval. The floor is as many forwards of as many rows, of images that are there
already: it masks nothing. It runs twice: how far its second row is from 1 is the noise. A shadow of the model is what
callbacks run on. captum runs once as it does by default, one mask at a time, and with batches as large as ours; it
takes KernelSHAP and LIME one image at a time. Memory is the peak beyond the weights and the images. A difference is
the largest one from captum's maps, as a part of their maximum: captum's LIME is given our masks, its KernelSHAP draws
its own, so that their errors are compared below.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any, NamedTuple

import torch
from measure import Interval, interleaved, peak_memory, ratio, timed
from nets import NETS
from torch import Tensor, nn

from lightning_xai.functional import kernel_shap, lime, occlusion
from lightning_xai.functional.masks import neighbours
from lightning_xai.functional.shadow import shadow

BATCH = 32
TIME_GOAL, PEER_GOAL, MASKS_GOAL = 1.05, 1.25, 2
COLUMNS = 12
EQUAL = "captum, batches as ours"


class Setting(NamedTuple):
    """How large the images are, how many, and into how many cells and masks they go."""

    side: int
    images: int
    cells: int
    masks: int


QUICK, WHOLE = Setting(64, 2, 4, 32), Setting(96, 4, 8, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds of one net with small images")
    parser.add_argument("--nets", nargs="*", choices=("resnet18", "resnet50"), help="resnet18 by default")
    parser.add_argument("--rounds", type=int, help="9, with --quick 6 (the fewest that give a 95%% interval)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, setting = torch.device(args.device), QUICK if args.quick else WHOLE
    rounds = args.rounds or (6 if args.quick else 9)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", "You are providing multiple inputs")

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, load {os.getloadavg()[0]:.1f}"
    print(
        f"torch {torch.__version__}, one thread, {where}; {rounds} rounds, {setting.images} images of "
        f"{setting.side} x {setting.side}, {setting.cells} x {setting.cells} cells, batches of {BATCH}"
    )
    for name in args.nets or ["resnet18"]:
        compare(name, setting, rounds, device)
    show_errors(rounds=2 if args.quick else 8)


def compare(name: str, setting: Setting, rounds: int, device: torch.device) -> None:
    """One net, method by method: the forwards alone, ours, captum's."""
    model = NETS[name].build().to(device).eval()
    images = torch.randn(setting.images, 3, setting.side, setting.side, device=device)
    labels = torch.arange(setting.images, device=device)
    features = setting.cells**2
    common: dict[str, Any] = {"cells": setting.cells, "batch_size": BATCH}
    methods: dict[str, tuple[int, Callable[..., Tensor]]] = {
        "occlusion": (features + 1, partial(occlusion, **common)),
        "kernel_shap": (2 * features + 2, partial(kernel_shap, **common)),
        "lime": (setting.masks, partial(lime, masks=setting.masks, **common)),
    }
    around = shadow(model)
    for method, (forwards, function) in methods.items():
        ours = partial(function, model, images, labels)
        floor = partial(forwards_alone, model, images, forwards)
        peer = captum_of(method, model, images, labels, setting)
        runs: dict[str, Callable[[], Any]] = {"floor": floor, "floor again (A/A)": floor, "ours": ours}
        runs["ours, on a shadow"] = partial(function, around, images, labels)
        if peer is not None:
            # captum's KernelSHAP and LIME see one image at a time
            at_once = BATCH // len(images) if method == "occlusion" else BATCH
            runs[EQUAL] = partial(peer, perturbations_per_eval=at_once)
        seconds = interleaved(runs, rounds, device)
        print(f"\n{f'{name}, {method}, {forwards} forwards':<36} {'ms':>8}   {'time / floor':<22} {'peak MiB':>9}")
        for title, run in runs.items():
            spent = shown(ratio(seconds[title], seconds["floor"]))
            print(f"  {title:<34} {1e3 * median(seconds[title]):8.1f}   {spent:<22} {peak_memory(run, device):9.1f}")
        over = ratio(seconds["ours"], seconds["floor"])
        print(f"  time over its forwards: {shown(over)}{verdict(over.low <= TIME_GOAL, TIME_GOAL)}")
        if peer is not None:
            faster = timed(peer, device) / median(seconds["ours"])
            print(f"  captum's time over ours: {faster:.2f}, run once{verdict(faster >= PEER_GOAL, PEER_GOAL)}")
            print(f"  with batches as ours: {shown(ratio(seconds[EQUAL], seconds['ours']))}")
            if method != "kernel_shap":
                size = (setting.side // setting.cells) ** 2 * 3  # captum gives each number of a cell its whole value
                theirs = peer()
                apart = float((ours() * size - theirs).abs().max() / theirs.abs().max())
                print(f"  difference from captum's maps: {apart:.0e}")


def forwards_alone(model: nn.Module, images: Tensor, forwards: int) -> None:
    """As many rows in as many batches, none of them masked."""
    rows = torch.arange(forwards * len(images), device=images.device) % len(images)
    batch = images[rows[:BATCH]]
    with torch.no_grad():
        for part in rows.split(BATCH):
            model(batch[: len(part)])


def captum_of(
    method: str, model: nn.Module, images: Tensor, labels: Tensor, setting: Setting
) -> Callable[..., Tensor] | None:
    """captum's with as many forwards, or None where it is not installed."""
    try:
        attr = import_module("captum.attr")
        linear = import_module("captum._utils.models.linear_model")
        import_module("sklearn")
    except ImportError:
        return None
    cell = torch.arange(setting.side, device=images.device) * setting.cells // setting.side
    features = (cell[:, None] * setting.cells + cell)[None, None]
    settings: dict[str, Any] = {"target": labels, "feature_mask": features}
    if method == "occlusion":
        return partial(attr.FeatureAblation(model).attribute, images, **settings)
    if method == "kernel_shap":
        samples = 2 * setting.cells**2 + 2
        return partial(attr.KernelShap(model).attribute, images, n_samples=samples, **settings)
    bank = neighbours(setting.cells**2, setting.masks, 0.25, 1.0, 0)
    masks = torch.cat([torch.ones_like(bank.masks[:1]), bank.masks]).float().to(images.device)

    def same_masks(original: Any, **_: Any) -> Iterator[Tensor]:
        yield from masks[:, None]

    def similarity(original: Any, perturbed: Any, mask: Tensor, **_: Any) -> float:
        distance = 1 - float(mask.mean().sqrt())
        return float(torch.tensor(-(distance**2) / (2 * 0.25**2)).exp())

    ridge = linear.SkLearnRidge(alpha=1.0)
    method_ = attr.Lime(model, interpretable_model=ridge, similarity_func=similarity, perturb_func=same_masks)
    return partial(method_.attribute, images, n_samples=setting.masks, **settings)


def show_errors(rounds: int) -> None:
    """KernelSHAP of a table against all coalitions, ours beside captum's with more masks."""
    try:
        shap = import_module("captum.attr").KernelShap
        import_module("sklearn")
    except ImportError as missing:
        print(f"\nno errors of captum's KernelSHAP: {missing}")
        return
    torch.manual_seed(2)
    deep = [nn.Linear(COLUMNS, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)]
    model, table = nn.Sequential(*deep).eval(), 2 * torch.randn(6, COLUMNS)
    truth = kernel_shap(model, table, 1, masks=2**COLUMNS - 2, batch_size=1024)

    def ours(masks: int, seed: int) -> Tensor:
        return kernel_shap(model, table, 1, masks=masks, seed=seed, batch_size=1024)

    def captum(masks: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return shap(model).attribute(table, target=1, n_samples=masks, perturbations_per_eval=1024)

    def error(method: Callable[[int, int], Tensor], masks: int) -> float:
        found = [method(masks, seed) for seed in range(rounds)]
        return sum(float((values - truth).norm() / truth.norm()) for values in found) / rounds

    head = f"KernelSHAP of {COLUMNS} columns, relative error"
    print(f"\n{head:<44} {'ours':>7} {'captum, twice':>14} {'four times':>11}")
    for masks in (2 * COLUMNS, 4 * COLUMNS, 8 * COLUMNS):
        mine, twice, four = error(ours, masks), error(captum, 2 * masks), error(captum, 4 * masks)
        met = verdict(mine <= twice, MASKS_GOAL)
        print(f"  {f'{masks} masks':<42} {mine:7.3f} {twice:14.3f} {four:11.3f}{met}")


def shown(ratio: Interval) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def verdict(met: bool, goal: float) -> str:
    return f"   goal {goal}: {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    main()
