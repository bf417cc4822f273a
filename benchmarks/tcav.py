"""Concept scores beside their peers: time, memory and whether the answers agree.

    python benchmarks/tcav.py [--quick] [--pairs 3]

The peers are optional: pip install captum scikit-learn

One process, one thread, seconds of CPU time. A ResNet-18 with random weights, its activations normalised, 5 concepts
and 10 random sets of 50 images each, two layers with 50,176 and 25,088 features, 16 probes of each of two classes. A
reading fits 95 pairs a layer: each concept with each random set, and the random sets with each other, without which
nothing can be said of significance. The peers fit the same pairs; scikit-learn is timed on a few and multiplied, which
the table says by `x`. Ours adds 20 resampled fits of each concept's pair, which the peers have no counterpart of: the
fits are compared without them, the whole readings with them. The last column of Captum's is the hardest comparison:
its 50 concepts' pairs a layer alone, with all that ours does. Captum reads with its default classifier, SGD, and with
a ridge of scikit-learn's, so that its answers can be compared with ours.
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
from itertools import combinations
from statistics import median
from typing import Any

import torch
from measure import interleaved, peak_memory, ratio, timed
from nets import NETS
from torch import Tensor, nn

from lightning_xai.functional.activations import activations, layer_gradients
from lightning_xai.functional.concepts.directions import CAVs
from lightning_xai.functional.fit_cavs import fit_cavs
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
    model = NETS["resnet18"].build()
    images = {f"concept {i}": torch.randn(size, 3, 224, 224) + 0.1 * i for i in range(concepts)}
    images |= {f"random {i}": torch.randn(size, 3, 224, 224) for i in range(randoms)}
    normalise(model, torch.cat([batch[:4] for batch in images.values()]))
    inputs, targets = torch.randn(2 * probes, 3, 224, 224), torch.arange(2).repeat_interleave(probes)
    print(
        f"torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f}; {concepts} concepts, {randoms} random"
    )
    print(f"sets of {size} images, {2 * probes} probes of two classes, {' and '.join(LAYERS)} of a ResNet-18")

    found: dict[str, Sets] = {layer: {} for layer in LAYERS}
    spent = {"activations": timed(partial(collect, model, images, found), CPU)}
    twice = {layer: with_more_concepts(sets, concepts) for layer, sets in found.items()}
    rounds = interleaved(
        {
            "fits": partial(fit_all, found, concepts),
            "not resampled": partial(fit_all, found, concepts, replicates=0),
            "twice": partial(fit_all, twice, 2 * concepts),
        },
        5,
        CPU,
    )
    spent["fits"] = median(rounds["fits"])
    fitted = fit_all(found, concepts)
    gradients: Sets = {}
    spent["gradients"] = timed(lambda: gradients.update(layer_gradients(model, inputs, targets, LAYERS)), CPU)
    spent["scores"] = timed(lambda: [score(c, gradients[n], targets) for n, c in fitted.items()], CPU)
    whole = sum(spent.values())
    for part, seconds in spent.items():
        print(f"  {part:<34} {seconds:9.2f} s   {seconds / whole:7.2%} of a reading")
    share = (whole - spent["activations"]) / spent["activations"]
    print(f"  all but activations, as a part of them: {share:.1%}{verdict(share < 0.1, '< 10%')}")
    double = ratio(rounds["twice"], rounds["fits"]).median
    print(f"  fits of twice the concepts: {double:.2f} times as long{verdict(double < 2, '< 2')}")
    memory = max(peak_memory(partial(fit, sets, concepts), CPU) for sets in found.values())
    print(f"  peak memory of a fit beyond the activations: {memory:.1f} MiB{verdict(memory < 64, '< 64')}")
    same_fits = median(rounds["not resampled"])
    against_scikit_learn(found, fitted, same_fits, args.pairs)
    against_captum(model, images, inputs, targets, found, spent, same_fits)


def normalise(model: nn.Module, images: Tensor) -> None:
    """Give BatchNorm the statistics of the images, and leave the model in eval mode.

    The activations are then of the scale that they have in a trained network. At first they are small, and Captum's
    SGD, which stops where its loss changes by less than 1e-4, ends after a few steps.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean
    with torch.no_grad():
        model.train()(images)
    model.eval()


def collect(model: nn.Module, images: Sets, found: dict[str, Sets]) -> None:
    for name, batch in images.items():
        for layer, outputs in activations(model, batch, LAYERS).items():
            found[layer][name] = outputs


def fit(sets: Sets, concepts: int, **settings: Any) -> CAVs:
    names = list(sets)
    return fit_cavs({n: sets[n] for n in names[:concepts]}, [sets[n] for n in names[concepts:]], **settings)


def fit_all(found: dict[str, Sets], concepts: int, **settings: Any) -> dict[str, CAVs]:
    return {layer: fit(sets, concepts, **settings) for layer, sets in found.items()}


def with_more_concepts(sets: Sets, concepts: int) -> Sets:
    items = list(sets.items())
    return {f"{name} {i}": part for i in range(2) for name, part in items[:concepts]} | dict(items[concepts:])


def score(cavs: CAVs, gradients: Tensor, targets: Tensor) -> TCAVScores:
    return score_concepts(cavs.sensitivities(gradients), targets, names=cavs.names, separation=cavs.separation)


def some_pairs(cavs: CAVs, number: int) -> list[tuple[int, int]]:
    concepts, randoms = cavs.accuracy.shape
    return [(i % concepts, i % randoms) for i in range(number)]


def fits_of(cavs: CAVs) -> int:
    """At one layer: each concept with each random set, and the random sets with each other."""
    concepts, randoms = cavs.accuracy.shape
    return concepts * randoms + randoms * (randoms - 1) // 2


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
    print(f"  {'ours, without the resampled ones':<34} {ours:9.2f}")
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
            seconds += sum(spent) / number * fits_of(cavs)
        goal = verdict(seconds >= 40 * ours, ">= 40") if options else ""
        print(f"  {title:<34} {seconds:9.2f} x {seconds / ours:7.1f}   1 - {1 - min(cosines):.0e}{goal}")


def against_captum(
    model: nn.Module,
    images: Sets,
    inputs: Tensor,
    targets: Tensor,
    found: dict[str, Sets],
    spent: dict[str, float],
    same_fits: float,
) -> None:
    try:
        from captum.concept import TCAV, Concept
        from captum.concept._utils.classifier import Classifier, DefaultClassifier
        from sklearn.linear_model import RidgeClassifier
    except ImportError as error:
        print(f"\nCaptum is absent: {error}")
        return

    class SGD(DefaultClassifier):
        seconds = 0.0

        def train_and_eval(self, *args: Any, **kwargs: Any) -> Any:
            self.seconds += timed(partial(super().train_and_eval, *args, **kwargs), CPU)

    class Ridge(Classifier):
        def __init__(self) -> None:
            super().__init__()

        def train_and_eval(self, dataloader: Any, **kwargs: Any) -> None:
            x, y = (torch.cat(parts) for parts in zip(*dataloader, strict=True))
            x = x - x.mean(0)
            self.machine = RidgeClassifier(alpha=1.0).fit((x / x.square().sum(1).mean().sqrt()).numpy(), y.numpy())

        def weights(self) -> Tensor:
            w = torch.from_numpy(self.machine.coef_).float().view(1, -1)
            return torch.cat([-w, w])

        def classes(self) -> list[int]:
            return self.machine.classes_.tolist()

    datasets: dict[str, Any] = {**images}
    known = [
        Concept(index, name, torch.utils.data.DataLoader(examples, batch_size=32))
        for index, (name, examples) in enumerate(datasets.items())
    ]
    number = sum(name.startswith("concept") for name in images)
    with_concepts = [[concept, random] for concept in known[:number] for random in known[number:]]
    of_randoms = [list(pair) for pair in combinations(known[number:], 2)]
    classes = sorted(set(targets.tolist()))

    def read(tcav: TCAV, pairs: list[list[Concept]], scores: dict[int, Any]) -> None:
        for target in classes:
            scores[target] = tcav.interpret(inputs[targets == target], pairs, target=target)

    seconds: dict[str, tuple[float, float]] = {}
    tcavs: dict[str, TCAV] = {}
    scores: dict[str, dict[int, Any]] = {}
    with quiet():
        sgd = SGD()
    for title, classifier in {"default": sgd, "ridge": Ridge()}.items():
        with tempfile.TemporaryDirectory() as folder, quiet():
            tcavs[title] = TCAV(model, list(LAYERS), classifier=classifier, save_path=folder)
            scores[title] = {}
            alone = timed(partial(read, tcavs[title], with_concepts, scores[title]), CPU)
            if classifier is sgd:
                sgd_alone = sgd.seconds
            seconds[title] = alone, alone + timed(partial(read, tcavs[title], of_randoms, {}), CPU)

    ridge = fit_all(found, number, classifier="ridge")
    gradients = layer_gradients(model, inputs, targets, LAYERS)
    cosines, apart = [], 0.0
    for layer, cavs in ridge.items():
        hits = (cavs.sensitivities(gradients[layer]).derivatives > 0).float()
        for concept, random in with_concepts:
            key, i, j = f"{concept.id}-{random.id}", concept.id, random.id - number
            stats = tcavs["default"].cavs[key][layer].stats
            cosines.append(
                cosine(ridge[layer].vectors[i, j], stats["weights"][list(stats["classes"]).index(i)].detach())
            )
            for target, result in scores["ridge"].items():
                theirs = float(result[key][layer]["sign_count"][0])
                apart = max(apart, abs(theirs - float(hits[targets == target, i, j].mean())))
    reading = sum(spent.values())
    print(f"\n{'Captum, fits':<36} {'s':>9}   {'/ ours':>7}   its concepts' pairs alone / all of ours")
    print(f"  {'ours, without the resampled ones':<34} {same_fits:9.2f}")
    ratios = f"{sgd.seconds / same_fits:7.1f}   {sgd_alone / spent['fits']:7.1f}"
    print(f"  {'its SGD':<34} {sgd.seconds:9.2f}   {ratios}{verdict(sgd.seconds >= 60 * same_fits, '>= 60')}")
    print(f"    cosine of its directions with the converged ones: {min(cosines):.2f} to {max(cosines):.2f}")
    print("the whole reading")
    print(f"  {'ours':<34} {reading:9.2f}")
    for title, (alone, both) in seconds.items():
        goal = verdict(both >= 8 * reading, ">= 8") if title == "default" else ""
        print(f"  {f'Captum, {title}':<34} {both:9.2f}   {both / reading:7.1f}   {alone / reading:7.1f}{goal}")
    fastest = min(alone for alone, _ in seconds.values()) / reading
    print(f"  the faster of the two: {fastest:.1f}{verdict(fastest >= 2.5, '>= 2.5')}")
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
