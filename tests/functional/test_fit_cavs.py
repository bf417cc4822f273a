import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_xai.functional.concepts import directions, dual, gram
from lightning_xai.functional.concepts.directions import CAVs
from lightning_xai.functional.fit_cavs import fit_cavs
from tests.support import textbook_cav

CLASSIFIERS = ("logistic", "ridge", "svm", "mean")


def examples(number: int, shift: float = 0.0, *, shape: tuple[int, ...] = (6, 9, 9), seed: int = 0) -> Tensor:
    """Activations as after a ReLU: a few common factors, and one of them shifted."""
    factors = torch.randn(30, math.prod(shape), generator=torch.Generator().manual_seed(99))
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(number, 30, generator=random)
    weights[:, 0] += shift
    noise = torch.randn(number, math.prod(shape), generator=random)
    return (1 + weights @ factors / 5 + noise).relu().view(number, *shape)


def sets(
    sizes: tuple[int, ...] = (20, 20), randoms: int = 3, **kwargs: tuple[int, ...]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    concepts = {f"c{i}": examples(n, 1.5 * i, seed=1 + i, **kwargs) for i, n in enumerate(sizes)}
    return concepts, [examples(20, seed=50 + i, **kwargs) for i in range(randoms)]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=-1).min())


# ------------------------------------------------------------ agreement with scikit-learn and with refits


@pytest.mark.parametrize("shape", [(5,), (6, 9, 9), (80, 8, 8)])
@pytest.mark.parametrize("cost", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_equals_scikit_learn(name: str, cost: float, shape: tuple[int, ...]) -> None:
    concepts, randoms = sets((20, 13), 2 + (math.prod(shape) < 100), shape=shape)
    cavs = fit_cavs(concepts, randoms, classifier=name, C=cost, replicates=0)
    for i, concept in enumerate(concepts.values()):
        for j, random in enumerate(randoms):
            assert cosine(cavs.vectors[i, j], textbook_cav.cav(concept, random, name, cost)) > 1 - 1e-6
    for i, j in [(0, 1), (1, 0)]:
        assert cosine(cavs.null_vectors[i, j], textbook_cav.cav(randoms[i], randoms[j], name, cost)) > 1 - 1e-6
    assert torch.allclose(cavs.vectors.norm(dim=2), torch.ones(2, len(randoms)))
    assert not cavs.null_vectors.diagonal().any()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_is_that_of_refits_without_the_example(name: str) -> None:
    concepts, randoms = sets((14, 9), 2, shape=(2, 5, 5))
    cavs = fit_cavs(concepts, randoms, classifier=name, replicates=0)
    for i, concept in enumerate(concepts.values()):
        for j, random in enumerate(randoms):
            expected = textbook_cav.balanced(textbook_cav.held_out(concept, random, name), len(concept))
            assert float(cavs.accuracy[i, j]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "tolerance"), [("logistic", 0.002), ("ridge", 1e-8), ("svm", 0.08), ("mean", 1e-8)])
def test_held_out_decisions(name: str, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for function in ("without_one", "mean_without_one"):
        original = getattr(dual, function)
        monkeypatch.setattr(dual, function, lambda *args, f=original: found.append(f(*args)) or found[-1])
    concepts, randoms = sets((20,), 1, shape=(2, 5, 5))
    fit_cavs(concepts, randoms, classifier=name, replicates=0)
    expected = textbook_cav.held_out(concepts["c0"], randoms[0], name)
    assert np.abs(found[0][0].numpy() - expected).max() < tolerance * max(1, np.abs(expected).max()) + 1e-6


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_resampled_fits_are_those_to_repeated_examples(name: str) -> None:
    """Their signs on many gradients, since with one random set that is what `replicates` holds."""
    concepts, randoms = sets((24, 15), 1, shape=(2, 5, 5))
    cavs = fit_cavs(concepts, randoms, classifier=name, replicates=3)
    gradients = torch.randn(300, 2, 5, 5, generator=torch.Generator().manual_seed(7))
    positive = cavs.sensitivities(gradients).replicates
    drawing = torch.Generator().manual_seed(0)
    *drawn, of_random = [torch.randint(n, (3, n), generator=drawing) for n in (24, 15, 20)]
    for i, concept in enumerate(concepts.values()):
        x, y = (torch.from_numpy(array) for array in textbook_cav.flat(concept, randoms[0]))
        for j in range(3):
            rows = torch.cat([drawn[i][j], len(concept) + of_random[j]])
            w = torch.from_numpy(
                textbook_cav.classifier(name, 1.0).fit(x[rows].numpy(), y[rows].numpy()).coef_
            ).flatten()
            along = torch.cosine_similarity(gradients.flatten(1).double(), w[None])
            clear = along.abs() > 0.01
            assert torch.equal(positive[clear, i, j] > 0, along[clear] > 0)


def test_random_accuracy_is_chance() -> None:
    accuracy = fit_cavs({"none": examples(60, seed=3)}, [examples(60, seed=s) for s in range(10, 20)]).accuracy
    assert float(accuracy.mean()) == pytest.approx(0.5, abs=0.08)


# ------------------------------------------------------------ what must change nothing


def assert_same(one: CAVs, other: CAVs, cosines: float = 1 - 1e-6) -> None:
    assert cosine(one.vectors, other.vectors) > cosines
    torch.testing.assert_close(one.accuracy, other.accuracy, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.cosines, other.cosines, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scale_changes_nothing(name: str) -> None:
    concepts, randoms = sets()
    larger = fit_cavs({n: 10 * t for n, t in concepts.items()}, [10 * t for t in randoms], classifier=name)
    cavs = fit_cavs(concepts, randoms, classifier=name)
    assert_same(larger, cavs)
    torch.testing.assert_close(larger.separation, 10 * cavs.separation)


def test_order_changes_nothing() -> None:
    concepts, randoms = sets()
    swapped = fit_cavs(dict(reversed(concepts.items())), [t.flip(0) for t in reversed(randoms)])
    cavs = fit_cavs(concepts, randoms)
    assert swapped.names == ("c1", "c0")
    assert cosine(swapped.vectors.flip(0, 1), cavs.vectors) > 1 - 1e-6
    torch.testing.assert_close(swapped.accuracy.flip(0, 1), cavs.accuracy)


def test_another_concept_changes_nothing() -> None:
    concepts, randoms = sets()
    more = fit_cavs({**concepts, "far": 1000 * examples(30, seed=8)}, randoms)
    assert cosine(more.vectors[:2], fit_cavs(concepts, randoms).vectors) > 1 - 1e-6


@pytest.mark.parametrize("shape", [(6, 9, 9), (80, 8, 8)])
def test_chunks_change_nothing(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    concepts, randoms = sets(shape=shape)
    whole = fit_cavs(concepts, randoms)
    monkeypatch.setattr(gram, "CHUNK_BYTES", 100_000)
    monkeypatch.setattr(directions, "BLOCK_BYTES", 1)
    assert_same(fit_cavs(concepts, randoms), whole)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_reduced_precision_is_not_used(precision: str) -> None:
    concepts, randoms = sets(shape=(80, 8, 8))
    whole = fit_cavs(concepts, randoms)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = fit_cavs(concepts, randoms)
            assert torch.equal(found.vectors, whole.vectors)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_common_offset_costs_no_digits() -> None:
    concepts, randoms = sets(shape=(80, 8, 8))
    offset = fit_cavs({n: t + 300 for n, t in concepts.items()}, [t + 300 for t in randoms])
    assert_same(offset, fit_cavs(concepts, randoms), 1 - 1e-5)


def test_half_precision_activations() -> None:
    concepts, randoms = sets()
    half = fit_cavs({n: t.bfloat16() for n, t in concepts.items()}, [t.bfloat16() for t in randoms])
    exact = fit_cavs({n: t.bfloat16().float() for n, t in concepts.items()}, [t.bfloat16().float() for t in randoms])
    assert_same(half, exact)


def test_the_global_random_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    fit_cavs(*sets())
    assert torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------ what else it says


def test_cosines_are_those_of_the_vectors() -> None:
    cavs = fit_cavs(*sets((20, 13, 17)))
    expected = torch.einsum("crd,erd->ce", cavs.vectors, cavs.vectors) / 3
    torch.testing.assert_close(cavs.cosines, expected, rtol=0, atol=1e-5)


def test_separation_is_between_the_means() -> None:
    concepts, randoms = sets()
    cavs = fit_cavs(concepts, randoms)
    for i, concept in enumerate(concepts.values()):
        for j, random in enumerate(randoms):
            difference = concept.flatten(1).mean(0) - random.flatten(1).mean(0)
            assert float(cavs.separation[i, j]) == pytest.approx(float(cavs.vectors[i, j] @ difference), rel=1e-4)


@pytest.mark.parametrize(("pool", "cells"), [("mean", (2, 3)), ("mean_last", (1, 2))])
def test_pool(pool: str, cells: tuple[int, ...]) -> None:
    concepts, randoms = sets()
    pooled = fit_cavs(concepts, randoms, pool=pool)
    by_hand = fit_cavs({n: t.mean(cells) for n, t in concepts.items()}, [t.mean(cells) for t in randoms])
    assert pooled.pool == pool
    assert pooled.shape == (6, 9, 9)
    assert_same(pooled, by_hand)


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize("value", [0.0, 3.7])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_dead_layer_is_degenerate(name: str, value: float) -> None:
    shape = (30, 80, 8, 8)
    cavs = fit_cavs({"c": torch.full(shape, value)}, [torch.full(shape, value)] * 3, classifier=name)
    assert cavs.degenerate.all()
    assert not cavs.vectors.any()
    assert not cavs.null_vectors.any()
    assert float(cavs.accuracy.mean()) == 0.5


def test_a_degenerate_concept_does_not_spoil_the_others() -> None:
    concepts, randoms = sets()
    randoms[1] = torch.ones_like(randoms[1])
    cavs = fit_cavs({**concepts, "dead": torch.ones(5, 6, 9, 9)}, randoms)
    assert cavs.degenerate.tolist() == [False, False, True]
    assert cosine(cavs.vectors[:2], fit_cavs(concepts, randoms).vectors) > 1 - 1e-6
    assert cavs.vectors.isfinite().all()


def test_dead_channels_do_no_harm() -> None:
    concepts, randoms = sets()
    dead = torch.zeros(1, 4, 9, 9)
    wide = fit_cavs(
        {n: torch.cat([t, dead.expand(len(t), -1, -1, -1)], 1) for n, t in concepts.items()},
        [torch.cat([t, dead.expand(len(t), -1, -1, -1)], 1) for t in randoms],
    )
    assert cosine(wide.vectors[..., : 6 * 81], fit_cavs(concepts, randoms).vectors) > 1 - 1e-6


nan = torch.ones(4, 6, 9, 9)
nan[1, 2, 3, 4] = torch.nan
BAD = {
    "no concepts": ({"concepts": {}}, ValueError, "0 concepts and 3 random sets"),
    "no randoms": ({"randoms": []}, ValueError, "2 concepts and 0 random sets"),
    "one example": ({"concepts": {"a": torch.ones(1, 6, 9, 9)}}, ValueError, r"concept 'a' .* at least two examples"),
    "one random": ({"randoms": [torch.ones(1, 6, 9, 9)]}, ValueError, r"random set 0 .* at least two examples"),
    "flat": ({"concepts": {"a": torch.ones(6)}}, ValueError, r"the shape \(6,\)"),
    "shapes": ({"concepts": {"a": torch.ones(4, 6, 9, 8)}}, ValueError, r"random set 0 have the shape \(6, 9, 9\)"),
    "nan": ({"concepts": {"a": nan}}, ValueError, "1 of the 4 examples of concept 'a'"),
    "infinite": ({"randoms": [nan / 0]}, ValueError, "of the 4 examples of random set 0"),
    "integers": ({"concepts": {"a": torch.ones(4, 6, 9, 9).long()}}, TypeError, "'a' is torch.int64"),
    "lists": ({"concepts": {"a": [1.0]}}, TypeError, "'a' is list"),
    "classifier": ({"classifier": "sgd"}, ValueError, "'sgd' is unknown; expected one of 'logistic', 'ridge'"),
    "pool": ({"pool": "max"}, ValueError, "'max' is unknown; expected one of None, 'mean'"),
    "C": ({"C": 0.0}, ValueError, "C=0.0 is no positive number"),
    "replicates": ({"replicates": -1}, ValueError, "replicates=-1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    changed, error, message = BAD[case]
    concepts, randoms = sets()
    with pytest.raises(error, match=message):
        fit_cavs(**{"concepts": concepts, "randoms": randoms} | changed)


def test_overflow_says_so() -> None:
    big = {"a": 1e25 * examples(4, shape=(80, 8, 8))}
    with pytest.raises(ValueError, match="overflow float32"):
        fit_cavs(big, [examples(4, shape=(80, 8, 8))])
