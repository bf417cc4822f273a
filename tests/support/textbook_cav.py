"""Slow textbook versions of what `cav` and `tcav` compute: one pair, one example at a time, in float64."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC
from torch import Tensor, nn


class MeanDifference:
    """From mean to mean, decided half way."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "MeanDifference":
        one, other = x[y > 0].mean(0), x[y < 0].mean(0)
        self.coef_ = (one - other)[None]
        self.intercept_ = -(one - other) @ (one + other) / 2
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x @ self.coef_[0] + self.intercept_


def classifier(name: str, cost: float) -> object:
    if name == "logistic":
        return LogisticRegression(C=cost, tol=1e-10, max_iter=100_000)
    if name == "ridge":
        return RidgeClassifier(alpha=1 / cost)
    if name == "svm":  # a large scaling leaves the intercept all but free
        return LinearSVC(C=cost, dual=False, intercept_scaling=1e3, tol=1e-12, max_iter=1_000_000)
    return MeanDifference()


def flat(concept: Tensor, random: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to a mean squared distance of 1 from their mean, and labels."""
    x = torch.cat([concept, random]).flatten(1).double().numpy()
    x = x - x.mean(0)
    return x / np.sqrt((x**2).sum(1).mean()), np.r_[np.ones(len(concept)), -np.ones(len(random))]


def cav(concept: Tensor, random: Tensor, name: str = "logistic", cost: float = 1.0) -> Tensor:
    """(d,) unit vector."""
    x, y = flat(concept, random)
    w = classifier(name, cost).fit(x, y).coef_.ravel()
    return torch.from_numpy(w / np.linalg.norm(w))


def held_out(concept: Tensor, random: Tensor, name: str, cost: float = 1.0) -> np.ndarray:
    """Decision value of each example under the fit to all others, in their scale."""
    x, y = flat(concept, random)
    keep = ~np.eye(len(x), dtype=bool)
    return np.array(
        [classifier(name, cost).fit(x[k], y[k]).decision_function(x[i : i + 1])[0] for i, k in enumerate(keep)]
    )


def balanced(values: np.ndarray, concepts: int) -> float:
    return ((values[:concepts] > 0).mean() + (values[concepts:] < 0).mean()) / 2


def gradient(model: nn.Module, layer: str, sample: Tensor, target: int) -> Tensor:
    """(d,) of one class score at a layer, by a hook of its own."""
    kept = []

    def keep(module: nn.Module, args: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what follows may write in place

    handle = dict(model.named_modules())[layer].register_forward_hook(keep)
    score = model.eval()(sample[None])[0, target]
    handle.remove()
    (found,) = torch.autograd.grad(score, kept)
    return found.flatten().double()


def sign_score(gradients: Tensor, vectors: Tensor) -> float:
    """Of gradients (n, d) and unit vectors (randoms, d): the share of pairs with a positive derivative."""
    hits = [float(g @ w) > 0 for g in gradients for w in vectors.double()]
    return sum(hits) / len(hits)


def effect(gradients: Tensor, vectors: Tensor, concept: Tensor, randoms: list[Tensor]) -> float:
    """In logits: over random sets and probes the mean of (g . w)(w . difference of the means)."""
    found = []
    for w, random in zip(vectors.double(), randoms, strict=True):
        difference = concept.flatten(1).double().mean(0) - random.flatten(1).double().mean(0)
        found += [float(g @ w) * float(w @ difference) for g in gradients]
    return sum(found) / len(found)
