"""Grad-CAM beside its peers: time, memory and whether the maps agree.

    python benchmarks/grad_cam.py [--quick] [--nets resnet18 vit_tiny] [--rounds 15]

The peers are optional, and need no torchvision (without it, a stub in its place lets them import):

    pip install captum
    pip install --no-deps --target PEERS torchcam grad-cam ttach opencv-python-headless
    PYTHONPATH=PEERS python benchmarks/grad_cam.py

One process, one thread; on a CPU, seconds of CPU time, so that a busy machine does little harm. A round runs each
contender once; a ratio is the median of the ratios within a round, with its 95% interval. The floor is Grad-CAM
written by hand with nothing around it. It runs twice: how far its second row is from 1 is the noise. Memory is the
peak beyond the weights and the input. A difference is the largest one from the floor's maps, as a part of their
maximum; `-` where there are no maps (captum has no layout for tokens). A goal in time is met where the interval
reaches it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from contenders import OWN, difference, importable_peers, plain
from epoch import train_with_grad_cam
from measure import Interval, interleaved, peak_memory, ratio, timed
from nets import NETS, Net
from torch import Tensor, nn

from lightning_xai.functional import grad_cam, inspecting
from lightning_xai.functional.grad_cam import GRADIENT_VARIANTS
from lightning_xai.functional.shadow import shadow

SIZE, BATCH = 224, 8
TIME_GOAL, MEMORY_GOAL, FIVE_GOAL = 1.03, 1.1, 1.1
MAKING_GOAL = 0.15  # ms a module
PERTURBATIONS = (("ablation_cam", "layer4"), ("ablation_cam", "layer3"), ("score_cam", "layer4"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds of two nets, a short training")
    parser.add_argument("--nets", nargs="*", choices=NETS, help="all by default; none to skip this part")
    parser.add_argument("--rounds", type=int, help="15, with --quick 6 (the fewest that give a 95%% interval)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    names = args.nets if args.nets is not None else ["resnet18", "vit_tiny"] if args.quick else list(NETS)
    rounds = args.rounds or (6 if args.quick else 15)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, one thread, {where}; {rounds} rounds, {BATCH} images of {SIZE} x {SIZE}")
    for name in names:
        compare(name, rounds, device)
    compare_variants(3 * rounds, not args.quick, device)
    show_share_of_an_epoch(*((1024, 2) if args.quick else (4096, 5)), device)


def compare(name: str, rounds: int, device: torch.device) -> None:
    """One net: everyone's time, memory and maps; then five classes of one image."""
    net = NETS[name]
    model = net.build().to(device).eval()
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    labels = torch.arange(BATCH, device=device)
    peers, absent = importable_peers()
    runs = {title: partial(contender, model, net, images, labels) for title, contender in {**OWN, **peers}.items()}
    seconds = interleaved(runs, rounds, device)
    memory = {title: peak_memory(run, device) for title, run in runs.items()}
    reference = runs["floor"]()

    head = f"{name} at {net.layer}"
    print(f"\n{head:<28} {'ms':>8}   {'time / floor':<22} {'peak MiB':>9} {'/ no_grad':>10}   difference")
    for title, run in runs.items():
        apart = difference(title, run(), reference)
        print(
            f"  {title:<26} {1e3 * median(seconds[title]):8.1f}   {shown(ratio(seconds[title], seconds['floor'])):<22} "
            f"{memory[title]:9.1f} {memory[title] / memory['no_grad forward']:10.2f}   "
            f"{'-' if apart is None else f'{apart:.0e}'}"
        )
    for peer, why in absent.items():
        print(f"  {peer:<26} absent: {why}")
    guard = median(timed(partial(guarded_nothing, model), device) for _ in range(20))
    print(f"  the guard alone takes {1e3 * guard:.2f} ms, {guard / median(seconds['floor']):.2%} of the floor")
    show_shadow(model, net, images, labels, rounds, device)

    image, classes = images[:1], torch.arange(5, device=device)[None]
    one: dict[str, Callable[[], Any]] = {
        "forward": partial(plain, model, net, image, labels),
        "five classes": partial(grad_cam, model, image, classes, layer=net.layer),
    }
    one_seconds = interleaved(one, 3 * rounds, device)
    overhead = ratio(seconds["ours"], seconds["floor"])
    share = memory["ours, layer not named"] / memory["no_grad forward"]
    forwards = ratio(one_seconds["five classes"], one_seconds["forward"])
    print(f"  time over the floor: {shown(overhead)}{verdict(overhead.low <= TIME_GOAL, TIME_GOAL)}")
    if net.convolutional:
        print(f"  memory over a no_grad forward: {share:.2f}{verdict(share <= MEMORY_GOAL, MEMORY_GOAL)}")
        print(f"  five classes of an image: {shown(forwards)} forwards{verdict(forwards.low <= FIVE_GOAL, FIVE_GOAL)}")
    else:
        print(f"  five classes of an image: {shown(forwards)} forwards")


def show_shadow(model: nn.Module, net: Net, images: Tensor, labels: Tensor, rounds: int, device: torch.device) -> None:
    """What a reading of a callback runs on: what it takes to make one, and Grad-CAM on it beside the floor."""
    modules = len(list(model.modules()))
    made = median(timed(partial(shadow, model), device) for _ in range(20)) / modules
    runs = {
        "floor": partial(OWN["floor"], model, net, images, labels),
        "on a shadow": partial(grad_cam, shadow(model), images, labels, layer=net.layer),
    }
    seconds = interleaved(runs, rounds, device)
    over = ratio(seconds["on a shadow"], seconds["floor"])
    print(f"  on a shadow, time over the floor: {shown(over)}{verdict(over.low <= TIME_GOAL, TIME_GOAL)}")
    met = verdict(1e3 * made <= MAKING_GOAL, MAKING_GOAL)
    print(f"  making it: {1e3 * made:.3f} ms a module, {modules} modules{met}")


def guarded_nothing(model: nn.Module) -> None:
    with inspecting(model):
        pass


def compare_variants(rounds: int, perturbation: bool, device: torch.device) -> None:
    """The variants' times on one image; ablation has a closed form at layer4, and runs the tail behind layer3."""
    model = NETS["resnet18"].build().to(device).eval()
    image = torch.randn(1, 3, SIZE, SIZE, device=device)

    def run(variant: str, layer: str = "layer4") -> Callable[[], Any]:
        return partial(grad_cam, model, image, 0, layer=layer, variant=variant)

    seconds = interleaved({variant: run(variant) for variant in GRADIENT_VARIANTS}, rounds, device)
    print(f"\n{'variants, resnet18, 1 image':<28} {'ms':>8}   time / grad_cam")
    for variant, spent in seconds.items():
        print(f"  {variant:<26} {1e3 * median(spent):8.1f}   {shown(ratio(spent, seconds['grad_cam']))}")
    for variant, layer in PERTURBATIONS if perturbation else ():
        once = timed(run(variant, layer), device)
        share = once / median(seconds["grad_cam"])
        print(f"  {f'{variant}, {layer}':<26} {1e3 * once:8.1f}   {share:.1f}, run once")


def show_share_of_an_epoch(images: int, epochs: int, device: torch.device) -> None:
    """The callback in a real training."""
    measured = train_with_grad_cam(images, epochs, device)
    shares = [mine / whole for mine, whole in zip(measured.callback, measured.seconds, strict=True)]
    data = f"{images} + {images // 4} images of 32 x 32"
    print(f"\nGradCAM(background=False), {epochs} epochs of {data}, TensorBoard")
    print(f"  an epoch takes {median(measured.seconds):.1f} s, of it GradCAM {1e3 * median(measured.callback):.0f} ms")
    print(f"  share of an epoch: {median(shares):.2%}; by epoch {', '.join(f'{share:.2%}' for share in shares)}")


def shown(ratio: Interval) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def verdict(met: bool, goal: float) -> str:
    return f"   goal {goal}: {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    main()
