"""Concept scores beside their peers: time, memory and whether the answers agree.

    python benchmarks/tcav.py [--quick] [--pairs 3]

The peers are optional: pip install captum scikit-learn

One process, one thread, seconds of CPU time. A ResNet-18 with random weights, 5 concepts and 10 random sets of 50
images each, two layers with 50,176 and 25,088 features, 16 probes of each of two classes. Ours fits all concept
and random pairs, the pairs of random sets that the significance needs, and 20 resampled fits of each pair; the
peers fit the 100 concept and random pairs only. Their fits are timed on a few pairs and multiplied, which the table
says by `x`. Captum's whole reading is run with a closed-form classifier, ridge, so that its answers can be compared;
its default is the same with the measured difference between the two classifiers added for each pair.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from statistics import median
from typing import Any

import torch
from measure import peak_memory, timed
from nets import NETS
from torch import Tensor, nn

from lightning_xai.functional.activations import activations, layer_gradients
from lightning_xai.functional.cav import CAVs, fit_cavs
from lightning_xai.functional.tcav import TCAVScores, score_concepts

LAYERS = ("layer3", "layer4.0")
CPU = torch.device("cpu")
Sets = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 concepts, 4 random sets of 20 images, 8 probes")
    parser.add_argument("--pairs", type=int, default=3, help="fits of each peer that are timed, at each layer")
    args = parser.parse_args()
    concepts, randoms, size, probes = (2, 4, 20, 4) if args.quick else (5, 10, 50, 16)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = NETS["resnet18"].build().eval()
    images = {f"concept {i}": torch.randn(size, 3, 224, 224) + 0.1 * i for i in range(concepts)}
    images |= {f"random {i}": torch.randn(size, 3, 224, 224) for i in range(randoms)}
    inputs, targets = torch.randn(2 * probes, 3, 224, 224), torch.arange(2).repeat_interleave(probes)
    print(
        f"torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f}; {concepts} concepts, {randoms} random"
    )
    print(f"sets of {size} images, {2 * probes} probes of two classes, {' and '.join(LAYERS)} of a ResNet-18")

    found: dict[str, Sets] = {layer: {} for layer in LAYERS}
    spent = {"activations": timed(partial(collect, model, images, found), CPU)}
    fitted: dict[str, CAVs] = {}
    spent["fits"] = timed(lambda: fitted.update({n: fit(s, concepts) for n, s in found.items()}), CPU)
    gradients: Sets = {}
    spent["gradients"] = timed(lambda: gradients.update(layer_gradients(model, inputs, targets, LAYERS)), CPU)
    scores: dict[str, TCAVScores] = {}
    spent["scores"] = timed(lambda: scores.update({n: score(c, gradients[n], targets) for n, c in fitted.items()}), CPU)
    whole = sum(spent.values())
    for part, seconds in spent.items():
        print(f"  {part:<34} {seconds:9.2f} s   {seconds / whole:7.2%} of a reading")
    share = (whole - spent["activations"]) / spent["activations"]
    print(f"  all but activations, as a part of them: {share:.1%}{verdict(share < 0.1, '< 10%')}")

    double = {f"{name} {i}": s for i in range(2) for name, s in list(found[LAYERS[1]].items())[:concepts]}
    double |= dict(list(found[LAYERS[1]].items())[concepts:])
    ratio = median(timed(partial(fit, double, 2 * concepts), CPU) for _ in range(3))
    ratio /= median(timed(partial(fit, found[LAYERS[1]], concepts), CPU) for _ in range(3))
    print(f"  fits of twice the concepts: {ratio:.2f} times as long{verdict(ratio < 2, '< 2')}")
    memory = max(peak_memory(partial(fit, sets, concepts), CPU) for sets in found.values())
    print(f"  peak memory of a fit beyond the activations: {memory:.1f} MiB{verdict(memory < 64, '< 64')}")

    against_scikit_learn(found, fitted, spent["fits"], args.pairs)
    against_captum(model, images, inputs, targets, found, spent, args.pairs)


def collect(model: nn.Module, images: Sets, found: dict[str, Sets]) -> None:
    for name, batch in images.items():
        for layer, outputs in activations(model, batch, LAYERS).items():
            found[layer][name] = outputs


def fit(sets: Sets, concepts: int, **settings: Any) -> CAVs:
    names = list(sets)
    return fit_cavs({n: sets[n] for n in names[:concepts]}, [sets[n] for n in names[concepts:]], **settings)


def score(cavs: CAVs, gradients: Tensor, targets: Tensor) -> TCAVScores:
    return score_concepts(cavs.sensitivities(gradients), targets, names=cavs.names, separation=cavs.separation)


def some_pairs(cavs: CAVs, number: int) -> list[tuple[int, int]]:
    concepts, randoms = cavs.accuracy.shape
    return [(i % concepts, i % randoms) for i in range(number)]


def pair(sets: Sets, cavs: CAVs, concept: int, random: int) -> tuple[Tensor, Tensor]:
    """Both sets' flat activations, scaled as `fit_cavs` does, and labels."""
    one, other = sets[cavs.names[concept]], sets[f"random {random}"]
    x = torch.cat([one, other]).flatten(1).double()
    x -= x.mean(0)
    labels = torch.cat([torch.ones(len(one)), torch.zeros(len(other))])
    return x / x.square().sum(1).mean().sqrt(), labels


def cosine(cav: Tensor, weights: Any) -> float:
    return float(torch.cosine_similarity(cav.double(), torch.as_tensor(weights).flatten().double(), dim=0))


def against_scikit_learn(found: dict[str, Sets], fitted: dict[str, CAVs], ours: float, number: int) -> None:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        print(f"\nscikit-learn is absent: {error}")
        return
    print(f"\n{'logistic fits':<36} {'s':>9}   {'/ ours':>7}   least cosine with ours")
    print(f"  {'ours':<34} {ours:9.2f}")
    for title, options in {
        "scikit-learn, converged": {"tol": 1e-10, "max_iter": 100_000},
        "scikit-learn, its defaults": {},
    }.items():
        seconds, cosines = 0.0, []
        for layer, cavs in fitted.items():
            spent = []
            for i, j in some_pairs(cavs, number):
                x, y = (t.numpy() for t in pair(found[layer], cavs, i, j))
                machine = LogisticRegression(C=1.0, **options)
                spent.append(timed(partial(machine.fit, x, y), CPU))
                cosines.append(cosine(cavs.vectors[i, j], machine.coef_))
            seconds += sum(spent) / number * cavs.accuracy.numel()
        goal = verdict(seconds >= 40 * ours, ">= 40") if options else ""
        print(f"  {title:<34} {seconds:9.2f} x {seconds / ours:7.1f}   1 - {1 - min(cosines):.0e}{goal}")


def against_captum(
    model: nn.Module,
    images: Sets,
    inputs: Tensor,
    targets: Tensor,
    found: dict[str, Sets],
    spent: dict[str, float],
    number: int,
) -> None:
    try:
        from captum.concept import TCAV, Concept
        from captum.concept._utils.classifier import Classifier, DefaultClassifier
        from sklearn.linear_model import RidgeClassifier
    except ImportError as error:
        print(f"\nCaptum is absent: {error}")
        return
    concepts = sum(name.startswith("concept") for name in images)
    ridge = {layer: fit(sets, concepts, classifier="ridge") for layer, sets in found.items()}

    spent_in: dict[str, list[float]] = {"sgd": [], "ridge": []}

    class SGD(DefaultClassifier):
        def train_and_eval(self, *args: Any, **kwargs: Any) -> Any:
            spent_in["sgd"].append(timed(partial(super().train_and_eval, *args, **kwargs), CPU))

    class Ridge(Classifier):
        def __init__(self) -> None:
            super().__init__()

        def train_and_eval(self, *args: Any, **kwargs: Any) -> None:
            spent_in["ridge"].append(timed(partial(self.fit, *args), CPU))

        def fit(self, dataloader: Any, *args: Any) -> None:
            x, y = (torch.cat(parts) for parts in zip(*dataloader, strict=True))
            x = x - x.mean(0)
            self.machine = RidgeClassifier(alpha=1.0).fit((x / x.square().sum(1).mean().sqrt()).numpy(), y.numpy())

        def weights(self) -> Tensor:
            w = torch.from_numpy(self.machine.coef_).float().view(1, -1)
            return torch.cat([-w, w])

        def classes(self) -> list[int]:
            return self.machine.classes_.tolist()

    names = list(images)
    known = {name: Concept(index, name, None) for index, name in enumerate(names)}
    for name, concept in known.items():
        concept.data_iter = torch.utils.data.DataLoader(images[name], batch_size=32)
    experiments = [[known[c], known[r]] for c in names[:concepts] for r in names[concepts:]]
    results: dict[int, Any] = {}

    def read(folder: str) -> None:
        tcav = TCAV(model, list(LAYERS), classifier=Ridge(), save_path=folder)
        for target in (0, 1):
            results[target] = tcav.interpret(inputs[targets == target], experiments, target=target)

    with tempfile.TemporaryDirectory() as folder, quiet():
        with_ridge = timed(partial(read, folder), CPU)
    cosines = []
    with tempfile.TemporaryDirectory() as folder, quiet():
        tcav = TCAV(model, list(LAYERS), classifier=SGD(), save_path=folder)
        pairs = some_pairs(next(iter(ridge.values())), number)
        trained = tcav.compute_cavs([[known[names[i]], known[names[concepts + j]]] for i, j in pairs])
        for i, j in pairs:
            for layer, cav in trained[f"{i}-{concepts + j}"].items():
                weights = cav.stats["weights"][list(cav.stats["classes"]).index(i)]
                cosines.append(cosine(ridge[layer].vectors[i, j], weights.detach()))
    fits = {title: sum(each) / len(each) * len(experiments) * len(LAYERS) for title, each in spent_in.items()}
    gradients = layer_gradients(model, inputs, targets, LAYERS)
    apart = 0.0
    for layer, cavs in ridge.items():
        hits = (cavs.sensitivities(gradients[layer]).derivatives > 0).float()
        for target, result in results.items():
            for index, (i, j) in enumerate((i, j) for i in range(concepts) for j in range(len(names) - concepts)):
                theirs = result[f"{i}-{concepts + j}"][layer]["sign_count"][0]
                apart = max(apart, abs(float(theirs) - float(hits[targets == target, i, j].mean())))
                assert experiments[index][1].id == concepts + j
    ours = sum(spent.values())
    print(f"\n{'Captum, fits':<36} {'s':>9}   {'/ ours':>7}")
    goal = verdict(fits["sgd"] >= 60 * spent["fits"], ">= 60")
    print(f"  {'its SGD':<34} {fits['sgd']:9.2f} x {fits['sgd'] / spent['fits']:7.1f}{goal}")
    print(f"    cosine of its direction with the converged one: {min(cosines):.2f} to {max(cosines):.2f}")
    print(f"{'the whole reading':<36} {'s':>9}   {'/ ours':>7}")
    print(f"  {'ours':<34} {ours:9.2f}")
    default = with_ridge + fits["sgd"] - fits["ridge"]
    fastest = min(default, with_ridge)
    print(f"  {'Captum, ridge as its classifier':<34} {with_ridge:9.2f}   {with_ridge / ours:7.2f}")
    print(f"  {'Captum, default':<34} {default:9.2f} x {default / ours:7.2f}{verdict(default >= 8 * ours, '>= 8')}")
    print(f"  the faster of the two: {fastest / ours:.2f}{verdict(fastest >= 2.5 * ours, '>= 2.5')}")
    print(f"  largest difference of a sign score, ridge beside ridge: {apart:.4f}")


@contextmanager
def quiet() -> Iterator[None]:
    """Captum prints an accuracy and warns for each fit."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def verdict(met: bool, goal: str) -> str:
    return f"   goal {goal}: {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    main()
